//! A user's task as the client sends it along, and as tools change it.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::domain::record::{Fields, Record, as_text};

/// Table of the client's tasks.
pub const TASKS: &str = "tasks";
/// Table of the client's comments on tasks.
pub const TASK_COMMENTS: &str = "task_comments";

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Not begun.
    #[default]
    Todo,
    /// Begun.
    InProgress,
    /// Finished.
    Done,
}

/// How much a task matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPriority {
    /// First.
    High,
    /// As usual.
    #[default]
    Medium,
    /// When there is time.
    Low,
}

/// One task. It has no `Debug`: what users write must not reach a log.
#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Task {
    /// The client's id, as it was sent: text or a whole number.
    pub id: Value,
    /// What is to be done.
    pub title: String,
    /// Anything more about it.
    pub description: String,
    /// How far it is.
    pub status: TaskStatus,
    /// How much it matters.
    pub priority: TaskPriority,
    /// Names of people, a JSON array as text.
    pub assignees: String,
    /// When it is due, in ms since 1970. None: at no time.
    pub due_date: Option<i64>,
    /// Whether an assistant came up with it.
    pub is_ai_suggested: bool,
    /// Whether the user wants it.
    pub is_approved: bool,
    /// What was said about it, any JSON objects; their `id` is what `delete_task_comment` takes.
    pub comments: Vec<Map<String, Value>>,
}

impl Task {
    /// Reads a task of the request's context. Fields that are absent, null or empty have their defaults;
    /// unknown fields are ignored.
    ///
    /// # Errors
    /// What is wrong with which field, without repeating its value.
    pub fn read(fields: Map<String, Value>) -> Result<Task, String> {
        let mut fields = Fields(fields);
        Ok(Task {
            id: fields.id("id")?,
            title: fields.text("title")?,
            description: fields.text("description")?,
            status: fields.named("status", "status must be todo, in_progress or done")?,
            priority: fields.named("priority", "priority must be high, medium or low")?,
            assignees: fields.take("assignees").map_or_else(|| "[]".to_owned(), as_text),
            due_date: fields.date("due_date")?,
            is_ai_suggested: fields.flag("is_ai_suggested", false)?,
            is_approved: fields.flag("is_approved", true)?,
            comments: comments(fields.take("comments"))?,
        })
    }
}

impl Record for Task {
    const TABLE: &'static str = TASKS;

    fn id(&self) -> &Value {
        &self.id
    }

    /// All fields but the comments. No due date is null.
    fn record(&self) -> Map<String, Value> {
        let fields = json!({
            "id": self.id,
            "title": self.title,
            "description": self.description,
            "status": self.status,
            "priority": self.priority,
            "assignees": self.assignees,
            "due_date": self.due_date,
            "is_ai_suggested": self.is_ai_suggested,
            "is_approved": self.is_approved,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

fn comments(value: Option<Value>) -> Result<Vec<Map<String, Value>>, String> {
    let wrong = || "comments must be a list of objects".to_owned();
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Array(items) = value else { return Err(wrong()) };
    let object = |item| if let Value::Object(fields) = item { Ok(fields) } else { Err(wrong()) };
    items.into_iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Task, String> {
        let Value::Object(fields) = value else { panic!("an object") };
        Task::read(fields)
    }

    #[test]
    fn a_bare_task_has_the_defaults() {
        let task = read(json!({"id": "t1", "title": "Call Ana", "status": "", "due_date": -1})).unwrap();
        assert_eq!(task.status, TaskStatus::Todo);
        assert_eq!(task.priority, TaskPriority::Medium);
        assert_eq!((task.due_date, task.is_ai_suggested, task.is_approved), (None, false, true));
        assert_eq!(task.assignees, "[]");
    }

    #[test]
    fn a_task_keeps_its_fields_and_the_kind_of_its_id() {
        let task = read(json!({"id": 7, "title": "x", "priority": "high", "status": "in_progress", "due_date": 5,
            "is_ai_suggested": 1, "is_approved": 0, "assignees": "[\"Ana\"]", "colour": "red"}))
        .unwrap();
        assert_eq!(task.id_text(), "7");
        assert_eq!(
            Value::Object(task.record()),
            json!({"id": 7, "title": "x", "description": "", "status": "in_progress", "priority": "high",
                "assignees": "[\"Ana\"]", "due_date": 5, "is_ai_suggested": true, "is_approved": false})
        );
    }

    #[test]
    fn a_wrong_field_is_named_without_its_value() {
        for (task, field) in [
            (json!({"title": "CANARY"}), "id"),
            (json!({"id": {"CANARY": 1}}), "id"),
            (json!({"id": "1", "title": ["CANARY"]}), "title"),
            (json!({"id": "1", "status": "CANARY"}), "status"),
            (json!({"id": "1", "priority": "CANARY"}), "priority"),
            (json!({"id": "1", "due_date": "CANARY"}), "due_date"),
            (json!({"id": "1", "is_approved": "CANARY"}), "is_approved"),
            (json!({"id": "1", "comments": ["CANARY"]}), "comments"),
        ] {
            let told = read(task).unwrap_err();
            assert!(told.starts_with(field), "{told}");
            assert!(!told.contains("CANARY"), "{told}");
        }
    }
}
