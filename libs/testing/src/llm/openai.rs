//! The OpenAI dialect.
use axum::body::Bytes;
use serde_json::{Value, json};

use crate::llm::dialect::event;
use crate::llm::reply::Reply;

/// The body of a plain answer.
pub(super) fn whole(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Value {
    let (text, calls) = reply.parts();
    let mut message = json!({"role": "assistant", "content": null});
    if !text.is_empty() || calls.is_empty() {
        message["content"] = text.concat().into();
    }
    if !calls.is_empty() {
        message["tool_calls"] =
            calls.iter().enumerate().map(|(at, (name, arguments))| call(at, name, arguments)).collect();
    }
    let mut whole = json!({
        "id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.reason("stop", "tool_calls")}],
    });
    if let Some(tokens) = tokens {
        whole["usage"] = usage(tokens);
    }
    whole
}

/// The events of a streamed answer, each a chunk of the body.
pub(super) fn events(reply: &Reply, model: &str, tokens: Option<(i64, i64)>) -> Vec<Bytes> {
    let chunk = |choices: Value| json!({"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices});
    let said = |delta: Value, finish: Value| {
        event(None, &chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}])))
    };
    let mut events: Vec<Bytes> = deltas(reply).into_iter().map(|delta| said(delta, Value::Null)).collect();
    events.push(said(json!({}), reply.reason("stop", "tool_calls").into()));
    if let Some(tokens) = tokens {
        let mut last = chunk(json!([]));
        last["usage"] = usage(tokens);
        events.push(event(None, &last));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// The body of an error, and of the event that tells of one.
pub(super) fn error(code: u16) -> Value {
    json!({"error": {"message": format!("stub says no: {code}"), "type": "stub_error", "param": null, "code": "stub"}})
}

fn deltas(reply: &Reply) -> Vec<Value> {
    let (text, calls) = reply.parts();
    let mut deltas: Vec<Value> = text.iter().map(|piece| json!({"content": piece})).collect();
    for (at, (name, arguments)) in calls.iter().enumerate() {
        let mut opening = call(at, name, "");
        opening["index"] = at.into();
        deltas.push(json!({"tool_calls": [opening]}));
        let fragment = |piece| json!({"tool_calls": [{"index": at, "function": {"arguments": piece}}]});
        deltas.extend(reply.fragments_of(arguments).map(fragment));
    }
    deltas
}

fn call(at: usize, name: &str, arguments: &str) -> Value {
    json!({"id": format!("call_{at}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn usage((prompt, completion): (i64, i64)) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt.saturating_add(completion)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_model_says_as_many_words_as_its_name_tells() {
        let reply = Reply::of_name("stub-7-3").unwrap();
        let whole = whole(&reply, "stub-7-3", reply.tokens(99));
        assert_eq!(whole["choices"][0]["message"]["content"], "w0 w1 w2");
        assert_eq!(whole["usage"], json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}));
        assert!(Reply::of_name("gpt-4o-mini").is_none());
    }

    #[test]
    fn tool_arguments_are_streamed_in_fragments_that_join_again() {
        let arguments = json!({"title": "Llamar a Ána"});
        let deltas = deltas(&Reply::tool("create_task", &arguments).fragments(3));
        let joined: String =
            deltas.iter().filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str()).collect();
        assert!(deltas.len() > 5);
        assert_eq!(joined, arguments.to_string());
    }
}
