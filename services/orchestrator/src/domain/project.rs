//! A user's project as the client sends it along, and as tools change it.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::domain::record::{Fields, Record};

/// Whether a project is worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectStatus {
    /// It is.
    #[default]
    Active,
    /// It is kept, and no longer worked on.
    Archived,
}

/// One project. It has no `Debug`: what users write must not reach a log.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Project {
    /// The client's id, as it was sent: text or a whole number.
    pub id: Value,
    /// What it is called.
    pub name: String,
    /// Anything more about it.
    pub description: String,
    /// Whether it is worked on.
    pub status: ProjectStatus,
}

impl Project {
    /// Reads a project of the request's context. Fields that are absent, null or empty have their defaults; unknown
    /// fields are ignored.
    ///
    /// # Errors
    /// What is wrong with which field, without repeating its value.
    pub fn read(fields: Map<String, Value>) -> Result<Project, String> {
        let mut fields = Fields(fields);
        Ok(Project {
            id: fields.id("id")?,
            name: fields.text("name")?,
            description: fields.text("description")?,
            status: fields.named("status", "status must be active or archived")?,
        })
    }
}

impl Record for Project {
    const TABLE: &'static str = "projects";

    fn id(&self) -> &Value {
        &self.id
    }

    fn record(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.clone()),
            ("name", json!(self.name)),
            ("description", json!(self.description)),
            ("status", json!(self.status)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
