//! JSON over HTTP: a path and a body become a message, a message becomes a body or a stream of events.
use std::sync::Arc;
use std::time::{Duration, Instant as Begun};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tonic::{Code, Status};
use weft_core::{Reason, internal_status};

use crate::admit::Term;
use crate::body::{BodyLimit, EdgeBody, read_all};
use crate::call::{Answer, start, unary};
use crate::edge::Edge;
use crate::frames::{self, Splitter};
use crate::headers::{check_last_event_id, goes_outward};
use crate::meters::{Entry, Protocol};
use crate::methods::Method;
use crate::path;
use crate::relay::{Event, EventStream, Mode, Relay, RelayBody, code_of, print};
use crate::routes::{Binding, BodyRule};
use crate::transcode::{Label, find_bytes, put_bytes_field, read_field, read_message, set_text};
use crate::visit::Visit;

/// A stream that says nothing for so long begins anyway, so that nobody in between gives it up.
const FIRST_EVENT_WITHIN: Duration = Duration::from_secs(15);

/// A request that found its binding.
pub struct Call<'a> {
    /// How the path reaches the RPC.
    pub binding: &'a Arc<Binding>,
    /// The path's decoded segments, if it has variables.
    pub segments: Vec<String>,
    /// The client's end.
    pub visit: &'a Visit,
    /// The request's id.
    pub request_id: Arc<str>,
}

/// Answers one request.
///
/// # Errors
/// What the caller did wrong, what the policy refuses, what the service says.
pub async fn rest(
    edge: &Edge,
    call: Call<'_>,
    mut parts: Parts,
    body: &mut Option<Incoming>,
) -> Result<Response<EdgeBody>, Status> {
    let method = &call.binding.method;
    let protocol = if method.server_streaming { Protocol::Sse } else { Protocol::Json };
    let mut entry = Entry::new(method.clone(), protocol, call.request_id.clone(), Begun::now());
    match answer(edge, call, &mut parts, body, &mut entry).await {
        Ok(Made::Whole(response)) => {
            entry.ended(Code::Ok);
            Ok(response)
        }
        Ok(Made::Stream(headers, stream)) => Ok(stream.respond(headers, entry)),
        Err(status) => {
            entry.ended(status.code());
            Err(status)
        }
    }
}

/// What became of a request.
enum Made {
    Whole(Response<EdgeBody>),
    Stream(HeaderMap, Box<Stream>),
}

async fn answer(
    edge: &Edge,
    mut call: Call<'_>,
    parts: &mut Parts,
    body: &mut Option<Incoming>,
    entry: &mut Entry,
) -> Result<Made, Status> {
    let mut term = edge.door.admit(&call.binding.method, parts, call.visit).await?;
    let bytes = read_body(edge, call.binding, &parts.headers, body).await?;
    if let Some(sibling) = call.binding.streamed_by.as_ref().filter(|_sibling| wants_stream(&bytes)) {
        call.binding = sibling;
        edge.door.time(&sibling.method, &mut term, &mut parts.headers);
        entry.answered_by(sibling.method.clone(), Protocol::Sse);
    }
    let binding = call.binding;
    let method = &binding.method;
    check_last_event_id(&mut parts.headers, method.server_streaming)?;
    let deadline = term.deadline;
    let frame = frames::seal(request(edge, binding, &call.segments, parts, &bytes)?);
    drop(bytes);
    if method.server_streaming {
        let (headers, relay) = begin(method, &parts.headers, frame, &term).await?;
        return Ok(Made::Stream(outward(&headers), Box::new(Stream::begin(edge, &call, relay).await?)));
    }
    let answer = unary(method, &parts.headers, frame, deadline, edge.limits.response_bytes).await?;
    if let Some(status) = answer.error() {
        return Err(status);
    }
    whole(binding, answer).map(Made::Whole)
}

/// Begins a call whose answer streams: the metadata before the answer, and the answer.
///
/// # Errors
/// As [`start`], and what the service refuses before it says anything.
pub async fn begin(
    method: &Method,
    headers: &HeaderMap,
    frame: Bytes,
    term: &Term,
) -> Result<(HeaderMap, Relay), Status> {
    let reply = start(method, headers, frame, term.deadline).await?;
    if reply.head.headers.contains_key("grpc-status") && code_of(&reply.head.headers) != Code::Ok {
        return Err(Status::from_header_map(&reply.head.headers).unwrap_or_else(|| Status::new(Code::Unknown, "")));
    }
    let headers = reply.head.headers.clone();
    Ok((headers, Relay::new(reply, method.upstream.clone(), term, None)))
}

