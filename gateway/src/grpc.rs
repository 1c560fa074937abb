//! gRPC and grpc-web: messages pass as they are; the edge only looks whether they are messages.
use std::sync::{Arc, OnceLock};
use std::time::Instant as Begun;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use weft_core::Reason;

use crate::admit::Term;
use crate::body::{BodyLimit, EdgeBody, read_all};
use crate::call::{self, start, unary};
use crate::edge::Edge;
use crate::error::trailers_only;
use crate::frames::{Meter, PREFIX, Splitter, check_one, only_message, trailer_frame};
use crate::headers::{check_last_event_id, goes_outward};
use crate::meters::{Entry, Protocol};
use crate::methods::Method;
use crate::relay::{Mode, Relay, RelayBody, code_of};
use crate::transcode::check_message;
use crate::upstream::{Call, Reply};
use crate::visit::Visit;

/// How a gRPC client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HTTP/2 with trailers.
    Native,
    /// grpc-web.
    Web,
    /// grpc-web in base64.
    WebText,
}

impl Dialect {
    /// The dialect of a content type. `Some(Err)` is gRPC with messages that are not protobuf.
    pub fn of(content_type: &HeaderValue) -> Option<Result<Dialect, Status>> {
        let text = content_type.to_str().ok()?.split(';').next()?.trim();
        let rest = text.strip_prefix("application/grpc")?;
        let dialect = match rest {
            "" | "+proto" => Dialect::Native,
            "-web" | "-web+proto" => Dialect::Web,
            "-web-text" | "-web-text+proto" => Dialect::WebText,
            _ => return Some(Err(Reason::UnsupportedMediaType.status("only protobuf messages are taken here"))),
        };
        Some(Ok(dialect))
    }

    /// The content type of answers.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Dialect::Native => "application/grpc",
            Dialect::Web => "application/grpc-web+proto",
            Dialect::WebText => "application/grpc-web-text+proto",
        })
    }

    fn protocol(self) -> Protocol {
        if self == Dialect::Native { Protocol::Grpc } else { Protocol::GrpcWeb }
    }
}

/// One gRPC request.
pub struct Request<'a> {
    /// How the client speaks.
    pub dialect: Dialect,
    /// The client's end.
    pub visit: &'a Visit,
    /// The request's id.
    pub request_id: Arc<str>,
}

/// Answers one request, errors included.
pub async fn grpc(
    edge: &Edge,
    request: Request<'_>,
    mut parts: Parts,
    body: &mut Option<Incoming>,
) -> Response<EdgeBody> {
    let Some(method) = edge.methods.get(parts.uri.path()) else {
        let unknown = Reason::Unimplemented.status("there is no such rpc");
        let refusal = edge.door.refuse(&parts.headers, request.visit, unknown).await;
        return trailers_only(&refusal, request.dialect.content_type());
    };
    let mut entry = Entry::new(method.clone(), request.dialect.protocol(), request.request_id.clone(), Begun::now());
    match forward(edge, method, &request, &mut parts, body).await {
        Ok(Made::Whole(response, code)) => {
            entry.ended(code);
            response
        }
        Ok(Made::Stream(mut response, relay, mode)) => {
            let body = RelayBody::new(relay, mode, edge.limits.response_bytes, entry);
            *response.body_mut() = EdgeBody::Relay(Box::new(body));
            response
        }
        Err(status) => {
            entry.ended(status.code());
            trailers_only(&status, request.dialect.content_type())
        }
    }
}

enum Made {
    Whole(Response<EdgeBody>, Code),
    Stream(Response<EdgeBody>, Relay, Mode),
}

