//! Which models somebody may use, and whether they answer.
use std::sync::Arc;

use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::model_service_client::ModelServiceClient;
use weft_proto::orchestrator::v1::provider_key_service_client::ProviderKeyServiceClient;
use weft_proto::orchestrator::v1::{
    CreateProviderKeyRequest, GetModelRequest, ListModelsRequest, Model, TestModelRequest, TestModelResponse,
};
use weft_testing::llm::Reply;
use weft_testing::{Database, on_both_databases};

use crate::harness::{Orchestrator, Start, with_token};

pub struct World(Orchestrator);

impl World {
    pub async fn on(database: Database) -> World {
        let database = Some(Arc::new(database));
        World(Orchestrator::start_with(Start { database, ..Start::default() }).await)
    }
}

fn client(at: &Orchestrator) -> ModelServiceClient<Channel> {
    ModelServiceClient::new(at.channel.clone())
}

fn as_user<M>(at: &Orchestrator, product: &str, user: &str, message: M) -> tonic::Request<M> {
    with_token(message, product, &at.token(product, user, 600))
}

async fn list(at: &Orchestrator, product: &str, user: &str) -> Vec<Model> {
    let request = as_user(at, product, user, ListModelsRequest {});
    client(at).list_models(request).await.unwrap().into_inner().models
}

async fn test(at: &Orchestrator, user: &str, model: &str, key_id: &str) -> Result<TestModelResponse, Status> {
    let request = TestModelRequest { model: model.to_owned(), key_id: key_id.to_owned() };
    client(at).test_model(as_user(at, "adiuva", user, request)).await.map(Response::into_inner)
}

async fn keep(at: &Orchestrator, product: &str, provider: &str) -> String {
    let (provider, key) = (provider.to_owned(), "sk-of-the-user-1".to_owned());
    let request = CreateProviderKeyRequest { provider, key, ..Default::default() };
    let mut client = ProviderKeyServiceClient::new(at.channel.clone());
    client.create_provider_key(as_user(at, product, "ana", request)).await.unwrap().into_inner().id
}

on_both_databases! {
    models_are_those_that_somebody_can_ask
    a_test_says_what_is_wrong_and_is_paid_like_any_call
    tests_are_ten_a_minute
}

async fn models_are_those_that_somebody_can_ask(World(here): &World) {
    let ids = |models: &[Model]| models.iter().map(|model| model.id.clone()).collect::<Vec<_>>();
    let ours = list(here, "adiuva", "ana").await;
    assert!(ids(&ours).is_sorted() && ids(&ours).contains(&"offline".to_owned()), "{ours:?}");
    assert!(ours.iter().all(|model| ["openai", "offline"].contains(&model.provider.as_str()) && !model.own_key));
    let default = ours.iter().find(|model| model.is_default).unwrap();
    assert!(default.input_microdollars.is_some() && default.output_microdollars.is_some());
    // The operator has no key of Anthropic; the user brings one.
    let before = list(here, "cofounder", "ana").await;
    assert!(!ids(&before).contains(&"sonnet".to_owned()), "{before:?}");
    keep(here, "cofounder", "anthropic").await;
    let after = list(here, "cofounder", "ana").await;
    let sonnet = after.iter().find(|model| model.id == "sonnet").unwrap();
    assert!(sonnet.own_key && sonnet.is_default && sonnet.provider == "anthropic");
    let get = |id: &str| as_user(here, "cofounder", "ana", GetModelRequest { id: id.to_owned() });
    assert_eq!(client(here).get_model(get("sonnet")).await.unwrap().into_inner(), *sonnet);
    let unknown = client(here).get_model(get("gpt-of-nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let others = as_user(here, "cofounder", "bob", GetModelRequest { id: "sonnet".to_owned() });
    assert_eq!(client(here).get_model(others).await.unwrap_err().message(), unknown.message());
}

async fn a_test_says_what_is_wrong_and_is_paid_like_any_call(World(here): &World) {
    let poor = test(here, "paying-poor", "", "").await.unwrap_err();
    assert_eq!(Reason::of(&poor), Some(Reason::InsufficientCredits));
    here.book.give("paying-ana", 1_000_000_000);
    let well = test(here, "paying-ana", "", "").await.unwrap();
    assert!(well.ok && well.problem.is_empty(), "{well:?}");
    assert!(here.book.balance("paying-ana") < 1_000_000_000);
    let id = keep(here, "adiuva", "openai").await;
    let asked = here.llm.calls().len();
    assert!(test(here, "ana", "", &id).await.unwrap().ok);
    let call = here.llm.calls().pop().unwrap();
    assert_eq!((here.llm.calls().len(), call.key.as_deref()), (asked + 1, Some("sk-of-the-user-1")));
    let many = |status| vec![Reply::status(status); 3];
    for (status, problem) in [(401, "key_refused"), (404, "unknown_model"), (429, "rate_limited"), (500, "unreachable")]
    {
        here.llm.script(many(status));
        let told = test(here, "ana", "", &id).await.unwrap();
        assert_eq!((told.ok, told.problem.as_str()), (false, problem));
        here.llm.forget();
    }
    for (model, key) in [("gpt-of-nobody", ""), ("", "a key of nobody"), ("claude-x", id.as_str())] {
        assert_eq!(test(here, "ana", model, key).await.unwrap_err().code(), Code::NotFound, "{model} {key}");
    }
    assert_eq!(test(here, "bob", "", &id).await.unwrap_err().code(), Code::NotFound);
}

async fn tests_are_ten_a_minute(World(here): &World) {
    for _ in 0..10 {
        assert!(test(here, "ana", "offline", "").await.unwrap().ok);
    }
    let refused = test(here, "ana", "offline", "").await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::RateLimited));
    assert!(test(here, "bob", "offline", "").await.unwrap().ok);
}
