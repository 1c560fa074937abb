//! Which agent and which model may be asked.
use serde_json::json;
use tonic::{Code, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::ChatRequest;
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, ask, say, with_token};

fn to_agent(agent: &str) -> ChatRequest {
    ChatRequest { agent: agent.to_owned(), ..say("hello") }
}

fn with_model(model: &str) -> ChatRequest {
    ChatRequest { model: model.to_owned(), ..say("hello") }
}

fn with_mode(mode: &str) -> ChatRequest {
    ChatRequest { execution_mode: mode.to_owned(), ..say("hello") }
}

fn told(status: &Status) -> (Code, Option<Reason>) {
    (status.code(), Reason::of(status))
}

#[tokio::test]
async fn an_agent_is_asked_by_name_as_far_as_the_plan_goes() {
    let weft = Orchestrator::start().await;
    assert_eq!(weft.chat_on("free", to_agent("task_agent")).await.unwrap().agent, "task_agent");

    let refused = weft.chat_on("free", to_agent("note_agent")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
    let refused = weft.chat_on("none", to_agent("task_agent")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
    let refused = weft.chat_on("none", ask("hello")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
}

#[tokio::test]
async fn every_agent_of_the_product_answers_with_its_own_tools() {
    let weft = Orchestrator::start().await;
    let expected = [
        ("task_agent", 8),
        ("checkpoint_agent", 4),
        ("project_agent", 6 + 1),
        ("note_agent", 5),
        ("calendar_agent", 1),
        ("email_agent", 1),
        ("analytics_agent", 0),
    ];
    for (agent, tools) in expected {
        weft.llm.script([Reply::text("Hello.")]);
        assert_eq!(weft.chat(to_agent(agent)).await.unwrap().agent, agent);
        let call = weft.llm.calls().pop().unwrap();
        assert_eq!(call.body["tools"].as_array().map_or(0, Vec::len), tools, "{agent}");
    }
}

#[tokio::test]
async fn the_classifier_chooses_among_the_agents_of_the_plan() {
    let weft = Orchestrator::start().await;
    for (plan, named, agent) in [
        ("pro", "note_agent", "note_agent"),
        ("free", "project_agent", "project_agent"),
        ("free", "note_agent", "task_agent"),
        ("pro", "butler", "task_agent"),
    ] {
        weft.llm.script_for("gpt-4o-mini", [Reply::text(named)]);
        weft.llm.script_for("gpt-4o", [Reply::text("Hello.")]);
        assert_eq!(weft.chat_on(plan, ask("hello")).await.unwrap().agent, agent, "{plan} {named}");
    }
}

#[tokio::test]
async fn a_tool_of_another_agent_is_refused_and_fed_back_once() {
    let weft = Orchestrator::start().await;
    let foreign = || Reply::tool("create_note", &json!({"title": "x"}));
    weft.llm.script([foreign(), Reply::text("I cannot write notes.")]);
    let answer = weft.chat(say("write it down")).await.unwrap();
    assert_eq!((answer.response.as_str(), answer.actions.len()), ("I cannot write notes.", 0));
    weft.llm.script([foreign(), foreign()]);
    let refused = weft.chat(say("write it down")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, Some(Reason::ProviderStreamInterrupted)));
}

#[tokio::test]
async fn an_agent_asks_another_one_on_the_same_desk() {
    let weft = Orchestrator::start().await;
    weft.llm.script([
        Reply::tool("call_agent", &json!({"agent": "task_agent", "message": "create a task: call Ana"})),
        Reply::tool("create_task", &json!({"title": "Call Ana"})),
        Reply::text("It is created."),
        Reply::text("The mail asks you to call Ana; there is a task for it."),
    ]);
    let heard = weft.stream(to_agent("email_agent")).await;
    let answer = heard.end.unwrap();
    assert_eq!(answer.response, "The mail asks you to call Ana; there is a task for it.");
    assert_eq!(heard.tokens.concat(), answer.response);
    assert_eq!((answer.agent.as_str(), answer.actions.len()), ("email_agent", 1));
    let calls = weft.llm.calls();
    assert_eq!(calls[1].body["messages"].as_array().unwrap().last().unwrap()["content"], "create a task: call Ana");
    // It cannot ask on.
    assert_eq!(calls[1].body["tools"].as_array().unwrap().len(), 8);
    assert!(calls[3].body["messages"].to_string().contains("It is created."));
}

#[tokio::test]
async fn asking_others_is_bound_to_the_manifest_the_plan_and_the_rounds() {
    let weft = Orchestrator::start().await;
    let wish = |agent: &str| Reply::tool("call_agent", &json!({"agent": agent, "message": "do it"}));
    for agent in ["analytics_agent", "email_agent", "nobody"] {
        weft.llm.script([wish(agent), wish(agent)]);
        assert_eq!(weft.chat(to_agent("email_agent")).await.unwrap_err().code(), Code::Unavailable, "{agent}");
    }
    // Five rounds in all: two by the agent itself, and with each one of the other.
    weft.llm.script([wish("task_agent"), Reply::text("Once."), wish("task_agent"), Reply::text("Twice.")]);
    weft.llm.script([wish("task_agent"), Reply::text("That is all.")]);
    let answer = weft.chat(to_agent("email_agent")).await.unwrap();
    assert_eq!(answer.response, "That is all.");
    assert!(weft.llm.calls().pop().unwrap().body["messages"].to_string().contains("no rounds are left"));
}

#[tokio::test]
async fn an_unknown_agent_is_refused_without_repeating_it() {
    let weft = Orchestrator::start().await;
    for name in ["nobody", "TASK_AGENT", "task_agent ", &"x".repeat(1000)] {
        let refused = weft.chat(to_agent(name)).await.unwrap_err();
        assert_eq!(told(&refused), (Code::InvalidArgument, Some(Reason::InvalidArgument)));
        assert!(!refused.message().contains("nobody") && !refused.message().contains("xxx"));
    }
    assert!(weft.llm.calls().is_empty());
}

#[tokio::test]
async fn a_product_without_agents_in_code_says_so() {
    let weft = Orchestrator::start().await;
    let request = with_token(say("hello"), "companion", &weft.token("companion", "free", 600));
    let refused = weft.client().chat(request).await.unwrap_err();
    assert_eq!(told(&refused), (Code::Unimplemented, Some(Reason::Unimplemented)));
}

#[tokio::test]
async fn a_model_of_the_product_may_be_chosen_and_no_other() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::text("small")]);
    assert_eq!(weft.chat(with_model("gpt-4o-mini")).await.unwrap().model, "gpt-4o-mini");
    assert_eq!(weft.llm.calls()[0].model, "gpt-4o-mini");
    for name in ["gpt-9", "OFFLINE", "stub-1-1"] {
        let refused = weft.chat(with_model(name)).await.unwrap_err();
        assert_eq!(told(&refused), (Code::InvalidArgument, Some(Reason::InvalidArgument)), "{name}");
    }
    assert_eq!(weft.llm.calls().len(), 1);
}

#[tokio::test]
async fn who_asks_for_the_built_in_model_is_not_sent_elsewhere() {
    let weft = Orchestrator::start().await;
    assert_eq!(weft.chat(with_model("offline")).await.unwrap().model, "offline");
    assert!(weft.llm.calls().is_empty());
}

#[tokio::test]
async fn another_mode_is_refused() {
    let weft = Orchestrator::start().await;
    assert!(weft.chat(with_mode("direct")).await.is_ok());
    assert_eq!(
        told(&weft.chat(with_mode("later")).await.unwrap_err()),
        (Code::InvalidArgument, Some(Reason::InvalidArgument))
    );
}