async fn forward(
    edge: &Edge,
    method: &Arc<Method>,
    request: &Request<'_>,
    parts: &mut Parts,
    body: &mut Option<Incoming>,
) -> Result<Made, Status> {
    check_encoding(&parts.headers)?;
    let term = edge.door.admit(method, parts, request.visit).await?;
    check_last_event_id(&mut parts.headers, method.server_streaming)?;
    let deadline = term.deadline;
    if method.client_streaming {
        return streaming(edge, method, request, parts, body, &term).await;
    }
    let frame = read_frame(edge, method, request.dialect, &parts.headers, body).await?;
    if method.server_streaming || request.dialect == Dialect::Native {
        let reply = start(method, &parts.headers, frame, deadline).await?;
        return Ok(relayed(request.dialect, method, reply, &term, None));
    }
    let answer = unary(method, &parts.headers, frame, deadline, edge.limits.response_bytes).await?;
    let code = code_of(&answer.trailers);
    if answer.headers.contains_key("grpc-status") {
        return Ok(Made::Whole(with_headers(request.dialect, &answer.headers, EdgeBody::empty()), code));
    }
    let trailers = trailer_frame(&answer.trailers);
    let message = if code == Code::Ok { whole_message(answer.body)? } else { Bytes::new() };
    let body = match request.dialect {
        Dialect::WebText => Bytes::from(STANDARD.encode(&message) + &STANDARD.encode(trailers)),
        _ => {
            let mut whole = BytesMut::with_capacity(message.len() + trailers.len());
            whole.put(message);
            whole.put(trailers);
            whole.freeze()
        }
    };
    Ok(Made::Whole(with_headers(request.dialect, &answer.headers, EdgeBody::full(body)), code))
}

/// The framed message of a successful unary answer. Behind a part of one, the trailers would be taken for the rest.
fn whole_message(body: Bytes) -> Result<Bytes, Status> {
    only_message(body.clone())?;
    Ok(body)
}

/// The one message of a call whose requests do not stream.
async fn read_frame(
    edge: &Edge,
    method: &Method,
    dialect: Dialect,
    headers: &HeaderMap,
    body: &mut Option<Incoming>,
) -> Result<Bytes, Status> {
    let mut bytes = edge.limits.message_bytes + PREFIX;
    if dialect == Dialect::WebText {
        bytes = bytes / 3 * 4 + 64;
    }
    let mut frame = read_all(body, headers, BodyLimit { bytes, ..edge.limits.body }).await?;
    if dialect == Dialect::WebText {
        frame = from_base64(&frame)?;
    }
    check_one(&frame, edge.limits.message_bytes)?;
    check_message(&method.tables, method.input, &frame[PREFIX..])
        .map_err(|error| Reason::InvalidArgument.status(format!("the request cannot be decoded: {error}")))?;
    Ok(frame)
}

/// grpc-web-text: base64, padded wherever the client flushed.
fn from_base64(text: &[u8]) -> Result<Bytes, Status> {
    let invalid = || Reason::InvalidArgument.status("the body is not base64");
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for part in text.split_inclusive(|byte| *byte == b'=') {
        // A part ends with its first `=`; a second one is a part of its own.
        let digits: Vec<u8> = part.iter().copied().filter(|byte| !matches!(byte, b'=' | b'\r' | b'\n')).collect();
        STANDARD_NO_PAD.decode_vec(digits, &mut out).map_err(|_error| invalid())?;
    }
    Ok(out.into())
}

/// A call whose requests stream: they are sent on as they come while the answer comes back.
async fn streaming(
    edge: &Edge,
    method: &Arc<Method>,
    request: &Request<'_>,
    parts: &Parts,
    body: &mut Option<Incoming>,
    term: &Term,
) -> Result<Made, Status> {
    let deadline = term.deadline;
    if request.dialect != Dialect::Native {
        return Err(Reason::Unimplemented.status("requests cannot stream over grpc-web, use gRPC"));
    }
    let opened = method.upstream.open(call::head(method, &parts.headers));
    let too_late = |_elapsed| Reason::DeadlineExceeded.status("the time for the call is over");
    let (response, send, load) = tokio::time::timeout_at(deadline, opened).await.map_err(too_late)??.into_parts();
    let refusal = Arc::new(OnceLock::new());
    let mut uploads = JoinSet::new();
    if let Some(body) = body.take() {
        uploads.spawn(upload(body, send, Meter::new(edge.limits.message_bytes), refusal.clone()));
    }
    let reply = tokio::time::timeout_at(deadline, Call::reply(response, load)).await.map_err(too_late)?;
    let reply = reply.map_err(|error| refusal.get().cloned().unwrap_or_else(|| method.upstream.lost(&error)))?;
    call::check(&reply)?;
    Ok(relayed(request.dialect, method, reply, term, Some((uploads, refusal))))
}

