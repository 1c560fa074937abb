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
