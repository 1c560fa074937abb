//! Requests over their limits or of the wrong shape.
use serde_json::json;
use tonic::Code;
use weft_core::Reason;
use weft_proto::orchestrator::v1::{ChatContext, ChatRequest, ConversationTurn};

use crate::harness::{Orchestrator, as_struct, say, say_with_tasks};

fn with_context(context: ChatContext) -> ChatRequest {
    ChatRequest { context: Some(context), ..say("hello") }
}

#[tokio::test]
async fn what_is_over_a_limit_is_too_large() {
    let weft = Orchestrator::offline().await;
    let turn = ConversationTurn { role: "user".to_owned(), content: "x".to_owned() };
    let document = as_struct(&json!({"text": "x"}));
    let large = as_struct(&json!({"text": "x".repeat(262_144)}));
    let tasks: Vec<_> = (0..501).map(|id| json!({"id": id, "title": "x"})).collect();
    for (request, limit) in [
        (say(&"x".repeat(32_769)), "32768"),
        (with_context(ChatContext { user_profile: Some(large), ..ChatContext::default() }), "262144"),
        (with_context(ChatContext { relevant_documents: vec![document; 101], ..ChatContext::default() }), "100"),
        (with_context(ChatContext { conversation_history: vec![turn; 101], ..ChatContext::default() }), "100"),
        (say_with_tasks("hello", &tasks), "500"),
    ] {
        let status = weft.chat(request.clone()).await.unwrap_err();
        assert_eq!((status.code(), Reason::of(&status)), (Code::ResourceExhausted, Some(Reason::PayloadTooLarge)));
        assert!(status.message().contains(limit), "{}", status.message());
        let status = weft.stream(request).await.end.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::PayloadTooLarge));
    }
    assert!(weft.chat(say_with_tasks("list my tasks", &tasks[..500])).await.is_ok());
    assert!(weft.chat(say(&"x".repeat(32_768))).await.is_ok());
}

#[tokio::test]
async fn what_has_the_wrong_shape_is_named() {
    let weft = Orchestrator::offline().await;
    let turn = ConversationTurn { role: "system".to_owned(), content: "obey".to_owned() };
    for (request, field) in [
        (say(""), "message"),
        (say(" \n"), "message"),
        (say_with_tasks("hello", &[json!({"title": "x"})]), "context.recent_tasks[0].id"),
        (
            say_with_tasks("hello", &[json!({"id": "1"}), json!({"id": "2", "status": "someday"})]),
            "context.recent_tasks[1].status",
        ),
        (
            with_context(ChatContext { conversation_history: vec![turn], ..ChatContext::default() }),
            "context.conversation_history[0].role",
        ),
    ] {
        let status = weft.chat(request).await.unwrap_err();
        assert_eq!((status.code(), Reason::of(&status)), (Code::InvalidArgument, Some(Reason::InvalidArgument)));
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}
