//! The parts of a completion while they come: its text, what is declined, and each tool call, each a text of its own.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::Sanitizer;
use super::stream::Stream;
use crate::models::{Piece, ToolCall};

/// So many pieces that wait already are told at once.
const JOINED: usize = 64;

/// A completion while it comes.
pub struct Parts {
    sanitizer: Sanitizer,
    unchecked: mpsc::Receiver<Piece>,
    /// Pieces that have arrived; kept for its memory.
    arrived: Vec<Piece>,
    text: Stream,
    refusal: Stream,
    /// The arguments of each call.
    calls: Vec<Stream>,
    by: String,
    ended: bool,
}

/// What may be told now, joined.
#[derive(Default)]
pub struct Part {
    /// Text.
    pub text: String,
    /// Why the model declines.
    pub refusal: String,
    /// Pieces of tool calls, by their place in the answer.
    pub calls: Vec<CallPart>,
}

/// A piece of a tool call.
pub struct CallPart {
    /// Which one of the answer.
    pub at: usize,
    /// Id, name and signature, where the call begins.
    pub begins: Option<ToolCall>,
    /// More of its arguments.
    pub json: String,
}

impl Parts {
    pub(super) fn new(sanitizer: Sanitizer, unchecked: mpsc::Receiver<Piece>) -> Parts {
        let stream = || Stream::new(Arc::clone(&sanitizer.automaton));
        let (text, refusal) = (stream(), stream());
        let (arrived, calls) = (Vec::with_capacity(JOINED), Vec::new());
        Parts { sanitizer, unchecked, arrived, text, refusal, calls, by: String::new(), ended: false }
    }

    /// What may be told next, with all that has arrived by now; None after the last. A wait that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Part> {
        let mut part = Part::default();
        while !self.ended && part.is_empty() {
            if self.unchecked.recv_many(&mut self.arrived, JOINED).await == 0 {
                self.finish(&mut part);
            }
            let mut arrived = std::mem::take(&mut self.arrived);
            arrived.drain(..).for_each(|piece| self.read(piece, &mut part));
            self.arrived = arrived;
        }
        (!part.is_empty()).then_some(part)
    }

    /// The model that was asked last; empty before the first.
    pub fn by(&self) -> &str {
        &self.by
    }

    fn read(&mut self, piece: Piece, part: &mut Part) {
        match piece {
            Piece::By(model) => self.by = model,
            Piece::Text(text) => add(&mut part.text, self.text.push(&text)),
            Piece::Refusal(text) => add(&mut part.refusal, self.refusal.push(&text)),
            Piece::Call { at, id, name, signature } => {
                let clean = |text: &str| self.sanitizer.clean(text, &self.sanitizer.findings.action);
                let (id, name) = (clean(&id), clean(&name));
                // Clients read a call as whole where the next begins. Should more of it come after all, its stream still
                // knows what it let go: together that is less than a fingerprint.
                if let Some((before, stream)) = self.calls.iter_mut().enumerate().next_back() {
                    part.arguments(before, stream.finish());
                }
                // They come in their order.
                self.calls.push(Stream::new(Arc::clone(&self.sanitizer.automaton)));
                let begins = Some(ToolCall { id, name, signature, arguments: String::new() });
                part.calls.push(CallPart { at, begins, json: String::new() });
            }
            Piece::Arguments { at, json } => {
                if let Some(stream) = self.calls.get_mut(at) {
                    part.arguments(at, stream.push(&json));
                }
            }
        }
    }

    fn finish(&mut self, part: &mut Part) {
        add(&mut part.text, self.text.finish());
        add(&mut part.refusal, self.refusal.finish());
        for (at, stream) in self.calls.iter_mut().enumerate() {
            part.arguments(at, stream.finish());
        }
        self.ended = true;
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let findings = &self.sanitizer.findings;
        findings.content.fetch_add(self.text.removed() + self.refusal.removed(), Ordering::Relaxed);
        findings.action.fetch_add(self.calls.iter().map(Stream::removed).sum(), Ordering::Relaxed);
    }
}

impl Part {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.refusal.is_empty() && self.calls.is_empty()
    }

    fn arguments(&mut self, at: usize, json: String) {
        match self.calls.iter_mut().rev().find(|call| call.at == at) {
            _ if json.is_empty() => {}
            Some(call) => add(&mut call.json, json),
            None => self.calls.push(CallPart { at, begins: None, json }),
        }
    }
}

/// Appends; the usual first piece is taken as it is.
fn add(to: &mut String, more: String) {
    if to.is_empty() {
        *to = more;
    } else {
        to.push_str(&more);
    }
}

#[cfg(test)]
mod tests {
    use weft_product::Products;

    use super::*;
    use crate::agents::{Agent, Registries};
    use crate::prompts::Prompts;
    use crate::sanitizer::{Fingerprints, Sanitizers};

    fn call(at: usize) -> Piece {
        Piece::Call { at, id: format!("call-{at}"), name: "a_tool".to_owned(), signature: None }
    }

    fn more(at: usize, json: &str) -> Piece {
        Piece::Arguments { at, json: json.to_owned() }
    }

    /// The arguments of the first call as they are told, and how much of them was when the second one began.
    async fn first_call(sanitizer: &Sanitizer, pieces: Vec<Piece>) -> (String, usize) {
        let (sender, mut parts) = sanitizer.parts(pieces.len());
        for piece in pieces {
            sender.send(piece).await.unwrap();
        }
        drop(sender);
        let (mut told, mut before_second) = (String::new(), 0);
        while let Some(part) = parts.next().await {
            for call in part.calls {
                match call.at {
                    0 => told.push_str(&call.json),
                    _ if call.begins.is_some() => before_second = told.len(),
                    _ => {}
                }
            }
        }
        (told, before_second)
    }

    #[tokio::test]
    async fn a_call_is_whole_where_the_next_begins_and_what_comes_late_leaks_nothing() {
        let registries = Registries::new(&Products::builtin(), &Prompts::default()).unwrap();
        let agents: Vec<&Agent> = registries.of("adiuva").unwrap().all().collect();
        let fingerprint = Fingerprints::of(&agents).texts().iter().max_by_key(|text| text.len()).unwrap().clone();
        let sanitizer = Sanitizers::new(&registries).unwrap().of("adiuva").unwrap();
        for (at, _) in fingerprint.char_indices() {
            let (head, tail) = fingerprint.split_at(at);
            let (told, whole) = first_call(&sanitizer, vec![call(0), more(0, head), call(1), more(1, "{}")]).await;
            assert_eq!((told.as_str(), whole), (head, head.len()), "nothing waits for the end of the answer");
            let late = vec![call(0), more(0, head), call(1), more(1, "{}"), more(0, tail), more(0, " and more")];
            let (told, _) = first_call(&sanitizer, late).await;
            assert!(!told.contains(&fingerprint) && told.ends_with(" and more"), "{told}");
        }
    }
}
