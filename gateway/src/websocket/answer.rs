//! One answer on a socket, from its request to its end.
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant as Begun;

use http::HeaderValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tonic::Status;
use weft_auth::REQUEST_ID_HEADER;
use weft_core::Reason;

use super::stop::Stop;
use super::talk::Line;
use super::words::Dialect;
use crate::admit::Over;
use crate::frames::{self, Splitter};
use crate::headers::{LAST_EVENT_ID, check_last_event_id};
use crate::meters::{Entry, Protocol};
use crate::relay::{Event, Relay};
use crate::rest;
use crate::visit::Visit;

/// Where a socket is.
pub enum Phase {
    /// Nothing is asked.
    Idle,
    /// The request of this id waits for the beginning of its answer.
    Starting(Arc<str>, Starting),
    /// The answer is on its way.
    Running(Box<Answer>),
}

/// See [`Phase::Starting`].
pub type Starting = Pin<Box<dyn Future<Output = Result<(Box<Answer>, Over), Status>> + Send>>;

/// An answer on its way.
pub struct Answer {
    /// The id of its request.
    pub request_id: Arc<str>,
    relay: Relay,
    /// How to stop it, if hanging up would not do.
    stop: Option<Stop>,
    /// What has come of its next message.
    pub splitter: Splitter,
    /// What is counted of it.
    pub entry: Entry,
    /// The client knows that it is whole.
    pub told: bool,
}

/// What happens next with an answer.
pub enum Step {
    /// It has begun, or has not.
    Started(Result<(Box<Answer>, Over), Status>),
    /// The service has said something.
    Event(Event),
}

impl Phase {
    /// What happens next; nothing where nothing is asked.
    pub async fn step(&mut self) -> Step {
        match self {
            Phase::Idle => pending().await,
            Phase::Starting(_, starting) => Step::Started(starting.await),
            Phase::Running(answer) => Step::Event(answer.relay.event().await),
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> Option<Arc<str>> {
        match self {
            Phase::Idle => None,
            Phase::Starting(id, _) => Some(id.clone()),
            Phase::Running(answer) => Some(answer.request_id.clone()),
        }
    }

    /// Stops the answer for good, one that has yet to begin as soon as it has.
    pub async fn stop(self) {
        let answer = match self {
            Phase::Idle => return,
            Phase::Starting(_, starting) => starting.await.ok().map(|(answer, _over)| answer),
            Phase::Running(answer) => Some(answer),
        };
        if let Some(stop) = answer.and_then(|answer| answer.hang_up()) {
            stop.call().await;
        }
    }

    /// Whether the client knows that the answer is whole.
    pub fn is_told(&self) -> bool {
        matches!(self, Phase::Running(answer) if answer.told)
    }
}

impl Answer {
    /// Takes no more of it. What is left is to stop it.
    fn hang_up(self) -> Option<Stop> {
        self.stop
    }
}

impl Line {
    /// Begins the call of one request frame.
    ///
    /// # Errors
    /// As those of a request over HTTP.
    pub async fn start(
        self: Arc<Line>,
        body: Utf8Bytes,
        resume: Option<String>,
        request_id: Arc<str>,
    ) -> Result<(Box<Answer>, Over), Status> {
        let method = &self.binding.method;
        let mut entry = Entry::new(method.clone(), Protocol::WebSocket, request_id.clone(), Begun::now());
        match self.call(body.as_bytes(), resume, &request_id).await {
            Ok((relay, stop, over)) => {
                let answer = Answer { request_id, relay, stop, splitter: Splitter::default(), entry, told: false };
                Ok((Box::new(answer), over))
            }
            Err(status) => {
                entry.ended(status.code());
                Err(status)
            }
        }
    }

    async fn call(
        &self,
        body: &[u8],
        resume: Option<String>,
        request_id: &str,
    ) -> Result<(Relay, Option<Stop>, Over), Status> {
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
        let (headers, relay) = rest::begin(method, &parts.headers, frames::seal(wire), &term).await?;
        let stop = Stop::of(&self.edge, method, &parts.headers, &headers);
        Ok((relay, stop, term.until_over()))
    }

    /// Whether an answer can be gone on with by the id of its last event.
    pub fn resumes(&self) -> bool {
        let method = &self.binding.method;
        self.dialect == Dialect::Events && method.tables.event_id(method.output).is_some()
    }
}
