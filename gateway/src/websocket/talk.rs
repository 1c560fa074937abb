//! What happens on an open WebSocket: a request, its answer, the next request.
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant as Begun};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use http::request::Parts;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tonic::{Code, Status};
use weft_auth::REQUEST_ID_HEADER;
use weft_core::{Reason, internal_status, new_id};

use super::progress::{Progress, Watched};
use super::words::{Dialect, Words, end, text, words};
use crate::admit::Over;
use crate::edge::Edge;
use crate::error::error_json;
use crate::frames::{self, Splitter};
use crate::headers::{LAST_EVENT_ID, check_last_event_id};
use crate::meters::{Entry, Protocol};
use crate::relay::{Event, Relay, broken_off, code_of};
use crate::rest;
use crate::routes::Binding;
use crate::visit::Visit;

/// What is read at once; a client that sends nothing costs so much.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// A frame that is only a wish (to stop, to go on) is shorter.
const MAX_WISH_BYTES: usize = 256;
/// What a message may take on the wire in fragments, in times of what it may have.
const WIRE_FACTOR: usize = 8;
/// Frames that ask nothing (pings, wishes to stop what does not run) in a minute.
const IDLE_FRAMES_A_MINUTE: u32 = 240;
/// Pings without any sign of life before a client is given up.
const UNANSWERED_PINGS: u32 = 2;
/// How long a farewell may take, and how much of what a client still sends is taken in meanwhile: it would otherwise
/// lose the farewell with the connection.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
const FAREWELL_BYTES: usize = 16 * 1024 * 1024;

/// One socket's place: which RPC answers on it, and whose it is.
pub struct Line {
    /// The edge.
    pub edge: Arc<Edge>,
    /// The path.
    pub binding: Arc<Binding>,
    /// The path's decoded segments, if it has variables.
    pub segments: Vec<String>,
    /// The handshake without what is only its own: the head of every request.
    pub parts: Parts,
    /// The other end.
    pub peer: SocketAddr,
    /// How frames look.
    pub dialect: Dialect,
    /// The id of the handshake, and of the first request.
    pub request_id: Arc<str>,
}

/// How a socket ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// We say why.
    Close(CloseCode, &'static str),
    /// The client has said that it goes.
    Closed,
    /// There is nobody to say anything to.
    Gone,
}

struct Talk {
    line: Arc<Line>,
    socket: WebSocketStream<Watched<TokioIo<Upgraded>>>,
    progress: Progress,
    /// When the client may have nothing more.
    over: Over,
    phase: Phase,
    /// A request that came before the answer was wholly over.
    next: Option<Utf8Bytes>,
    /// How many requests there were.
    requests: u64,
    /// Pings since the client last said anything.
    unanswered: u32,
    /// Frames that asked nothing in this minute, and when it began.
    idle_frames: (u32, Instant),
}

enum Phase {
    Idle,
    Starting(Arc<str>, Starting),
    Running(Box<Answer>),
}

type Starting = Pin<Box<dyn Future<Output = Result<(Answer, Over), Status>> + Send>>;

/// An answer on its way.
struct Answer {
    request_id: Arc<str>,
    relay: Relay,
    splitter: Splitter,
    entry: Entry,
    /// The client knows that it is whole.
    told: bool,
}

/// What happens next with an answer.
enum Step {
    Started(Result<(Answer, Over), Status>),
    Event(Event),
}

impl Phase {
    async fn step(&mut self) -> Step {
        match self {
            Phase::Idle => pending().await,
            Phase::Starting(_, starting) => Step::Started(starting.await),
            Phase::Running(answer) => Step::Event(answer.relay.event().await),
        }
    }

    fn request_id(&self) -> Option<Arc<str>> {
        match self {
            Phase::Idle => None,
            Phase::Starting(id, _) => Some(id.clone()),
            Phase::Running(answer) => Some(answer.request_id.clone()),
        }
    }

    fn is_told(&self) -> bool {
        matches!(self, Phase::Running(answer) if answer.told)
    }
}