/// Whether a JSON body asks for a stream. One that cannot be read is refused where it is read.
fn wants_stream(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Wish<'a> {
        #[serde(borrow, default)]
        stream: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Wish>(body).is_ok_and(|wish| wish.stream.is_some_and(|stream| stream.get() == "true"))
}

async fn read_body(
    edge: &Edge,
    binding: &Binding,
    headers: &HeaderMap,
    body: &mut Option<Incoming>,
) -> Result<Bytes, Status> {
    if binding.body == BodyRule::None {
        return Ok(Bytes::new());
    }
    let limit = if binding.raw_request { edge.limits.message_bytes } else { edge.limits.json_bytes };
    let bytes = read_all(body, headers, BodyLimit { bytes: limit, ..edge.limits.body }).await?;
    if bytes.is_empty() {
        return Ok(bytes);
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Reason::UnsupportedMediaType.status("compressed bodies are not taken here, send it plain"));
    }
    if !binding.raw_request && !headers.get(CONTENT_TYPE).is_some_and(is_json) {
        return Err(Reason::UnsupportedMediaType.status("send the body as application/json"));
    }
    Ok(bytes)
}

/// `application/json`, perhaps with parameters; JSON is UTF-8 whatever they say.
fn is_json(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The framed request message: the body first, then the path and the query, which go before it where both set a
/// field, because on the wire the last one counts.
///
/// # Errors
/// INVALID_ARGUMENT, saying what cannot be read.
pub fn request(
    edge: &Edge,
    binding: &Binding,
    segments: &[String],
    parts: &Parts,
    body: &[u8],
) -> Result<Vec<u8>, Status> {
    let method = &binding.method;
    let (tables, input) = (&*method.tables, method.input);
    let mut wire = frames::begin(body.len());
    let invalid = |message: String| Reason::InvalidArgument.status(message);
    match &binding.body {
        BodyRule::None => {}
        _ if binding.raw_request => wire = raw_request(binding, parts, body, wire),
        _ if body.is_empty() => {}
        BodyRule::All => wire = read_message(tables, input, body, edge.limits.json_depth, wire).map_err(invalid)?,
        BodyRule::Field(field) => {
            wire = read_field(tables, input, field, body, edge.limits.json_depth, wire).map_err(invalid)?
        }
    }
    for (field, text) in binding.captured(segments) {
        set_text(tables, input, field, &text, &mut wire)
            .map_err(|error| invalid(format!("a variable of the path {error}")))?;
    }
    if let Some(query) = parts.uri.query() {
        read_query(binding, query, &mut wire)?;
    }
    Ok(wire)
}

fn raw_request(binding: &Binding, parts: &Parts, body: &[u8], mut wire: Vec<u8>) -> Vec<u8> {
    let content_type =
        parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/octet-stream");
    let mut raw = Vec::with_capacity(body.len() + content_type.len() + 16);
    put_bytes_field(&mut raw, 1, content_type.as_bytes());
    put_bytes_field(&mut raw, 2, body);
    match &binding.body {
        BodyRule::Field(field) => {
            if let Some((number, _, _)) = binding.method.tables.at(binding.method.input, field) {
                put_bytes_field(&mut wire, number, &raw);
            }
        }
        _ => wire.extend_from_slice(&raw),
    }
    wire
}

fn read_query(binding: &Binding, query: &str, wire: &mut Vec<u8>) -> Result<(), Status> {
    let method = &binding.method;
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = path::decode(name, true).zip(path::decode(value, true));
        let (name, value) =
            decoded.ok_or_else(|| Reason::InvalidArgument.status("the query has a malformed percent-escape"))?;
        let shown: String = name.chars().take(64).collect();
        let invalid = |what: &str| Reason::InvalidArgument.status(format!("query parameter {shown}: {what}"));
        let field = method.tables.path(method.input, &name).ok_or_else(|| invalid("there is no such field"))?;
        let in_body = match &binding.body {
            BodyRule::All => true,
            BodyRule::Field(body) => *body == field,
            BodyRule::None => false,
        };
        if in_body {
            return Err(invalid("belongs into the body"));
        }
        if binding.captures(&field) {
            return Err(invalid("is part of the path"));
        }
        let repeated = matches!(method.tables.at(method.input, &field), Some((_, _, Label::Repeated { .. })));
        if !repeated && seen.contains(&field) {
            return Err(invalid("given twice"));
        }
        set_text(&method.tables, method.input, &field, &value, wire).map_err(|error| invalid(&error.to_string()))?;
        seen.push(field);
    }
    Ok(())
}

