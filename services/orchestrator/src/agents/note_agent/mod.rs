//! `note_agent`: a user's notes in Markdown, with 5 tools. A note is read before it is changed.
mod notes;
mod schema;
#[cfg(test)]
mod tests;

use crate::agents::Agent;
use crate::agents::schema::one_id;
use crate::agents::tool::{Tool, tool};
use crate::prompts::Prompt;

/// The agent.
pub fn agent() -> Agent {
    Agent::built_in(
        "note_agent",
        "Notes in Markdown: writes, finds, reads, rewrites, extends and deletes notes.",
        Prompt::NoteAgent,
        tools(),
    )
}

fn tools() -> Vec<Tool> {
    vec![
        tool("list_notes", "List the notes with their ids and how each begins.", schema::list_notes(), notes::list),
        tool("get_note", "Read the whole text of a note.", one_id("note_id", "Id of the note."), notes::get),
        tool("create_note", "Create a note.", schema::create_note(), notes::create),
        tool(
            "update_note",
            "Replace the title or the whole text of a note. Works only after get_note for the same note.",
            schema::update_note(),
            notes::update,
        ),
        tool(
            "delete_note",
            "Delete a note, if that is the user's wish.",
            one_id("note_id", "Id of the note."),
            notes::delete,
        ),
    ]
}
