//! One attempt of a call: deadline, trace, service token, connection.
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status, TimeoutExpired};
use tower::{Service, ServiceExt};
use tracing::Span;
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey, grpc_timeout};
use weft_core::Reason;

use crate::deadline::{GRPC_TIMEOUT, header_of};
use crate::error::chain;
use crate::methods::Method;
use crate::neighbours::Neighbour;
use crate::telemetry;

/// When a call has to have its answer, or the beginning of it.
pub(super) struct Deadline {
    at: Instant,
    /// Whether the server is told. Not for a stream whose caller says nothing: gRPC's header is the end of the
    /// whole stream, ours is the end of waiting for its beginning.
    told: bool,
}

impl Deadline {
    /// The request's own, else after `default`.
    pub fn of(headers: &HeaderMap, method: &Method, default: Duration) -> Deadline {
        let own = grpc_timeout(headers);
        let now = Instant::now();
        let at = now.checked_add(own.unwrap_or(default)).unwrap_or(now + default);
        Deadline { at, told: own.is_some() || !method.answers_stream }
    }

    /// What `work` gives, if it does in time.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.at, work).await.ok()
    }

    /// Whether there is no time left.
    pub fn is_over(&self) -> bool {
        self.at <= Instant::now()
    }
}

/// How one attempt is made.
pub(super) struct Attempt {
    pub name: Arc<str>,
    pub key: ServiceKey,
    pub way: Way,
}

/// How a request gets to its server.
#[derive(Clone)]
pub(super) enum Way {
    /// Over connections.
    Wire(Channel),
    /// Within this process.
    Near(Neighbour),
}

impl Way {
    async fn call(self, request: Request<Body>) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
        match self {
            Way::Wire(mut channel) => Ok(channel.ready().await?.call(request).await?),
            Way::Near(neighbour) => neighbour.call(request).await,
        }
    }
}

impl Attempt {
    /// Sends a request once. What is wrong with the connection is UNAVAILABLE.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        deadline: &Deadline,
        span: &Span,
    ) -> Result<Response<Body>, Status> {
        let headers = request.headers_mut();
        if deadline.told {
            headers.insert(GRPC_TIMEOUT, header_of(deadline.at.saturating_duration_since(Instant::now())));
        }
        telemetry::send_trace(span, headers);
        headers.insert(HeaderName::from_static(SERVICE_TOKEN_HEADER), token(&self.key, &self.name)?);
        match deadline.hold(self.way.clone().call(request)).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) if is_timeout(&*error) => Err(self.too_late()),
            Some(Err(error)) => {
                tracing::debug!(to = &*self.name, error = %chain(&*error), "the call did not arrive or its answer was lost");
                Err(Reason::Unavailable.status(format!("{} cannot be reached, try again", self.name)))
            }
            None => Err(self.too_late()),
        }
    }

    pub fn too_late(&self) -> Status {
        Reason::DeadlineExceeded.status(format!("{} did not answer in time", self.name))
    }
}

/// Whether an attempt says that the peer is away, itself or by what is in between.
pub(super) fn is_unavailable(outcome: &Result<Response<Body>, Status>) -> bool {
    match outcome {
        Ok(response) => response
            .headers()
            .get("grpc-status")
            .is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unavailable),
        Err(status) => status.code() == Code::Unavailable,
    }
}

fn token(key: &ServiceKey, audience: &str) -> Result<HeaderValue, Status> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(key.mint(audience))).map_err(crate::internal)?;
    // Never in a log, not even of the HTTP library.
    value.set_sensitive(true);
    Ok(value)
}

/// tonic's own clock for the same header may be first.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}
