//! The tools for projects.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_core::new_id;

use crate::agents::arguments::{beginning, changed, flag, id, most, or_blank, or_minus_one, read, title, within};
use crate::agents::desk::Desk;
use crate::agents::schema::{LIST_MOST, TEXT_CHARS, TITLE_CHARS};
use crate::agents::tool::Misfit;
use crate::domain::project::{Project, ProjectStatus};
use crate::domain::record::Record;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default, deserialize_with = "or_minus_one")]
    limit: Option<i64>,
}

/// `list_projects`.
pub fn list_active(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let List { limit } = read(arguments)?;
    let active = desk.projects.all().iter().filter(|project| project.status == ProjectStatus::Active);
    Ok(listed(active, most(limit)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `list_all_projects`.
pub fn list_all(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Nothing {} = read(arguments)?;
    Ok(listed(desk.projects.all().iter(), LIST_MOST))
}

fn listed<'a>(projects: impl Iterator<Item = &'a Project>, limit: usize) -> Value {
    let all: Vec<&Project> = projects.collect();
    let shown: Vec<Value> = all.iter().take(limit).map(|project| shortened(project)).collect();
    json!({"count": all.len(), "projects": shown})
}

fn shortened(project: &Project) -> Value {
    let mut record = project.record();
    record.insert("description".to_owned(), Value::from(beginning(&project.description)));
    Value::Object(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    #[serde(deserialize_with = "id")]
    project_id: String,
}

/// `get_project`, with the checkpoints that belong to it.
pub fn get(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Get { project_id } = read(arguments)?;
    let Some(project) = desk.projects.get(&project_id) else { return Ok(desk.projects.unknown()) };
    let of_project = desk.checkpoints.all().iter().filter(|checkpoint| checkpoint.project_id == project.id);
    let checkpoints: Vec<Value> = of_project
        .take(LIST_MOST)
        .map(|checkpoint| json!({"title": checkpoint.title, "date": checkpoint.date}))
        .collect();
    Ok(json!({"project": project.record(), "checkpoints": checkpoints}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
}

/// `create_project`. The id is made here, so that later tools of the same answer can speak of the project.
pub fn create(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Create = read(arguments)?;
    let name = title("name", &given.name)?;
    let description = given.description.unwrap_or_default();
    within("description", &description, TEXT_CHARS)?;
    let project = Project { id: Value::from(new_id()), name, description, status: ProjectStatus::Active };
    let record = project.record();
    desk.create(|desk| &mut desk.projects, project);
    Ok(json!({ "created": record }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(deserialize_with = "id")]
    project_id: String,
    #[serde(default, deserialize_with = "or_blank")]
    name: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    description: Option<String>,
    #[serde(default, deserialize_with = "or_blank")]
    status: Option<ProjectStatus>,
}

/// `update_project`.
pub fn update(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let given: Update = read(arguments)?;
    within("name", given.name.as_deref().unwrap_or_default(), TITLE_CHARS)?;
    within("description", given.description.as_deref().unwrap_or_default(), TEXT_CHARS)?;
    let fields = [
        ("name", given.name.clone().map(Value::from)),
        ("description", given.description.clone().map(Value::from)),
        ("status", given.status.map(|status| json!(status))),
    ];
    let mut changed = changed(fields)?;
    let id = match desk.projects.id(&given.project_id) {
        Ok(id) => id,
        Err(unknown) => return Ok(unknown),
    };
    if let Some(project) = desk.projects.get_mut(&given.project_id) {
        project.name = given.name.unwrap_or_else(|| std::mem::take(&mut project.name));
        project.description = given.description.unwrap_or_else(|| std::mem::take(&mut project.description));
        project.status = given.status.unwrap_or(project.status);
    }
    changed.insert("id".to_owned(), id);
    desk.update::<Project>(changed.clone());
    Ok(json!({ "updated": changed }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    #[serde(deserialize_with = "id")]
    project_id: String,
    #[serde(default, deserialize_with = "flag")]
    is_confirmed: Option<bool>,
}

/// `delete_project`. Only what is archived, or what the user wants gone and not archived.
pub fn delete(desk: &mut Desk, arguments: Map<String, Value>) -> Result<Value, Misfit> {
    let Delete { project_id, is_confirmed } = read(arguments)?;
    if let Err(unknown) = desk.projects.id(&project_id) {
        return Ok(unknown);
    }
    let is_archived = desk.projects.get(&project_id).is_some_and(|project| project.status == ProjectStatus::Archived);
    if !is_archived && is_confirmed != Some(true) {
        return Ok(
            json!({"error": "this project is not archived: archive it instead, or ask whether it should go for good"}),
        );
    }
    Ok(desk.delete(|desk| &mut desk.projects, &project_id))
}
