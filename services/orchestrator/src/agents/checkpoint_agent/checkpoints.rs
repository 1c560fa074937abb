//! The tools for checkpoints.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_core::new_id;

use crate::agents::arguments::{beginning, changed, flag, id, most, or_blank, or_minus_one, read, title, within};
use crate::agents::desk::Desk;
use crate::agents::schema::{TEXT_CHARS, TITLE_CHARS};
use crate::agents::tool::Misfit;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::record::{Record, as_text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, deserialize_with = "or_blank")]
    project_id: Option<Value>,
    #[serde(default, deserialize_with = "or_minus_one")]
    limit: Option<i64>,
}

/// `list_checkpoints`. Those without a date come last. The projects are told as well, for who has to name one by its id.
pub fn list(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let List { project_id, limit } = read(arguments)?;
    let wanted = match project_id.map(as_text) {
        Some(id) => match desk.projects.id(&id) {
            Ok(_) => Some(id),
            Err(unknown) => return Ok(unknown),
        },
        None => None,
    };
    let fits = |checkpoint: &&Checkpoint| {
        wanted.as_ref().is_none_or(|wanted| as_text(checkpoint.project_id.clone()) == *wanted)
    };
    let mut found: Vec<&Checkpoint> = desk.checkpoints.all().iter().filter(fits).collect();
    found.sort_by_key(|checkpoint| (checkpoint.date.is_none(), checkpoint.date));
    let shown: Vec<Value> = found.iter().take(most(limit)).map(|checkpoint| shortened(checkpoint)).collect();
    let projects: Vec<Value> =
        desk.projects.all().iter().map(|project| json!({"id": project.id, "name": project.name})).collect();
    Ok(json!({"count": found.len(), "checkpoints": shown, "projects": projects}))
}

fn shortened(checkpoint: &Checkpoint) -> Value {
    let mut record = checkpoint.record();
    record.insert("description".to_owned(), Value::from(beginning(&checkpoint.description)));
    Value::Object(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(deserialize_with = "id")]
    project_id: String,
    title: String,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
    #[serde(default, deserialize_with = "or_minus_one")]
    date: Option<i64>,
    #[serde(default, deserialize_with = "flag")]
    is_ai_suggested: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    is_approved: Option<bool>,
}

/// `create_checkpoint`. The id is made here, so that later tools of the same answer can speak of the checkpoint.
pub fn create(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Create = read(arguments)?;
    let title = title("title", &given.title)?;
    let description = given.description.unwrap_or_default();
    within("description", &description, TEXT_CHARS)?;
    let project_id = match desk.projects.id(&given.project_id) {
        Ok(id) => id,
        Err(unknown) => return Ok(unknown),
    };
    let is_ai_suggested = given.is_ai_suggested.unwrap_or(false);
    let checkpoint = Checkpoint {
        id: Value::from(new_id()),
        project_id,
        title,
        description,
        date: given.date.filter(|ms| *ms != 0),
        is_ai_suggested,
        // What the assistant came up with waits for the user.
        is_approved: given.is_approved.unwrap_or(!is_ai_suggested),
    };
    let record = checkpoint.record();
    desk.create(|desk| &mut desk.checkpoints, checkpoint);
    Ok(json!({ "created": record }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(deserialize_with = "id")]
    checkpoint_id: String,
    #[serde(default, deserialize_with = "or_blank")]
    title: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
    #[serde(default, deserialize_with = "or_minus_one")]
    date: Option<i64>,
    #[serde(default, deserialize_with = "flag")]
    is_ai_suggested: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    is_approved: Option<bool>,
}

/// `update_checkpoint`.
pub fn update(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Update = read(arguments)?;
    within("title", given.title.as_deref().unwrap_or_default(), TITLE_CHARS)?;
    within("description", given.description.as_deref().unwrap_or_default(), TEXT_CHARS)?;
    let mut changed = changes(&given)?;
    let id = match desk.checkpoints.id(&given.checkpoint_id) {
        Ok(id) => id,
        Err(unknown) => return Ok(unknown),
    };
    if let Some(checkpoint) = desk.checkpoints.get_mut(&given.checkpoint_id) {
        apply(given, checkpoint);
    }
    changed.insert("id".to_owned(), id);
    desk.update::<Checkpoint>(changed.clone());
    Ok(json!({ "updated": changed }))
}

/// The fields that change, as the client's table has them.
fn changes(given: &Update) -> Result<Map<String, Value>, Misfit> {
    let date = given.date.map(|ms| if ms == 0 { Value::Null } else { Value::from(ms) });
    let fields = [
        ("title", given.title.clone().map(Value::from)),
        ("description", given.description.clone().map(Value::from)),
        ("date", date),
        ("is_ai_suggested", given.is_ai_suggested.map(Value::from)),
        ("is_approved", given.is_approved.map(Value::from)),
    ];
    changed(fields)
}

fn apply(given: Update, checkpoint: &mut Checkpoint) {
    checkpoint.title = given.title.unwrap_or_else(|| std::mem::take(&mut checkpoint.title));
    checkpoint.description = given.description.unwrap_or_else(|| std::mem::take(&mut checkpoint.description));
    checkpoint.is_ai_suggested = given.is_ai_suggested.unwrap_or(checkpoint.is_ai_suggested);
    checkpoint.is_approved = given.is_approved.unwrap_or(checkpoint.is_approved);
    if let Some(ms) = given.date {
        checkpoint.date = (ms != 0).then_some(ms);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    #[serde(deserialize_with = "id")]
    checkpoint_id: String,
}

/// `delete_checkpoint`.
pub fn delete(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Delete { checkpoint_id } = read(arguments)?;
    Ok(desk.delete(|desk| &mut desk.checkpoints, &checkpoint_id))
}
