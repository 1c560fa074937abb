//! Watches a call from its arrival to its last byte: a span around all that is done for it, one count, one
//! log line.
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};
use tower::Service;
use tracing::Span;
use tracing::field::Empty;
use weft_auth::SERVICE_TOKEN_HEADER;
use weft_core::status_name;

use super::request_id;
use super::status::end_of;
use crate::methods::{Method, methods};
use crate::rpc_metrics::RpcMetrics;
use crate::telemetry;

/// The header of a service's token.
const SERVICE_TOKEN: HeaderName = HeaderName::from_static(SERVICE_TOKEN_HEADER);

/// See the module.
#[derive(Clone)]
pub(super) struct Observe<S> {
    inner: S,
    metrics: Arc<RpcMetrics>,
}

impl<S> Observe<S> {
    pub fn new(inner: S, metrics: Arc<RpcMetrics>) -> Self {
        Observe { inner, metrics }
    }
}

impl<S, A, B> Service<Request<A>> for Observe<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<ObservedBody<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        // From here on no log shows them, whoever prints a request. (HTTP/2 does not carry the mark.)
        for token in [AUTHORIZATION, SERVICE_TOKEN] {
            if let Some(token) = request.headers_mut().get_mut(token) {
                token.set_sensitive(true);
            }
        }
        let call = Call::begin(&request, Arc::clone(&self.metrics));
        let inner = call.span.in_scope(|| self.inner.call(request));
        Answer { inner, call: Some(call) }
    }
}

pin_project! {
    /// The answer, watched until its headers; its body is watched on.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ObservedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.call.as_ref().map(|call| call.span.enter());
        let mut response = ready!(this.inner.poll(context))?;
        let end = end_of(response.headers_mut());
        drop(entered);
        let call = Call::unless_over(this.call.take(), end);
        Poll::Ready(Ok(response.map(|inner| ObservedBody { inner, call })))
    }
}

pin_project! {
    /// The body of an answer. Its trailers tell the code.
    pub(super) struct ObservedBody<B> {
        #[pin]
        inner: B,
        // None: it is over.
        call: Option<Call>,
    }
}

impl<B> http_body::Body for ObservedBody<B>
where
    B: http_body::Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let entered = this.call.as_ref().map(|call| call.span.enter());
        let mut frame = ready!(this.inner.poll_frame(context));
        let end = match &mut frame {
            Some(Ok(frame)) => frame.trailers_mut().map(|trailers| end_of(trailers).unwrap_or(Code::Unknown)),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        drop(entered);
        *this.call = Call::unless_over(this.call.take(), end);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A call that is being answered. Dropped before its end, the caller has gone away: CANCELLED.
pub(super) struct Call {
    metrics: Arc<RpcMetrics>,
    method: &'static Method,
    // Only of an RPC that is not known.
    path: Option<PathAndQuery>,
    request_id: Option<HeaderValue>,
    started: Instant,
    span: Span,
    code: Code,
}

impl Call {
    fn begin<A>(request: &Request<A>, metrics: Arc<RpcMetrics>) -> Call {
        let headers = request.headers();
        let method = methods().get(request.uri().path());
        let path = if method.is_known { None } else { request.uri().path_and_query().cloned() };
        let request_id = headers.get(request_id::HEADER).cloned();
        let id = text(request_id.as_ref());
        let span = if method.is_quiet {
            tracing::debug_span!(parent: None, "rpc", otel.kind = "server", otel.name = method.name, request_id = id)
        } else {
            tracing::info_span!(
                parent: None,
                "rpc",
                otel.kind = "server",
                otel.name = method.name,
                otel.status_code = Empty,
                rpc.grpc.status_code = Empty,
                request_id = id
            )
        };
        telemetry::continue_trace(&span, headers);
        Call { metrics, method, path, request_id, started: Instant::now(), span, code: Code::Cancelled }
    }

    /// The call, if it is not over; else it is counted and logged with its code.
    fn unless_over(call: Option<Call>, end: Option<Code>) -> Option<Call> {
        match (call, end) {
            (Some(mut call), Some(code)) => {
                call.code = code;
                None
            }
            (call, _) => call,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (took, code) = (self.started.elapsed(), status_name(self.code));
        self.metrics.record(self.method, self.code, took);
        if telemetry::exporting() {
            self.span.record("rpc.grpc.status_code", self.code as i32);
            if is_our_fault(self.code) {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        let (service, id) = (self.metrics.service(), text(self.request_id.as_ref()));
        let rpc = self.path.as_ref().map_or(self.method.name.as_str(), PathAndQuery::path);
        let ms = took.as_secs_f64() * 1000.0;
        // One line a call; what machines ask every second is only worth one if it goes wrong.
        if self.method.is_quiet && self.code == Code::Ok {
            tracing::debug!(parent: None, service, rpc, code, ms, request_id = id, "call");
        } else {
            tracing::info!(parent: None, service, rpc, code, ms, request_id = id, "call");
        }
    }
}

/// The codes that OpenTelemetry counts as a server's errors.
fn is_our_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}
