//! The tools for comments on tasks.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_core::new_id;

use crate::agents::arguments::{id, read, within};
use crate::agents::desk::Desk;
use crate::agents::schema::TEXT_CHARS;
use crate::agents::tool::Misfit;

/// Most comments in a list.
const LIST_MOST: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(deserialize_with = "id")]
    task_id: String,
}

/// `list_task_comments`.
pub fn list(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let List { task_id } = read(arguments)?;
    let Some(task) = desk.tasks.get(&task_id) else { return Ok(desk.tasks.unknown()) };
    let shown: Vec<&Map<String, Value>> = task.comments.iter().take(LIST_MOST).collect();
    Ok(json!({"count": task.comments.len(), "comments": shown}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    #[serde(deserialize_with = "id")]
    task_id: String,
    content: String,
}

/// `add_task_comment`.
pub fn add(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Add { task_id, content } = read(arguments)?;
    if content.trim().is_empty() {
        return Err(Misfit("content must not be empty".to_owned()));
    }
    within("content", &content, TEXT_CHARS)?;
    let known = match desk.tasks.id(&task_id) {
        Ok(known) => known,
        Err(unknown) => return Ok(unknown),
    };
    let fields = [("id", Value::from(new_id())), ("task_id", known), ("content", Value::from(content))];
    let comment: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    desk.create_comment(&task_id, comment.clone());
    Ok(json!({ "created": comment }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    #[serde(deserialize_with = "id")]
    comment_id: String,
}

/// `delete_task_comment`.
pub fn delete(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Delete { comment_id } = read(arguments)?;
    match desk.comment_id(&comment_id) {
        Ok(id) => {
            desk.delete_comment(id.clone());
            Ok(json!({ "deleted": id }))
        }
        Err(unknown) => Ok(unknown),
    }
}
