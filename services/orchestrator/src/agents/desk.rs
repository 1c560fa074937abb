//! What an agent works on during one request: the records that came along, and what the client is to do with its own.
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use weft_proto::orchestrator::v1::PlanAction;

use crate::domain::chat::Records;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::day::Day;
use crate::domain::json;
use crate::domain::note::Note;
use crate::domain::project::Project;
use crate::domain::record::{Record, as_text};
use crate::domain::task::{TASK_COMMENTS, Task};

/// One request's desk. Changes show at once in what later tools read, so that a model sees what it has done.
pub struct Desk {
    /// The tasks as they are now.
    pub tasks: Sheet<Task>,
    /// The projects as they are now.
    pub projects: Sheet<Project>,
    /// The checkpoints as they are now.
    pub checkpoints: Sheet<Checkpoint>,
    /// The notes as they are now.
    pub notes: Sheet<Note>,
    /// Ids of the notes whose text a model has seen here.
    notes_read: BTreeSet<String>,
    today: Day,
    actions: Vec<PlanAction>,
    comments_sent: bool,
    words: Arc<str>,
}

impl Desk {
    /// A desk with the client's records.
    pub fn new(records: Records, today: Day) -> Desk {
        let comments_sent = records.tasks.iter().any(|task| !task.comments.is_empty());
        Desk {
            tasks: Sheet::new(records.tasks, "there is no task with this id; list_tasks tells the ids"),
            projects: Sheet::new(records.projects, "there is no project with this id; list_all_projects tells the ids"),
            checkpoints: Sheet::new(
                records.checkpoints,
                "there is no checkpoint with this id; list_checkpoints tells the ids",
            ),
            notes: Sheet::new(records.notes, "there is no note with this id; list_notes tells the ids"),
            notes_read: BTreeSet::new(),
            today,
            actions: Vec::new(),
            comments_sent,
            words: Arc::default(),
        }
    }

    /// The same, with what the request says besides its records: ids may stand there too.
    #[must_use]
    pub fn with_words(mut self, words: &str) -> Desk {
        self.words = Arc::from(words);
        self.tasks.words = Arc::clone(&self.words);
        self.projects.words = Arc::clone(&self.words);
        self.checkpoints.words = Arc::clone(&self.words);
        self.notes.words = Arc::clone(&self.words);
        self
    }

    /// Today in UTC.
    pub fn today(&self) -> Day {
        self.today
    }

    /// The client's own form of a comment's id; see [`Sheet::id`].
    ///
    /// # Errors
    /// What the model is told if there is no such comment among those sent.
    pub fn comment_id(&self, id: &str) -> Result<Value, Value> {
        let mut ids = self.tasks.items.iter().flat_map(|task| &task.comments).filter_map(|comment| comment.get("id"));
        match ids.find(|known| as_text((*known).clone()) == id) {
            Some(known) => Ok(known.clone()),
            None if !self.comments_sent && is_named(&self.words, id) => Ok(Value::from(id)),
            None => Err(json!({"error": "there is no comment with this id; list_task_comments tells the ids"})),
        }
    }

    /// The client is to store a new comment; `fields` holds `id`, `task_id` and `content`.
    pub fn create_comment(&mut self, task_id: &str, fields: Map<String, Value>) {
        if let Some(task) = self.tasks.get_mut(task_id) {
            task.comments.push(fields.clone());
        }
        self.act("create_record", TASK_COMMENTS, fields);
    }

    /// The client is to delete a comment.
    pub fn delete_comment(&mut self, id: Value) {
        for task in &mut self.tasks.items {
            task.comments.retain(|comment| comment.get("id") != Some(&id));
        }
        self.act("delete_record", TASK_COMMENTS, only_id(id));
    }

    /// A model sees the text of this note.
    pub fn note_is_read(&mut self, id: &str) {
        self.notes_read.insert(id.to_owned());
    }

    /// Whether a model has seen the text of this note here.
    pub fn has_read_note(&self, id: &str) -> bool {
        self.notes_read.contains(id)
    }

    /// The client is to store a new record.
    pub fn create<T: Record>(&mut self, sheet: fn(&mut Desk) -> &mut Sheet<T>, record: T) {
        self.act("create_record", T::TABLE, record.record());
        sheet(self).items.push(record);
    }

    /// The client is to change these fields of a record; `fields` holds its `id`.
    pub fn update<T: Record>(&mut self, fields: Map<String, Value>) {
        self.act("update_record", T::TABLE, fields);
    }

    /// The client is to delete a record.
    pub fn delete<T: Record>(&mut self, sheet: fn(&mut Desk) -> &mut Sheet<T>, id: Value) {
        sheet(self).items.retain(|record| *record.id() != id);
        self.act("delete_record", T::TABLE, only_id(id));
    }

    /// Every record by table, for agents without tools to read them by. Empty tables are left out.
    pub fn records(&self) -> Map<String, Value> {
        let tables = [self.tasks.records(), self.projects.records(), self.checkpoints.records(), self.notes.records()];
        tables
            .into_iter()
            .filter(|(_, records)| !records.is_empty())
            .map(|(table, records)| (table.to_owned(), json!(records)))
            .collect()
    }

    /// What the client is to do, in order.
    pub fn actions(&self) -> &[PlanAction] {
        &self.actions
    }

    /// The same, for keeping.
    pub fn into_actions(self) -> Vec<PlanAction> {
        self.actions
    }

    fn act(&mut self, kind: &str, table: &str, data: Map<String, Value>) {
        self.actions.push(PlanAction {
            r#type: kind.to_owned(),
            table: Some(table.to_owned()),
            data: Some(json::message(data)),
            agent: None,
        });
    }
}

/// The records of one table.
pub struct Sheet<T> {
    items: Vec<T>,
    /// Whether the client sent any: only then can ids be checked.
    sent: bool,
    words: Arc<str>,
    unknown: &'static str,
}

impl<T: Record> Sheet<T> {
    /// The records that were sent; `unknown` is what the model is told about an id that none of them has.
    fn new(items: Vec<T>, unknown: &'static str) -> Sheet<T> {
        Sheet { sent: !items.is_empty(), items, words: Arc::default(), unknown }
    }

    /// Every record.
    pub fn all(&self) -> &[T] {
        &self.items
    }

    /// The record with this id.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.items.iter().find(|record| record.id_text() == id)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.items.iter_mut().find(|record| record.id_text() == id)
    }

    /// The table's name and all that is in it.
    fn records(&self) -> (&'static str, Vec<Map<String, Value>>) {
        (T::TABLE, self.items.iter().map(Record::record).collect())
    }

    /// What the model is told about an id that no record has.
    pub fn unknown(&self) -> Value {
        json!({ "error": self.unknown })
    }

    /// The client's own form of a record's id. A client that sends none of its records may still speak of them by id.
    ///
    /// # Errors
    /// What the model is told if there is no such record among those sent, or the request does not name it.
    pub fn id(&self, id: &str) -> Result<Value, Value> {
        match self.get(id) {
            Some(record) => Ok(record.id().clone()),
            None if !self.sent && is_named(&self.words, id) => Ok(Value::from(id)),
            None => Err(self.unknown()),
        }
    }
}

/// Whether an id stands in a text by itself, not as a part of a word.
fn is_named(words: &str, id: &str) -> bool {
    words.match_indices(id).any(|(at, _)| {
        let (before, after) = (&words[..at], &words[at + id.len()..]);
        !before.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

fn only_id(id: Value) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), id)])
}
