//! A checkpoint of a project as the client sends it along, and as tools change it.
use serde_json::{Map, Value, json};

use crate::domain::record::{Fields, Record};

/// One checkpoint: something that a project should have reached by a day. It has no `Debug`: what users write must not
/// reach a log.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Checkpoint {
    /// The client's id, as it was sent: text or a whole number.
    pub id: Value,
    /// The project's id; a checkpoint belongs to one.
    pub project_id: Value,
    /// What is to be reached.
    pub title: String,
    /// Anything more about it.
    pub description: String,
    /// By when, in ms since 1970. None: at no time.
    pub date: Option<i64>,
    /// Whether an assistant came up with it.
    pub is_ai_suggested: bool,
    /// Whether the user wants it.
    pub is_approved: bool,
}

impl Checkpoint {
    /// Reads a checkpoint of the request's context. Fields that are absent, null or empty have their defaults; unknown
    /// fields are ignored.
    ///
    /// # Errors
    /// What is wrong with which field, without repeating its value.
    pub fn read(fields: Map<String, Value>) -> Result<Checkpoint, String> {
        let mut fields = Fields(fields);
        Ok(Checkpoint {
            id: fields.id("id")?,
            project_id: fields.id("project_id")?,
            title: fields.text("title")?,
            description: fields.text("description")?,
            date: fields.date("date")?,
            is_ai_suggested: fields.flag("is_ai_suggested", false)?,
            is_approved: fields.flag("is_approved", true)?,
        })
    }
}

impl Record for Checkpoint {
    const TABLE: &'static str = "checkpoints";

    fn id(&self) -> &Value {
        &self.id
    }

    fn record(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.clone()),
            ("project_id", self.project_id.clone()),
            ("title", json!(self.title)),
            ("description", json!(self.description)),
            ("date", json!(self.date)),
            ("is_ai_suggested", json!(self.is_ai_suggested)),
            ("is_approved", json!(self.is_approved)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
