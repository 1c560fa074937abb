//! Calls to services: the request that goes inward, and the answer of a unary one.
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use tokio::time::Instant;
use tonic::Status;
use weft_core::Reason;

use crate::headers::goes_inward;
use crate::methods::Method;
use crate::relay::{broken_off, code_of};
use crate::upstream::{Piece, Reply, Upstream};

/// The answer of a unary call.
pub struct Answer {
    /// Metadata before the message.
    pub headers: HeaderMap,
    /// All frames.
    pub body: Bytes,
    /// Trailers, with `grpc-status`.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The error that the trailers say, if they say one.
    pub fn error(&self) -> Option<Status> {
        if code_of(&self.trailers) == tonic::Code::Ok {
            return None;
        }
        Some(Status::from_header_map(&self.trailers).unwrap_or_else(broken_off))
    }
}

/// The head of a request to a service: what may go inward of the client's headers, and gRPC's own.
pub fn head(method: &Method, headers: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = method.uri.clone();
    *request.version_mut() = Version::HTTP_2;
    let out = request.headers_mut();
    out.reserve(headers.len() + 2);
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    out.insert(TE, HeaderValue::from_static("trailers"));
    for (name, value) in headers {
        if goes_inward(name.as_str()) {
            out.append(name, value.clone());
        }
    }
    request
}

/// Sends one framed message and waits for the beginning of the answer.
///
/// # Errors
/// UNAVAILABLE, DEADLINE_EXCEEDED, or what the service refuses before it sends anything.
pub async fn start(method: &Method, headers: &HeaderMap, frame: Bytes, deadline: Instant) -> Result<Reply, Status> {
    let call = method.upstream.call(|| head(method, headers), frame);
    let reply = tokio::time::timeout_at(deadline, call).await.map_err(|_elapsed| too_late())??;
    check(&reply)?;
    Ok(reply)
}

/// Sends one framed message and waits for the whole answer, at most `limit` bytes.
///
/// # Errors
/// UNAVAILABLE, DEADLINE_EXCEEDED, `payload_too_large`. What the service itself says is in the answer.
pub async fn unary(
    method: &Method,
    headers: &HeaderMap,
    frame: Bytes,
    deadline: Instant,
    limit: usize,
) -> Result<Answer, Status> {
    let call = async {
        let reply = method.upstream.call(|| head(method, headers), frame).await?;
        check(&reply)?;
        collect(reply, &method.upstream, limit).await
    };
    tokio::time::timeout_at(deadline, call).await.map_err(|_elapsed| too_late())?
}

async fn collect(reply: Reply, upstream: &Upstream, limit: usize) -> Result<Answer, Status> {
    let Reply { head, mut source, load: _load } = reply;
    if head.headers.contains_key("grpc-status") {
        let trailers = head.headers.clone();
        return Ok(Answer { headers: head.headers, body: Bytes::new(), trailers });
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let trailers = loop {
        let data = match source.next().await {
            Piece::Data(data) => data,
            Piece::End(end) => break end.map_err(|error| upstream.lost(&error))?,
        };
        if first.len() + rest.len() + data.len() > limit {
            return Err(Reason::PayloadTooLarge.status("the service's answer is too large"));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else if !data.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    };
    let trailers = trailers.filter(|trailers| trailers.contains_key("grpc-status")).ok_or_else(broken_off)?;
    Ok(Answer { headers: head.headers, body: if rest.is_empty() { first } else { rest.freeze() }, trailers })
}

/// Whether an answer is gRPC at all; what stands in between may answer in its own way.
pub fn check(reply: &Reply) -> Result<(), Status> {
    let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    match reply.head.status {
        StatusCode::OK if reply.head.headers.get(CONTENT_TYPE).is_some_and(grpc) => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::OK => {
            Err(Reason::Unimplemented.status("the service behind the edge does not speak gRPC there"))
        }
        _ => Err(Reason::Unavailable.status("what stands before the service refused the call, try again")),
    }
}

fn too_late() -> Status {
    Reason::DeadlineExceeded.status("the time for the call is over")
}
