//! What an agent works on during one request: the tasks that came along, and what the client is to do with its own.
use serde_json::{Map, Value, json};
use weft_proto::orchestrator::v1::PlanAction;

use crate::domain::day::Day;
use crate::domain::json;
use crate::domain::task::{TASK_COMMENTS, TASKS, Task, as_text};

/// One request's desk. Changes show at once in what later tools read, so that a model sees what it has done.
pub struct Desk {
    tasks: Vec<Task>,
    today: Day,
    actions: Vec<PlanAction>,
    sent: Sent,
}

/// Which ids can be checked: only those of things that the client sent.
struct Sent {
    tasks: bool,
    comments: bool,
}

impl Desk {
    /// A desk with the client's tasks.
    pub fn new(tasks: Vec<Task>, today: Day) -> Desk {
        let sent = Sent { tasks: !tasks.is_empty(), comments: tasks.iter().any(|task| !task.comments.is_empty()) };
        Desk { tasks, today, actions: Vec::new(), sent }
    }

    /// The tasks as they are now.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Today in UTC.
    pub fn today(&self) -> Day {
        self.today
    }

    /// The task with this id.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id_text() == id)
    }

    /// The same, to change.
    pub fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.id_text() == id)
    }

    /// The client's own form of a task's id. A client that sends no tasks may still speak of them by id.
    ///
    /// # Errors
    /// What the model is told if there is no such task among those sent.
    pub fn task_id(&self, id: &str) -> Result<Value, Value> {
        match self.task(id) {
            Some(task) => Ok(task.id.clone()),
            None if self.sent.tasks => Err(json!({"error": "there is no task with this id; list_tasks tells the ids"})),
            None => Ok(Value::from(id)),
        }
    }

    /// The same for a comment.
    ///
    /// # Errors
    /// What the model is told if there is no such comment among those sent.
    pub fn comment_id(&self, id: &str) -> Result<Value, Value> {
        let mut ids = self.tasks.iter().flat_map(|task| &task.comments).filter_map(|comment| comment.get("id"));
        match ids.find(|known| as_text((*known).clone()) == id) {
            Some(known) => Ok(known.clone()),
            None if self.sent.comments => {
                Err(json!({"error": "there is no comment with this id; list_task_comments tells the ids"}))
            }
            None => Ok(Value::from(id)),
        }
    }

    /// The client is to store a new task.
    pub fn create_task(&mut self, task: Task) {
        self.act("create_record", TASKS, task.record());
        self.tasks.push(task);
    }

    /// The client is to change these fields of a task; `fields` holds its `id`.
    pub fn update_task(&mut self, fields: Map<String, Value>) {
        self.act("update_record", TASKS, fields);
    }

    /// The client is to delete a task.
    pub fn delete_task(&mut self, id: Value) {
        self.tasks.retain(|task| task.id != id);
        self.act("delete_record", TASKS, only_id(id));
    }

    /// The client is to store a new comment; `fields` holds `id`, `task_id` and `content`.
    pub fn create_comment(&mut self, task_id: &str, fields: Map<String, Value>) {
        if let Some(task) = self.task_mut(task_id) {
            task.comments.push(fields.clone());
        }
        self.act("create_record", TASK_COMMENTS, fields);
    }

    /// The client is to delete a comment.
    pub fn delete_comment(&mut self, id: Value) {
        for task in &mut self.tasks {
            task.comments.retain(|comment| comment.get("id") != Some(&id));
        }
        self.act("delete_record", TASK_COMMENTS, only_id(id));
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

fn only_id(id: Value) -> Map<String, Value> {
    Map::from_iter([("id".to_owned(), id)])
}
