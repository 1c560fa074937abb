//! The HTTP side: key, misbehaviour on order, idempotency, answer.
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State as Shares;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::{future, stream};
use serde_json::Value;
use tokio::time::Instant;

use super::api::{self, Request};
use super::form::{self, Params};
use super::state::{Refusal, State};
use super::webhook::{Delivery, Outbox};

/// Longest idempotency key that Stripe takes.
const MAX_KEY: usize = 255;

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// `GET`, `POST` or `DELETE`.
    pub method: String,
    /// The path from `/v1` on, without the query.
    pub path: String,
    /// The fields of the body or of the query, decoded, in the order they were sent.
    pub fields: Vec<(String, String)>,
    /// The `idempotency-key` header, if there was one.
    pub idempotency_key: Option<String>,
}

impl Call {
    /// The value of a field, by its full name with brackets.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What to do wrong with one request.
#[derive(Clone, Copy, Debug)]
pub enum Misbehave {
    /// 500 without an effect; kept for the idempotency key, as Stripe keeps it.
    ServerError,
    /// 429 with `retry-after` in seconds; nothing is done and nothing kept.
    RateLimited(u32),
    /// Nothing is done and no answer ever comes.
    Hang,
    /// The work is done at once and the answer comes this much later; until then the key is in use.
    Slow(Duration),
    /// The work is done, the answer is cut off before its first byte of body.
    CutAfter,
    /// The work is done, the answer is not JSON.
    Malformed,
}

#[derive(Default)]
pub(super) struct Orders {
    /// Path prefix (empty: every path) and what to do.
    queue: VecDeque<(String, Misbehave)>,
}

/// The first answer to an idempotency key.
pub(super) struct Kept {
    asked: String,
    status: u16,
    body: Value,
    from: Instant,
}

pub(super) struct Shared {
    pub secret_key: String,
    pub state: Mutex<State>,
    pub calls: Mutex<Vec<Call>>,
    pub orders: Mutex<Orders>,
    pub outbox: Outbox,
    pub deliveries: Mutex<Vec<Delivery>>,
    pub(super) kept: Mutex<HashMap<String, Kept>>,
}

impl Shared {
    pub(super) fn new(secret_key: String, state: State) -> Shared {
        let (calls, orders, outbox) = (Mutex::default(), Mutex::default(), Outbox::default());
        let (deliveries, kept) = (Mutex::default(), Mutex::default());
        Shared { secret_key, state: Mutex::new(state), calls, orders, outbox, deliveries, kept }
    }

