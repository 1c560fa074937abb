//! Who may chat.
use tonic::{Code, Request, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::ChatRequest;

use crate::harness::{Orchestrator, say, with_token};

/// Both RPCs say the same.
async fn outcome(
    weft: &Orchestrator,
    request: impl Fn() -> Request<ChatRequest>,
) -> Result<(), (Code, Option<Reason>)> {
    let told = |status: Status| (status.code(), Reason::of(&status));
    let chat = weft.client().chat(request()).await.map(drop).map_err(told);
    let stream = weft.client().stream_chat(request()).await.map(drop).map_err(told);
    assert_eq!(chat, stream);
    chat
}

#[tokio::test]
async fn only_a_signed_in_user_of_the_product_may_chat() {
    let weft = Orchestrator::offline().await;
    let good = weft.token("adiuva", "pro", 600);
    let expired = weft.token("adiuva", "pro", -1);
    let foreign = weft.token("companion", "free", 600);
    let tampered = format!("{}x", &good[..good.len() - 1]);
    let stranger = Orchestrator::offline().await.token("adiuva", "pro", 600);

    let unauthenticated = Err((Code::Unauthenticated, Some(Reason::Unauthenticated)));
    assert_eq!(outcome(&weft, || with_token(say("hello"), "adiuva", &good)).await, Ok(()));
    assert_eq!(outcome(&weft, || Request::new(say("hello"))).await, unauthenticated);
    for token in [expired.as_str(), tampered.as_str(), stranger.as_str(), "", "nonsense"] {
        assert_eq!(outcome(&weft, || with_token(say("hello"), "adiuva", token)).await, unauthenticated, "{token}");
    }
    let mismatch = Err((Code::PermissionDenied, Some(Reason::ProductMismatch)));
    assert_eq!(outcome(&weft, || with_token(say("hello"), "adiuva", &foreign)).await, mismatch);
    assert_eq!(outcome(&weft, || with_token(say("hello"), "companion", &good)).await, mismatch);
}

#[tokio::test]
async fn a_product_that_does_not_exist_is_refused() {
    let weft = Orchestrator::offline().await;
    let token = weft.token("nowhere", "pro", 600);
    let refused = outcome(&weft, || with_token(say("hello"), "nowhere", &token)).await;
    assert_eq!(refused, Err((Code::InvalidArgument, Some(Reason::InvalidArgument))));
}
