//! The Gemini dialect.
use axum::body::Bytes;
use serde_json::{Value, json};

use crate::llm::dialect::event;
use crate::llm::reply::Reply;

/// The body of a plain answer.
pub(super) fn whole(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Value {
    let (text, calls) = reply.parts();
    let text = (!text.is_empty()).then(|| json!({"text": text.concat()}));
    let parts: Vec<Value> = text.into_iter().chain(calls.iter().map(call)).collect();
    answer(model, parts, Some(reply.reason("STOP", "STOP")), tokens)
}

/// The events of a streamed answer, each a chunk of the body. Tool calls come whole.
pub(super) fn events(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Vec<Bytes> {
    let (text, calls) = reply.parts();
    let parts = text.iter().map(|piece| json!({"text": piece})).chain(calls.iter().map(call));
    let mut events: Vec<Bytes> = parts.map(|part| event(None, &answer(model, vec![part], None, None))).collect();
    let end = answer(model, vec![json!({"text": ""})], Some(reply.reason("STOP", "STOP")), tokens);
    events.push(event(None, &end));
    events
}

/// The body of an error, and of the event that tells of one.
pub(super) fn error(code: u16) -> Value {
    let status = match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": code, "message": format!("stub says no: {code}"), "status": status}})
}

fn answer(model: &str, parts: Vec<Value>, finish: Option<&str>, tokens: Option<(i64, i64)>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    let mut answer = json!({"candidates": [candidate], "modelVersion": model, "responseId": "stub"});
    if let Some((prompt, completion)) = tokens {
        let total = prompt.saturating_add(completion);
        answer["usageMetadata"] =
            json!({"promptTokenCount": prompt, "candidatesTokenCount": completion, "totalTokenCount": total});
    }
    answer
}

fn call((name, arguments): &(String, String)) -> Value {
    let args: Value = serde_json::from_str(arguments).unwrap_or_default();
    json!({"functionCall": {"name": name, "args": args}})
}
