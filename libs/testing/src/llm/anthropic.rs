//! The Anthropic Messages dialect.
use axum::body::Bytes;
use serde_json::{Value, json};

use crate::llm::dialect::event;
use crate::llm::reply::Reply;

/// The body of a plain answer.
pub(super) fn whole(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Value {
    let (text, calls) = reply.parts();
    let mut content = Vec::new();
    if !text.is_empty() {
        content.push(json!({"type": "text", "text": text.concat()}));
    }
    content.extend(calls.iter().enumerate().map(|(at, (name, arguments))| {
        let input: Value = serde_json::from_str(arguments).unwrap_or_default();
        json!({"type": "tool_use", "id": format!("toolu_{at}"), "name": name, "input": input})
    }));
    let mut whole = json!({
        "id": "msg_stub", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": reply.reason("end_turn", "tool_use"), "stop_sequence": null,
    });
    if let Some((prompt, completion)) = tokens {
        whole["usage"] = json!({"input_tokens": prompt, "output_tokens": completion});
    }
    whole
}

/// The events of a streamed answer: each delta a chunk of the body, with what has to be told before it.
pub(super) fn events(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Vec<Bytes> {
    let (text, calls) = reply.parts();
    let mut chunks = Chunks { told: start(model, tokens), chunks: Vec::new() };
    let mut index = 0;
    if !text.is_empty() {
        chunks.open(index, &json!({"type": "text", "text": ""}));
        text.iter().for_each(|piece| chunks.delta(index, &json!({"type": "text_delta", "text": piece})));
        chunks.close(index);
        index += 1;
    }
    for (at, (name, arguments)) in calls.iter().enumerate() {
        chunks.open(index, &json!({"type": "tool_use", "id": format!("toolu_{at}"), "name": name, "input": {}}));
        for piece in reply.fragments_of(arguments) {
            chunks.delta(index, &json!({"type": "input_json_delta", "partial_json": piece}));
        }
        chunks.close(index);
        index += 1;
    }
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": reply.reason("end_turn", "tool_use"), "stop_sequence": null}});
    if let Some((_, completion)) = tokens {
        end["usage"] = json!({"output_tokens": completion});
    }
    chunks.tell(&end);
    chunks.tell(&json!({"type": "message_stop"}));
    chunks.end()
}

/// The body of an error, and of the event that tells of one.
pub(super) fn error(code: u16) -> Value {
    let kind = match code {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": format!("stub says no: {code}")}})
}

fn start(model: &str, tokens: Option<(i64, i64)>) -> Vec<u8> {
    let mut message = json!({
        "id": "msg_stub", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null,
    });
    if let Some((prompt, _)) = tokens {
        message["usage"] = json!({"input_tokens": prompt, "output_tokens": 1});
    }
    event(Some("message_start"), &json!({"type": "message_start", "message": message})).to_vec()
}

/// Chunks so far, and what the next one begins with.
struct Chunks {
    told: Vec<u8>,
    chunks: Vec<Bytes>,
}

impl Chunks {
    fn open(&mut self, index: usize, block: &Value) {
        self.tell(&json!({"type": "content_block_start", "index": index, "content_block": block}));
    }

    fn delta(&mut self, index: usize, delta: &Value) {
        self.tell(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        self.chunks.push(std::mem::take(&mut self.told).into());
    }

    fn close(&mut self, index: usize) {
        self.tell(&json!({"type": "content_block_stop", "index": index}));
    }

    fn tell(&mut self, body: &Value) {
        self.told.extend_from_slice(&event(body["type"].as_str(), body));
    }

    fn end(mut self) -> Vec<Bytes> {
        self.chunks.push(self.told.into());
        self.chunks
    }
}
