//! A user's note as the client sends it along, and as tools change it.
use serde_json::{Map, Value, json};

use crate::domain::record::{Fields, Record};

/// One note. It has no `Debug`: what users write must not reach a log.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Note {
    /// The client's id, as it was sent: text or a whole number.
    pub id: Value,
    /// What it is called.
    pub title: String,
    /// The text, in Markdown.
    pub content: String,
}

impl Note {
    /// Reads a note of the request's context. Fields that are absent, null or empty have their defaults; unknown fields
    /// are ignored.
    ///
    /// # Errors
    /// What is wrong with which field, without repeating its value.
    pub fn read(fields: Map<String, Value>) -> Result<Note, String> {
        let mut fields = Fields(fields);
        Ok(Note { id: fields.id("id")?, title: fields.text("title")?, content: fields.text("content")? })
    }
}

impl Record for Note {
    const TABLE: &'static str = "notes";

    fn id(&self) -> &Value {
        &self.id
    }

    fn record(&self) -> Map<String, Value> {
        let fields = [("id", self.id.clone()), ("title", json!(self.title)), ("content", json!(self.content))];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
