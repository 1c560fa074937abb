use serde_json::{Map, Value, json};

use super::agent;
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::domain::chat::Records;
use crate::domain::day::Day;
use crate::domain::json::object;
use crate::domain::task::Task;

const TODAY_MS: i64 = 1_795_132_800_000;

fn as_object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

/// A desk on 2026-11-20 with three tasks.
fn desk() -> Desk {
    let tasks = [
        json!({"id": "t1", "title": "Call Ana", "due_date": TODAY_MS + 3_600_000, "priority": "high",
            "comments": [{"id": "c1", "content": "away until noon"}]}),
        json!({"id": "t2", "title": "Buy milk", "status": "done", "due_date": TODAY_MS}),
        json!({"id": 3, "title": "Taxes", "status": "in_progress", "due_date": TODAY_MS + 86_400_000}),
    ];
    let tasks = tasks.into_iter().map(|task| Task::read(as_object(task)).unwrap()).collect();
    Desk::new(Records { tasks, ..Records::default() }, Day::of_ms(TODAY_MS))
}

fn run(desk: &mut Desk, name: &str, arguments: Value) -> Result<Value, Misfit> {
    (agent().tool(name).unwrap().run)(desk, as_object(arguments))
}

/// What the client was told to do: type, table and data of each action.
fn actions(desk: Desk) -> Vec<(String, String, Value)> {
    let told = |action: weft_proto::orchestrator::v1::PlanAction| {
        (action.r#type, action.table.unwrap(), Value::Object(object(action.data.unwrap())))
    };
    desk.into_actions().into_iter().map(told).collect()
}

fn titles(result: &Value) -> Vec<&str> {
    result["tasks"].as_array().unwrap().iter().map(|task| task["title"].as_str().unwrap()).collect()
}

#[test]
fn there_are_eight_tools() {
    let agent = agent();
    let names: Vec<&str> = agent.tools.iter().map(|tool| &*tool.spec.name).collect();
    assert_eq!(
        names,
        [
            "list_tasks",
            "create_task",
            "update_task",
            "delete_task",
            "list_tasks_due_today",
            "list_task_comments",
            "add_task_comment",
            "delete_task_comment"
        ]
    );
}

#[test]
fn list_tasks_filters_by_status_and_priority() {
    let mut desk = desk();
    assert_eq!(titles(&run(&mut desk, "list_tasks", json!({})).unwrap()), ["Call Ana", "Buy milk", "Taxes"]);
    let in_progress = json!({"status": "in_progress", "priority": "", "limit": -1});
    assert_eq!(titles(&run(&mut desk, "list_tasks", in_progress).unwrap()), ["Taxes"]);
    assert_eq!(titles(&run(&mut desk, "list_tasks", json!({"priority": "high"})).unwrap()), ["Call Ana"]);
    let one = run(&mut desk, "list_tasks", json!({"limit": 1})).unwrap();
    assert_eq!((titles(&one), &one["count"]), (vec!["Call Ana"], &json!(3)));
    assert!(actions(desk).is_empty());
}

#[test]
fn list_tasks_shows_long_descriptions_shortened() {
    let task = json!({"id": "1", "title": "x", "description": "é".repeat(400)});
    let tasks = vec![Task::read(as_object(task)).unwrap()];
    let mut desk = Desk::new(Records { tasks, ..Records::default() }, Day::of_ms(0));
    let listed = run(&mut desk, "list_tasks", json!({})).unwrap();
    assert_eq!(listed["tasks"][0]["description"].as_str().unwrap().chars().count(), 301);
}

#[test]
fn create_task_sets_every_field() {
    let mut desk = desk();
    let given = json!({"title": " Call Bo ", "description": "about the boat", "status": "in_progress", "priority": "low",
        "assignees": "[\"Ana\",\"Bo\"]", "due_date": TODAY_MS, "is_ai_suggested": 1, "is_approved": -1});
    let result = run(&mut desk, "create_task", given).unwrap();
    let told = actions(desk);
    let [(kind, table, data)] = &told[..] else { panic!("one action") };
    assert_eq!((kind.as_str(), table.as_str()), ("create_record", "tasks"));
    let mut data = as_object(data.clone());
    assert_eq!(data.remove("id").as_ref(), Some(&result["created"]["id"]));
    assert_eq!(
        Value::Object(data),
        json!({"title": "Call Bo", "description": "about the boat", "status": "in_progress", "priority": "low",
            "assignees": "[\"Ana\",\"Bo\"]", "due_date": TODAY_MS, "is_ai_suggested": true, "is_approved": false})
    );
}

#[test]
fn create_task_takes_minus_one_for_absent_numbers() {
    let mut desk = desk();
    let given =
        json!({"title": "x", "due_date": -1, "is_ai_suggested": -1, "is_approved": -1, "status": "", "assignees": ""});
    run(&mut desk, "create_task", given).unwrap();
    let told = actions(desk);
    let data = &told[0].2;
    assert_eq!(data["due_date"], Value::Null);
    assert_eq!((&data["is_ai_suggested"], &data["is_approved"]), (&json!(false), &json!(true)));
    assert_eq!(
        (&data["status"], &data["priority"], &data["assignees"]),
        (&json!("todo"), &json!("medium"), &json!("[]"))
    );
}

#[test]
fn a_created_task_can_be_worked_on_at_once() {
    let mut desk = desk();
    let id = run(&mut desk, "create_task", json!({"title": "New"})).unwrap()["created"]["id"].clone();
    run(&mut desk, "add_task_comment", json!({"task_id": id, "content": "first"})).unwrap();
    let comments = run(&mut desk, "list_task_comments", json!({"task_id": id})).unwrap();
    assert_eq!(comments["comments"][0]["content"], "first");
    assert!(titles(&run(&mut desk, "list_tasks", json!({})).unwrap()).contains(&"New"));
}

#[test]
fn update_task_changes_only_what_is_given() {
    let mut desk = desk();
    run(&mut desk, "update_task", json!({"task_id": "t1", "status": "done", "due_date": -1, "title": ""})).unwrap();
    run(&mut desk, "update_task", json!({"task_id": "t1", "due_date": 0})).unwrap();
    let listed = run(&mut desk, "list_tasks", json!({"status": "done"})).unwrap();
    assert_eq!(listed["tasks"][0]["due_date"], Value::Null);
    assert_eq!(
        actions(desk),
        [
            ("update_record".to_owned(), "tasks".to_owned(), json!({"id": "t1", "status": "done"})),
            ("update_record".to_owned(), "tasks".to_owned(), json!({"id": "t1", "due_date": null})),
        ]
    );
}

#[test]
fn a_numeric_id_goes_back_as_a_number() {
    let mut desk = desk();
    run(&mut desk, "update_task", json!({"task_id": "3", "priority": "low"})).unwrap();
    run(&mut desk, "delete_task", json!({"task_id": 3})).unwrap();
    let told = actions(desk);
    assert_eq!(told[0].2, json!({"id": 3, "priority": "low"}));
    assert_eq!(told[1], ("delete_record".to_owned(), "tasks".to_owned(), json!({"id": 3})));
}

#[test]
fn delete_task_takes_it_off_the_desk() {
    let mut desk = desk();
    run(&mut desk, "delete_task", json!({"task_id": "t2"})).unwrap();
    assert_eq!(titles(&run(&mut desk, "list_tasks", json!({})).unwrap()), ["Call Ana", "Taxes"]);
    assert_eq!(actions(desk), [("delete_record".to_owned(), "tasks".to_owned(), json!({"id": "t2"}))]);
}

#[test]
fn list_tasks_due_today_leaves_out_what_is_done_or_later() {
    assert_eq!(titles(&run(&mut desk(), "list_tasks_due_today", json!({})).unwrap()), ["Call Ana"]);
}

#[test]
fn list_task_comments_gives_them_as_they_were_sent() {
    let comments = run(&mut desk(), "list_task_comments", json!({"task_id": "t1"})).unwrap();
    assert_eq!(comments, json!({"count": 1, "comments": [{"id": "c1", "content": "away until noon"}]}));
}

#[test]
fn add_task_comment_names_its_task() {
    let mut desk = desk();
    let result = run(&mut desk, "add_task_comment", json!({"task_id": "t1", "content": "call at two"})).unwrap();
    let told = actions(desk);
    let data = json!({"id": result["created"]["id"], "task_id": "t1", "content": "call at two"});
    assert_eq!(told, [("create_record".to_owned(), "task_comments".to_owned(), data)]);
}

#[test]
fn delete_task_comment_takes_the_comments_id() {
    let mut desk = desk();
    run(&mut desk, "delete_task_comment", json!({"comment_id": "c1"})).unwrap();
    assert_eq!(run(&mut desk, "list_task_comments", json!({"task_id": "t1"})).unwrap()["count"], 0);
    assert_eq!(actions(desk), [("delete_record".to_owned(), "task_comments".to_owned(), json!({"id": "c1"}))]);
}

#[test]
fn an_invented_id_changes_nothing() {
    for (name, arguments) in [
        ("update_task", json!({"task_id": "t9", "status": "done"})),
        ("delete_task", json!({"task_id": "t9"})),
        ("list_task_comments", json!({"task_id": "t9"})),
        ("add_task_comment", json!({"task_id": "t9", "content": "x"})),
        ("delete_task_comment", json!({"comment_id": "c9"})),
    ] {
        let mut desk = desk();
        assert!(run(&mut desk, name, arguments).unwrap().get("error").is_some(), "{name}");
        assert!(actions(desk).is_empty(), "{name}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_change_nothing() {
    for (name, arguments) in [
        ("list_tasks", json!({"status": "someday"})),
        ("list_tasks", json!({"limit": -2})),
        ("list_tasks", json!({"colour": "red"})),
        ("create_task", json!({})),
        ("create_task", json!({"title": " "})),
        ("create_task", json!({"title": "x".repeat(501)})),
        ("create_task", json!({"title": "x", "due_date": "tomorrow"})),
        ("create_task", json!({"title": "x", "due_date": 1.5})),
        ("create_task", json!({"title": "x", "assignees": "Ana"})),
        ("create_task", json!({"title": "x", "is_approved": 2})),
        ("update_task", json!({"task_id": "t1"})),
        ("update_task", json!({"task_id": "", "status": "done"})),
        ("update_task", json!({"status": "done"})),
        ("delete_task", json!({})),
        ("delete_task", json!({"task_id": ["t1"]})),
        ("list_tasks_due_today", json!({"day": 1})),
        ("list_task_comments", json!({"task": "t1"})),
        ("add_task_comment", json!({"task_id": "t1", "content": ""})),
        ("add_task_comment", json!({"task_id": "t1"})),
        ("delete_task_comment", json!({"comment_id": null})),
    ] {
        let mut desk = desk();
        let told = format!("{name} {arguments}");
        assert!(run(&mut desk, name, arguments).is_err(), "{told}");
        assert!(actions(desk).is_empty(), "{told}");
    }
}

/// A value of a schema's property, as a model would write it.
fn sample(property: &Value) -> Value {
    match (property["enum"].as_array(), property["type"].as_str().unwrap()) {
        (Some(values), _) => values.last().unwrap().clone(),
        (None, "integer") => json!(5),
        (None, _) => json!("[\"t1\"]"),
    }
}

#[test]
fn the_schemas_describe_what_the_tools_take() {
    for tool in agent().tools {
        let schema = &tool.spec.parameters;
        assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
        let properties = schema["properties"].as_object().unwrap();
        let all: Map<String, Value> =
            properties.iter().map(|(name, property)| (name.clone(), sample(property))).collect();
        assert!((tool.run)(&mut desk(), all.clone()).is_ok(), "{} takes all it names", tool.spec.name);
        for name in schema["required"].as_array().unwrap() {
            let mut less = all.clone();
            less.remove(name.as_str().unwrap());
            assert!((tool.run)(&mut desk(), less).is_err(), "{} needs {name}", tool.spec.name);
        }
        for (name, property) in properties.iter().filter(|(_, property)| property["type"] == "integer") {
            let absent = all.clone().into_iter().chain([(name.clone(), json!(-1))]).collect();
            assert_eq!(property.get("minimum").unwrap_or(&property["enum"][0]), &json!(-1));
            assert!((tool.run)(&mut desk(), absent).is_ok(), "{} takes -1 for {name}", tool.spec.name);
        }
    }
}

#[test]
fn a_client_that_sends_no_tasks_may_name_them_by_id_and_a_model_may_not() {
    let calls = [
        ("update_task", json!({"task_id": "t9", "title": "x"})),
        ("delete_task", json!({"task_id": "t9"})),
        ("add_task_comment", json!({"task_id": "t9", "content": "x"})),
        ("delete_task_comment", json!({"comment_id": "t9"})),
    ];
    let told = |mut desk: Desk| {
        let results = calls.clone().map(|(name, given)| run(&mut desk, name, given).unwrap());
        let refused = results.iter().filter(|result| result.get("error").is_some()).count();
        (refused, actions(desk).len())
    };
    let empty = || Desk::new(Records::default(), Day::of_ms(0));
    assert_eq!(told(empty()), (4, 0));
    assert_eq!(told(empty().with_words("finish t99, at9 and tt9")), (4, 0));
    assert_eq!(told(empty().with_words("finish (t9)!")), (0, 4));
    // Records that were sent are all there are, whatever a text says.
    assert_eq!(told(desk().with_words("finish t9")), (4, 0));
}
