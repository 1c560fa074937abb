//! Without a key and without a provider.
use serde_json::{Value, json};

use weft_proto::orchestrator::v1::{ChatContext, ChatRequest};

use crate::harness::{DAY_MS, Orchestrator, TODAY_MS, actions, as_struct, ask, say, say_with_tasks};

fn tasks() -> [Value; 3] {
    [
        json!({"id": "t1", "title": "Call Ana", "due_date": TODAY_MS, "comments": [{"id": "c1", "content": "away until noon"}]}),
        json!({"id": "t2", "title": "Buy milk", "due_date": TODAY_MS + DAY_MS}),
        json!({"id": "t3", "title": "File taxes", "status": "done"}),
    ]
}

#[tokio::test]
async fn a_plain_sentence_makes_a_task() {
    let weft = Orchestrator::offline().await;
    let answer = weft.chat(say("create a task to call Ana tomorrow")).await.unwrap();
    assert_eq!(answer.response, "I created the task “Call Ana”, due 2026-11-21.");
    assert_eq!((answer.agent.as_str(), answer.model.as_str()), ("task_agent", "offline"));
    let told = actions(&answer);
    assert_eq!((told.len(), told[0].0.as_str(), told[0].1.as_str()), (1, "create_record", "tasks"));
    assert_eq!((told[0].2["title"].as_str(), told[0].2["status"].as_str()), ("Call Ana", "todo"));
    assert_eq!(told[0].2["due_date"], (TODAY_MS + DAY_MS).to_string());
    assert!(weft.llm.calls().is_empty());
}

#[tokio::test]
async fn tasks_are_read_from_the_context() {
    let weft = Orchestrator::offline().await;
    for (sentence, answer) in [
        (
            "list my tasks",
            "You have 3 tasks:\n- Call Ana, due 2026-11-20\n- Buy milk, due 2026-11-21\n- File taxes, done",
        ),
        ("what is due today?", "You have one task due today:\n- Call Ana, due 2026-11-20"),
        ("show the comments on call Ana", "Comments on “Call Ana”:\n- away until noon"),
        ("list tasks in progress", "You have no tasks."),
    ] {
        let told = weft.chat(say_with_tasks(sentence, &tasks())).await.unwrap();
        assert_eq!(told.response, answer, "{sentence}");
        assert!(told.actions.is_empty());
    }
}

#[tokio::test]
async fn sentences_change_what_they_name() {
    let weft = Orchestrator::offline().await;
    for (sentence, kind, table, field, value) in [
        ("mark Call Ana as done", "update_record", "tasks", "status", "done"),
        ("start working on buy milk", "update_record", "tasks", "status", "in_progress"),
        ("delete the task Buy milk", "delete_record", "tasks", "id", "t2"),
        ("comment on Buy milk: oat, not soy", "create_record", "task_comments", "content", "oat, not soy"),
        ("delete the comment 'away' from call Ana", "delete_record", "task_comments", "id", "c1"),
    ] {
        let answer = weft.chat(say_with_tasks(sentence, &tasks())).await.unwrap();
        let told = actions(&answer);
        assert_eq!(told.len(), 1, "{sentence}: {}", answer.response);
        assert_eq!(
            (told[0].0.as_str(), told[0].1.as_str(), told[0].2[field].as_str()),
            (kind, table, value),
            "{sentence}"
        );
        assert_eq!(answer.model, "offline");
    }
}

#[tokio::test]
async fn it_streams_word_by_word_and_says_what_it_is() {
    let weft = Orchestrator::offline().await;
    let told = weft.stream(say("what is the capital of France?")).await;
    let answer = told.end.unwrap();
    assert!(told.tokens.len() > 20);
    assert_eq!(told.tokens.concat(), answer.response);
    for word in ["offline model", "not a real language model", "OPENAI_API_KEY", "OPENAI_BASE_URL"] {
        assert!(answer.response.contains(word), "{}", answer.response);
    }
    assert_eq!(answer.model, "offline");
    assert!(!answer.response.contains("Paris"));
}

#[tokio::test]
async fn a_model_that_the_product_has_is_still_answered_honestly() {
    let weft = Orchestrator::offline().await;
    let mut request = say("hello");
    request.model = "gpt-4o".to_owned();
    assert_eq!(weft.chat(request).await.unwrap().model, "offline");
}

#[tokio::test]
async fn sentences_find_their_agent_and_change_what_they_name() {
    let weft = Orchestrator::offline().await;
    let context = ChatContext {
        projects: vec![as_struct(&json!({"id": "p1", "name": "Boat"}))],
        checkpoints: vec![as_struct(&json!({"id": "c1", "project_id": "p1", "title": "Launch", "date": TODAY_MS}))],
        notes: vec![as_struct(&json!({"id": "n1", "title": "Food", "content": "milk"}))],
        ..ChatContext::default()
    };
    for (sentence, agent, kind, table, field, value) in [
        ("create a task to call Ana", "task_agent", "create_record", "tasks", "title", "Call Ana"),
        ("start a project called car", "project_agent", "create_record", "projects", "name", "Car"),
        ("archive the project Boat", "project_agent", "update_record", "projects", "status", "archived"),
        ("delete the project Boat for good", "project_agent", "delete_record", "projects", "id", "p1"),
        (
            "add a checkpoint Paint to Boat by tomorrow",
            "checkpoint_agent",
            "create_record",
            "checkpoints",
            "project_id",
            "p1",
        ),
        ("move the checkpoint Launch to 2026-12-01", "checkpoint_agent", "update_record", "checkpoints", "id", "c1"),
        ("write a note called Car: blue", "note_agent", "create_record", "notes", "content", "blue"),
        ("add to the note Food: eggs", "note_agent", "update_record", "notes", "content", "milk\neggs"),
        ("delete the note Food", "note_agent", "delete_record", "notes", "id", "n1"),
    ] {
        let answer = weft.chat(ChatRequest { context: Some(context.clone()), ..ask(sentence) }).await.unwrap();
        assert_eq!(answer.agent, agent, "{sentence}");
        let told = actions(&answer);
        assert_eq!(told.len(), 1, "{sentence}: {}", answer.response);
        let (made, at, fields) = &told[0];
        assert_eq!((made.as_str(), at.as_str(), fields[field].as_str()), (kind, table, value), "{sentence}");
    }
}
