//! A service's answer on its way to the client, piece by piece, in the client's protocol.
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use weft_core::{Reason, internal_status};

use crate::admit::{Over, Term};
use crate::error::{Style, error_json, trailers};
use crate::frames::{self, Splitter, trailer_frame};
use crate::grpc::Refusal;
use crate::link::Rest;
use crate::meters::Entry;
use crate::routes::Binding;
use crate::transcode::{find_bytes, write_field, write_message};
use crate::upstream::{Piece, Reply, Upstream};

/// A stream of events says at least this often that it is still there.
const PING_EVERY: Duration = Duration::from_secs(15);

/// What comes from a service.
pub enum Event {
    /// Bytes of frames, cut anywhere.
    Data(Bytes),
    /// The end, with its trailers. Whatever went wrong is in them.
    End(HeaderMap),
}

/// A service's answer behind its headers. Dropping it cancels the call.
pub struct Relay {
    rest: Arc<Rest>,
    upstream: Arc<Upstream>,
    deadline: Pin<Box<Sleep>>,
    /// When the caller may have no more of it.
    over_for_caller: Over,
    /// Why the rest of the request was stopped, where requests stream.
    refusal: Option<Refusal>,
    over: bool,
}

impl Relay {
    /// The rest of an answer.
    pub fn new(reply: Reply, upstream: Arc<Upstream>, term: &Term, upload: Option<(JoinSet<()>, Refusal)>) -> Self {
        let deadline = term.deadline;
        let (upload, refusal) = upload.unzip();
        Relay {
            rest: Rest::new(reply.source, reply.load, upload, deadline),
            upstream,
            deadline: Box::pin(sleep_until(deadline)),
            over_for_caller: term.until_over(),
            refusal,
            over: false,
        }
    }

    /// What comes next. After the end it is the end again.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.over {
            return Poll::Ready(Event::End(HeaderMap::new()));
        }
        let too_late = || trailers(&Reason::DeadlineExceeded.status("the time for the call is over"));
        // Before anything else: a service that always has something to say would never be interrupted.
        let end = if self.deadline.deadline() <= Instant::now() {
            too_late()
        } else if let Poll::Ready(refused) = self.over_for_caller.as_mut().poll(cx) {
            trailers(&refused)
        } else {
            match self.rest.poll(cx) {
                Poll::Ready(Some(Piece::Data(data))) => return Poll::Ready(Event::Data(data)),
                Poll::Ready(Some(Piece::End(Ok(Some(found))))) if found.contains_key("grpc-status") => found,
                Poll::Ready(Some(Piece::End(Ok(_none)))) => trailers(&broken_off()),
                Poll::Ready(Some(Piece::End(Err(error)))) => {
                    let refused = self.refusal.as_ref().and_then(|refusal| refusal.get().cloned());
                    trailers(&refused.unwrap_or_else(|| self.upstream.lost(&error)))
                }
                Poll::Ready(None) => too_late(),
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(cx));
                    too_late()
                }
            }
        };
        self.stop();
        Poll::Ready(Event::End(end))
    }

    /// Nobody wants more of it.
    fn stop(&mut self) {
        self.over = true;
        self.rest.stop();
    }

    /// [`Relay::poll_event`] as a future.
    pub async fn event(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }
}

/// How an answer leaves.
pub enum Mode {
    /// As it came, trailers as trailers.
    Grpc,
    /// grpc-web: frames one by one, trailers as the last one. A frame that is not whole is not begun: the trailers
    /// would be taken for its end.
    Web(Splitter),
    /// grpc-web-text: the same as base64, each frame by itself.
    WebText(Splitter),
    /// Server-sent events of JSON.
    Events(EventStream),
    /// The bytes of each `google.api.HttpBody`.
    Raw(Splitter),
}

impl Mode {
    /// Whether a message has begun to arrive and is not whole.
    fn is_inside_a_message(&self) -> bool {
        match self {
            Mode::Grpc => false,
            Mode::Web(splitter) | Mode::WebText(splitter) | Mode::Raw(splitter) => !splitter.buffered().is_empty(),
            Mode::Events(events) => !events.splitter.buffered().is_empty(),
        }
    }
}

/// What a stream of events needs.
pub struct EventStream {
    /// Messages not yet whole.
    pub splitter: Splitter,
    /// What the messages are.
    pub binding: Arc<Binding>,
    /// For the error, if there is one.
    pub request_id: Arc<str>,
    ping: Pin<Box<Sleep>>,
}

impl EventStream {
    /// A stream that has said something just now.
    pub fn new(splitter: Splitter, binding: Arc<Binding>, request_id: Arc<str>) -> Self {
        EventStream { splitter, binding, request_id, ping: Box::pin(sleep_until(Instant::now() + PING_EVERY)) }
    }
}

/// The body of an answer that is relayed.
pub struct RelayBody {
    relay: Relay,
    mode: Mode,
    limit: usize,
    ready: VecDeque<Frame<Bytes>>,
    over: bool,
    entry: Entry,
}

impl RelayBody {
    /// Relays in this mode; messages that are looked at may have `limit` bytes.
    pub fn new(relay: Relay, mode: Mode, limit: usize, entry: Entry) -> Self {
        RelayBody { relay, mode, limit, ready: VecDeque::new(), over: false, entry }
    }

