//! What a caller hears of a server.
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;
use weft_core::{Clock, Reason};
use weft_proto::Channel;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_proto::orchestrator::v1::chat_service_server::ChatServiceServer;
use weft_runtime::telemetry::metrics_text;
use weft_runtime::{Mesh, Server, Shutdown, Tasks};
use weft_testing::eventually;

use crate::support::{Backend, ENTITLEMENTS, LOGIN, caller, chat, config, entitlements, login, reason, signed_in};

/// Sends one gRPC message as it is.
async fn raw(channel: Channel, path: &str, message: &[u8], headers: &[(&str, &str)]) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    send(channel, path, framed.freeze(), headers).await
}

async fn send(channel: Channel, path: &str, body: Bytes, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    channel.oneshot(request.body(Body::new(Full::new(body))).unwrap()).await.unwrap()
}

fn status(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("a status")
}

#[tokio::test]
async fn an_answer_carries_the_id_of_its_request() {
    let server = Backend::start("identity").await;
    let made = raw(server.stranger(), LOGIN, b"", &[]).await;
    let made = made.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 36);
    assert_eq!(*server.fake.last().1.request_id, *made);

    let kept = raw(server.stranger(), LOGIN, b"", &[("x-request-id", "order-7_a")]).await;
    assert_eq!(kept.headers()["x-request-id"], "order-7_a");
    assert_eq!(&*server.fake.last().1.request_id, "order-7_a");

    for strange in ["a b", "a/b", "a\"b", &"x".repeat(129), ""] {
        let replaced = raw(server.stranger(), LOGIN, b"", &[("x-request-id", strange)]).await;
        assert_eq!(replaced.headers()["x-request-id"].len(), 36, "{strange}");
    }
}

