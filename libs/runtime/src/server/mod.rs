//! What a service answers, and the one order of everything in front of it.
mod deadline;
mod health;
mod observe;
mod panic;
mod request_id;
mod shed;
mod status;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder};
use weft_auth::{Guard, GuardLayer, HEALTH_SERVICE, REFLECTION_SERVICES};

use crate::deadline::Caps;
use crate::rpc_metrics::{RpcMetrics, Side};
use crate::{Mesh, RuntimeError};
use health::ReadyCheck;

/// A connection that is silent for this long is asked whether it still lives …
const PING_EVERY: Duration = Duration::from_secs(30);
/// … and closed without an answer in this time.
const PING_CAP: Duration = Duration::from_secs(10);
/// Headers of a call, in bytes; a user's and a service's token take 2 KiB.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams of one connection beyond the calls that may be in flight.
const SPARE_STREAMS: u32 = 1000;
/// How long no connection is accepted after one could not be, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A gRPC server with health, reflection and everything that comes before a handler.
pub struct Server {
    mesh: Mesh,
    guard: Guard,
    routes: Routes,
    names: Vec<&'static str>,
    ready: Option<ReadyCheck>,
}

impl Server {
    /// A server that lets in whom `guard` admits.
    pub fn new(mesh: &Mesh, guard: Guard) -> Server {
        Server { mesh: mesh.clone(), guard, routes: Routes::default(), names: Vec::new(), ready: None }
    }

    /// Adds a generated service.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "it adds a service; nobody takes a server for a sum")]
    pub fn add<S>(mut self, service: S) -> Server
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Serves as healthy only while `check` answers true. It is asked every second and has a second to answer.
    #[must_use]
    pub fn ready<F, A>(mut self, check: F) -> Server
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = bool> + Send + 'static,
    {
        self.ready = Some(Box::new(move || Box::pin(check())));
        self
    }

    /// Serves until the mesh shuts down, then lets calls and background work end, for at most
    /// [`crate::MeshConfig::weft_drain_ms`] in all.
    ///
    /// # Errors
    /// A descriptor set that cannot be served, or a server that ended by itself.
    pub async fn serve(self, listener: TcpListener) -> Result<(), RuntimeError> {
        let Server { mesh, guard, routes, names, ready } = self;
        let routes = with_reflection(routes, &names, &[])?;
        let routes = routes.add_service(health::start(&mesh, names, ready).await).prepare();
        // More than may be in flight: a call too many is refused in words, it does not wait in the other's queue.
        let streams = u32::try_from(mesh.config().weft_max_in_flight).unwrap_or(u32::MAX).saturating_add(SPARE_STREAMS);
        let service = in_front_of(routes, &mesh, guard);
        // To the end of the drain: what the others still have to settle they can.
        let _open = mesh.neighbours().open(mesh.service(), service.clone(), mesh.tasks());
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_CAP))
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(streams)
            .serve_with_incoming_shutdown(service, connections(listener), mesh.shutdown().wait());
        drain(&mesh, serving).await
    }
}

/// Everything between a connection and a handler, the outermost first.
fn in_front_of(
    routes: Routes,
    mesh: &Mesh,
    guard: Guard,
) -> impl Service<
    Request<Body>,
    Response = Response<impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let config = mesh.config();
    let metrics = Arc::new(RpcMetrics::new(Side::Server, mesh.service()));
    let in_flight = Arc::default();
    let (max_in_flight, caps) = (config.weft_max_in_flight, Caps::of(config));
    ServiceBuilder::new()
        // Request id: first, so that the answer to anything that follows carries it, and the log line too.
        .layer(layer_fn(request_id::RequestId::new))
        // Trace, metrics and the log line: outside auth, so that refusals count; outside panic, so that a
        // panic counts as the INTERNAL that it is for the caller.
        .layer(layer_fn(move |inner| observe::Observe::new(inner, Arc::clone(&metrics))))
        // Panic: outside all that may go wrong, so that one call's mistake costs nobody else the connection.
        .layer(layer_fn(panic::CatchPanic::new))
        // Load shed: before anything that costs time.
        .layer(layer_fn(move |inner| shed::Shed::new(inner, Arc::clone(&in_flight), max_in_flight)))
        // Deadline: outside auth, which may have to wait for identity or billing.
        .layer(layer_fn(move |inner| deadline::Deadline::new(inner, caps)))
        // Auth and policy: nothing behind it sees a call that may not be made.
        .layer(GuardLayer::new(guard))
        .service(routes)
}

/// Adds gRPC reflection, v1 and v1alpha, to `routes`. It lists `services` and knows the contracts of the mesh
/// and those of `others`, encoded descriptor sets.
///
/// # Errors
/// A descriptor set that cannot be read.
pub fn with_reflection(routes: Routes, services: &[&str], others: &[&[u8]]) -> Result<Routes, RuntimeError> {
    let builder = || {
        let sets = [weft_proto::DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut builder = tonic_reflection::server::Builder::configure();
        for set in sets.iter().chain(others) {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        for name in services.iter().chain(&[HEALTH_SERVICE, REFLECTION_SERVICES[0]]) {
            builder = builder.with_service_name(*name);
        }
        builder
    };
    let v1 = builder().build_v1().map_err(RuntimeError::Reflection)?;
    let v1alpha = builder().build_v1alpha().map_err(RuntimeError::Reflection)?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// The connections of a listener, which is closed when this is dropped.
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    unfold(listener, async |listener| {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream));
            match accepted {
                Ok(stream) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Runs the server until it ends by itself or is told to, and in that case waits for what is running, not
/// longer than the cap: one connection that never ends would keep hyper waiting for ever.
async fn drain(
    mesh: &Mesh,
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
) -> Result<(), RuntimeError> {
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        () = mesh.shutdown().wait() => {}
        ended = &mut serving => return ended.map_err(RuntimeError::Serve),
    }
    let cap = Instant::now() + mesh.config().drain_cap();
    match timeout_at(cap, serving).await {
        Ok(ended) => ended.map_err(RuntimeError::Serve)?,
        Err(_) => {
            tracing::warn!(service = mesh.service(), "calls were still running at the end of the drain and are cut")
        }
    }
    if !mesh.tasks().drain(cap.saturating_duration_since(Instant::now())).await {
        let running = mesh.tasks().running();
        tracing::warn!(
            service = mesh.service(),
            running,
            "calls of neighbours or background work were still running at the end of the drain"
        );
    }
    Ok(())
}
