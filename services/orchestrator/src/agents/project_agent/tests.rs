use serde_json::{Map, Value, json};

use super::agent;
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::domain::chat::Records;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::day::Day;
use crate::domain::json::object;
use crate::domain::project::Project;

fn as_object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

/// A desk with two projects, one of them archived.
fn desk() -> Desk {
    let projects = [
        json!({"id": "p1", "name": "Boat", "description": "é".repeat(400)}),
        json!({"id": 2, "name": "Shed", "status": "archived"}),
    ];
    let projects = projects.into_iter().map(|project| Project::read(as_object(project)).unwrap()).collect();
    let checkpoint = json!({"id": "c1", "project_id": "p1", "title": "Afloat", "date": 5});
    let checkpoints = vec![Checkpoint::read(as_object(checkpoint)).unwrap()];
    Desk::new(Records { projects, checkpoints, ..Records::default() }, Day::of_ms(0))
}

fn run(desk: &mut Desk, name: &str, arguments: Value) -> Result<Value, Misfit> {
    (agent().tool(name).unwrap().run)(desk, as_object(arguments))
}

fn actions(desk: Desk) -> Vec<(String, String, Value)> {
    let told = |action: weft_proto::orchestrator::v1::PlanAction| {
        (action.r#type, action.table.unwrap(), Value::Object(object(action.data.unwrap())))
    };
    desk.into_actions().into_iter().map(told).collect()
}

fn names(result: &Value) -> Vec<&str> {
    result["projects"].as_array().unwrap().iter().map(|project| project["name"].as_str().unwrap()).collect()
}

#[test]
fn list_projects_leaves_out_what_is_archived() {
    let mut desk = desk();
    let active = run(&mut desk, "list_projects", json!({"limit": -1})).unwrap();
    assert_eq!((names(&active), &active["count"]), (vec!["Boat"], &json!(1)));
    assert_eq!(active["projects"][0]["description"].as_str().unwrap().chars().count(), 301);
    assert_eq!(names(&run(&mut desk, "list_all_projects", json!({})).unwrap()), ["Boat", "Shed"]);
    assert!(actions(desk).is_empty());
}

#[test]
fn get_project_shows_it_whole_with_its_checkpoints() {
    let shown = run(&mut desk(), "get_project", json!({"project_id": "p1"})).unwrap();
    assert_eq!(shown["project"]["description"].as_str().unwrap().chars().count(), 400);
    assert_eq!(shown["checkpoints"], json!([{"title": "Afloat", "date": 5}]));
    assert!(run(&mut desk(), "get_project", json!({"project_id": "p9"})).unwrap().get("error").is_some());
}

#[test]
fn a_created_project_is_active_and_can_be_worked_on_at_once() {
    let mut desk = desk();
    let made = run(&mut desk, "create_project", json!({"name": " Car ", "description": ""})).unwrap();
    let id = made["created"]["id"].clone();
    run(&mut desk, "update_project", json!({"project_id": id, "description": "blue"})).unwrap();
    assert_eq!(names(&run(&mut desk, "list_projects", json!({})).unwrap()), ["Boat", "Car"]);
    let record = json!({"id": id, "name": "Car", "description": "", "status": "active"});
    let updated = json!({"id": id, "description": "blue"});
    assert_eq!(
        actions(desk),
        [
            ("create_record".to_owned(), "projects".to_owned(), record),
            ("update_record".to_owned(), "projects".to_owned(), updated)
        ]
    );
}

#[test]
fn archiving_is_a_change_of_status() {
    let mut desk = desk();
    run(&mut desk, "update_project", json!({"project_id": "p1", "name": "", "status": "archived"})).unwrap();
    assert!(names(&run(&mut desk, "list_projects", json!({})).unwrap()).is_empty());
    let data = json!({"id": "p1", "status": "archived"});
    assert_eq!(actions(desk), [("update_record".to_owned(), "projects".to_owned(), data)]);
}

#[test]
fn an_active_project_is_only_deleted_when_the_user_insists() {
    let mut desk = desk();
    for not_said in [json!({"project_id": "p1"}), json!({"project_id": "p1", "is_confirmed": 0})] {
        let told = run(&mut desk, "delete_project", not_said).unwrap();
        assert!(told["error"].as_str().unwrap().contains("archive"), "{told}");
    }
    run(&mut desk, "delete_project", json!({"project_id": "2"})).unwrap();
    run(&mut desk, "delete_project", json!({"project_id": "p1", "is_confirmed": 1})).unwrap();
    let deleted: Vec<Value> = actions(desk).into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(deleted, [json!({"id": 2}), json!({"id": "p1"})]);
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_change_nothing() {
    for (name, arguments) in [
        ("list_projects", json!({"limit": -2})),
        ("list_all_projects", json!({"limit": 1})),
        ("get_project", json!({})),
        ("create_project", json!({"name": " "})),
        ("create_project", json!({"name": "x".repeat(501)})),
        ("create_project", json!({"name": "x", "status": "active"})),
        ("update_project", json!({"project_id": "p1"})),
        ("update_project", json!({"project_id": "p1", "status": "deleted"})),
        ("delete_project", json!({"project_id": "p1", "is_confirmed": 2})),
    ] {
        let mut desk = desk();
        let told = format!("{name} {arguments}");
        assert!(run(&mut desk, name, arguments).is_err(), "{told}");
        assert!(actions(desk).is_empty(), "{told}");
    }
    let mut desk = desk();
    for name in ["update_project", "delete_project"] {
        let unknown = json!({"project_id": "p9", "name": "x"});
        let arguments = if name == "delete_project" { json!({"project_id": "p9"}) } else { unknown };
        assert!(run(&mut desk, name, arguments).unwrap().get("error").is_some());
    }
    assert!(actions(desk).is_empty());
}