/// A unary answer as JSON, or as the bytes it carries.
fn whole(binding: &Binding, answer: Answer) -> Result<Response<EdgeBody>, Status> {
    let message = frames::only_message(answer.body)?
        .ok_or_else(|| Reason::Internal.status("the service's answer has no message"))?;
    let mut headers = outward(&answer.headers);
    let body = if binding.raw_response {
        let (content_type, data) = raw_parts(binding, &message)?;
        headers.insert(CONTENT_TYPE, content_type);
        data
    } else {
        let mut text = Vec::with_capacity(message.len() * 2 + 64);
        print(binding, &message, &mut text)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Bytes::from(text)
    };
    let mut response = Response::new(EdgeBody::full(body));
    *response.status_mut() = binding.method.http_status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Content type and bytes of the `google.api.HttpBody` in a message.
fn raw_parts(binding: &Binding, message: &Bytes) -> Result<(HeaderValue, Bytes), Status> {
    let broken = |_error| internal_status();
    let mut raw: &[u8] = message;
    if let Some(field) = &binding.response
        && let Some((number, _, _)) = binding.method.tables.at(binding.method.output, field)
    {
        raw = find_bytes(raw, number).map_err(broken)?.unwrap_or_default();
    }
    let content_type = find_bytes(raw, 1).map_err(broken)?.and_then(|text| HeaderValue::from_bytes(text).ok());
    let data = find_bytes(raw, 2).map_err(broken)?.unwrap_or_default();
    let content_type =
        content_type.filter(|value| !value.is_empty()).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok((content_type, message.slice_ref(data)))
}

/// What of a service's metadata a JSON client gets.
fn outward(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(8);
    for (name, value) in headers {
        let text = name.as_str();
        if goes_outward(text) && !text.starts_with("grpc-") && !text.ends_with("-bin") {
            out.append(name, value.clone());
        }
    }
    out
}

/// A stream that has begun.
struct Stream {
    relay: Relay,
    mode: Mode,
    content_type: HeaderValue,
    first: Option<Event>,
    limit: usize,
}

impl Stream {
    /// Waits for the first message, because an error before it is still a plain HTTP error.
    async fn begin(edge: &Edge, call: &Call<'_>, mut relay: Relay) -> Result<Stream, Status> {
        let limit = edge.limits.response_bytes;
        let raw = call.binding.raw_response;
        let mut splitter = Splitter::default();
        let mut content_type =
            HeaderValue::from_static(if raw { "application/octet-stream" } else { "text/event-stream" });
        // A message may come in pieces, and what a raw body is stands in its first one.
        let first = loop {
            let event =
                if raw { Some(relay.event().await) } else { timeout(FIRST_EVENT_WITHIN, relay.event()).await.ok() };
            match event {
                Some(Event::End(trailers)) if code_of(&trailers) != Code::Ok => {
                    return Err(Status::from_header_map(&trailers).unwrap_or_else(|| Status::new(Code::Unknown, "")));
                }
                Some(Event::Data(data)) if raw => {
                    splitter.push(&data);
                    let mut peek = Splitter::default();
                    peek.push(splitter.buffered());
                    if let Some(frame) = peek.next(limit)? {
                        (content_type, _) = raw_parts(call.binding, &frames::message(frame))?;
                        break Some(Event::Data(Bytes::new()));
                    }
                }
                other => break other,
            }
        };
        let mode = if raw {
            Mode::Raw(splitter)
        } else {
            Mode::Events(EventStream::new(splitter, call.binding.clone(), call.request_id.clone()))
        };
        Ok(Stream { relay, mode, content_type, first, limit })
    }

    fn respond(self, mut headers: HeaderMap, entry: Entry) -> Response<EdgeBody> {
        let mut body = RelayBody::new(self.relay, self.mode, self.limit, entry);
        if let Some(event) = self.first {
            body.take(event);
        }
        headers.insert(CONTENT_TYPE, self.content_type);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // The proxies that buffer answers unless told otherwise know this one.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let mut response = Response::new(EdgeBody::Relay(Box::new(body)));
        *response.headers_mut() = headers;
        response
    }
}
