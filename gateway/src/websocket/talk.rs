//! What happens on an open WebSocket: a request, its answer, the next request.
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Begun};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::request::Parts;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tonic::{Code, Status};
use weft_core::{Reason, internal_status, new_id};

use super::answer::{Phase, Step};
use super::end::{End, farewell};
use super::progress::{Progress, Watched};
use super::wishes::{wants_cancel, wants_resume};
use super::words::{Dialect, Words, end, text, words};
use crate::admit::{Greeted, Over};
use crate::edge::Edge;
use crate::error::error_json;
use crate::frames;
use crate::relay::{Event, broken_off, code_of};
use crate::routes::Binding;

/// What is read at once; a client that sends nothing costs so much.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// What a message may take on the wire in fragments, in times of what it may have.
const WIRE_FACTOR: usize = 8;
/// Frames that ask nothing (pings, wishes to stop what does not run) in a minute.
const IDLE_FRAMES_A_MINUTE: u32 = 240;
/// Pings without any sign of life before a client is given up.
const UNANSWERED_PINGS: u32 = 2;

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

struct Talk {
    line: Arc<Line>,
    socket: WebSocketStream<Watched<TokioIo<Upgraded>>>,
    progress: Progress,
    /// When the client may have nothing more.
    over: Over,
    /// When the token expires.
    expires: Option<Instant>,
    /// When it has been open for long enough.
    old: Instant,
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

impl Line {
    /// Talks until either end has enough.
    pub async fn talk(self, stream: Upgraded, greeted: Greeted) {
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
        let now = Instant::now();
        let left_ms = |expires: i64| expires.saturating_mul(1000).saturating_sub(self.edge.mesh.clock().now_ms());
        let left = |expires| Duration::from_millis(u64::try_from(left_ms(expires)).unwrap_or(0));
        let (expires, old) = (greeted.expires.map(|expires| now + left(expires)), now + self.edge.sockets.age);
        let mut talk = Talk {
            line: Arc::new(self),
            socket,
            progress,
            over: greeted.over,
            expires,
            old,
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
                } else if let Err(end) = self.outlived().await {
                    return end;
                }
            }
            let idle = matches!(self.phase, Phase::Idle);
            let outlived = self.expires.unwrap_or(self.old).min(self.old);
            let went = tokio::select! {
                () = stop.cancelled(), if cut.is_none() => {
                    cut = Some(Instant::now() + edge.mesh.config().drain_cap() / 2);
                    Ok(())
                }
                () = sleep_until(cut.unwrap_or_else(Instant::now)), if cut.is_some() => self.cut().await,
                status = self.over.as_mut() => self.over(status).await,
                () = sleep_until(outlived), if idle => Ok(()),
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
            self.stop();
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
                self.stop();
                self.tell(&busy, &id).await?;
                Err(End::Close(CloseCode::Policy, "one answer at a time"))
            }
        }
    }

    /// Nobody wants the answer any more.
    fn stop(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        if self.line.binding.method.stopped_by.is_some() {
            self.line.edge.mesh.tasks().spawn("stop an answer", phase.stop());
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
                self.phase = Phase::Running(answer);
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

    /// Whether an idle socket has been open for long enough, or the token it was opened with has expired.
    async fn outlived(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.expires.is_some_and(|expires| expires <= now) {
            return self.fail(Reason::Unauthenticated.status("the access token has expired, sign in again")).await;
        }
        if self.old <= now { Err(End::Close(CloseCode::Away, "connect again")) } else { Ok(()) }
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
            _status = self.over.as_mut() => Err(End::Close(CloseCode::Policy, "sign in again")),
            () = stopped => Err(End::Close(CloseCode::Away, "the server goes away")),
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

fn every(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(10));
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
