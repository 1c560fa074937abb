//! A client's tools.
use serde_json::{Value, json};
use weft_proto::json::Kind;
use weft_proto::orchestrator::v1::{CompletionFunction, CompletionTool};

use super::params::{unsupported, wrong};
use crate::domain::json;
use crate::error::Error;
use crate::models::ToolSpec;
use crate::models::wants::ToolChoice;

/// Most tools of a request.
const TOOLS: usize = 128;
/// Longest name, in bytes.
const NAME_BYTES: usize = 64;
/// The rule of names.
pub const NAME_RULE: &str = "must be 1 to 64 letters, digits, _ or -";

/// The tools of a request.
///
/// # Errors
/// [`Error::Parameter`] or [`Error::Unsupported`] with the place of what is wrong.
pub fn read(tools: Vec<CompletionTool>) -> Result<Vec<ToolSpec>, Error> {
    if tools.len() > TOOLS {
        return Err(wrong("tools", "must be at most 128"));
    }
    let mut known: Vec<ToolSpec> = Vec::with_capacity(tools.len());
    for (at, tool) in tools.into_iter().enumerate() {
        let place = |field: &str| format!("tools[{at}].{field}");
        match tool.r#type.as_str() {
            "function" => {}
            "" => return Err(wrong(place("type"), "must be function")),
            _ => return Err(unsupported(place("type"))),
        }
        let function = tool.function.ok_or_else(|| wrong(place("function"), "is missing"))?;
        let CompletionFunction { name, description, parameters, strict } = function;
        if !is_name(&name) {
            return Err(wrong(place("function.name"), NAME_RULE));
        }
        if known.iter().any(|tool| tool.name == name) {
            return Err(wrong(place("function.name"), "is there twice"));
        }
        let none = || json!({"type": "object", "properties": {}});
        let parameters = parameters.map_or_else(none, |schema| Value::Object(json::object(schema)));
        known.push(ToolSpec { name: name.into(), description: description.into(), parameters, strict });
    }
    Ok(known)
}

/// Which of them may be called, or have to be.
///
/// # Errors
/// [`Error::Parameter`].
pub fn choice(asked: Option<weft_proto::json::Value>, tools: &[ToolSpec]) -> Result<ToolChoice, Error> {
    let refused = || wrong("tool_choice", "must be none, auto, required, or the function of one of the tools");
    let choice = match asked.and_then(|value| value.kind) {
        None | Some(Kind::NullValue(_)) => return Ok(ToolChoice::Auto),
        Some(Kind::StringValue(word)) => match word.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => return Ok(ToolChoice::Auto),
            "required" => ToolChoice::Required,
            _ => return Err(refused()),
        },
        Some(Kind::StructValue(fields)) => {
            let asked = Value::Object(json::object(fields));
            let name =
                asked["function"]["name"].as_str().filter(|_| asked["type"] == "function").ok_or_else(refused)?;
            ToolChoice::Named(name.to_owned())
        }
        Some(_) => return Err(refused()),
    };
    let is_there = match &choice {
        ToolChoice::Named(name) => tools.iter().any(|tool| tool.name == *name),
        _ => !tools.is_empty(),
    };
    if is_there { Ok(choice) } else { Err(refused()) }
}

/// Whether a function or a schema may be called so.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
}