impl Line {
    /// Talks until either end has enough.
    pub async fn talk(self, stream: Upgraded, over: Over) {
        let begun = Begun::now();
        let limit = self.edge.limits.json_bytes;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_frame_size(Some(limit))
            .max_message_size(Some(limit));
        let progress = Progress::default();
        let watched = Watched { stream: TokioIo::new(stream), progress: progress.clone() };
        let socket = WebSocketStream::from_raw_socket(watched, Role::Server, Some(config)).await;
        let mut talk = Talk {
            line: Arc::new(self),
            socket,
            progress,
            over,
            phase: Phase::Idle,
            next: None,
            requests: 0,
            unanswered: 0,
            idle_frames: (0, Instant::now()),
        };
        let end = talk.run().await;
        // Whatever still runs is cancelled, before the farewell takes its time.
        talk.phase = Phase::Idle;
        tracing::info!(
            request_id = &*talk.line.request_id,
            rpc = talk.line.binding.method.rpc,
            protocol = "websocket",
            requests = talk.requests,
            close = match &end {
                End::Close(code, _) => u16::from(*code),
                End::Closed => u16::from(CloseCode::Normal),
                End::Gone => u16::from(CloseCode::Abnormal),
            },
            ms = begun.elapsed().as_micros() as f64 / 1000.0,
            "socket closed"
        );
        farewell(talk.socket, end).await;
    }

    /// Begins the call of one request frame.
    async fn start(
        self: Arc<Line>,
        body: Utf8Bytes,
        resume: Option<String>,
        request_id: Arc<str>,
    ) -> Result<(Answer, Over), Status> {
        let method = &self.binding.method;
        let mut entry = Entry::new(method.clone(), Protocol::WebSocket, request_id.clone(), Begun::now());
        match self.call(body.as_bytes(), resume, &request_id).await {
            Ok((relay, over)) => {
                Ok((Answer { request_id, relay, splitter: Splitter::default(), entry, told: false }, over))
            }
            Err(status) => {
                entry.ended(status.code());
                Err(status)
            }
        }
    }

    async fn call(&self, body: &[u8], resume: Option<String>, request_id: &str) -> Result<(Relay, Over), Status> {
        let method = &self.binding.method;
        let mut parts = self.parts.clone();
        if let Ok(id) = HeaderValue::from_str(request_id) {
            parts.headers.insert(REQUEST_ID_HEADER, id);
        }
        let term = self.edge.door.admit(method, &mut parts, &Visit::new(self.peer)).await?;
        let mut body = body;
        if let Some(id) = resume {
            let no_id = || Reason::InvalidArgument.status("last_event_id is no id of an event");
            let id = HeaderValue::try_from(id).ok().filter(|id| !id.is_empty()).ok_or_else(no_id)?;
            parts.headers.insert(LAST_EVENT_ID, id);
            check_last_event_id(&mut parts.headers, true)?;
            body = &[];
        }
        let wire = rest::request(&self.edge, &self.binding, &self.segments, &parts, body)?;
        let (_headers, relay) = rest::begin(method, &parts.headers, frames::seal(wire), &term).await?;
        Ok((relay, term.until_over()))
    }
}

impl Talk {
    async fn run(&mut self) -> End {
        let (edge, stop) = (self.line.edge.clone(), self.line.edge.mesh.shutdown().token());
        let mut pings = every(edge.sockets.ping_every);
        let mut checks = every(edge.limits.body.within / 4);
        // When a running answer is cut, once the edge stops.
        let mut cut = None;
        loop {
            if let Phase::Idle = self.phase {
                if cut.is_some() {
                    return End::Close(CloseCode::Away, "the server goes away");
                }
                if let Some(body) = self.next.take() {
                    self.begin(body, None);
                }
            }
            let went = tokio::select! {
                () = stop.cancelled(), if cut.is_none() => {
                    cut = Some(Instant::now() + edge.mesh.config().drain_cap() / 2);
                    Ok(())
                }
                () = sleep_until(cut.unwrap_or_else(Instant::now)), if cut.is_some() => self.cut().await,
                status = self.over.as_mut() => self.over(status).await,
                _ = pings.tick() => self.ping().await,
                _ = checks.tick() => self.check(),
                heard = self.socket.next(), if self.next.is_none() => self.hear(heard).await,
                step = self.phase.step() => self.step(step).await,
            };
            if let Err(end) = went {
                return end;
            }
        }
    }

    /// What the client has said.
    async fn hear(&mut self, heard: Option<Result<Message, Error>>) -> Result<(), End> {
        let message = match heard {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => return Err(End::Close(CloseCode::Size, "the message is too large")),
            Some(Err(Error::Utf8(_))) => return Err(End::Close(CloseCode::Invalid, "the text is not UTF-8")),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => return Err(End::Gone),
            Some(Err(Error::Protocol(error))) => {
                tracing::debug!(%error, "a websocket breaks the protocol");
                return Err(End::Close(CloseCode::Protocol, "the frame is malformed"));
            }
            Some(Err(_)) | None => return Err(End::Gone),
        };
        match message {
            Message::Text(body) => {
                self.progress.message();
                self.unanswered = 0;
                self.request(body).await
            }
            Message::Binary(_) => Err(End::Close(CloseCode::Unsupported, "send text frames")),
            Message::Ping(said) => {
                self.progress.control(said.len());
                self.unanswered = 0;
                self.idle_frame()
            }
            Message::Pong(said) => {
                self.progress.control(said.len());
                let asked = std::mem::take(&mut self.unanswered) > 0;
                if asked { Ok(()) } else { self.idle_frame() }
            }
            Message::Close(_) => Err(End::Closed),
            Message::Frame(_) => Ok(()),
        }
    }

