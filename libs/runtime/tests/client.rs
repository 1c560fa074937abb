//! What a channel does with a call.
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tonic::body::Body;
use tonic::{Request, Status};
use tower::ServiceExt;
use weft_core::Reason;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_runtime::telemetry::metrics_text;
use weft_testing::eventually;

use crate::support::{Backend, ENTITLEMENTS, Process, caller, chat, config, entitlements, login, reason, signed_in};

/// The `grpc-timeout` that arrived, in ms; our channels write µs.
fn timeout_ms(server: &Backend) -> Option<u64> {
    let (headers, _) = server.fake.last();
    let text = headers.get("grpc-timeout")?.to_str().unwrap();
    Some(text.strip_suffix('u').expect(text).parse::<u64>().unwrap() / 1000)
}

#[tokio::test]
async fn a_call_takes_its_deadline_along() {
    let server = Backend::start("billing").await;
    let mut client = EntitlementServiceClient::new(server.channel());
    client.get_entitlements(entitlements("x")).await.unwrap();
    let default = timeout_ms(&server).unwrap();
    assert!((29_000..=30_000).contains(&default), "{default}");

    let mut request = Request::new(entitlements("x"));
    request.set_timeout(Duration::from_secs(2));
    client.get_entitlements(request).await.unwrap();
    let own = timeout_ms(&server).unwrap();
    assert!((1_000..=2_000).contains(&own), "{own}");
}

#[tokio::test]
async fn a_stream_has_no_deadline_but_its_callers() {
    let server = Backend::start("orchestrator").await;
    let mut client = ChatServiceClient::new(server.channel());
    client.stream_chat(signed_in(chat("x"))).await.unwrap();
    assert_eq!(timeout_ms(&server), None);
    let mut request = signed_in(chat("x"));
    request.set_timeout(Duration::from_secs(2));
    client.stream_chat(request).await.unwrap();
    assert!(timeout_ms(&server).is_some());
}