/// Why an upload was stopped, for the answer.
pub type Refusal = Arc<OnceLock<Status>>;

async fn upload(mut body: Incoming, mut send: SendStream<Bytes>, mut meter: Meter, refusal: Refusal) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            send.send_reset(h2::Reason::CANCEL);
            return;
        };
        let Ok(data) = frame.into_data() else { continue };
        if let Err(status) = meter.pass(&data) {
            // Only the first reason counts.
            let _already = refusal.set(status);
            send.send_reset(h2::Reason::CANCEL);
            return;
        }
        if push(&mut send, data).await.is_none() {
            return;
        }
    }
    // The service may have answered and gone without waiting for the end.
    let _gone = send.send_data(Bytes::new(), true);
}

/// Sends bytes as fast as the service takes them; None when it takes no more.
async fn push(send: &mut SendStream<Bytes>, mut data: Bytes) -> Option<()> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await?.ok()?;
        let part = data.split_to(room.min(data.len()));
        send.send_data(part, false).ok()?;
    }
    Some(())
}

fn relayed(
    dialect: Dialect,
    method: &Arc<Method>,
    reply: Reply,
    term: &Term,
    upload: Option<(JoinSet<()>, Refusal)>,
) -> Made {
    if reply.head.headers.contains_key("grpc-status") {
        let code = code_of(&reply.head.headers);
        return Made::Whole(with_headers(dialect, &reply.head.headers, EdgeBody::empty()), code);
    }
    let response = with_headers(dialect, &reply.head.headers, EdgeBody::empty());
    let mode = match dialect {
        Dialect::Native => Mode::Grpc,
        Dialect::Web => Mode::Web(Splitter::default()),
        Dialect::WebText => Mode::WebText(Splitter::default()),
    };
    Made::Stream(response, Relay::new(reply, method.upstream.clone(), term, upload), mode)
}

fn with_headers(dialect: Dialect, headers: &HeaderMap, body: EdgeBody) -> Response<EdgeBody> {
    let mut response = Response::new(body);
    let out = response.headers_mut();
    out.reserve(headers.len() + 6);
    for (name, value) in headers {
        if goes_outward(name.as_str()) {
            out.append(name, value.clone());
        }
    }
    out.insert(CONTENT_TYPE, dialect.content_type());
    response
}

/// Refuses a compressed stream; binary metadata is looked at where headers are.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Reason::Unimplemented.status("compressed messages are not taken here, send them plain"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_padded_at_every_flush() {
        for text in ["AAAAAAEH", "AAAAAAE=Bw==", "AAAAAAE=\r\nBw==", "AA==AAAAAQc="] {
            let decoded = from_base64(text.as_bytes());
            assert!(decoded.is_ok(), "{text}");
        }
        assert_eq!(from_base64(b"AAAAAAE=Bw==").unwrap(), [0, 0, 0, 0, 1, 7].as_slice());
        assert!(from_base64(b"A*==").is_err());
    }

    #[test]
    fn dialects_have_their_content_types() {
        let of = |text: &'static str| Dialect::of(&HeaderValue::from_static(text));
        assert_eq!(of("application/grpc").unwrap().unwrap(), Dialect::Native);
        assert_eq!(of("application/grpc-web-text+proto").unwrap().unwrap(), Dialect::WebText);
        assert_eq!(of("application/grpc-web; charset=x").unwrap().unwrap(), Dialect::Web);
        assert!(of("application/grpc+json").unwrap().is_err());
        assert!(of("application/json").is_none());
    }
}
