//! What the built-in model makes of a client's own request: it calls the tool that it must or that it hears the name of,
//! writes the smallest JSON that fits a schema, and else says what it is.
use serde_json::{Map, Value, json};

use super::reply;
use crate::models::wants::{Format, ToolChoice, Wants};
use crate::models::{Call, Completion, Finish, Message, ModelError, Piece, Speaker, ToolCall, ToolSpec};

/// What stands where a schema wants a text.
const SOME_TEXT: &str = "offline";
/// So deep a schema is followed.
const DEPTH: usize = 16;

/// Answers, word by word.
///
/// # Errors
/// [`ModelError::Left`] if the listener has gone.
pub async fn complete(call: &Call<'_>, wants: &Wants, speaker: &mut Speaker) -> Result<Completion, ModelError> {
    if let Some(tool) = tool(call, wants) {
        let (id, name) = (format!("offline_{}", call.messages.len()), tool.name.to_string());
        let arguments = instance(&tool.parameters, &tool.parameters, DEPTH).to_string();
        speaker.tell(Piece::Call { at: 0, id: id.clone(), name: name.clone(), signature: None }).await?;
        speaker.tell(Piece::Arguments { at: 0, json: arguments.clone() }).await?;
        let calls = vec![ToolCall { id, name, arguments, signature: None }];
        return Ok(Completion { calls, finish: Finish::ToolCalls, ..Completion::default() });
    }
    let whole = match &wants.format {
        Format::Text => reply::completion(),
        Format::Json => json!({ "answer": reply::completion() }).to_string(),
        Format::Schema(wanted) => instance(&wanted.schema, &wanted.schema, DEPTH).to_string(),
    };
    let end = wants.stop.iter().filter_map(|stop| whole.find(stop.as_str())).min().unwrap_or(whole.len());
    let most = usize::try_from(call.output_tokens).unwrap_or(usize::MAX);
    let mut text = String::new();
    for word in whole[..end].split_inclusive(' ').take(most) {
        speaker.say(word).await?;
        text.push_str(word);
    }
    let finish = if text.len() < end { Finish::Length } else { Finish::Stop };
    Ok(Completion { text, finish, ..Completion::default() })
}

/// The tool to call, if any. After a tool's result none is called again.
fn tool<'a>(call: &Call<'a>, wants: &Wants) -> Option<&'a ToolSpec> {
    if !call.may_call {
        return None;
    }
    let named = |wanted: &str| call.tools.iter().copied().find(|tool| tool.name == wanted);
    match (&wants.choice, call.messages.last()) {
        (ToolChoice::None, _) => None,
        (ToolChoice::Named(wanted), _) => named(wanted),
        (ToolChoice::Required, _) => call.tools.first().copied(),
        (ToolChoice::Auto, Some(Message::User(said))) => {
            call.tools.iter().copied().find(|tool| said.contains(&*tool.name))
        }
        (ToolChoice::Auto, _) => None,
    }
}

/// The smallest value that fits a schema, as far as it is understood; `whole` is where its references lead.
fn instance(schema: &Value, whole: &Value, depth: usize) -> Value {
    let Some(deeper) = depth.checked_sub(1) else { return Value::Null };
    if let Some(fixed) = schema.get("const").or_else(|| schema.get("default")).or_else(|| schema["enum"].get(0)) {
        return fixed.clone();
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|path| whole.pointer(path.strip_prefix('#')?)) {
        return instance(target, whole, deeper);
    }
    if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| schema[*word].get(0)) {
        return instance(first, whole, deeper);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => SOME_TEXT.into(),
        Some("integer") => schema.get("minimum").and_then(Value::as_i64).unwrap_or(0).into(),
        Some("number") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("boolean") => false.into(),
        Some("null") => Value::Null,
        Some("array") => {
            let items = usize::from(schema["minItems"].as_u64().is_some_and(|least| least > 0));
            (0..items).map(|_| instance(&schema["items"], whole, deeper)).collect()
        }
        _ => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            let needed = properties.filter(|(name, _)| required.iter().any(|wanted| wanted == name.as_str()));
            let fields = needed.map(|(name, property)| (name.clone(), instance(property, whole, deeper)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_value_fits_its_schema() {
        for (schema, value) in [
            (json!({}), json!({})),
            (json!({"type": "string"}), json!("offline")),
            (json!({"enum": ["a", "b"]}), json!("a")),
            (json!({"type": ["integer", "null"], "minimum": 3}), json!(3)),
            (json!({"type": "array", "minItems": 1, "items": {"type": "boolean"}}), json!([false])),
            (json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), Value::Null),
            (
                json!({
                    "type": "object", "required": ["a", "b"], "$defs": {"b": {"type": "number"}},
                    "properties": {"a": {"const": 7}, "b": {"$ref": "#/$defs/b"}, "c": {"type": "string"}},
                }),
                json!({"a": 7, "b": 0}),
            ),
        ] {
            assert_eq!(instance(&schema, &schema, DEPTH), value, "{schema}");
        }
        let endless = json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert!(instance(&endless, &endless, DEPTH).is_object());
    }
}
