//! A client's conversation.
use std::collections::HashSet;

use serde_json::Value;
use weft_proto::json::Kind;
use weft_proto::orchestrator::v1::{CompletionMessage, CompletionToolCall};

use super::SIGNATURE;
use super::params::{unsupported, wrong};
use crate::domain::json;
use crate::error::Error;
use crate::models::{Message, ToolCall};

/// Most messages of a request.
const MESSAGES: usize = 1_000;

/// The messages of a request.
///
/// # Errors
/// [`Error::Parameter`], [`Error::Unsupported`] or [`Error::TooLarge`] with the place of what is wrong.
pub fn read(messages: Vec<CompletionMessage>) -> Result<Vec<Message>, Error> {
    if messages.len() > MESSAGES {
        return Err(Error::TooLarge("messages are over the limit of 1000; send less".into()));
    }
    let mut wanted = HashSet::new();
    messages.into_iter().enumerate().map(|(at, message)| one(at, message, &mut wanted)).collect()
}

/// One message; `wanted` are the ids of the calls that were made before it.
fn one(at: usize, message: CompletionMessage, wanted: &mut HashSet<String>) -> Result<Message, Error> {
    let place = |field: &str| format!("messages[{at}].{field}");
    let CompletionMessage { role, content, tool_calls, tool_call_id, refusal, .. } = message;
    let content = text(content, &place("content"))?;
    let needed = |content: Option<String>| content.ok_or_else(|| wrong(place("content"), "is missing"));
    if role != "assistant" && !tool_calls.is_empty() {
        return Err(wrong(place("tool_calls"), "belongs to an assistant"));
    }
    match role.as_str() {
        "system" | "developer" => needed(content).map(Message::System),
        "user" => needed(content).map(Message::User),
        "assistant" => {
            let read = |(of, call)| tool_call(call, &format!("messages[{at}].tool_calls[{of}]"));
            let calls: Vec<ToolCall> = tool_calls.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
            // An answer that said nothing comes back as it was told.
            let is_given = content.is_some() || refusal.is_some();
            let said = content.filter(|text| !text.is_empty()).or(refusal);
            if !is_given && calls.is_empty() {
                return Err(wrong(place("content"), "is missing, and there are no tool_calls"));
            }
            wanted.extend(calls.iter().map(|call| call.id.clone()));
            Ok(Message::Assistant { text: said.unwrap_or_default(), calls })
        }
        "tool" => {
            let id = tool_call_id.unwrap_or_default();
            let call_id = id.split_once(SIGNATURE).map_or(id.as_str(), |(id, _)| id).to_owned();
            if !wanted.contains(&call_id) {
                return Err(wrong(place("tool_call_id"), "is not the id of a call before it"));
            }
            Ok(Message::Tool { call_id, content: needed(content)? })
        }
        _ => Err(wrong(place("role"), "must be system, developer, user, assistant or tool")),
    }
}

fn tool_call(call: CompletionToolCall, place: &str) -> Result<ToolCall, Error> {
    let id = call.id.filter(|id| !id.is_empty()).ok_or_else(|| wrong(format!("{place}.id"), "is missing"))?;
    let function = call.function.filter(|_| matches!(call.r#type.as_deref(), None | Some("function")));
    let function = function.ok_or_else(|| wrong(format!("{place}.function"), "is missing"))?;
    let name = function.name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| wrong(format!("{place}.function.name"), "is missing"))?;
    let (id, signature) = match id.split_once(SIGNATURE) {
        Some((id, signature)) => (id.to_owned(), Some(signature.to_owned())),
        None => (id, None),
    };
    Ok(ToolCall { id, name, arguments: function.arguments, signature })
}

/// The text of a message; None where there is no content.
fn text(content: Option<weft_proto::json::Value>, place: &str) -> Result<Option<String>, Error> {
    match content.and_then(|value| value.kind) {
        None | Some(Kind::NullValue(_)) => Ok(None),
        Some(Kind::StringValue(text)) => Ok(Some(text)),
        Some(Kind::ListValue(list)) => {
            let parts = list.values.into_iter().enumerate();
            let text = parts.map(|(at, part)| part_text(&json::value(part), &format!("{place}[{at}]")));
            text.collect::<Result<Vec<String>, Error>>().map(|parts| Some(parts.concat()))
        }
        Some(_) => Err(wrong(place, "must be a text or a list of parts")),
    }
}

fn part_text(part: &Value, place: &str) -> Result<String, Error> {
    let field = match part["type"].as_str() {
        Some(kind @ ("text" | "refusal")) => kind,
        Some(_) => return Err(unsupported(format!("{place}.type"))),
        None => return Err(wrong(format!("{place}.type"), "is missing")),
    };
    part[field].as_str().map(str::to_owned).ok_or_else(|| wrong(format!("{place}.{field}"), "must be a text"))
}
