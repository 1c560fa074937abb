//! The Gemini dialect: `generateContent` and `streamGenerateContent`.
mod wire;

use self::wire::{Answer, Candidate, Part, Tokens};
use crate::models::event::{Event, Finish};
use crate::models::usage::sum;
use crate::models::{Break, Call, ModelError, ToolCall, Usage, Wants};

/// The body of a request. The model is in its URL, but has a say in how some things are written.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn body(call: &Call<'_>, model: &str) -> serde_json::Result<Vec<u8>> {
    wire::body(call, model)
}

/// What a client asks for that the dialect has no word for, by OpenAI's name.
pub fn lacks(wants: &Wants) -> Option<&'static str> {
    (wants.parallel == Some(false)).then_some("parallel_tool_calls")
}

/// What one chunk of a streamed answer says.
///
/// # Errors
/// [`ModelError::Interrupted`] if the provider tells of an error, the model failed, or the chunk makes no sense.
pub fn chunk(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    // serde's own error could repeat a part of the text.
    let answer: Answer = serde_json::from_slice(data).map_err(|_| ModelError::Interrupted(Break::Malformed))?;
    events(answer)
}

/// What a plain answer says.
///
/// # Errors
/// Those of [`chunk`], and [`ModelError::Interrupted`] if there is no answer in it.
pub fn whole(data: &[u8]) -> Result<Vec<Event>, ModelError> {
    let events = chunk(data)?;
    let is_whole = events.iter().any(|event| matches!(event, Event::Finish(_)));
    if is_whole { Ok(events) } else { Err(ModelError::Interrupted(Break::Malformed)) }
}

fn events(answer: Answer) -> Result<Vec<Event>, ModelError> {
    if answer.error.is_some() {
        return Err(ModelError::Interrupted(Break::Told));
    }
    let is_blocked = answer.prompt_feedback.is_some_and(|feedback| feedback.block_reason.is_some());
    // One candidate is asked for.
    let Candidate { content, finish_reason } = answer.candidates.into_iter().next().unwrap_or_default();
    let finish = match finish_reason.as_deref() {
        Some(reason) => Some(finish(reason)?),
        None => is_blocked.then_some(Finish::Refused),
    };
    let usage = answer.usage_metadata.map(|tokens| usage(&tokens, finish.is_some()));
    let said = content.unwrap_or_default().parts.into_iter().filter_map(said);
    Ok(said.chain(usage).chain(finish.map(Event::Finish)).collect())
}

fn said(part: Part) -> Option<Event> {
    if let Some(call) = part.function_call {
        let arguments = call.args.to_string();
        let id = call.id.unwrap_or_default();
        return Some(Event::Call(ToolCall { id, name: call.name, arguments, signature: part.thought_signature }));
    }
    let text = part.text.filter(|text| !text.is_empty())?;
    Some(if part.thought { Event::Reasoning(text) } else { Event::Text(text) })
}

/// Zeros are left out in this JSON, so at the end absent means 0; before it, it means that nobody counted yet.
fn usage(tokens: &Tokens, is_end: bool) -> Event {
    let zero = is_end.then_some(0);
    let completion_tokens = sum([tokens.candidates_token_count, tokens.thoughts_token_count]).or(zero);
    let prompt_tokens = sum([tokens.prompt_token_count, tokens.tool_use_prompt_token_count]).or(zero);
    Event::Usage(Usage { prompt_tokens, completion_tokens, total_tokens: tokens.total_token_count })
}

fn finish(reason: &str) -> Result<Finish, ModelError> {
    Ok(match reason {
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => Finish::Refused,
        // MALFORMED_FUNCTION_CALL, OTHER and the like: the model failed, whatever it had said.
        _ => return Err(ModelError::Interrupted(Break::Told)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(answer: &Value) -> Result<Vec<Event>, ModelError> {
        chunk(answer.to_string().as_bytes())
    }

    fn usage_of(prompt: Option<i64>, completion: Option<i64>, total: Option<i64>) -> Event {
        Event::Usage(Usage { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total })
    }

    #[test]
    fn a_count_that_is_left_out_is_zero_only_at_the_end() {
        let usage = json!({"promptTokenCount": 4, "totalTokenCount": 4});
        let early = json!({"candidates": [{"content": {"parts": [{"text": "hi"}]}}], "usageMetadata": usage});
        assert_eq!(told(&early).unwrap()[1], usage_of(Some(4), None, Some(4)));
        let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage});
        assert_eq!(told(&blocked).unwrap(), [usage_of(Some(4), Some(0), Some(4)), Event::Finish(Finish::Refused)]);
    }

    #[test]
    fn thoughts_cost_but_are_not_said() {
        let usage =
            json!({"promptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 40, "totalTokenCount": 46});
        let parts = json!([{"text": "hm", "thought": true}, {"text": "yes"}]);
        let answer =
            json!({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], "usageMetadata": usage});
        let events = told(&answer).unwrap();
        assert_eq!(events[..2], [Event::Reasoning("hm".to_owned()), Event::Text("yes".to_owned())]);
        assert_eq!(events[2], usage_of(Some(4), Some(42), Some(46)));
    }

    #[test]
    fn why_it_ended_decides() {
        for (reason, finish) in [
            ("STOP", Ok(Finish::Stop)),
            ("MAX_TOKENS", Ok(Finish::Length)),
            ("SAFETY", Ok(Finish::Refused)),
            ("PROHIBITED_CONTENT", Ok(Finish::Refused)),
            ("MALFORMED_FUNCTION_CALL", Err(ModelError::Interrupted(Break::Told))),
            ("OTHER", Err(ModelError::Interrupted(Break::Told))),
        ] {
            let events = told(&json!({"candidates": [{"finishReason": reason}]}));
            assert_eq!(events, finish.map(|finish| vec![Event::Finish(finish)]), "{reason}");
        }
    }

    #[test]
    fn an_answer_without_an_answer_is_none() {
        for body in
            ["{}", "{\"candidates\":[]}", "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}]}", "[]"]
        {
            assert_eq!(whole(body.as_bytes()), Err(ModelError::Interrupted(Break::Malformed)), "{body}");
        }
        let error = b"{\"error\":{\"code\":503,\"message\":\"x\",\"status\":\"UNAVAILABLE\"}}";
        assert_eq!(whole(error), Err(ModelError::Interrupted(Break::Told)));
    }
}
