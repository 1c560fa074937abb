//! What a message of a stream becomes on a WebSocket.
//!
//! Plain frames (AD-74): a field with FRAME_TEXT is a text frame of the string itself, one with FRAME_DONE is the inner
//! message with `"done":true` in front; every frame that is a JSON object is not text. With `weft.events.v1` every
//! message is its JSON, ids included.
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tonic::Status;
use weft_core::internal_status;

use crate::error::Style;
use crate::relay::print;
use crate::routes::Binding;
use crate::transcode::{Frame, Kind, find_bytes, write_message};

/// How frames look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `weft.v1`, and whoever offers no subprotocol.
    Plain,
    /// `weft.events.v1`.
    Events,
}

impl Dialect {
    /// The dialect of a subprotocol.
    pub fn of(name: &str) -> Option<Dialect> {
        [Dialect::Plain, Dialect::Events].into_iter().find(|dialect| dialect.name() == name)
    }

    /// Its subprotocol.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Plain => "weft.v1",
            Dialect::Events => "weft.events.v1",
        }
    }
}

/// The frames of one message.
pub struct Words {
    /// The frames, in order.
    pub frames: Vec<Utf8Bytes>,
    /// The client knows from them that the answer is whole.
    pub done: bool,
}

/// The frames of one message.
///
/// # Errors
/// INTERNAL for a message that cannot be shown.
pub fn words(binding: &Binding, dialect: Dialect, message: &[u8]) -> Result<Words, Status> {
    let method = &binding.method;
    let mut said = Words { frames: Vec::new(), done: false };
    let mut special = false;
    for (number, kind, frame) in method.tables.frames(method.output) {
        let Some(bytes) = find_bytes(message, number).map_err(|_error| internal_status())? else { continue };
        special = true;
        said.done |= frame == Frame::Done;
        match (dialect, frame, kind) {
            (Dialect::Plain, Frame::Text, _) => {
                let text = std::str::from_utf8(bytes).map_err(|_error| internal_status())?;
                said.frames.extend(pieces(text).map(Utf8Bytes::from));
            }
            (Dialect::Plain, Frame::Done, Kind::Message(id)) => {
                let mut inner = Vec::with_capacity(bytes.len() * 2);
                write_message(&method.tables, id, bytes, &mut inner).map_err(|_error| internal_status())?;
                said.frames.push(done(inner)?);
            }
            _ => {}
        }
    }
    if dialect == Dialect::Events || !special {
        let mut json = Vec::with_capacity(message.len() * 2 + 16);
        print(binding, message, &mut json)?;
        said.frames.push(text(json)?);
    }
    Ok(said)
}

/// The frame behind the last message, for a stream whose messages do not say themselves that they are the last.
pub fn end(binding: &Binding) -> Option<Utf8Bytes> {
    let method = &binding.method;
    if method.tables.frames(method.output).any(|(_, _, frame)| frame == Frame::Done) {
        return None;
    }
    Some(Utf8Bytes::from_static(match method.style {
        Style::OpenAi => "[DONE]",
        Style::Weft => "{\"done\":true}",
    }))
}

/// JSON is always text.
pub fn text(json: Vec<u8>) -> Result<Utf8Bytes, Status> {
    String::from_utf8(json).map(Utf8Bytes::from).map_err(|_error| internal_status())
}

/// An object with `"done":true` in front.
fn done(inner: Vec<u8>) -> Result<Utf8Bytes, Status> {
    let rest = inner.strip_prefix(b"{").ok_or_else(internal_status)?;
    let comma = if rest == b"}" { "" } else { "," };
    text([b"{\"done\":true", comma.as_bytes(), rest].concat())
}

/// A text in pieces of which none is a JSON object: each is cut behind a brace that it would begin with.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let begin = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        let cut = if rest[begin..].starts_with('{') { begin + 1 } else { rest.len() };
        let (piece, behind) = rest.split_at(cut);
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_of_a_text_is_a_json_object_and_together_they_are_the_text() {
        for text in
            ["", "Hi", "{", "{}", "{{\"done\":true}", " \n{\"done\":true}", "a{b}", "{ {\"error\":1}", "\u{feff}{}"]
        {
            let cut: Vec<&str> = pieces(text).collect();
            assert_eq!(cut.concat(), text);
            for piece in cut {
                let parsed = serde_json::from_str::<serde_json::Value>(piece);
                assert!(!parsed.is_ok_and(|value| value.is_object()), "{text:?}: {piece:?}");
            }
        }
        assert_eq!(pieces("{\"a\":1}").collect::<Vec<_>>(), ["{", "\"a\":1}"]);
    }

    #[test]
    fn done_stands_in_front() {
        assert_eq!(done(b"{}".to_vec()).unwrap().as_str(), "{\"done\":true}");
        assert_eq!(done(b"{\"response\":\"Hi\"}".to_vec()).unwrap().as_str(), "{\"done\":true,\"response\":\"Hi\"}");
    }
}
