//! Takes fingerprints out of a text while it is still coming, without ever letting go of a part of one.
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::automaton::StateID;

use super::automaton::Automaton;
use super::normal::{Escapes, fold, is_invisible};

/// What stands where something was removed.
pub const MARKER: &str = "[removed]";

/// One text on its way. Joined, what it lets go is the same however the text was cut into pieces.
///
/// The text is read twice, as it is written and with its escapes decoded, since nobody knows which of the two a
/// reader will see. What either reading may still find to be a fingerprint is held back.
#[derive(Clone)]
pub struct Stream {
    automaton: Arc<Automaton>,
    /// What is not let go yet.
    held: String,
    /// Where in the text that begins, in bytes; so are all places here.
    at: usize,
    written: Track,
    decoded: Track,
    escapes: Escapes,
    /// What is to be removed and has not been passed, in order, none touching another.
    removals: VecDeque<Range<usize>>,
    /// Where the removal ends that was marked last.
    marked: Option<usize>,
    removed: u64,
}

/// One reading of a text.
#[derive(Clone)]
struct Track {
    state: StateID,
    /// Where the character of each of the last bytes in normal form begins.
    starts: VecDeque<usize>,
}

impl Stream {
    /// A text that has not begun.
    pub fn new(automaton: Arc<Automaton>) -> Stream {
        let track = Track { state: automaton.start(), starts: VecDeque::new() };
        Stream {
            automaton,
            held: String::new(),
            at: 0,
            written: track.clone(),
            decoded: track,
            escapes: Escapes::default(),
            removals: VecDeque::new(),
            marked: None,
            removed: 0,
        }
    }

    /// Takes a further piece; gives what cannot be a part of a fingerprint any more.
    pub fn push(&mut self, piece: &str) -> String {
        let begin = self.at + self.held.len();
        self.held.push_str(piece);
        for (at, letter) in piece.char_indices() {
            self.read(letter, begin + at..begin + at + letter.len_utf8());
        }
        let open = [self.written.open(&self.automaton), self.decoded.open(&self.automaton), self.escapes.open()];
        let end = self.at + self.held.len();
        self.release(open.into_iter().flatten().min().unwrap_or(end))
    }

    /// The text is at its end; gives the rest.
    pub fn finish(&mut self) -> String {
        let Stream { automaton, decoded, escapes, removals, .. } = self;
        escapes.end(|letter, place| decoded.read(automaton, letter, place, removals));
        self.release(self.at + self.held.len())
    }

    /// How many times something was removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    fn read(&mut self, letter: char, place: Range<usize>) {
        let Stream { automaton, written, decoded, escapes, removals, marked, .. } = self;
        // An accent must not move on to what stands before it.
        let after_removed = removals.back().map_or(*marked, |last| Some(last.end)) == Some(place.start);
        if after_removed && is_invisible(letter) {
            remove(removals, place.clone());
        }
        written.read(automaton, letter, place.clone(), removals);
        escapes.read(letter, place, |letter, place| decoded.read(automaton, letter, place, removals));
    }

    /// Lets go of everything before `safe`.
    fn release(&mut self, safe: usize) -> String {
        let mut released = String::new();
        let (begin, mut at) = (self.at, self.at);
        while at < safe {
            match self.removals.front().cloned() {
                Some(removal) if removal.end <= at => drop(self.removals.pop_front()),
                Some(removal) if removal.start <= at => {
                    // What touches the removal before it belongs to it.
                    if removal.start == at && self.marked != Some(at) {
                        released.push_str(MARKER);
                        self.removed += 1;
                    }
                    at = removal.end.min(safe);
                    if at == removal.end {
                        self.marked = Some(at);
                    }
                }
                next => {
                    let to = next.map_or(safe, |removal| removal.start.min(safe));
                    released.push_str(self.held.get(at - begin..to - begin).unwrap_or_default());
                    at = to;
                }
            }
        }
        self.held.drain(..at - begin);
        self.at = at;
        released
    }
}

impl Track {
    /// Reads a character that stands in this place.
    fn read(
        &mut self,
        automaton: &Automaton,
        letter: char,
        place: Range<usize>,
        removals: &mut VecDeque<Range<usize>>,
    ) {
        let mut buffer = [0; 4];
        fold(letter, |part| {
            for byte in part.encode_utf8(&mut buffer).bytes() {
                self.state = automaton.next(self.state, byte);
                if self.starts.len() == automaton.longest() {
                    self.starts.pop_front();
                }
                self.starts.push_back(place.start);
                if let Some(start) = automaton.matched(self.state).and_then(|length| self.last(length)) {
                    remove(removals, start..place.end);
                }
            }
        });
    }

    /// Where the text begins that may still become a fingerprint, or that is one at its end.
    fn open(&self, automaton: &Automaton) -> Option<usize> {
        self.last(automaton.open(self.state))
    }

    /// Where the last so many bytes begin.
    fn last(&self, bytes: usize) -> Option<usize> {
        self.starts.len().checked_sub(bytes).and_then(|at| self.starts.get(at)).copied()
    }
}

/// Adds a removal that ends no earlier than the ones before.
fn remove(removals: &mut VecDeque<Range<usize>>, mut new: Range<usize>) {
    while let Some(last) = removals.back().filter(|last| last.end >= new.start) {
        new = last.start.min(new.start)..last.end.max(new.end);
        removals.pop_back();
    }
    removals.push_back(new);
}