#[tokio::test]
async fn a_deadline_holds_for_all_that_is_called_for_it() {
    let billing = Backend::start("billing").await;
    let orchestrator = Backend::start("orchestrator").await;
    orchestrator.fake.ask(caller(&billing.url).channel("billing"));
    let mut request = signed_in(chat("hang"));
    request.set_timeout(Duration::from_secs(2));
    let begun = Instant::now();
    let cut = ChatServiceClient::new(orchestrator.channel()).chat(request).await;
    assert_eq!(reason(cut), Reason::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(timeout_ms(&billing).unwrap() <= 2_000);
    let (headers, seen) = billing.fake.last();
    assert_eq!(seen.service.as_deref(), Some("gateway"));
    assert_eq!(seen.user().unwrap().sub, "u1");
    assert_eq!(headers["x-request-id"], *orchestrator.fake.last().1.request_id);
}

#[tokio::test]
async fn a_slow_server_is_cut_at_the_callers_deadline() {
    let server = Backend::start("billing").await;
    let mut request = Request::new(entitlements("hang"));
    request.set_timeout(Duration::from_millis(200));
    let begun = Instant::now();
    let cut = EntitlementServiceClient::new(server.channel()).get_entitlements(request).await;
    assert_eq!(reason(cut), Reason::DeadlineExceeded);
    assert!(begun.elapsed() >= Duration::from_millis(190) && begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_peer_that_accepts_but_never_speaks_is_cut_too() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let mut request = Request::new(entitlements("x"));
    request.set_timeout(Duration::from_millis(200));
    let cut = EntitlementServiceClient::new(caller(&url).channel("billing")).get_entitlements(request).await;
    assert_eq!(reason(cut), Reason::DeadlineExceeded);
}

#[tokio::test]
async fn a_peer_that_goes_mute_is_unavailable_soon() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let _peer = tokio::task::JoinSet::from_iter([async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = mute.accept().await.unwrap();
            // The settings that begin HTTP/2, and then nothing more.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            held.push(stream);
        }
    }]);
    let mut client = EntitlementServiceClient::new(caller(&url).channel("billing"));
    for _ in 0..2 {
        let begun = Instant::now();
        assert_eq!(reason(client.get_entitlements(entitlements("x")).await), Reason::Unavailable);
        // The call itself could take thirty.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_dead_peer_is_unavailable_within_a_second_and_found_again() {
    let process = Process::start("billing", "127.0.0.1:0");
    let mut client = EntitlementServiceClient::new(caller(&format!("http://{}", process.address)).channel("billing"));
    client.get_entitlements(entitlements("x")).await.unwrap();
    let address = process.kill();
    for _ in 0..5 {
        let begun = Instant::now();
        let failed = client.get_entitlements(entitlements("x")).await;
        assert_eq!(reason(failed), Reason::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    let restarted = Process::start("billing", &address.to_string());
    eventually("recovery", Duration::from_secs(2), || {
        let mut client = client.clone();
        async move { client.get_entitlements(entitlements("x")).await.is_ok() }
    })
    .await;
    restarted.kill();
}

#[tokio::test]
async fn a_stream_whose_server_dies_is_unavailable() {
    let process = Process::start("orchestrator", "127.0.0.1:0");
    let channel = caller(&format!("http://{}", process.address)).channel("orchestrator");
    let mut stream = ChatServiceClient::new(channel).stream_chat(signed_in(chat("hang"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    process.kill();
    assert_eq!(reason(stream.message().await), Reason::Unavailable);
}

#[tokio::test]
async fn many_calls_to_a_peer_that_does_not_answer_fail_together() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Fills the queue of the kernel; from then on nobody is answered.
    let mut queue = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
        assert!(queue.len() < 100);
    }
    let channel = caller(&format!("http://{address}")).channel("billing");
    let begun = Instant::now();
    let calls = (0..50).map(|_| {
        let mut client = EntitlementServiceClient::new(channel.clone());
        async move { reason(client.get_entitlements(entitlements("x")).await) }
    });
    assert!(join_all(calls).await.into_iter().all(|reason| reason == Reason::Unavailable));
    // Half a second on a quiet machine; 25 s if each waited for an attempt of its own.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_call_that_is_safe_to_repeat_is_sent_a_second_time() {
    let server = Backend::start("billing").await;
    server.fake.fail_next(1);
    EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("sometimes")).await.unwrap();
    assert_eq!(server.fake.calls(), 2);
}

#[tokio::test]
async fn no_call_is_sent_a_third_time() {
    let server = Backend::start("billing").await;
    server.fake.fail_next(10);
    let failed = EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("sometimes")).await;
    assert_eq!(reason(failed), Reason::Unavailable);
    assert_eq!(server.fake.calls(), 2);
}

#[tokio::test]
async fn a_call_that_is_not_safe_to_repeat_is_sent_once() {
    let server = Backend::start("identity").await;
    server.fake.fail_next(1);
    let failed = AuthServiceClient::new(server.channel()).login(login("sometimes")).await;
    assert_eq!(reason(failed), Reason::Unavailable);
    assert_eq!(server.fake.calls(), 1);
}

#[tokio::test]
async fn an_error_other_than_unavailable_is_not_repeated() {
    let server = Backend::start("billing").await;
    let failed = EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("panic")).await;
    assert_eq!(reason(failed), Reason::Internal);
    assert_eq!(server.fake.calls(), 1);
}

#[tokio::test]
async fn retries_keep_to_their_budget() {
    let server = Backend::start("billing").await;
    server.fake.fail_next(usize::MAX);
    let mut client = EntitlementServiceClient::new(server.channel());
    let begun = Instant::now();
    for _ in 0..300 {
        assert_eq!(reason(client.get_entitlements(entitlements("sometimes")).await), Reason::Unavailable);
    }
    // 20 % of 300; and 3 a second, at once those of the 10 seconds that the budget looks back on.
    let most = 60 + 30 + 3 * usize::try_from(begun.elapsed().as_secs() + 1).unwrap();
    let retries = server.fake.calls() - 300;
    assert!((60..=most).contains(&retries), "{retries}, at most {most}");
}

