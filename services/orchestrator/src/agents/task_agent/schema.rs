//! JSON schemas of the tools' arguments, as the model sees them.
use serde_json::{Value, json};

use crate::agents::schema::{
    TEXT_CHARS, TITLE_CHARS, and_common, id, is_ai_suggested, is_approved, limit, object, some_text, text,
};

/// Of `list_tasks`.
pub fn list_tasks() -> Value {
    object(
        json!({
            "status": status(),
            "priority": priority(),
            "limit": limit(),
        }),
        &[],
    )
}

/// Of `create_task`.
pub fn create_task() -> Value {
    object(and_common(json!({"title": some_text(TITLE_CHARS, "What is to be done.")}), common()), &["title"])
}

/// Of `update_task`.
pub fn update_task() -> Value {
    let own = json!({
        "task_id": id("Id of the task."),
        "title": text(TITLE_CHARS, "New title; empty: unchanged."),
    });
    object(and_common(own, common()), &["task_id"])
}

/// Of `add_task_comment`.
pub fn add_task_comment() -> Value {
    object(
        json!({
            "task_id": id("Id of the task."),
            "content": some_text(TEXT_CHARS, "The comment."),
        }),
        &["task_id", "content"],
    )
}

fn common() -> Value {
    json!({
        "description": text(TEXT_CHARS, "More about it; empty: none or unchanged."),
        "status": status(),
        "priority": priority(),
        "assignees": {"type": "string", "description": "JSON array of names as text, such as [\"Ana\"]; empty: nobody or unchanged."},
        "due_date": {"type": "integer", "minimum": -1, "description": "When it is due, in ms since 1970 (UTC). -1: none or unchanged; 0: take the due date away."},
        "is_ai_suggested": is_ai_suggested(),
        "is_approved": is_approved(),
    })
}

fn status() -> Value {
    json!({"type": "string", "enum": ["", "todo", "in_progress", "done"], "description": "Empty: any, default or unchanged."})
}

fn priority() -> Value {
    json!({"type": "string", "enum": ["", "high", "medium", "low"], "description": "Empty: any, default or unchanged."})
}
