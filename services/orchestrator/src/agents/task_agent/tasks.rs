//! The tools for tasks.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_core::new_id;

use crate::agents::arguments::{
    assignees, beginning, changed, flag, id, most, or_blank, or_minus_one, read, title, within,
};
use crate::agents::desk::Desk;
use crate::agents::schema::{LIST_MOST, TEXT_CHARS, TITLE_CHARS};
use crate::agents::tool::Misfit;
use crate::domain::record::Record;
use crate::domain::task::{Task, TaskPriority, TaskStatus};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, deserialize_with = "or_blank")]
    status: Option<TaskStatus>,
    #[serde(default, deserialize_with = "or_blank")]
    priority: Option<TaskPriority>,
    #[serde(default, deserialize_with = "or_minus_one")]
    limit: Option<i64>,
}

/// `list_tasks`.
pub fn list(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let List { status, priority, limit } = read(arguments)?;
    let limit = most(limit);
    let fits = |task: &&Task| {
        status.is_none_or(|status| task.status == status) && priority.is_none_or(|priority| task.priority == priority)
    };
    Ok(listed(desk.tasks.all().iter().filter(fits), limit))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `list_tasks_due_today`.
pub fn list_due_today(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Nothing {} = read(arguments)?;
    let today = desk.today();
    let due = |task: &&Task| task.status != TaskStatus::Done && task.due_date.is_some_and(|ms| today.contains(ms));
    Ok(listed(desk.tasks.all().iter().filter(due), LIST_MOST))
}

fn listed<'a>(tasks: impl Iterator<Item = &'a Task>, limit: usize) -> Value {
    let mut count = 0;
    let mut shown = Vec::new();
    for task in tasks {
        count += 1;
        if shown.len() < limit {
            shown.push(shortened(task));
        }
    }
    json!({"count": count, "tasks": shown})
}

fn shortened(task: &Task) -> Value {
    let mut record = task.record();
    record.insert("description".to_owned(), Value::from(beginning(&task.description)));
    record.insert("comments".to_owned(), task.comments.len().into());
    Value::Object(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    title: String,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    status: Option<TaskStatus>,
    #[serde(default, deserialize_with = "or_blank")]
    priority: Option<TaskPriority>,
    #[serde(default, deserialize_with = "assignees")]
    assignees: Option<String>,
    #[serde(default, deserialize_with = "or_minus_one")]
    due_date: Option<i64>,
    #[serde(default, deserialize_with = "flag")]
    is_ai_suggested: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    is_approved: Option<bool>,
}

/// `create_task`. The id is made here, so that later tools of the same answer can speak of the task.
pub fn create(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Create = read(arguments)?;
    let title = title("title", &given.title)?;
    let description = given.description.unwrap_or_default();
    within("description", &description, TEXT_CHARS)?;
    let is_ai_suggested = given.is_ai_suggested.unwrap_or(false);
    let task = Task {
        id: Value::from(new_id()),
        title,
        description,
        status: given.status.unwrap_or_default(),
        priority: given.priority.unwrap_or_default(),
        assignees: given.assignees.unwrap_or_else(|| "[]".to_owned()),
        due_date: given.due_date.filter(|ms| *ms != 0),
        is_ai_suggested,
        // What the assistant came up with waits for the user.
        is_approved: given.is_approved.unwrap_or(!is_ai_suggested),
        comments: Vec::new(),
    };
    let record = task.record();
    desk.create(|desk| &mut desk.tasks, task);
    Ok(json!({ "created": record }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(deserialize_with = "id")]
    task_id: String,
    #[serde(default, deserialize_with = "or_blank")]
    title: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    status: Option<TaskStatus>,
    #[serde(default, deserialize_with = "or_blank")]
    priority: Option<TaskPriority>,
    #[serde(default, deserialize_with = "assignees")]
    assignees: Option<String>,
    #[serde(default, deserialize_with = "or_minus_one")]
    due_date: Option<i64>,
    #[serde(default, deserialize_with = "flag")]
    is_ai_suggested: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    is_approved: Option<bool>,
}

/// `update_task`.
pub fn update(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Update = read(arguments)?;
    within("title", given.title.as_deref().unwrap_or_default(), TITLE_CHARS)?;
    within("description", given.description.as_deref().unwrap_or_default(), TEXT_CHARS)?;
    let mut changed = changes(&given)?;
    let id = match desk.tasks.id(&given.task_id) {
        Ok(id) => id,
        Err(unknown) => return Ok(unknown),
    };
    if let Some(task) = desk.tasks.get_mut(&given.task_id) {
        apply(&given, task);
    }
    changed.insert("id".to_owned(), id);
    desk.update::<Task>(changed.clone());
    Ok(json!({ "updated": changed }))
}

/// The fields that change, as the client's table has them.
fn changes(given: &Update) -> Result<Map<String, Value>, Misfit> {
    let due_date = given.due_date.map(|ms| if ms == 0 { Value::Null } else { Value::from(ms) });
    let fields = [
        ("title", given.title.clone().map(Value::from)),
        ("description", given.description.clone().map(Value::from)),
        ("status", given.status.map(|status| json!(status))),
        ("priority", given.priority.map(|priority| json!(priority))),
        ("assignees", given.assignees.clone().map(Value::from)),
        ("due_date", due_date),
        ("is_ai_suggested", given.is_ai_suggested.map(Value::from)),
        ("is_approved", given.is_approved.map(Value::from)),
    ];
    changed(fields)
}

fn apply(given: &Update, task: &mut Task) {
    if let Some(title) = &given.title {
        task.title.clone_from(title);
    }
    if let Some(description) = &given.description {
        task.description.clone_from(description);
    }
    if let Some(assignees) = &given.assignees {
        task.assignees.clone_from(assignees);
    }
    task.status = given.status.unwrap_or(task.status);
    task.priority = given.priority.unwrap_or(task.priority);
    task.is_ai_suggested = given.is_ai_suggested.unwrap_or(task.is_ai_suggested);
    task.is_approved = given.is_approved.unwrap_or(task.is_approved);
    if let Some(ms) = given.due_date {
        task.due_date = (ms != 0).then_some(ms);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    #[serde(deserialize_with = "id")]
    task_id: String,
}

/// `delete_task`.
pub fn delete(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Delete { task_id } = read(arguments)?;
    Ok(desk.delete(|desk| &mut desk.tasks, &task_id))
}
