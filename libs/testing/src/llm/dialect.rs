//! The dialects that the stub speaks.
use axum::body::Bytes;
use serde_json::{Value, json};

use crate::llm::reply::Reply;
use crate::llm::{anthropic, gemini, openai};

/// What is spoken on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Dialect {
    /// The body of a plain answer.
    pub(super) fn whole(self, reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Value {
        match self {
            Dialect::OpenAi => openai::whole(reply, model, tokens),
            Dialect::Anthropic => anthropic::whole(reply, model, tokens),
            Dialect::Gemini => gemini::whole(reply, model, tokens),
        }
    }

    /// The chunks of a streamed answer.
    pub(super) fn events(self, reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Vec<Bytes> {
        match self {
            Dialect::OpenAi => openai::events(reply, model, tokens),
            Dialect::Anthropic => anthropic::events(reply, model, tokens),
            Dialect::Gemini => gemini::events(reply, model, tokens),
        }
    }

    /// The body of an error.
    pub(super) fn error(self, code: u16) -> Value {
        match self {
            Dialect::OpenAi => openai::error(code),
            Dialect::Anthropic => anthropic::error(code),
            Dialect::Gemini => gemini::error(code),
        }
    }

    /// The chunk that tells of an error in the middle of an answer.
    pub(super) fn failure(self) -> Bytes {
        let name = (self == Dialect::Anthropic).then_some("error");
        event(name, &self.error(529))
    }

    /// What the dialect's requests hold their conversation in.
    pub(super) fn conversation(self, body: &Value) -> Value {
        match self {
            Dialect::OpenAi => body["messages"].clone(),
            Dialect::Anthropic => json!([body["system"], body["messages"]]),
            Dialect::Gemini => json!([body["systemInstruction"], body["contents"]]),
        }
    }
}

/// A server-sent event.
pub(super) fn event(name: Option<&str>, body: &Value) -> Bytes {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    Bytes::from(format!("{name}data: {body}\n\n"))
}
