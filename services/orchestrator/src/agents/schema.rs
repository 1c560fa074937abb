//! What the JSON schemas of the tools' arguments have in common, as the model sees them.
use serde_json::{Value, json};

/// Longest title or name, in characters.
pub const TITLE_CHARS: usize = 500;
/// Longest description or comment, in characters.
pub const TEXT_CHARS: usize = 10_000;
/// Longest text of a note, in characters.
pub const NOTE_CHARS: usize = 100_000;
/// Items in a list unless the model asks for another number.
pub const LIST_DEFAULT: usize = 50;
/// Most items in a list.
pub const LIST_MOST: usize = 500;

/// An object of these properties and no others.
pub fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// The properties of one tool, and behind them those that several have. Most models fill them in this order.
pub fn and_common(own: Value, common: Value) -> Value {
    [own, common].into_iter().filter_map(|properties| properties.as_object().cloned()).flatten().collect()
}

/// Of a tool that only needs one id.
pub fn one_id(name: &str, description: &str) -> Value {
    object(json!({ name: id(description) }), &[name])
}

/// Of a tool without arguments.
pub fn nothing() -> Value {
    object(json!({}), &[])
}

/// An id.
pub fn id(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

/// A text that may be left empty.
pub fn text(chars: usize, description: &str) -> Value {
    json!({"type": "string", "maxLength": chars, "description": description})
}

/// A text that must not be empty.
pub fn some_text(chars: usize, description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": chars, "description": description})
}

/// How many items a list shows.
pub fn limit() -> Value {
    json!({"type": "integer", "minimum": -1, "maximum": LIST_MOST, "description": "At most so many; -1: 50."})
}

/// Whether the assistant came up with it.
pub fn is_ai_suggested() -> Value {
    json!({"type": "integer", "enum": [-1, 0, 1], "description": "1 if you came up with it yourself; -1: no or unchanged."})
}

/// Whether the user wants it.
pub fn is_approved() -> Value {
    json!({"type": "integer", "enum": [-1, 0, 1], "description": "1 if the user wants it; -1: what fits, or unchanged."})
}
