//! Aho-Corasick over fingerprints, and how far each of its states is into one.
use std::collections::{BTreeSet, HashMap};

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;

use crate::error::Error;

/// Finds fingerprints in a text in normal form, one byte after the other.
pub struct Automaton {
    nfa: NFA,
    start: StateID,
    depths: HashMap<StateID, usize>,
}

impl Automaton {
    /// An automaton for these texts in normal form.
    ///
    /// # Errors
    /// [`Error::Fingerprints`] if they are too many.
    pub fn new(patterns: &BTreeSet<String>) -> Result<Automaton, Error> {
        let nfa = NFA::new(patterns).map_err(|error| Error::Fingerprints(Box::new(error)))?;
        let start = nfa.start_state(Anchored::No).map_err(|error| Error::Fingerprints(Box::new(error)))?;
        let mut depths = HashMap::new();
        for pattern in patterns {
            let mut state = start;
            for (at, byte) in pattern.bytes().enumerate() {
                state = nfa.next_state(Anchored::No, state, byte);
                depths.insert(state, at + 1);
            }
        }
        Ok(Automaton { nfa, start, depths })
    }

    /// Where a text begins.
    pub fn start(&self) -> StateID {
        self.start
    }

    /// The state after one more byte.
    pub fn next(&self, state: StateID, byte: u8) -> StateID {
        self.nfa.next_state(Anchored::No, state, byte)
    }

    /// How many of the last bytes may be the beginning of a fingerprint, or are one.
    pub fn open(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or(0)
    }

    /// Length in bytes of the longest fingerprint that ends here.
    pub fn matched(&self, state: StateID) -> Option<usize> {
        if !self.nfa.is_match(state) {
            return None;
        }
        let lengths = 0..self.nfa.match_len(state);
        lengths.map(|index| self.nfa.pattern_len(self.nfa.match_pattern(state, index))).max()
    }

    /// Length in bytes of the longest fingerprint.
    pub fn longest(&self) -> usize {
        self.nfa.max_pattern_len()
    }
}
