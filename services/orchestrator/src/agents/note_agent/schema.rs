//! JSON schemas of the tools' arguments, as the model sees them.
use serde_json::{Value, json};

use crate::agents::schema::{NOTE_CHARS, TITLE_CHARS, id, limit, object, some_text, text};

/// Of `list_notes`.
pub fn list_notes() -> Value {
    object(
        json!({
            "query": text(TITLE_CHARS, "Only notes with all these words in title or text; empty: all notes."),
            "limit": limit(),
        }),
        &[],
    )
}

/// Of `create_note`.
pub fn create_note() -> Value {
    object(
        json!({
            "title": some_text(TITLE_CHARS, "Title of the note."),
            "content": text(NOTE_CHARS, "The text, in Markdown; empty: none."),
        }),
        &["title"],
    )
}

/// Of `update_note`.
pub fn update_note() -> Value {
    object(
        json!({
            "note_id": id("Id of the note."),
            "title": text(TITLE_CHARS, "New title; empty: unchanged."),
            "content": text(NOTE_CHARS, "The whole new text, in Markdown; empty: unchanged."),
        }),
        &["note_id"],
    )
}
