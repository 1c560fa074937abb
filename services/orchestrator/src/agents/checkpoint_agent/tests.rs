use serde_json::{Map, Value, json};

use super::agent;
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::domain::chat::Records;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::day::Day;
use crate::domain::json::object;
use crate::domain::project::Project;

const DATE: i64 = 1_795_132_800_000;

fn as_object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

/// A desk with two projects and three checkpoints.
fn desk() -> Desk {
    let project = |id: Value, name: &str| Project::read(as_object(json!({"id": id, "name": name}))).unwrap();
    let checkpoints = [
        json!({"id": "c1", "project_id": "p1", "title": "Some day"}),
        json!({"id": "c2", "project_id": "p1", "title": "Afloat", "date": DATE, "is_ai_suggested": 1, "is_approved": 0}),
        json!({"id": "c3", "project_id": 2, "title": "Roof", "date": DATE - 1}),
    ];
    let checkpoints = checkpoints.into_iter().map(|one| Checkpoint::read(as_object(one)).unwrap()).collect();
    let projects = vec![project(json!("p1"), "Boat"), project(json!(2), "Shed")];
    Desk::new(Records { projects, checkpoints, ..Records::default() }, Day::of_ms(DATE))
}

fn run(desk: &mut Desk, name: &str, arguments: Value) -> Result<Value, Misfit> {
    (agent().tool(name).unwrap().run)(desk, as_object(arguments))
}

fn actions(desk: Desk) -> Vec<(String, Value)> {
    let told = |action: weft_proto::orchestrator::v1::PlanAction| {
        assert_eq!(action.table.as_deref(), Some("checkpoints"));
        (action.r#type, Value::Object(object(action.data.unwrap())))
    };
    desk.into_actions().into_iter().map(told).collect()
}

fn titles(result: &Value) -> Vec<&str> {
    result["checkpoints"].as_array().unwrap().iter().map(|one| one["title"].as_str().unwrap()).collect()
}

#[test]
fn list_checkpoints_is_by_date_and_knows_the_projects() {
    let mut desk = desk();
    let all = run(&mut desk, "list_checkpoints", json!({"project_id": "", "limit": -1})).unwrap();
    assert_eq!(titles(&all), ["Roof", "Afloat", "Some day"]);
    assert_eq!(all["projects"], json!([{"id": "p1", "name": "Boat"}, {"id": 2, "name": "Shed"}]));
    let of_boat = run(&mut desk, "list_checkpoints", json!({"project_id": "p1"})).unwrap();
    assert_eq!((titles(&of_boat), &of_boat["count"]), (vec!["Afloat", "Some day"], &json!(2)));
    assert_eq!(titles(&run(&mut desk, "list_checkpoints", json!({"project_id": 2})).unwrap()), ["Roof"]);
    assert!(run(&mut desk, "list_checkpoints", json!({"project_id": "p9"})).unwrap().get("error").is_some());
    assert!(actions(desk).is_empty());
}

#[test]
fn what_the_assistant_suggests_waits_for_the_user() {
    let mut desk = desk();
    let suggested =
        json!({"project_id": "2", "title": " Door ", "date": DATE, "is_ai_suggested": 1, "is_approved": -1});
    let made = run(&mut desk, "create_checkpoint", suggested).unwrap()["created"].clone();
    run(&mut desk, "create_checkpoint", json!({"project_id": "p1", "title": "Sold", "date": -1})).unwrap();
    run(&mut desk, "update_checkpoint", json!({"checkpoint_id": made["id"], "is_approved": 1})).unwrap();
    let told = actions(desk);
    let record = json!({"id": made["id"], "project_id": 2, "title": "Door", "description": "", "date": DATE,
        "is_ai_suggested": true, "is_approved": false});
    assert_eq!(told[0], ("create_record".to_owned(), record));
    assert_eq!((&told[1].1["is_ai_suggested"], &told[1].1["is_approved"]), (&json!(false), &json!(true)));
    assert_eq!(told[1].1["date"], Value::Null);
    assert_eq!(told[2], ("update_record".to_owned(), json!({"id": made["id"], "is_approved": true})));
}

#[test]
fn update_checkpoint_changes_only_what_is_given() {
    let mut desk = desk();
    run(&mut desk, "update_checkpoint", json!({"checkpoint_id": "c2", "title": "", "date": 0})).unwrap();
    assert_eq!(titles(&run(&mut desk, "list_checkpoints", json!({})).unwrap()), ["Roof", "Some day", "Afloat"]);
    assert_eq!(actions(desk), [("update_record".to_owned(), json!({"id": "c2", "date": null}))]);
}

#[test]
fn delete_checkpoint_takes_it_away() {
    let mut desk = desk();
    run(&mut desk, "delete_checkpoint", json!({"checkpoint_id": "c1"})).unwrap();
    assert_eq!(titles(&run(&mut desk, "list_checkpoints", json!({})).unwrap()), ["Roof", "Afloat"]);
    assert_eq!(actions(desk), [("delete_record".to_owned(), json!({"id": "c1"}))]);
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_change_nothing() {
    for (name, arguments) in [
        ("list_checkpoints", json!({"limit": 1.5})),
        ("create_checkpoint", json!({"title": "x"})),
        ("create_checkpoint", json!({"project_id": "", "title": "x"})),
        ("create_checkpoint", json!({"project_id": "p1", "title": " "})),
        ("create_checkpoint", json!({"project_id": "p1", "title": "x", "date": "tomorrow"})),
        ("update_checkpoint", json!({"checkpoint_id": "c1"})),
        ("update_checkpoint", json!({"checkpoint_id": "c1", "project_id": "2"})),
        ("delete_checkpoint", json!({})),
    ] {
        let mut desk = desk();
        let told = format!("{name} {arguments}");
        assert!(run(&mut desk, name, arguments).is_err(), "{told}");
        assert!(actions(desk).is_empty(), "{told}");
    }
    for (name, arguments) in [
        ("create_checkpoint", json!({"project_id": "p9", "title": "x"})),
        ("update_checkpoint", json!({"checkpoint_id": "c9", "title": "x"})),
        ("delete_checkpoint", json!({"checkpoint_id": "c9"})),
    ] {
        let mut desk = desk();
        assert!(run(&mut desk, name, arguments).unwrap().get("error").is_some(), "{name}");
        assert!(actions(desk).is_empty(), "{name}");
    }
}
