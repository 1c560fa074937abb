//! How the mesh is: for load balancers, for people, for Prometheus, and for gRPC tools.
use std::sync::Arc;
use std::time::{Duration, Instant as Begun};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tonic::Code;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::ServiceExt;
use weft_auth::HEALTH_SERVICE;
use weft_core::internal_status;
use weft_runtime::{Mesh, telemetry};

use crate::body::EdgeBody;
use crate::edge;
use crate::error::trailers_only;
use crate::frames;
use crate::relay::code_of;
use crate::setup;
use crate::upstream::{Piece, Upstream};

/// Paths of the edge itself, which no annotation may take.
pub const OWN_PATHS: [&str; 5] = ["/health", "/health/detailed", "/api/v1/health", "/metrics", "/setup"];
/// Those of them that cost something: they count against the limit of the caller's address.
pub const COUNTED_PATHS: [&str; 2] = ["/health/detailed", "/metrics"];
/// How long an answer of the services about themselves is passed on.
const REPORT_AGE: Duration = Duration::from_secs(1);
/// How long a service may think about how it is.
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// The question that every service of the mesh answers.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }` on the wire.
const SERVING: [u8; 2] = [0x08, 0x01];

/// The edge's own paths and services.
pub struct Health {
    upstreams: Vec<Arc<Upstream>>,
    services: Routes,
    /// When the services were last asked how they are, and what they said. Held while asking.
    asked: Mutex<Option<(Begun, Arc<Report>)>>,
}

/// How the services are.
#[derive(Default)]
struct Report {
    /// Names of those that are not well.
    broken: Vec<String>,
    /// One of them is of the mesh.
    needed: bool,
    services: serde_json::Map<String, Value>,
}

impl Health {
    /// Health of these services, beside reflection. It answers that the edge itself is well, until the shutdown.
    pub async fn new(mesh: &Mesh, upstreams: Vec<Arc<Upstream>>, reflection: Routes) -> Self {
        let (mut reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        let shutdown = mesh.shutdown().clone();
        mesh.tasks().spawn("health", async move {
            shutdown.wait().await;
            reporter.set_service_status("", ServingStatus::NotServing).await;
            // Ends the streams of those who watch: they would keep the drain waiting.
            reporter.clear_service_status("").await;
        });
        Health { upstreams, services: reflection.add_service(health), asked: Mutex::default() }
    }

    /// Answers a path of the edge itself.
    pub async fn answer(&self, parts: &Parts, mesh: &Mesh) -> Option<Response<EdgeBody>> {
        let path = parts.uri.path();
        if !OWN_PATHS.contains(&path) || !matches!(parts.method, Method::GET | Method::HEAD) {
            return None;
        }
        let draining = mesh.shutdown().is_triggered();
        let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let word = if draining { "draining" } else { "ok" };
        Some(match path {
            "/health/detailed" => self.detailed(draining).await,
            "/metrics" => metrics(),
            "/setup" => setup::page(),
            "/health" => edge::json(status, &json!({"status": word})),
            _ => edge::json(status, &json!({"status": word, "version": env!("CARGO_PKG_VERSION")})),
        })
    }

    /// Every service by name, with what it says and how long it took. 503 if a service of the mesh is not well.
    async fn detailed(&self, draining: bool) -> Response<EdgeBody> {
        let Report { broken, needed, services } = &*self.report().await;
        let word = match (draining, broken.is_empty()) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        };
        let status = if *needed || draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        edge::json(
            status,
            &json!({"status": word, "version": env!("CARGO_PKG_VERSION"), "broken": broken, "services": services}),
        )
    }

    /// What the services say, at most a second old. However many ask, each service is asked once.
    async fn report(&self) -> Arc<Report> {
        let mut asked = self.asked.lock().await;
        if let Some((at, report)) = &*asked
            && at.elapsed() < REPORT_AGE
        {
            return report.clone();
        }
        let at = Begun::now();
        let probed = join_all(self.upstreams.iter().map(|upstream| probe(upstream))).await;
        let mut report = Report::default();
        for (upstream, (well, told)) in self.upstreams.iter().zip(probed) {
            if !well {
                report.broken.push(upstream.name().to_owned());
                report.needed |= upstream.is_ours();
            }
            report.services.insert(upstream.name().to_owned(), told);
        }
        let report = Arc::new(report);
        *asked = Some((at, report.clone()));
        report
    }

    /// Whether a path is of the health service, not of reflection.
    pub fn is_check(path: &str) -> bool {
        path.strip_prefix('/')
            .and_then(|path| path.strip_prefix(HEALTH_SERVICE))
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Answers a gRPC call of health or reflection.
    pub async fn grpc(&self, request: Request<Incoming>) -> Response<EdgeBody> {
        let request = request.map(tonic::body::Body::new);
        match self.services.clone().oneshot(request).await {
            Ok(response) => response.map(EdgeBody::Tonic),
            Err(error) => {
                tracing::error!(%error, "health or reflection failed");
                trailers_only(&internal_status(), HeaderValue::from_static("application/grpc"))
            }
        }
    }
}

fn metrics() -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from(telemetry::metrics_text())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

/// Whether a service is well, and what is told of it.
async fn probe(upstream: &Upstream) -> (bool, Value) {
    let begun = Begun::now();
    let outcome = tokio::time::timeout(PROBE_WITHIN, ask(upstream)).await;
    let ms = begun.elapsed().as_micros() as f64 / 1000.0;
    let word = outcome.unwrap_or(Err("no answer in time"));
    match word {
        Ok(()) => (true, json!({"status": "ok", "latency_ms": ms})),
        Err(why) => (false, json!({"status": "down", "why": why, "latency_ms": ms})),
    }
}

async fn ask(upstream: &Upstream) -> Result<(), &'static str> {
    let uri = upstream.uri(PathAndQuery::from_static(HEALTH_CHECK));
    let head = || {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1S")];
        *request.headers_mut() = headers
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect::<HeaderMap>();
        request
    };
    let mut reply = upstream.call(head, frames::seal(frames::begin(0))).await.map_err(|_status| "cannot be reached")?;
    let mut body = Vec::new();
    let end = loop {
        let data = match reply.source.next().await {
            Piece::Data(data) => data,
            Piece::End(end) => break end,
        };
        body.extend_from_slice(&data);
        if body.len() > 64 {
            return Err("says something strange");
        }
    };
    let trailers = end.ok().flatten().unwrap_or_default();
    let code = code_of(if reply.head.headers.contains_key("grpc-status") { &reply.head.headers } else { &trailers });
    match code {
        Code::Ok if body.get(frames::PREFIX..) == Some(&SERVING) => Ok(()),
        Code::Ok => Err("says that it is not serving"),
        // It answers, and an operator's service need not know this question.
        Code::Unimplemented if !upstream.is_ours() => Ok(()),
        _ => Err("cannot say how it is"),
    }
}