#[tokio::test]
async fn a_refusal_carries_the_id_of_its_request_too() {
    let server = Backend::start("billing").await;
    let refused = raw(server.stranger(), ENTITLEMENTS, b"", &[("x-request-id", "abc")]).await;
    assert_eq!(refused.headers()["x-request-id"], "abc");
    assert_eq!(status(refused.headers()).code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_connection_outlives_any_number_of_refusals() {
    let server = Backend::start("billing").await;
    let channel = server.stranger();
    for round in 0..400 {
        let client = || EntitlementServiceClient::new(channel.clone());
        let calls = (0..16).map(|_| async { client().get_entitlements(entitlements("x")).await });
        for refused in join_all(calls).await {
            let status = refused.unwrap_err();
            assert_eq!(Reason::of(&status), Some(Reason::Unauthenticated), "round {round}: {status:?}");
        }
    }
}

#[tokio::test]
async fn refusals_by_auth_are_counted() {
    let server = Backend::start("counting").await;
    for _ in 0..3 {
        let refused = EntitlementServiceClient::new(server.stranger()).get_entitlements(entitlements("x")).await;
        assert_eq!(reason(refused), Reason::Unauthenticated);
    }
    AuthServiceClient::new(server.stranger()).login(login("x")).await.unwrap();
    let labels = |rpc: &str, code: &str| format!("{{service=\"counting\",rpc=\"{rpc}\",code=\"{code}\"}}");
    let refusals = labels("weft.billing.v1.EntitlementService/GetEntitlements", "UNAUTHENTICATED");
    let successes = labels("weft.identity.v1.AuthService/Login", "OK");
    eventually("counting", Duration::from_secs(5), async || {
        let text = metrics_text();
        let has = |line: &str| text.lines().any(|found| found == line);
        has(&format!("weft_rpc_server_requests_total{refusals} 3"))
            && has(&format!("weft_rpc_server_requests_total{successes} 1"))
            && has(&format!("weft_rpc_server_seconds_count{successes} 1"))
    })
    .await;
    assert_eq!(server.fake.calls(), 1);
}

#[tokio::test]
async fn an_unknown_rpc_is_unimplemented_and_does_not_name_a_metric() {
    let server = Backend::start("unknown-rpc").await;
    for path in ["/weft.billing.v1.EntitlementService/Nope", "/nobody.Service/Do", "/", "/grpc.health.v1.HealthX/Check"]
    {
        let answer = raw(server.stranger(), path, b"", &[]).await;
        assert_eq!(Reason::of(&status(answer.headers())), Some(Reason::Unimplemented), "{path}");
    }
    let counted = "weft_rpc_server_requests_total{service=\"unknown-rpc\",rpc=\"unknown\",code=\"UNIMPLEMENTED\"} 4";
    eventually("counting", Duration::from_secs(5), async || metrics_text().contains(counted)).await;
    assert!(!metrics_text().contains("nobody.Service"));
}

#[tokio::test]
async fn a_panic_becomes_internal_and_the_server_lives() {
    let server = Backend::start("billing").await;
    let mut client = EntitlementServiceClient::new(server.channel());
    let mut neighbour = client.clone();
    let (panicked, other) = tokio::join!(
        client.get_entitlements(entitlements("panic")),
        neighbour.get_entitlements(entitlements("half a second"))
    );
    let panicked = panicked.unwrap_err();
    assert_eq!(Reason::of(&panicked), Some(Reason::Internal));
    assert_eq!(panicked.message(), "something went wrong on our side");
    other.unwrap();
    client.get_entitlements(entitlements("x")).await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_only_that_stream() {
    let server = Backend::start("orchestrator").await;
    let mut client = ChatServiceClient::new(server.channel());
    let mut living = client.stream_chat(signed_in(chat("half a second"))).await.unwrap().into_inner();
    let mut dying = client.stream_chat(signed_in(chat("panic"))).await.unwrap().into_inner();
    assert!(dying.message().await.unwrap().is_some());
    assert_eq!(reason(dying.message().await), Reason::Internal);
    // On the same connection.
    assert!(living.message().await.unwrap().is_some());
    assert!(living.message().await.unwrap().is_some());
    assert!(living.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_malformed_message_is_the_callers_mistake() {
    let server = Backend::start("identity").await;
    let garbage = raw(server.stranger(), LOGIN, &[0xff; 7], &[]).await;
    let not_utf8 = raw(server.stranger(), LOGIN, &[0x0a, 0x02, 0xc3, 0x28], &[]).await;
    let cut = send(server.stranger(), LOGIN, Bytes::from_static(&[0, 0, 0, 0, 9, 1]), &[]).await;
    let flag = send(server.stranger(), LOGIN, Bytes::from_static(&[9, 0, 0, 0, 0]), &[]).await;
    let none = send(server.stranger(), LOGIN, Bytes::new(), &[]).await;
    for answer in [garbage, not_utf8, cut, flag, none] {
        let status = status(answer.headers());
        assert_eq!(Reason::of(&status), Some(Reason::InvalidArgument), "{status:?}");
        assert!(status.message().starts_with("the message cannot be read: "));
    }
    assert_eq!(server.fake.calls(), 0);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_so() {
    let server = Backend::start("identity").await;
    let answer = raw(server.stranger(), LOGIN, &vec![0; 4 * 1024 * 1024 + 1], &[]).await;
    assert_eq!(Reason::of(&status(answer.headers())), Some(Reason::PayloadTooLarge));
}

#[tokio::test]
async fn an_internal_error_leaves_as_a_fixed_sentence() {
    let server = Backend::start("billing").await;
    let error = EntitlementServiceClient::new(server.channel())
        .get_entitlements(entitlements("bare internal"))
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&error), Some(Reason::Internal));
    assert_eq!(error.message(), "something went wrong on our side");

    let orchestrator = Backend::start("orchestrator").await;
    let mut client = ChatServiceClient::new(orchestrator.channel());
    let mut stream = client.stream_chat(signed_in(chat("bare internal"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let error = stream.message().await.unwrap_err();
    assert_eq!((Reason::of(&error), error.message()), (Some(Reason::Internal), "something went wrong on our side"));
}

#[tokio::test]
async fn a_good_message_is_answered_in_full() {
    let server = Backend::start("identity").await;
    let answer = raw(server.stranger(), LOGIN, b"", &[]).await;
    assert_eq!(answer.headers().get("grpc-status"), None);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_guard_takes_keys_and_revocations_from_identity() {
    let identity = Backend::start("identity").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mesh = Mesh::new("orchestrator", config(&identity.url), Clock::System, Shutdown::new());
    let server = Server::new(&mesh, mesh.guard()).add(ChatServiceServer::new(identity.fake.clone()));
    let tasks = Tasks::new();
    tasks.spawn("server", async move { server.serve(listener).await.unwrap() });

    let channel = caller(&url).channel("orchestrator");
    ChatServiceClient::new(channel.clone()).stream_chat(signed_in(chat("x"))).await.unwrap();
    identity.fake.revoke();
    eventually("the refusal", Duration::from_secs(5), || {
        let mut client = ChatServiceClient::new(channel.clone());
        async move {
            let outcome = client.stream_chat(signed_in(chat("x"))).await;
            outcome.is_err_and(|status| Reason::of(&status) == Some(Reason::Unauthenticated))
        }
    })
    .await;
    // Following the revocations ends with the service.
    mesh.shutdown().trigger();
    assert!(tasks.drain(Duration::from_secs(5)).await);
    assert_eq!(mesh.tasks().running(), 0);
}