    async fn request(&mut self, body: Utf8Bytes) -> Result<(), End> {
        if wants_cancel(&body) {
            let id = self.phase.request_id().filter(|_id| !self.phase.is_told());
            let Some(id) = id else { return self.idle_frame() };
            self.phase = Phase::Idle;
            return self.tell(&Reason::Cancelled.status("the answer was stopped"), &id).await;
        }
        match self.phase {
            Phase::Idle => {
                let resume = self.line.resumes().then(|| wants_resume(&body)).flatten();
                self.begin(body, resume);
                Ok(())
            }
            // The client knows that the answer is over before we do.
            _ if self.phase.is_told() => {
                self.next = Some(body);
                Ok(())
            }
            _ => {
                let busy = Reason::FailedPrecondition.status("an answer is running, wait for its end or cancel it");
                let id = self.phase.request_id().unwrap_or_else(|| self.line.request_id.clone());
                self.phase = Phase::Idle;
                self.tell(&busy, &id).await?;
                Err(End::Close(CloseCode::Policy, "one answer at a time"))
            }
        }
    }

    fn begin(&mut self, body: Utf8Bytes, resume: Option<String>) {
        let id: Arc<str> = if self.requests == 0 { self.line.request_id.clone() } else { new_id().into() };
        self.requests += 1;
        let starting = self.line.clone().start(body, resume, id.clone());
        self.phase = Phase::Starting(id, Box::pin(starting));
    }

