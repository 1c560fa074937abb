use serde_json::{Map, Value, json};

use super::agent;
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::domain::chat::Records;
use crate::domain::day::Day;
use crate::domain::json::object;
use crate::domain::note::Note;

fn as_object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

/// A desk with two notes.
fn desk() -> Desk {
    let notes = [
        json!({"id": "n1", "title": "Food", "content": "# Food\n\n- Milk\n- Água"}),
        json!({"id": 2, "title": "Boat", "content": "é".repeat(400)}),
    ];
    let notes = notes.into_iter().map(|note| Note::read(as_object(note)).unwrap()).collect();
    Desk::new(Records { notes, ..Records::default() }, Day::of_ms(0))
}

fn run(desk: &mut Desk, name: &str, arguments: Value) -> Result<Value, Misfit> {
    (agent().tool(name).unwrap().run)(desk, as_object(arguments))
}

fn actions(desk: Desk) -> Vec<(String, Value)> {
    let told = |action: weft_proto::orchestrator::v1::PlanAction| {
        assert_eq!(action.table.as_deref(), Some("notes"));
        (action.r#type, Value::Object(object(action.data.unwrap())))
    };
    desk.into_actions().into_iter().map(told).collect()
}

fn titles(result: &Value) -> Vec<&str> {
    result["notes"].as_array().unwrap().iter().map(|note| note["title"].as_str().unwrap()).collect()
}

#[test]
fn list_notes_finds_words_and_shows_how_notes_begin() {
    let mut desk = desk();
    let all = run(&mut desk, "list_notes", json!({"query": "", "limit": -1})).unwrap();
    assert_eq!(titles(&all), ["Food", "Boat"]);
    assert_eq!(all["notes"][1]["begins"].as_str().unwrap().chars().count(), 301);
    assert_eq!(titles(&run(&mut desk, "list_notes", json!({"query": "ÁGUA food"})).unwrap()), ["Food"]);
    assert!(titles(&run(&mut desk, "list_notes", json!({"query": "milk boat"})).unwrap()).is_empty());
    let one = run(&mut desk, "list_notes", json!({"limit": 1})).unwrap();
    assert_eq!((titles(&one), &one["count"]), (vec!["Food"], &json!(2)));
}

#[test]
fn a_note_is_read_before_it_is_changed() {
    let mut desk = desk();
    let change = || json!({"note_id": "n1", "title": "", "content": "# Food\n\n- Bread"});
    let told = run(&mut desk, "update_note", change()).unwrap();
    assert!(told["error"].as_str().unwrap().contains("get_note"), "{told}");
    // Another note's text is not this one's.
    run(&mut desk, "get_note", json!({"note_id": 2})).unwrap();
    assert!(run(&mut desk, "update_note", change()).unwrap().get("error").is_some());
    let shown = run(&mut desk, "get_note", json!({"note_id": "n1"})).unwrap();
    assert_eq!(shown["note"]["content"], "# Food\n\n- Milk\n- Água");
    run(&mut desk, "update_note", change()).unwrap();
    assert_eq!(run(&mut desk, "get_note", json!({"note_id": "n1"})).unwrap()["note"]["title"], "Food");
    assert_eq!(actions(desk), [("update_record".to_owned(), json!({"id": "n1", "content": "# Food\n\n- Bread"}))]);
}

#[test]
fn a_new_note_is_known_to_who_wrote_it() {
    let mut desk = desk();
    let made = run(&mut desk, "create_note", json!({"title": " Car ", "content": "**blue**"})).unwrap();
    let id = made["created"]["id"].clone();
    run(&mut desk, "update_note", json!({"note_id": id, "title": "My car"})).unwrap();
    let told = actions(desk);
    assert_eq!(told[0], ("create_record".to_owned(), json!({"id": id, "title": "Car", "content": "**blue**"})));
    assert_eq!(told[1], ("update_record".to_owned(), json!({"id": id, "title": "My car"})));
}

#[test]
fn a_note_that_the_client_did_not_send_cannot_be_overwritten() {
    let mut desk = Desk::new(Records::default(), Day::of_ms(0));
    assert!(run(&mut desk, "get_note", json!({"note_id": "n1"})).unwrap().get("error").is_some());
    assert!(run(&mut desk, "update_note", json!({"note_id": "n1", "content": "x"})).unwrap().get("error").is_some());
    assert!(run(&mut desk, "delete_note", json!({"note_id": "n1"})).unwrap().get("error").is_some());
    assert!(actions(desk).is_empty());
    let mut named = Desk::new(Records::default(), Day::of_ms(0)).with_words("delete the note n1, please");
    run(&mut named, "delete_note", json!({"note_id": "n1"})).unwrap();
    assert_eq!(actions(named), [("delete_record".to_owned(), json!({"id": "n1"}))]);
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_change_nothing() {
    for (name, arguments) in [
        ("list_notes", json!({"limit": "all"})),
        ("list_notes", json!({"query": "x".repeat(501)})),
        ("get_note", json!({"note_id": ""})),
        ("create_note", json!({"content": "x"})),
        ("create_note", json!({"title": "\n"})),
        ("create_note", json!({"title": "x", "content": "x".repeat(100_001)})),
        ("update_note", json!({"note_id": "n1"})),
        ("update_note", json!({"title": "x"})),
        ("delete_note", json!({"note": "n1"})),
    ] {
        let mut desk = desk();
        assert!(run(&mut desk, name, arguments).is_err(), "{name}");
        assert!(actions(desk).is_empty(), "{name}");
    }
    for name in ["get_note", "delete_note"] {
        assert!(run(&mut desk(), name, json!({"note_id": "n9"})).unwrap().get("error").is_some(), "{name}");
    }
}