#[tokio::test]
async fn a_request_that_is_too_large_to_keep_is_sent_once_and_whole() {
    let server = Backend::start("billing").await;
    let product = "x".repeat(3 * 1024 * 1024);
    let mut client = EntitlementServiceClient::new(server.channel());
    let answer = client.get_entitlements(entitlements(&product)).await.unwrap().into_inner();
    assert_eq!(answer.product, product);
    assert_eq!(server.fake.calls(), 1);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut() {
    let server = Backend::start("billing").await;
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
    let request = http::Request::post(ENTITLEMENTS).header("grpc-timeout", "200m").body(Body::new(body)).unwrap();
    let cut = server.channel().oneshot(request).await;
    assert_eq!(reason(cut.map(|_| ())), Reason::DeadlineExceeded);
}

#[tokio::test]
async fn a_service_proves_itself_to_another() {
    let server = Backend::start("identity").await;
    AuthServiceClient::new(server.channel()).login(login("x")).await.unwrap();
    let (headers, seen) = server.fake.last();
    assert_eq!(seen.service.as_deref(), Some("gateway"));
    assert!(!format!("{headers:?}").contains(headers["x-weft-service-token"].to_str().unwrap()));
}

#[tokio::test]
async fn a_service_of_another_mesh_is_not_let_in() {
    let server = Backend::start("billing").await;
    let mut config = config(&server.url);
    config.weft_service_secret = Some("another secret, of another mesh altogether".into());
    let shutdown = weft_runtime::Shutdown::new();
    let stranger = weft_runtime::Mesh::new("gateway", config.clone(), weft_core::Clock::System, shutdown.clone());
    let refused = EntitlementServiceClient::new(stranger.channel("billing")).get_entitlements(entitlements("x")).await;
    assert_eq!(reason(refused), Reason::Unauthenticated);
    config.weft_service_secret = None;
    let nobody = weft_runtime::Mesh::new("gateway", config, weft_core::Clock::System, shutdown);
    let refused = EntitlementServiceClient::new(nobody.channel("billing")).get_entitlements(entitlements("x")).await;
    assert_eq!(reason(refused), Reason::Unauthenticated);
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_unavailable() {
    let mesh = caller("http://127.0.0.1:1");
    let refused = EntitlementServiceClient::new(mesh.channel("nobody")).get_entitlements(entitlements("x")).await;
    assert_eq!(reason(refused), Reason::Unavailable);
}

#[tokio::test]
async fn a_call_is_counted_once_with_its_final_code() {
    let server = Backend::start("billing").await;
    let mut config = config(&server.url);
    config.weft_request_timeout_ms = 5_000;
    let mesh = weft_runtime::Mesh::new("counted", config, weft_core::Clock::System, weft_runtime::Shutdown::new());
    server.fake.fail_next(1);
    // Refused by billing, which does not know a service of this name; counted all the same.
    let refused =
        EntitlementServiceClient::new(mesh.channel("billing")).get_entitlements(entitlements("sometimes")).await;
    assert_eq!(reason(refused), Reason::PermissionDenied);
    AuthServiceClient::new(mesh.channel("billing")).login(login("x")).await.unwrap();
    let count = |rpc: &str, code: &str| {
        format!("weft_rpc_client_requests_total{{service=\"counted\",rpc=\"{rpc}\",code=\"{code}\"}} 1")
    };
    let text = metrics_text();
    for line in [
        count("weft.billing.v1.EntitlementService/GetEntitlements", "PERMISSION_DENIED"),
        count("weft.identity.v1.AuthService/Login", "OK"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
