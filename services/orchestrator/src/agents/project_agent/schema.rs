//! JSON schemas of the tools' arguments, as the model sees them.
use serde_json::{Value, json};

use crate::agents::schema::{TEXT_CHARS, TITLE_CHARS, id, limit, object, some_text, text};

/// Of `list_projects`.
pub fn list_projects() -> Value {
    object(json!({ "limit": limit() }), &[])
}

/// Of `create_project`.
pub fn create_project() -> Value {
    object(
        json!({
            "name": some_text(TITLE_CHARS, "Name of the project."),
            "description": text(TEXT_CHARS, "What it is about; empty: nothing."),
        }),
        &["name"],
    )
}

/// Of `update_project`.
pub fn update_project() -> Value {
    object(
        json!({
            "project_id": id("Id of the project."),
            "name": text(TITLE_CHARS, "New name; empty: unchanged."),
            "description": text(TEXT_CHARS, "New description; empty: unchanged."),
            "status": {"type": "string", "enum": ["", "active", "archived"], "description": "Empty: unchanged."},
        }),
        &["project_id"],
    )
}

/// Of `delete_project`.
pub fn delete_project() -> Value {
    object(
        json!({
            "project_id": id("Id of the project."),
            "is_confirmed": {"type": "integer", "enum": [-1, 0, 1], "description": "1 if the user wants it gone for good and not archived; -1: not said."},
        }),
        &["project_id"],
    )
}
