//! Texts as vectors.
use tonic::{Code, Response, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::embedding_service_client::EmbeddingServiceClient;
use weft_proto::orchestrator::v1::{CreateEmbeddingsRequest, CreateEmbeddingsResponse};
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, RATE, with_token};

async fn embed(at: &Orchestrator, user: &str, model: &str, texts: &[&str]) -> Result<CreateEmbeddingsResponse, Status> {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    ask(at, user, CreateEmbeddingsRequest { texts, model: model.to_owned(), dimensions: 0 }).await
}

async fn ask(
    at: &Orchestrator,
    user: &str,
    request: CreateEmbeddingsRequest,
) -> Result<CreateEmbeddingsResponse, Status> {
    let request = with_token(request, "adiuva", &at.token("adiuva", user, 600));
    EmbeddingServiceClient::new(at.channel.clone()).create_embeddings(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_come_in_the_order_of_their_texts_and_are_paid_by_their_tokens() {
    let here = Orchestrator::start().await;
    here.book.give("paying-ana", 1_000_000_000);
    let answer = embed(&here, "paying-ana", "", &["one", "two words"]).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.prompt_tokens), ("text-embedding-3-small", 3));
    let firsts: Vec<&[f32]> = answer.embeddings.iter().map(|vector| &vector.values[..2]).collect();
    assert_eq!(firsts, [&[3.0, 0.0][..], &[9.0, 1.0]]);
    assert_eq!(here.book.balance("paying-ana"), 1_000_000_000 - 3 * RATE);
    let poor = embed(&here, "paying-poor", "", &["one"]).await.unwrap_err();
    assert_eq!(Reason::of(&poor), Some(Reason::InsufficientCredits));
    let short = CreateEmbeddingsRequest { texts: vec!["x".into()], dimensions: 3, ..Default::default() };
    assert_eq!(ask(&here, "ana", short).await.unwrap().embeddings[0].values.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_costs_nothing() {
    let here = Orchestrator::start().await;
    here.book.give("paying-ana", 1_000_000_000);
    here.llm.script(vec![Reply::status(500); 3]);
    let failed = embed(&here, "paying-ana", "", &["one"]).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert_eq!(here.book.balance("paying-ana"), 1_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_vectors_are_near_for_texts_that_share_words() {
    let here = Orchestrator::start().await;
    let texts = ["send the invoice to the client", "an invoice for a client", "a walk on the beach"];
    let answer = embed(&here, "ana", "offline", &texts).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.embeddings[0].values.len()), ("offline", 256));
    let near = |one: usize, other: usize| -> f32 {
        let pairs = answer.embeddings[one].values.iter().zip(&answer.embeddings[other].values);
        pairs.map(|(a, b)| a * b).sum()
    };
    assert!(near(0, 1) > near(0, 2) + 0.1 && (near(0, 0) - 1.0).abs() < 1e-4);
    assert!(here.llm.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused() {
    let here = Orchestrator::offline().await;
    let large = "x".repeat(262_145);
    let many = vec!["x"; 257];
    for (texts, code) in [
        (&[][..], Code::InvalidArgument),
        (&["x", " "], Code::InvalidArgument),
        (&many, Code::InvalidArgument),
        (&[large.as_str()], Code::ResourceExhausted),
    ] {
        assert_eq!(embed(&here, "ana", "", texts).await.unwrap_err().code(), code);
    }
    assert_eq!(embed(&here, "ana", "gpt-4o-mini", &["x"]).await.unwrap_err().code(), Code::InvalidArgument);
    for dimensions in [-1, 4_097] {
        let request = CreateEmbeddingsRequest { texts: vec!["x".into()], dimensions, ..Default::default() };
        assert_eq!(ask(&here, "ana", request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(embed(&here, "ana", "", &many[..256]).await.unwrap().embeddings.len(), 256);
}
