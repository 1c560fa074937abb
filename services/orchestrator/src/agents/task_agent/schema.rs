//! JSON schemas of the tools' arguments, as the model sees them.
use serde_json::{Value, json};

/// Longest title, in characters.
pub const TITLE_CHARS: usize = 500;
/// Longest description or comment, in characters.
pub const TEXT_CHARS: usize = 10_000;
/// Tasks in a list unless the model asks for another number.
pub const LIST_DEFAULT: usize = 50;
/// Most tasks in a list.
pub const LIST_MOST: usize = 500;

/// Of `list_tasks`.
pub fn list_tasks() -> Value {
    object(
        json!({
            "status": status(),
            "priority": priority(),
            "limit": {"type": "integer", "minimum": -1, "maximum": LIST_MOST, "description": "At most so many; -1: 50."},
        }),
        &[],
    )
}

/// Of `create_task`.
pub fn create_task() -> Value {
    let mut fields = fields();
    fields["title"] =
        json!({"type": "string", "minLength": 1, "maxLength": TITLE_CHARS, "description": "What is to be done."});
    object(fields, &["title"])
}

/// Of `update_task`.
pub fn update_task() -> Value {
    let mut fields = fields();
    fields["task_id"] = id("Id of the task.");
    fields["title"] =
        json!({"type": "string", "maxLength": TITLE_CHARS, "description": "New title; empty: unchanged."});
    object(fields, &["task_id"])
}

/// Of `add_task_comment`.
pub fn add_task_comment() -> Value {
    object(
        json!({
            "task_id": id("Id of the task."),
            "content": {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS, "description": "The comment."},
        }),
        &["task_id", "content"],
    )
}

/// Of a tool that only needs one id.
pub fn one_id(name: &str, description: &str) -> Value {
    object(json!({ name: id(description) }), &[name])
}

/// Of a tool without arguments.
pub fn nothing() -> Value {
    object(json!({}), &[])
}

fn fields() -> Value {
    json!({
        "description": {"type": "string", "maxLength": TEXT_CHARS, "description": "More about it; empty: none or unchanged."},
        "status": status(),
        "priority": priority(),
        "assignees": {"type": "string", "description": "JSON array of names as text, such as [\"Ana\"]; empty: nobody or unchanged."},
        "due_date": {"type": "integer", "minimum": -1, "description": "When it is due, in ms since 1970 (UTC). -1: none or unchanged; 0: take the due date away."},
        "is_ai_suggested": {"type": "integer", "enum": [-1, 0, 1], "description": "1 if you came up with it yourself; -1: no or unchanged."},
        "is_approved": {"type": "integer", "enum": [-1, 0, 1], "description": "1 if the user wants it; -1: what fits, or unchanged."},
    })
}

fn status() -> Value {
    json!({"type": "string", "enum": ["", "todo", "in_progress", "done"], "description": "Empty: any, default or unchanged."})
}

fn priority() -> Value {
    json!({"type": "string", "enum": ["", "high", "medium", "low"], "description": "Empty: any, default or unchanged."})
}

fn id(description: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": description})
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
