//! The OpenAI dialect: OpenAI itself, xAI, and every server that is compatible (vLLM, Ollama, …).
mod wire;

use self::wire::{Answer, AnswerUsage, CallFragment, Delta};
use crate::models::event::{Event, Finish, Fragment};
use crate::models::{Break, Call, ModelError, Usage};

/// How a server names the cap on what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// `max_tokens`: every compatible server knows it.
    MaxTokens,
    /// `max_completion_tokens`: the vendors' own; their reasoning models refuse the other name.
    MaxCompletionTokens,
}

/// The body of a request.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn body(call: &Call<'_>, model: &str, cap: Cap, streamed: bool) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&wire::request(call, model, cap, streamed))
}

/// What one chunk of a streamed answer says.
///
/// # Errors
/// [`ModelError::Interrupted`] if the provider tells of an error or the chunk makes no sense.
pub fn chunk(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    if data.trim_ascii() == b"[DONE]" {
        return Ok(vec![Event::End]);
    }
    events(parse(data)?, false)
}

/// What a plain answer says, which is whole by being well-formed.
///
/// # Errors
/// [`ModelError::Interrupted`] if the provider tells of an error or there is no answer in it.
pub fn whole(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    let answer = parse(data)?;
    if answer.choices.is_empty() && answer.error.is_none() {
        return Err(ModelError::Interrupted(Break::Malformed));
    }
    events(answer, true)
}

fn parse(data: &[u8]) -> Result<Answer, ModelError> {
    // serde's own error could repeat a part of the text.
    serde_json::from_slice(data).map_err(|_| ModelError::Interrupted(Break::Malformed))
}

fn events(answer: Answer, is_whole: bool) -> Result<Vec<Event>, ModelError> {
    if answer.error.is_some() {
        return Err(ModelError::Interrupted(Break::Told));
    }
    let mut events: Vec<Event> = answer.usage.map(usage).into_iter().collect();
    // One choice is asked for.
    if let Some(choice) = answer.choices.into_iter().next() {
        delta(choice.delta, is_whole, &mut events);
        match choice.finish_reason.filter(|reason| !reason.is_empty()) {
            Some(reason) => events.push(Event::Finish(finish(&reason)?)),
            None if is_whole => events.push(Event::Finish(Finish::Stop)),
            None => {}
        }
    }
    Ok(events)
}

fn usage(usage: AnswerUsage) -> Event {
    let AnswerUsage { prompt_tokens, completion_tokens, total_tokens } = usage;
    Event::Usage(Usage { prompt_tokens, completion_tokens, total_tokens })
}

fn delta(delta: Delta, is_whole: bool, events: &mut Vec<Event>) {
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    events.extend(said(delta.reasoning_content).or(said(delta.reasoning)).map(Event::Reasoning));
    events.extend(said(delta.content).map(Event::Text));
    events.extend(said(delta.refusal).map(Event::Declined));
    events.extend(delta.tool_calls.unwrap_or_default().into_iter().zip(0..).map(|(fragment, at)| {
        let CallFragment { index, id, function } = fragment;
        // In a plain answer each is a call of its own, also where no ids tell them apart.
        let index = if is_whole { Some(at) } else { index };
        let arguments = function.arguments.unwrap_or_default();
        Event::Fragment(Fragment { index, id, name: function.name, arguments })
    }));
}

fn finish(reason: &str) -> Result<Finish, ModelError> {
    Ok(match reason {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Refused,
        // How routers tell that the model behind them failed.
        "error" => return Err(ModelError::Interrupted(Break::Told)),
        _ => Finish::Stop,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn usage_is_taken_as_said() {
        let told = |usage: Value| chunk(json!({"choices": [], "usage": usage}).to_string().as_bytes()).unwrap();
        let usage = |prompt_tokens, completion_tokens, total_tokens| {
            [Event::Usage(Usage { prompt_tokens, completion_tokens, total_tokens })]
        };
        let zero = json!({"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 7});
        assert_eq!(told(zero), usage(Some(0), Some(7), Some(7)));
        assert_eq!(told(json!({"prompt_tokens": -3})), usage(Some(-3), None, None));
        assert!(told(Value::Null).is_empty());
    }

    #[test]
    fn an_error_in_the_middle_is_an_error() {
        let choice = json!({"choices": [{"delta": {}, "finish_reason": "error"}]});
        for told in [json!({"error": {"message": "overloaded", "code": 529}}), choice] {
            assert_eq!(chunk(told.to_string().as_bytes()), Err(ModelError::Interrupted(Break::Told)));
        }
    }

    #[test]
    fn what_is_thought_is_not_said() {
        for name in ["reasoning_content", "reasoning"] {
            let told = json!({"choices": [{"delta": {"content": "", name: "hm"}}]}).to_string();
            assert_eq!(chunk(told.as_bytes()).unwrap(), [Event::Reasoning("hm".to_owned())]);
        }
    }

    #[test]
    fn calls_of_a_plain_answer_are_told_apart_without_ids() {
        let call = |name: &str| json!({"id": "", "type": "function", "function": {"name": name, "arguments": "{}"}});
        let message = json!({"content": null, "tool_calls": [call("one"), call("two")]});
        let answer = json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).to_string();
        let places: Vec<Option<u32>> = whole(answer.as_bytes())
            .unwrap()
            .into_iter()
            .filter_map(|event| if let Event::Fragment(fragment) = event { Some(fragment.index) } else { None })
            .collect();
        assert_eq!(places, [Some(0), Some(1)]);
    }

    #[test]
    fn a_refusal_is_noticed() {
        let told = json!({"choices": [{"delta": {"refusal": "no"}}]}).to_string();
        assert_eq!(chunk(told.as_bytes()).unwrap(), [Event::Declined("no".to_owned())]);
    }

    #[test]
    fn the_vendors_own_servers_get_their_own_cap() {
        let call = Call {
            model: "x",
            messages: &[],
            tools: &[],
            may_call: false,
            output_tokens: 7,
            aim: crate::models::Aim::Answer,
            wants: None,
        };
        let sent = |cap| serde_json::from_slice::<Value>(&body(&call, "y", cap, false).unwrap()).unwrap();
        let vendors = sent(Cap::MaxCompletionTokens);
        assert_eq!((&vendors["model"], &vendors["max_completion_tokens"]), (&json!("y"), &json!(7)));
        assert!(vendors.get("max_tokens").is_none());
        assert_eq!(sent(Cap::MaxTokens)["max_tokens"], 7);
    }
}
