//! Counts a call when it is over, which for a stream is long after its beginning.
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use weft_core::Reason;

use crate::methods::Method;
use crate::rpc_metrics::RpcMetrics;

/// A call that is being made. Dropped before its end it counts as CANCELLED.
pub(super) struct Measured {
    metrics: Arc<RpcMetrics>,
    method: &'static Method,
    started: Instant,
    code: Code,
}

impl Measured {
    pub fn start(metrics: Arc<RpcMetrics>, method: &'static Method) -> Measured {
        Measured { metrics, method, started: Instant::now(), code: Code::Cancelled }
    }

    /// Counts what is over, and watches the body of what is not.
    pub fn answer(mut self, outcome: Result<Response<Body>, Status>) -> Result<Response<Body>, Status> {
        match outcome {
            Ok(response) => match code_of(response.headers()) {
                Some(code) => {
                    self.code = code;
                    Ok(response)
                }
                None => Ok(response.map(|inner| Body::new(MeasuredBody { inner, measured: Some(self) }))),
            },
            Err(status) => {
                self.code = status.code();
                Err(status)
            }
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.metrics.record(self.method, self.code, self.started.elapsed());
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// The body of an answer. Its end tells the code.
struct MeasuredBody {
    inner: Body,
    measured: Option<Measured>,
}

impl MeasuredBody {
    fn over(&mut self, code: Code) {
        if let Some(mut measured) = self.measured.take() {
            measured.code = code;
        }
    }
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let frame = frame.map(|frame| frame.map_err(broken));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.over(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.over(status.code()),
            None => self.over(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer that ends without its trailers lost its server.
fn broken(status: Status) -> Status {
    match status.code() {
        Code::DeadlineExceeded | Code::ResourceExhausted => status,
        _ => {
            tracing::debug!(%status, "an answer broke off");
            Reason::Unavailable.status("the answer broke off, try again")
        }
    }
}
