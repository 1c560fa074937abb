//! Deadlines, load and the drain.
use std::time::{Duration, Instant};

use weft_core::Reason;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_testing::eventually;

use crate::support::{Backend, chat, entitlements, login, reason, signed_in};

#[tokio::test]
async fn a_call_is_cut_at_the_servers_own_limit() {
    let server = Backend::configured("billing", |config| config.weft_request_timeout_ms = 200, |server| server).await;
    let begun = Instant::now();
    let cut = EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("hang")).await.unwrap_err();
    assert_eq!(Reason::of(&cut), Some(Reason::DeadlineExceeded));
    assert!(cut.message().starts_with("the call took longer"), "the server said so: {}", cut.message());
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_handler_knows_how_long_there_is() {
    let server = Backend::configured("billing", |config| config.weft_request_timeout_ms = 5_000, |server| server).await;
    let mut request = tonic::Request::new(entitlements("x"));
    request.set_timeout(Duration::from_secs(3_600));
    EntitlementServiceClient::new(server.channel()).get_entitlements(request).await.unwrap();
    let left = server.fake.last().1.deadline.unwrap().saturating_duration_since(tokio::time::Instant::now());
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn a_long_call_has_a_limit_of_its_own() {
    for (limit_ms, otherwise) in [(5_000, Reason::Internal), (300, Reason::DeadlineExceeded)] {
        let limits = |config: &mut weft_runtime::MeshConfig| {
            (config.weft_request_timeout_ms, config.weft_long_request_timeout_ms) = (200, limit_ms);
        };
        let server = Backend::configured("orchestrator", limits, |server| server).await;
        // Where it is let it comes to ask billing, which is not there.
        let answered = ChatServiceClient::new(server.channel()).chat(signed_in(chat("half a second"))).await;
        assert_eq!(reason(answered), otherwise);
        // Its handler knows how long there is.
        let left = server.fake.last().1.deadline.unwrap().saturating_duration_since(tokio::time::Instant::now());
        let most = Duration::from_millis(limit_ms);
        assert!(left <= most && left + Duration::from_secs(1) > most, "{left:?}");
    }
}

#[tokio::test]
async fn a_stream_must_begin_in_time_but_may_go_on() {
    let server =
        Backend::configured("orchestrator", |config| config.weft_request_timeout_ms = 200, |server| server).await;
    let mut client = ChatServiceClient::new(server.channel());
    let cut = client.stream_chat(signed_in(chat("hang before"))).await;
    assert_eq!(reason(cut), Reason::DeadlineExceeded);

    let mut stream = client.stream_chat(signed_in(chat("half a second"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert!(stream.message().await.unwrap().is_some());
    assert!(stream.message().await.unwrap().is_none());
    assert_eq!(server.fake.last().1.deadline, None);
}

#[tokio::test]
async fn a_call_too_many_is_refused_at_once() {
    let server = Backend::configured("busy", |config| config.weft_max_in_flight = 2, |server| server).await;
    let channel = server.stranger();
    let mut slow: Vec<_> = (0..2).map(|_| AuthServiceClient::new(channel.clone())).collect();
    let (first, second) = slow.split_at_mut(1);
    let both = async { tokio::join!(first[0].login(login("half a second")), second[0].login(login("half a second"))) };
    let third = async {
        eventually("two calls", Duration::from_secs(5), async || server.fake.calls() == 2).await;
        AuthServiceClient::new(channel.clone()).login(login("x")).await.unwrap_err()
    };
    let ((one, two), refused) = tokio::join!(both, third);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(Reason::of(&refused), Some(Reason::Unavailable));
    assert_eq!(refused.message(), "too many calls are in progress, try again in a moment");
    // Their places are free again.
    AuthServiceClient::new(channel).login(login("x")).await.unwrap();
}

#[tokio::test]
async fn a_stream_holds_its_place_until_its_end() {
    let server = Backend::configured("orchestrator", |config| config.weft_max_in_flight = 1, |server| server).await;
    let mut client = ChatServiceClient::new(server.channel());
    let mut stream = client.stream_chat(signed_in(chat("hang"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(reason(client.stream_chat(signed_in(chat("x"))).await), Reason::Unavailable);
    drop(stream);
    eventually("a free place", Duration::from_secs(5), || {
        let mut client = client.clone();
        async move { client.stream_chat(signed_in(chat("x"))).await.is_ok() }
    })
    .await;
}

#[tokio::test]
async fn the_drain_lets_a_call_end() {
    let server = Backend::start("billing").await;
    let mut client = EntitlementServiceClient::new(server.channel());
    let call = client.get_entitlements(entitlements("half a second"));
    let stop = async {
        eventually("a call", Duration::from_secs(5), async || server.fake.calls() == 1).await;
        server.mesh.shutdown().trigger();
    };
    let (outcome, ()) = tokio::join!(call, stop);
    outcome.unwrap();
    assert!(server.tasks.drain(Duration::from_secs(5)).await, "the server waits for nobody");
}

#[tokio::test]
async fn the_drain_ends_within_its_cap_although_a_stream_hangs() {
    let server = Backend::configured("orchestrator", |config| config.weft_drain_ms = 300, |server| server).await;
    let mut client = ChatServiceClient::new(server.channel());
    let mut stream = client.stream_chat(signed_in(chat("hang"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let begun = Instant::now();
    server.mesh.shutdown().trigger();
    assert!(server.tasks.drain(Duration::from_secs(5)).await);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn the_drain_waits_for_background_work() {
    let server = Backend::start("billing").await;
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    server.mesh.tasks().spawn("settlement", async move {
        gone.await.unwrap();
        done.send(()).unwrap();
    });
    server.mesh.shutdown().trigger();
    assert!(!server.tasks.drain(Duration::from_millis(100)).await, "the work is not done");
    assert!(is_done.try_recv().is_err());
    go.send(()).unwrap();
    assert!(server.tasks.drain(Duration::from_secs(5)).await);
    is_done.await.unwrap();
}

#[tokio::test]
async fn a_draining_server_takes_no_new_connection() {
    let server = Backend::start("billing").await;
    EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("x")).await.unwrap();
    server.mesh.shutdown().trigger();
    assert!(server.tasks.drain(Duration::from_secs(5)).await);
    let refused = EntitlementServiceClient::new(server.channel()).get_entitlements(entitlements("x")).await;
    assert_eq!(reason(refused), Reason::Unavailable);
}
