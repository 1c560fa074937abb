//! Calls to other servers: what happens between a generated client and a connection.
//!
//! From the outside in: metrics (a call counts once, however often it is sent), retry, deadline (each attempt
//! gets what is left), service token, connection or neighbour.
mod attempt;
mod connector;
mod measure;
mod replay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tower::retry::budget::{Budget, TpsBudget};
use tower::service_fn;
use tower::util::BoxCloneSyncService;
use tracing::{Instrument, Span};
use weft_auth::ServiceKey;
use weft_core::Reason;
use weft_proto::Channel;

use crate::deadline::Caps;
use crate::methods::{Method, methods};
use crate::neighbours::Neighbour;
use crate::rpc_metrics::RpcMetrics;
use crate::{MeshConfig, RuntimeError, telemetry};
use attempt::{Attempt, Deadline, Way, is_unavailable};
use measure::Measured;
use replay::Replay;

/// Retries are at most this part of the calls …
const RETRY_SHARE: f32 = 0.2;
/// … but a few in a second are always allowed.
const RETRIES_PER_S: u32 = 3;
/// A failure that took this long is not tried again: the peer has gone mute, and the caller would wait twice.
const RETRY_WITHIN: Duration = PING_CAP;
/// How long a call counts for its part of a retry.
const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// A connection with calls under way that is silent for this long is asked whether it still lives …
const PING_EVERY: Duration = Duration::from_millis(400);
/// … and closed without an answer in this time: a peer that has gone mute is UNAVAILABLE within a second.
const PING_CAP: Duration = Duration::from_millis(500);

/// Whom to call and as whom.
pub(crate) struct Target {
    /// The other's name, for messages and as audience of the service token.
    pub name: Arc<str>,
    /// What we prove ourselves with.
    pub key: ServiceKey,
    /// Where calls are counted.
    pub metrics: Arc<RpcMetrics>,
}

/// A channel to `target` at `url`. Nothing is connected yet.
pub(crate) fn connect(target: Target, url: &str, config: &MeshConfig) -> Result<Channel, RuntimeError> {
    let wrong = |source| RuntimeError::Url { name: target.name.to_string(), source };
    let connect_timeout = Duration::from_millis(config.weft_connect_timeout_ms);
    // Twice: once for TCP, see the connector, once for TLS.
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(wrong)?
        .connect_timeout(connect_timeout * 2)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_CAP);
    if endpoint.uri().scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
    }
    let connector = connector::connector(Arc::clone(&target.name), connect_timeout);
    Ok(channel(target, Way::Wire(endpoint.connect_with_connector_lazy(connector)), config))
}

/// A channel to `target` in this process.
pub(crate) fn near(target: Target, neighbour: Neighbour, config: &MeshConfig) -> Channel {
    channel(target, Way::Near(neighbour), config)
}

fn channel(target: Target, way: Way, config: &MeshConfig) -> Channel {
    let calls = Arc::new(Calls {
        budget: TpsBudget::new(RETRY_WINDOW, RETRIES_PER_S, RETRY_SHARE),
        caps: Caps::of(config),
        attempt: Attempt { name: target.name, key: target.key, way },
        metrics: target.metrics,
    });
    BoxCloneSyncService::new(service_fn(move |request| {
        let calls = Arc::clone(&calls);
        async move { calls.send(request).await }
    }))
}

/// A channel to a service that the configuration does not know.
pub(crate) fn refuse(name: &'static str) -> Channel {
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| async move {
        Err(Reason::Unavailable.status(format!("{name} is not configured")))
    }))
}

struct Calls {
    metrics: Arc<RpcMetrics>,
    budget: TpsBudget,
    caps: Caps,
    attempt: Attempt,
}

impl Calls {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = methods().get(request.uri().path());
        let measured = Measured::start(Arc::clone(&self.metrics), method);
        // What machines ask all the time would bury the traces of people.
        let span = if telemetry::exporting() && !method.is_quiet {
            tracing::info_span!("call", otel.kind = "client", otel.name = method.name, to = &*self.attempt.name)
        } else {
            Span::none()
        };
        let outcome = self.send_twice(method, request, &span).instrument(span.clone()).await;
        measured.answer(outcome)
    }

    /// Sends the call; a second time if it may be, the peer was away and the budget allows.
    async fn send_twice(&self, method: &Method, request: Request<Body>, span: &Span) -> Result<Response<Body>, Status> {
        let deadline = Deadline::of(request.headers(), method, self.caps.get(method));
        if !method.may_retry {
            return self.attempt.send(request, &deadline, span).await;
        }
        let (parts, body) = request.into_parts();
        // The body may come from a client of the edge, at any pace.
        let body = match deadline.hold(Replay::read(body)).await.unwrap_or_else(|| Err(self.attempt.too_late()))? {
            Replay::Whole(body) => body,
            Replay::TooLarge(body) => {
                return self.attempt.send(Request::from_parts(parts, body), &deadline, span).await;
            }
        };
        self.budget.deposit();
        let begun = Instant::now();
        let first = Request::from_parts(parts.clone(), replay::full(body.clone()));
        let outcome = self.attempt.send(first, &deadline, span).await;
        let in_time = begun.elapsed() < RETRY_WITHIN && !deadline.is_over();
        if !is_unavailable(&outcome) || !in_time || !self.budget.withdraw() {
            return outcome;
        }
        self.attempt.send(Request::from_parts(parts, replay::full(body)), &deadline, span).await
    }
}