    /// Does something with the state; the events it makes go to the webhook endpoints and are given back.
    pub(super) fn act<T>(&self, work: impl FnOnce(&mut State) -> T) -> (T, Vec<Value>) {
        let mut state = lock(&self.state);
        let last = state.all("evt").next_back().map(|event| event["id"].clone());
        let done = work(&mut state);
        let mut events: Vec<Value> =
            state.all("evt").rev().take_while(|event| Some(&event["id"]) != last.as_ref()).cloned().collect();
        events.reverse();
        self.outbox.push(&events);
        (done, events)
    }
}

impl Orders {
    pub(super) fn add(&mut self, path: &str, misbehave: Misbehave) {
        self.queue.push_back((path.to_owned(), misbehave));
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    fn next(&mut self, path: &str) -> Option<Misbehave> {
        let at = self.queue.iter().position(|(prefix, _)| path.starts_with(prefix.as_str()))?;
        self.queue.remove(at).map(|(_, misbehave)| misbehave)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every request.
pub(super) async fn answer(
    Shares(shared): Shares<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let sent = if method == Method::POST { body.as_str() } else { uri.query().unwrap_or(body.as_str()) };
    let call = Call {
        method: method.to_string(),
        path: uri.path().to_owned(),
        fields: form::fields(sent),
        idempotency_key: text(HeaderName::from_static("idempotency-key")),
    };
    lock(&shared.calls).push(call.clone());
    if let Err(refusal) = authorized(&shared, text(header::AUTHORIZATION)) {
        return respond(refusal.status, &refusal.body(), false);
    }
    let order = lock(&shared.orders).next(&call.path);
    match order {
        Some(Misbehave::Hang) => future::pending().await,
        Some(Misbehave::RateLimited(seconds)) => return rate_limited(seconds),
        _ => {}
    }
    let (status, body, replayed) = once(&shared, &call, order);
    match order {
        Some(Misbehave::CutAfter) => cut(),
        Some(Misbehave::Malformed) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], "{\"id\": \"").into_response()
        }
        Some(Misbehave::Slow(time)) => {
            tokio::time::sleep(time).await;
            respond(status, &body, replayed)
        }
        _ => respond(status, &body, replayed),
    }
}

fn authorized(shared: &Shared, authorization: Option<String>) -> Result<(), Refusal> {
    if authorization.as_deref() == Some(&format!("Bearer {}", shared.secret_key)) {
        return Ok(());
    }
    let message = if authorization.is_some() {
        "Invalid API Key provided: sk_****"
    } else {
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer \
             auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
    };
    Err(Refusal::invalid(401, message))
}

/// Serves a request, or gives the answer that its key had before. The last value tells a replay.
fn once(shared: &Shared, call: &Call, order: Option<Misbehave>) -> (u16, Value, bool) {
    let key = call.idempotency_key.as_deref().filter(|_| call.method == "POST");
    let mut kept = lock(&shared.kept);
    if let Some(key) = key
        && let Some(answer) = before(&kept, key, call)
    {
        return answer;
    }
    let (status, body, begun) = serve(shared, call, order);
    if let Some(key) = key.filter(|_| begun) {
        let busy = if let Some(Misbehave::Slow(time)) = order { time } else { Duration::ZERO };
        let first = Kept { asked: asked(call), status, body: body.clone(), from: Instant::now() + busy };
        kept.insert(key.to_owned(), first);
    }
    (status, body, false)
}

fn before(kept: &HashMap<String, Kept>, key: &str, call: &Call) -> Option<(u16, Value, bool)> {
    let refuse = |refusal: &Refusal| Some((refusal.status, refusal.body(), false));
    if key.len() > MAX_KEY {
        return refuse(&Refusal::invalid(400, "Idempotency keys must not exceed 255 characters."));
    }
    let first = kept.get(key)?;
    if first.asked != asked(call) {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try \
                 using a key other than '{key}' if you meant to execute a different request."
        );
        return refuse(&Refusal { kind: "idempotency_error", ..Refusal::invalid(400, &message) });
    }
    if Instant::now() < first.from {
        let message = format!("There is currently another in-progress request using this Idempotent Key: {key}");
        let busy = Refusal { kind: "idempotency_error", ..Refusal::invalid(409, &message) };
        return refuse(&Refusal { code: Some("idempotency_key_in_use"), ..busy });
    }
    Some((first.status, first.body.clone(), true))
}

/// What two requests must have in common to be the same.
fn asked(call: &Call) -> String {
    let mut fields: Vec<String> = call.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields.sort();
    format!("{}?{}", call.path, fields.join("\n"))
}

/// Status, body, and whether the work had begun.
fn serve(shared: &Shared, call: &Call, order: Option<Misbehave>) -> (u16, Value, bool) {
    if let Some(Misbehave::ServerError) = order {
        let broken = Refusal { kind: "api_error", ..Refusal::invalid(500, "An unknown error occurred") };
        return (500, broken.body(), true);
    }
    let request = Request { method: &call.method, path: &call.path, params: Params::of(&call.fields) };
    let work = |state: &mut State| {
        state.request = Some((state.id("req"), call.idempotency_key.clone()));
        let served = api::serve(state, &request);
        state.request = None;
        served
    };
    match shared.act(work).0 {
        Ok(body) => (200, body, true),
        Err(refusal) => (refusal.status, refusal.body(), refusal.begun),
    }
}

fn respond(status: u16, body: &Value, replayed: bool) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let replay = replayed.then_some([("idempotent-replayed", "true")]);
    (status, replay, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn rate_limited(seconds: u32) -> Response {
    let refusal = Refusal { code: Some("rate_limit"), ..Refusal::invalid(429, "Request rate limit exceeded.") };
    let mut response = respond(429, &refusal.body(), false);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

/// A body that breaks before its first byte: the client sees a broken connection and no answer.
fn cut() -> Response {
    let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut on order")) });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(broken)).into_response()
}
