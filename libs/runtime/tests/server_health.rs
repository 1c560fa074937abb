//! Health and reflection.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use weft_testing::eventually;

use crate::support::Backend;

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn health(server: &Backend, service: &str) -> ServingStatus {
    HealthClient::new(server.stranger()).check(of(service)).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn a_server_that_runs_is_healthy_for_anybody_who_asks() {
    let server = Backend::start("billing").await;
    assert_eq!(health(&server, "").await, ServingStatus::Serving);
    assert_eq!(health(&server, "weft.billing.v1.EntitlementService").await, ServingStatus::Serving);
    let unknown = HealthClient::new(server.stranger()).check(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn health_follows_readiness() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let check = move || {
        let ready = asked.load(Ordering::SeqCst);
        async move { ready }
    };
    let server = Backend::configured("billing", |_| (), |server| server.ready(check)).await;
    for name in ["", "weft.billing.v1.EntitlementService"] {
        assert_eq!(health(&server, name).await, ServingStatus::NotServing);
    }
    for (is_ready, expected) in [(true, ServingStatus::Serving), (false, ServingStatus::NotServing)] {
        ready.store(is_ready, Ordering::SeqCst);
        eventually("the other status", Duration::from_secs(5), async || {
            health(&server, "").await == expected
                && health(&server, "weft.billing.v1.EntitlementService").await == expected
        })
        .await;
    }
}

/// A server whose check says yes until it is broken, and then does `what`.
async fn breakable<A>(broken: &Arc<AtomicBool>, what: fn() -> A) -> Backend
where
    A: Future<Output = bool> + Send + 'static,
{
    let broken = Arc::clone(broken);
    let check = move || {
        let is_broken = broken.load(Ordering::SeqCst);
        async move { if is_broken { what().await } else { true } }
    };
    Backend::configured("billing", |_| (), |server| server.ready(check)).await
}

#[tokio::test]
async fn a_check_that_hangs_or_panics_is_a_no() {
    let broken = Arc::new(AtomicBool::new(false));
    let hangs = breakable(&broken, std::future::pending).await;
    let panics = breakable(&broken, || async { panic!("as asked") }).await;
    for expected in [ServingStatus::Serving, ServingStatus::NotServing] {
        eventually("the other status", Duration::from_secs(5), async || {
            health(&hangs, "").await == expected && health(&panics, "").await == expected
        })
        .await;
        broken.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_watcher_hears_of_the_shutdown_and_does_not_hold_it_up() {
    let server = Backend::start("billing").await;
    let mut watch = HealthClient::new(server.stranger()).watch(of("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.mesh.shutdown().trigger();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    assert!(server.tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_busy_server_is_still_healthy() {
    let server = Backend::configured("billing", |config| config.weft_max_in_flight = 1, |server| server).await;
    let _watch = HealthClient::new(server.stranger()).watch(of("")).await.unwrap();
    let mut login = weft_proto::identity::v1::auth_service_client::AuthServiceClient::new(server.stranger());
    let (busy, health) = tokio::join!(login.login(crate::support::login("half a second")), async {
        eventually("a call", Duration::from_secs(5), async || server.fake.calls() == 1).await;
        health(&server, "").await
    });
    busy.unwrap();
    assert_eq!(health, ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_lists_what_the_server_serves() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let server = Backend::start("billing").await;
    let ask = |request| v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("weft.billing.v1.EntitlementService".to_owned())),
    ];
    let mut client = ServerReflectionClient::new(server.stranger());
    let answers = client.server_reflection_info(stream::iter(questions)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await;
    let MessageResponse::ListServicesResponse(list) = &answers[0] else { panic!("{answers:?}") };
    let mut names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "weft.billing.v1.EntitlementService",
            "weft.identity.v1.AuthService",
            "weft.identity.v1.KeyService",
            "weft.orchestrator.v1.ChatService"
        ]
    );
    assert!(matches!(&answers[1], MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn older_clients_find_reflection_too() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    let server = Backend::start("billing").await;
    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.stranger());
    let mut answers = client.server_reflection_info(stream::iter([question])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("weft.billing.v1.EntitlementService"));
}
