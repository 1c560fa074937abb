//! The Anthropic Messages dialect.
mod wire;

use serde_json::Value;

use self::wire::{Answer, Block, Chunk, Delta, Tokens};
use crate::models::event::{Event, Finish, Fragment};
use crate::models::usage::sum;
use crate::models::wants::{Effort, Format};
use crate::models::{Break, Call, ModelError, ToolCall, Usage, Wants};

/// The version of the dialect, for the header `anthropic-version`.
pub const VERSION: &str = "2023-06-01";

/// The body of a request.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn body(call: &Call<'_>, model: &str, streamed: bool) -> serde_json::Result<Vec<u8>> {
    wire::body(call, model, streamed)
}

/// What a client asks for that the dialect has no word for, by OpenAI's name.
pub fn lacks(wants: &Wants) -> Option<&'static str> {
    let is_set = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
    let lacking = [
        // Half of OpenAI's range.
        (wants.temperature.is_some_and(|temperature| temperature > 1.0), "temperature"),
        (is_set(wants.presence_penalty), "presence_penalty"),
        (is_set(wants.frequency_penalty), "frequency_penalty"),
        (wants.seed.is_some(), "seed"),
        (matches!(wants.format, Format::Json), "response_format"),
        (wants.effort == Some(Effort::Minimal), "reasoning_effort"),
    ];
    lacking.into_iter().find(|(lacks, _)| *lacks).map(|(_, name)| name)
}

/// What one event of a streamed answer says.
///
/// # Errors
/// [`ModelError::Interrupted`] if the provider tells of an error or the event makes no sense.
pub fn chunk(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    Ok(match parse(data)? {
        // What was said is counted again at the end; the number here is of the first token.
        Chunk::MessageStart { message } => vec![usage(&Tokens { output_tokens: None, ..message.usage })],
        Chunk::ContentBlockStart { index, content_block } => started(index, content_block).into_iter().collect(),
        Chunk::ContentBlockDelta { index, delta } => match delta {
            Delta::Text { text } => vec![Event::Text(text)],
            Delta::Thinking { thinking } => vec![Event::Reasoning(thinking)],
            Delta::InputJson { partial_json } => {
                vec![Event::Fragment(Fragment { index: Some(index), arguments: partial_json, ..Fragment::default() })]
            }
            Delta::Other => Vec::new(),
        },
        Chunk::MessageDelta { delta, usage: tokens } => {
            let told = delta.stop_reason.as_deref().map(|reason| Event::Finish(finish(reason)));
            [usage(&tokens)].into_iter().chain(told).collect()
        }
        Chunk::MessageStop => vec![Event::End],
        Chunk::Error => return Err(ModelError::Interrupted(Break::Told)),
        Chunk::Other => Vec::new(),
    })
}

/// What a plain answer says.
///
/// # Errors
/// [`ModelError::Interrupted`] if the provider tells of an error or there is no answer in it.
pub fn whole(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    let (content, tokens, reason) = match parse(data)? {
        Answer::Message { content, usage, stop_reason } => (content, usage, stop_reason),
        Answer::Error => return Err(ModelError::Interrupted(Break::Told)),
    };
    let block = |block| match block {
        Block::Text { text } => Some(Event::Text(text)),
        Block::Thinking { thinking } => Some(Event::Reasoning(thinking)),
        Block::ToolUse { id, name, input } => {
            Some(Event::Call(ToolCall { id, name, arguments: input.to_string(), signature: None }))
        }
        Block::Other => None,
    };
    let end = [usage(&tokens), Event::Finish(reason.as_deref().map_or(Finish::Stop, finish))];
    Ok(content.into_iter().filter_map(block).chain(end).collect())
}

fn parse<'a, T: serde::Deserialize<'a>>(data: &'a [u8]) -> Result<T, ModelError> {
    // serde's own error could repeat a part of the text.
    serde_json::from_slice(data).map_err(|_| ModelError::Interrupted(Break::Malformed))
}

fn started(index: u32, block: Block) -> Option<Event> {
    match block {
        Block::Text { text } if !text.is_empty() => Some(Event::Text(text)),
        Block::Thinking { thinking } if !thinking.is_empty() => Some(Event::Reasoning(thinking)),
        Block::ToolUse { id, name, input } => {
            // Empty here, and told in fragments; compatible servers tell the whole at once.
            let is_told = matches!(&input, Value::Object(fields) if !fields.is_empty());
            let arguments = if is_told { input.to_string() } else { String::new() };
            Some(Event::Fragment(Fragment { index: Some(index), id: Some(id), name: Some(name), arguments }))
        }
        _ => None,
    }
}

/// What is read from the cache and written to it is no part of `input_tokens`.
fn usage(tokens: &Tokens) -> Event {
    let read = [tokens.input_tokens, tokens.cache_creation_input_tokens, tokens.cache_read_input_tokens];
    // Without the rest, those of the cache are no count of the prompt.
    let prompt_tokens = tokens.input_tokens.and_then(|_| sum(read));
    Event::Usage(Usage { prompt_tokens, completion_tokens: tokens.output_tokens, total_tokens: None })
}

fn finish(reason: &str) -> Finish {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Refused,
        _ => Finish::Stop,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(chunk_of: Value) -> Vec<Event> {
        chunk(chunk_of.to_string().as_bytes()).unwrap()
    }

    fn usage_of(prompt_tokens: Option<i64>, completion_tokens: Option<i64>) -> Event {
        Event::Usage(Usage { prompt_tokens, completion_tokens, total_tokens: None })
    }

    #[test]
    fn usage_is_split_over_the_first_and_the_last_event() {
        let cached = json!({"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 1});
        let start = told(json!({"type": "message_start", "message": {"id": "m", "usage": cached}}));
        assert_eq!(start, [usage_of(Some(325), None)]);
        let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 0}});
        assert_eq!(told(end), [usage_of(None, Some(0)), Event::Finish(Finish::Stop)]);
    }

    #[test]
    fn events_of_the_future_are_passed_over() {
        let delta = json!({"type": "signature_delta", "signature": "x"});
        for event in [
            json!({"type": "ping"}),
            json!({"type": "something_new", "index": {"a": 1}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "hologram", "data": 1}}),
            json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        ] {
            assert!(told(event.clone()).is_empty(), "{event}");
        }
    }

    #[test]
    fn a_tool_may_be_told_at_once() {
        let block = |input: Value| json!({"type": "tool_use", "id": "t", "name": "list_tasks", "input": input});
        let start = |input| {
            told(json!({"type": "content_block_start", "index": 1, "content_block": block(input)})).pop().unwrap()
        };
        let fragment = |arguments: &str| {
            let (id, name) = (Some("t".to_owned()), Some("list_tasks".to_owned()));
            Event::Fragment(Fragment { index: Some(1), id, name, arguments: arguments.to_owned() })
        };
        assert_eq!(start(json!({})), fragment(""));
        assert_eq!(start(json!({"a": 1})), fragment("{\"a\":1}"));
    }

    #[test]
    fn an_error_is_an_error_wherever_it_comes() {
        let error =
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).to_string();
        assert_eq!(chunk(error.as_bytes()), Err(ModelError::Interrupted(Break::Told)));
        assert_eq!(whole(error.as_bytes()), Err(ModelError::Interrupted(Break::Told)));
        assert_eq!(whole(b"{\"type\":\"completion\"}"), Err(ModelError::Interrupted(Break::Malformed)));
    }
}