    /// What the service has said.
    async fn step(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Started(Ok((answer, over))) => {
                self.over = over;
                self.phase = Phase::Running(Box::new(answer));
                Ok(())
            }
            Step::Started(Err(status)) => self.fail(status).await,
            Step::Event(Event::Data(data)) => match self.data(&data).await {
                Ok(()) => Ok(()),
                Err(Stopped::End(end)) => Err(end),
                Err(Stopped::Failed(status)) => self.fail(status).await,
            },
            Step::Event(Event::End(trailers)) => {
                let Phase::Running(answer) = &self.phase else { return Ok(()) };
                let whole = answer.splitter.buffered().is_empty();
                match code_of(&trailers) {
                    Code::Ok if whole => self.finish().await,
                    Code::Ok => self.fail(broken_off()).await,
                    _ => self.fail(Status::from_header_map(&trailers).unwrap_or_else(internal_status)).await,
                }
            }
        }
    }

    /// Sends on the messages that are whole.
    async fn data(&mut self, data: &Bytes) -> Result<(), Stopped> {
        let line = self.line.clone();
        if let Phase::Running(answer) = &mut self.phase {
            answer.splitter.push(data);
        }
        loop {
            let Phase::Running(answer) = &mut self.phase else { return Ok(()) };
            let next = answer.splitter.next(line.edge.limits.response_bytes).map_err(Stopped::Failed)?;
            let Some(frame) = next else { return Ok(()) };
            let said = words(&line.binding, line.dialect, &frames::message(frame)).map_err(Stopped::Failed)?;
            let Words { frames, done } = said;
            answer.told |= done;
            for frame in frames {
                self.send(Message::Text(frame)).await.map_err(Stopped::End)?;
            }
        }
    }

    /// The answer is whole.
    async fn finish(&mut self) -> Result<(), End> {
        if let Phase::Running(mut answer) = std::mem::replace(&mut self.phase, Phase::Idle) {
            answer.entry.ended(Code::Ok);
        }
        match end(&self.line.binding) {
            Some(frame) => self.send(Message::Text(frame)).await,
            None => Ok(()),
        }
    }

    /// The answer has failed. Who may not go on is told so and shown out.
    async fn fail(&mut self, status: Status) -> Result<(), End> {
        let id = self.phase.request_id().unwrap_or_else(|| self.line.request_id.clone());
        if let Phase::Running(mut answer) = std::mem::replace(&mut self.phase, Phase::Idle) {
            answer.entry.ended(status.code());
        }
        self.tell(&status, &id).await?;
        if status.code() == Code::Unauthenticated || Reason::of(&status) == Some(Reason::AccountSuspended) {
            return Err(End::Close(CloseCode::Policy, "sign in again"));
        }
        Ok(())
    }

    /// The session is over, or the account suspended.
    async fn over(&mut self, status: Status) -> Result<(), End> {
        // It has said all it had to say.
        self.over = Box::pin(pending());
        self.fail(status).await?;
        Err(End::Close(CloseCode::Policy, "sign in again"))
    }

    /// The edge stops and cannot wait any longer.
    async fn cut(&mut self) -> Result<(), End> {
        self.fail(Reason::Unavailable.status("the server goes away, connect again")).await?;
        Err(End::Close(CloseCode::Away, "the server goes away"))
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.unanswered >= UNANSWERED_PINGS {
            return Err(End::Close(CloseCode::Policy, "pings stay unanswered"));
        }
        self.unanswered += 1;
        self.send(Message::Ping(Bytes::new())).await
    }

    /// Whether the client finishes what it begins to say.
    fn check(&self) -> Result<(), End> {
        let limits = &self.line.edge.limits;
        match self.progress.under_way() {
            Some((since, _)) if since.elapsed() > limits.body.within => {
                Err(End::Close(CloseCode::Policy, "the message did not arrive in time"))
            }
            Some((_, bytes)) if bytes > limits.json_bytes.saturating_mul(WIRE_FACTOR) => {
                Err(End::Close(CloseCode::Size, "the message is too large"))
            }
            _ => Ok(()),
        }
    }

    /// Counts a frame that asks nothing; no other limit does.
    fn idle_frame(&mut self) -> Result<(), End> {
        let (count, since) = &mut self.idle_frames;
        if since.elapsed() > Duration::from_secs(60) {
            (*count, *since) = (0, Instant::now());
        }
        *count += 1;
        if *count > IDLE_FRAMES_A_MINUTE {
            return Err(End::Close(CloseCode::Policy, "too many pings"));
        }
        Ok(())
    }

    /// Sends an error.
    async fn tell(&mut self, status: &Status, request_id: &str) -> Result<(), End> {
        let json = error_json(status, request_id, self.line.binding.method.style);
        match text(json) {
            Ok(frame) => self.send(Message::Text(frame)).await,
            Err(_never) => Ok(()),
        }
    }

    /// Sends a frame. A client that takes nothing is given up below, after `WEFT_EDGE_WRITE_TIMEOUT_MS`; sooner if it may
    /// have nothing more anyway.
    async fn send(&mut self, message: Message) -> Result<(), End> {
        let shutdown = self.line.edge.mesh.shutdown().token();
        let stopped = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.line.edge.mesh.config().drain_cap() / 2).await;
        };
        tokio::select! {
            biased;
            sent = self.socket.send(message) => sent.map_err(|_error| End::Gone),
            _status = self.over.as_mut() => Err(End::Gone),
            () = stopped => Err(End::Gone),
        }
    }
}

/// Why no more of an answer is sent.
enum Stopped {
    /// The socket ends.
    End(End),
    /// The answer does.
    Failed(Status),
}

impl Line {
    /// Whether an answer can be gone on with by the id of its last event.
    fn resumes(&self) -> bool {
        let method = &self.binding.method;
        self.dialect == Dialect::Events && method.tables.event_id(method.output).is_some()
    }
}

/// Whether a frame is `{"cancel": true}`.
fn wants_cancel(body: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        cancel: bool,
    }
    body.len() <= MAX_WISH_BYTES && serde_json::from_str(body).is_ok_and(|Wish { cancel }| cancel)
}

/// The id in `{"last_event_id": "…"}`.
fn wants_resume(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        last_event_id: String,
    }
    if body.len() > MAX_WISH_BYTES {
        return None;
    }
    serde_json::from_str(body).ok().map(|Wish { last_event_id }| last_event_id)
}

fn every(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(10));
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Ends a socket so that the client hears why.
async fn farewell(mut socket: WebSocketStream<Watched<TokioIo<Upgraded>>>, end: End) {
    let said = async {
        match end {
            End::Gone => return,
            End::Closed => {
                let _sent = socket.flush().await;
            }
            End::Close(code, reason) => {
                let _sent = socket.close(Some(CloseFrame { code, reason: reason.into() })).await;
                while let Some(Ok(_late)) = socket.next().await {}
            }
        }
        let mut stream = socket.into_inner();
        let _shut = stream.shutdown().await;
        let (mut scratch, mut left) = (vec![0; READ_BUFFER_BYTES], FAREWELL_BYTES);
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // Whoever is slower than this does not get to read why.
    let _elapsed = timeout(FAREWELL_WITHIN, said).await;
}
