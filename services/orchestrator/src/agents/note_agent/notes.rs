//! The tools for notes.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_core::new_id;

use crate::agents::arguments::{beginning, changed, id, most, or_blank, or_minus_one, read, title, within};
use crate::agents::desk::Desk;
use crate::agents::schema::{NOTE_CHARS, TITLE_CHARS};
use crate::agents::tool::Misfit;
use crate::domain::note::Note;
use crate::domain::record::Record;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, deserialize_with = "or_blank")]
    query: Option<String>,
    #[serde(default, deserialize_with = "or_minus_one")]
    limit: Option<i64>,
}

/// `list_notes`.
pub fn list(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let List { query, limit } = read(arguments)?;
    let query = query.unwrap_or_default();
    within("query", &query, TITLE_CHARS)?;
    let query = query.to_lowercase();
    let fits = |note: &&Note| {
        let text = format!("{}\n{}", note.title, note.content).to_lowercase();
        query.split_whitespace().all(|word| text.contains(word))
    };
    let found: Vec<&Note> = desk.notes.all().iter().filter(fits).collect();
    let shown: Vec<Value> = found.iter().take(most(limit)).map(|note| shortened(note)).collect();
    Ok(json!({"count": found.len(), "notes": shown}))
}

fn shortened(note: &Note) -> Value {
    json!({"id": note.id, "title": note.title, "begins": beginning(&note.content)})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    #[serde(deserialize_with = "id")]
    note_id: String,
}

/// `get_note`.
pub fn get(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let One { note_id } = read(arguments)?;
    let Some(note) = desk.notes.get(&note_id) else { return Ok(desk.notes.unknown()) };
    let record = note.record();
    desk.note_is_read(&note_id);
    Ok(json!({ "note": record }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    title: String,
    #[serde(default, deserialize_with = "or_blank")]
    content: Option<String>,
}

/// `create_note`. The id is made here, so that later tools of the same answer can speak of the note.
pub fn create(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Create = read(arguments)?;
    let title = title("title", &given.title)?;
    let content = given.content.unwrap_or_default();
    within("content", &content, NOTE_CHARS)?;
    let note = Note { id: Value::from(new_id()), title, content };
    let record = note.record();
    // Who has just written it knows what it says.
    desk.note_is_read(&note.id_text());
    desk.create(|desk| &mut desk.notes, note);
    Ok(json!({ "created": record }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(deserialize_with = "id")]
    note_id: String,
    #[serde(default, deserialize_with = "or_blank")]
    title: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    content: Option<String>,
}

/// `update_note`. A text that nobody read would be overwritten blindly.
pub fn update(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Update { note_id, title, content } = read(arguments)?;
    within("title", title.as_deref().unwrap_or_default(), TITLE_CHARS)?;
    within("content", content.as_deref().unwrap_or_default(), NOTE_CHARS)?;
    let fields = [("title", title.clone().map(Value::from)), ("content", content.clone().map(Value::from))];
    let mut changed = changed(fields)?;
    let has_read = desk.has_read_note(&note_id);
    let Some(note) = desk.notes.get_mut(&note_id) else { return Ok(desk.notes.unknown()) };
    if !has_read {
        return Ok(json!({"error": "read this note with get_note before you change it"}));
    }
    changed.insert("id".to_owned(), note.id.clone());
    note.title = title.unwrap_or_else(|| std::mem::take(&mut note.title));
    note.content = content.unwrap_or_else(|| std::mem::take(&mut note.content));
    desk.update::<Note>(changed.clone());
    Ok(json!({ "updated": changed }))
}

/// `delete_note`.
pub fn delete(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let One { note_id } = read(arguments)?;
    Ok(desk.delete(|desk| &mut desk.notes, &note_id))
}