    /// Handles an event that was awaited before the body began.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Data(data) => {
                if let Err(status) = self.data(data) {
                    self.end(trailers(&status));
                }
            }
            Event::End(trailers) => self.end(trailers),
        }
    }

    fn data(&mut self, data: Bytes) -> Result<(), Status> {
        match &mut self.mode {
            Mode::Grpc => self.ready.push_back(Frame::data(data)),
            Mode::Web(splitter) => {
                splitter.push(&data);
                while let Some(frame) = splitter.next(self.limit)? {
                    self.ready.push_back(Frame::data(frame));
                }
            }
            Mode::WebText(splitter) => {
                splitter.push(&data);
                while let Some(frame) = splitter.next(self.limit)? {
                    self.ready.push_back(Frame::data(STANDARD.encode(frame).into()));
                }
            }
            Mode::Events(events) => {
                events.splitter.push(&data);
                while let Some(frame) = events.splitter.next(self.limit)? {
                    self.ready.push_back(Frame::data(event(&events.binding, &frames::message(frame))?));
                }
                events.ping.as_mut().reset(Instant::now() + PING_EVERY);
            }
            Mode::Raw(splitter) => {
                splitter.push(&data);
                while let Some(frame) = splitter.next(self.limit)? {
                    let message = frames::message(frame);
                    let bytes = find_bytes(&message, 2).map_err(|_error| internal_status())?.unwrap_or_default();
                    self.ready.push_back(Frame::data(message.slice_ref(bytes)));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, mut ending: HeaderMap) {
        if code_of(&ending) == Code::Ok && self.mode.is_inside_a_message() {
            ending = trailers(&broken_off());
        }
        let code = code_of(&ending);
        self.entry.ended(code);
        self.over = true;
        self.relay.stop();
        match &self.mode {
            Mode::Grpc => self.ready.push_back(Frame::trailers(ending)),
            Mode::Web(_) => self.ready.push_back(Frame::data(trailer_frame(&ending))),
            Mode::WebText(_) => self.ready.push_back(Frame::data(STANDARD.encode(trailer_frame(&ending)).into())),
            Mode::Events(events) if code != Code::Ok => {
                let status = Status::from_header_map(&ending).unwrap_or_else(internal_status);
                let style = events.binding.method.style;
                let mut text =
                    if style == Style::OpenAi { b"data: ".to_vec() } else { b"event: error\ndata: ".to_vec() };
                text.extend_from_slice(&error_json(&status, &events.request_id, style));
                text.extend_from_slice(b"\n\n");
                self.ready.push_back(Frame::data(text.into()));
            }
            Mode::Events(events) if events.binding.method.style == Style::OpenAi => {
                self.ready.push_back(Frame::data(Bytes::from_static(b"data: [DONE]\n\n")));
            }
            Mode::Events(_) | Mode::Raw(_) => {}
        }
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.over {
                return match &this.mode {
                    // A raw body has no place for an error but being cut.
                    Mode::Raw(_) if this.entry.failed() => Poll::Ready(Some(Err(broken_off()))),
                    _ => Poll::Ready(None),
                };
            }
            match this.relay.poll_event(cx) {
                Poll::Ready(event) => this.take(event),
                Poll::Pending => {
                    let Mode::Events(events) = &mut this.mode else { return Poll::Pending };
                    ready!(events.ping.as_mut().poll(cx));
                    events.ping.as_mut().reset(Instant::now() + PING_EVERY);
                    this.ready.push_back(Frame::data(Bytes::from_static(b": ping\n\n")));
                }
            }
        }
    }
}

/// One message as a server-sent event. JSON has no line breaks of its own.
fn event(binding: &Binding, message: &[u8]) -> Result<Bytes, Status> {
    let method = &binding.method;
    let mut text = Vec::with_capacity(message.len() + 64);
    if let Some(number) = method.tables.event_id(method.output)
        && let Ok(Some(id)) = find_bytes(message, number)
        && !id.is_empty()
        && id.iter().all(u8::is_ascii_graphic)
    {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id);
        text.push(b'\n');
    }
    text.extend_from_slice(b"data: ");
    print(binding, message, &mut text)?;
    text.extend_from_slice(b"\n\n");
    Ok(text.into())
}

/// A message as the JSON that its binding says.
pub fn print(binding: &Binding, message: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let method = &binding.method;
    let printed = match &binding.response {
        None => write_message(&method.tables, method.output, message, out),
        Some(field) => write_field(&method.tables, method.output, field, message, out),
    };
    printed.map_err(|error| {
        tracing::error!(rpc = method.rpc, %error, "an answer cannot be written as JSON");
        internal_status()
    })
}

/// The service went away in the middle, or said that it was done in the middle of a message.
pub fn broken_off() -> Status {
    Reason::Unavailable.status("the service broke off its answer")
}

/// The code in trailers; without one the answer is broken.
pub fn code_of(trailers: &HeaderMap) -> Code {
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Code::Ok,
        Some(digits) => Code::from_bytes(digits),
        None => Code::Unknown,
    }
}
