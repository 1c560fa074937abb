//! JSON schemas of the tools' arguments, as the model sees them.
use serde_json::{Value, json};

use crate::agents::schema::{
    TEXT_CHARS, TITLE_CHARS, and_common, id, is_ai_suggested, is_approved, limit, object, some_text, text,
};

/// Of `list_checkpoints`.
pub fn list_checkpoints() -> Value {
    object(
        json!({
            "project_id": {"type": "string", "description": "Only those of this project; empty: of all."},
            "limit": limit(),
        }),
        &[],
    )
}

/// Of `create_checkpoint`.
pub fn create_checkpoint() -> Value {
    let own = json!({
        "project_id": id("Id of the project it belongs to."),
        "title": some_text(TITLE_CHARS, "What is to be reached."),
    });
    object(and_common(own, common()), &["project_id", "title"])
}

/// Of `update_checkpoint`.
pub fn update_checkpoint() -> Value {
    let own = json!({
        "checkpoint_id": id("Id of the checkpoint."),
        "title": text(TITLE_CHARS, "New title; empty: unchanged."),
    });
    object(and_common(own, common()), &["checkpoint_id"])
}

fn common() -> Value {
    json!({
        "description": text(TEXT_CHARS, "More about it; empty: none or unchanged."),
        "date": {"type": "integer", "minimum": -1, "description": "By when, in ms since 1970 (UTC). -1: no date or unchanged; 0: take the date away."},
        "is_ai_suggested": is_ai_suggested(),
        "is_approved": is_approved(),
    })
}
