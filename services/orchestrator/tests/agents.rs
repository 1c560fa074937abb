//! Which agent and which model may be asked.
use tonic::{Code, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::ChatRequest;
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, say, with_token};

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
    let refused = weft.chat_on("none", say("hello")).await.unwrap_err();
    assert_eq!(told(&refused), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
}

#[tokio::test]
async fn an_agent_of_the_manifest_that_is_not_there_yet_is_not_available() {
    let weft = Orchestrator::start().await;
    for plan in ["free", "pro"] {
        let refused = weft.chat_on(plan, to_agent("checkpoint_agent")).await.unwrap_err();
        assert_eq!(told(&refused), (Code::InvalidArgument, Some(Reason::InvalidArgument)));
        assert!(refused.message().contains("not available"), "{}", refused.message());
    }
    assert_eq!(weft.chat_on("pro", to_agent("note_agent")).await.unwrap_err().code(), Code::InvalidArgument);
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
async fn there_are_answers_but_no_plans_yet() {
    let weft = Orchestrator::start().await;
    assert!(weft.chat(with_mode("direct")).await.is_ok());
    assert_eq!(
        told(&weft.chat(with_mode("plan")).await.unwrap_err()),
        (Code::Unimplemented, Some(Reason::Unimplemented))
    );
    assert_eq!(
        told(&weft.chat(with_mode("later")).await.unwrap_err()),
        (Code::InvalidArgument, Some(Reason::InvalidArgument))
    );
    let streamed = weft.stream(with_mode("plan")).await.end.unwrap_err();
    assert_eq!(told(&streamed), (Code::Unimplemented, Some(Reason::Unimplemented)));
}
