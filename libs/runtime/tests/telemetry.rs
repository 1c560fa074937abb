//! Logs and traces.
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Ready, ready};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_runtime::{MeshConfig, Tasks, telemetry};
use weft_testing::{Logs, eventually};

use crate::support::{Backend, caller, chat, login, signed_in};

#[tokio::test]
async fn a_call_is_one_line_with_id_rpc_code_and_time() {
    let (log, _guard) = Logs::capture(tracing::Level::INFO);
    let server = Backend::start("identity").await;
    let mut request = tonic::Request::new(login("bare internal"));
    request.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
    AuthServiceClient::new(server.stranger()).login(request).await.unwrap_err();
    eventually("a line", Duration::from_secs(5), async || log.lines().iter().any(|line| line.contains("\"ms\":")))
        .await;
    let calls: Vec<String> = log.lines().into_iter().filter(|line| line.contains("\"ms\":")).collect();
    assert_eq!(calls.len(), 1, "{calls:?}");
    for part in [
        "\"level\":\"INFO\"",
        "\"rpc\":\"weft.identity.v1.AuthService/Login\"",
        "\"code\":\"INTERNAL\"",
        "\"request_id\":\"abc\"",
    ] {
        assert!(calls[0].contains(part), "{part} is not in {}", calls[0]);
    }
    let cause: Vec<String> = log.lines().into_iter().filter(|line| line.contains("the table users is gone")).collect();
    assert_eq!(cause.len(), 1, "the cause is logged once");
    assert!(cause[0].contains("\"request_id\":\"abc\""), "{}", cause[0]);
}

#[tokio::test]
async fn a_health_check_is_no_line_at_info() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let (log, _guard) = Logs::capture(tracing::Level::INFO);
    let server = Backend::start("identity").await;
    HealthClient::new(server.stranger()).check(HealthCheckRequest::default()).await.unwrap();
    AuthServiceClient::new(server.stranger()).login(login("x")).await.unwrap();
    eventually("a line", Duration::from_secs(5), async || {
        log.lines().iter().any(|line| line.contains("AuthService/Login"))
    })
    .await;
    assert!(!log.lines().iter().any(|line| line.contains("grpc.health")), "{:?}", log.lines());
}

#[tokio::test]
async fn a_token_is_in_no_log_at_any_level() {
    let (log, _guard) = Logs::capture(tracing::Level::TRACE);
    let server = Backend::start("orchestrator").await;
    let mut request = signed_in(chat("x"));
    // As `Caller::request` marks it.
    request.metadata_mut().get_mut("authorization").unwrap().set_sensitive(true);
    ChatServiceClient::new(server.channel()).stream_chat(request).await.unwrap();
    let text = log.lines().join("\n");
    assert!(text.contains("StreamChat") && text.contains("TRACE"), "everything is logged");
    let (headers, _) = server.fake.last();
    for header in ["authorization", "x-weft-service-token"] {
        let token = headers[header].to_str().unwrap().trim_start_matches("Bearer ");
        assert!(!text.contains(token), "{header}");
    }
}

/// A collector that counts what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<usize>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        *self.0.lock().unwrap() += 1;
        ready(Ok(tonic::Status::ok("").into_http()))
    }
}

/// The only test that sets up the process's telemetry.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_service_to_service_and_leaves_over_otlp() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let serving = tonic::transport::Server::builder().add_service(collector.clone()).serve_with_incoming(incoming);
    let until = stop.clone();
    tasks.spawn("collector", async move { drop(until.run_until_cancelled(serving).await) });

    let config =
        MeshConfig { otel_exporter_otlp_endpoint: Some(endpoint), rust_log: "off".to_owned(), ..MeshConfig::default() };
    let sending = telemetry::init("test", &config).unwrap();
    assert!(telemetry::init("test", &config).is_err(), "once a process");

    let billing = Backend::start("billing").await;
    let orchestrator = Backend::start("orchestrator").await;
    orchestrator.fake.ask(caller(&billing.url).channel("billing"));
    let mut request = signed_in(chat("x"));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    request.metadata_mut().insert("traceparent", format!("00-{trace}-00f067aa0ba902b7-01").parse().unwrap());
    // From outside: our own channel would begin a trace of its own.
    let outside = tonic::transport::Endpoint::from_shared(orchestrator.url.clone()).unwrap().connect_lazy();
    ChatServiceClient::new(outside).chat(request).await.unwrap();

    let parent = billing.fake.last().0["traceparent"].to_str().unwrap().to_owned();
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", trace, "01"));
    assert_ne!(parts[2], "00f067aa0ba902b7", "the span of the call, not the caller's");

    drop(sending);
    assert!(*collector.0.lock().unwrap() > 0, "the spans arrived");
    stop.cancel();
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[test]
fn a_filter_that_cannot_be_read_is_named_by_its_key() {
    let config = MeshConfig { rust_log: "weft=nonsense".to_owned(), ..MeshConfig::default() };
    let error = telemetry::init("test", &config).unwrap_err().to_string();
    assert!(error.contains("RUST_LOG"), "{error}");
}
