//! Several agents, one after the other.
use serde_json::json;
use tonic::Code;
use weft_core::Reason;
use weft_proto::orchestrator::v1::ChatRequest;
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, actions, ask};

fn through(agents: &[&str]) -> ChatRequest {
    ChatRequest { pipeline: agents.iter().map(|&agent| agent.to_owned()).collect(), ..ask("prepare the launch") }
}

#[tokio::test]
async fn each_agent_knows_what_those_before_it_said_and_only_the_synthesis_is_told() {
    let weft = Orchestrator::start().await;
    let script = || {
        [
            Reply::tool("create_project", &json!({"name": "Launch"})),
            Reply::text("The project is there."),
            Reply::tool("create_task", &json!({"title": "Invite people"})),
            Reply::text("The task is there."),
            Reply::text("Готово: проект и задача."),
        ]
    };
    weft.llm.script(script());
    let plain = weft.chat(through(&["project_agent", "task_agent"])).await.unwrap();
    weft.llm.script(script());
    let heard = weft.stream(through(&["project_agent", "task_agent"])).await;
    let streamed = heard.end.unwrap();
    for answer in [&plain, &streamed] {
        assert_eq!((answer.response.as_str(), answer.agent.as_str()), ("Готово: проект и задача.", "task_agent"));
        let tables: Vec<String> = actions(answer).into_iter().map(|(_, table, _)| table).collect();
        assert_eq!(tables, ["projects", "tasks"]);
    }
    assert_eq!(heard.tokens.concat(), streamed.response);
    let calls = weft.llm.calls();
    let told = |at: usize| calls[at].body["messages"].to_string();
    assert!(!told(0).contains("previous_results"));
    assert!(told(2).contains("previous_results") && told(2).contains("The project is there."));
    assert!(told(4).contains("The project is there.") && told(4).contains("The task is there."));
    assert!(calls[4].body.get("tools").is_none());
}

#[tokio::test]
async fn every_agent_of_a_pipeline_is_bound_to_the_plan() {
    let weft = Orchestrator::start().await;
    let refused = weft.chat_on("free", through(&["task_agent", "note_agent"])).await.unwrap_err();
    assert_eq!((refused.code(), Reason::of(&refused)), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
    for agents in [&["task_agent"][..], &["task_agent"; 6], &["task_agent", "butler"], &["task_agent", ""]] {
        assert_eq!(weft.chat(through(agents)).await.unwrap_err().code(), Code::InvalidArgument, "{agents:?}");
    }
    let both = ChatRequest { agent: "task_agent".to_owned(), ..through(&["task_agent", "note_agent"]) };
    assert_eq!(weft.chat(both).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(weft.llm.calls().is_empty());
}

#[tokio::test]
async fn a_pipeline_that_breaks_off_in_the_middle_is_an_error_and_tells_nothing() {
    let weft = Orchestrator::start().await;
    let script = || {
        [
            Reply::tool("create_project", &json!({"name": "Launch"})),
            Reply::text("The project is there."),
            Reply::chunks(["The ", "task ", "is"]).cut_after(1),
        ]
    };
    weft.llm.script(script());
    let plain = weft.chat(through(&["project_agent", "task_agent", "task_agent"])).await.unwrap_err();
    weft.llm.script(script());
    let heard = weft.stream(through(&["project_agent", "task_agent", "task_agent"])).await;
    for refused in [plain, heard.end.unwrap_err()] {
        assert_eq!(
            (refused.code(), Reason::of(&refused)),
            (Code::Unavailable, Some(Reason::ProviderStreamInterrupted))
        );
    }
    assert!(heard.tokens.is_empty());
    // The third agent and the synthesis are never asked.
    assert_eq!(weft.llm.calls().len(), 6);
}

#[tokio::test]
async fn it_works_without_a_key() {
    let weft = Orchestrator::offline().await;
    let request =
        ChatRequest { message: "start a project called boat".to_owned(), ..through(&["project_agent", "task_agent"]) };
    let answer = weft.chat(request).await.unwrap();
    assert!(answer.response.starts_with("I created the project “Boat”."), "{}", answer.response);
    assert_eq!((answer.actions.len(), answer.model.as_str()), (1, "offline"));
}
