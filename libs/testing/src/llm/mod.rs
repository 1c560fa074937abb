//! A provider of models on a free port that speaks each dialect and misbehaves on order.
//!
//! OpenAI: `POST /v1/chat/completions`; Anthropic: `POST /v1/messages`; Gemini: `POST
//! /v1beta/models/<model>:generateContent` and `:streamGenerateContent?alt=sse`. Vectors: `POST /v1/embeddings` and
//! `:batchEmbedContents`, where every text has the vector `[its bytes, its place, 1, 0 …]`. Plain and streamed (SSE), with tool
//! calls, usage, errors, cuts and hangs. An Anthropic request
//! without version or cap is refused, as there. What is answered, in this order: the next [`Reply`] scripted for the model, the next one
//! scripted for any model, what the model's name says (`stub-p-c`), `stub answer`.
//!
//! `stub-p-c` reports `p` prompt tokens and `c` completion tokens and says `w0 w1 … w(c-1)`, one word a chunk.
mod anthropic;
mod body;
mod dialect;
mod embedding;
mod gemini;
mod openai;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::dialect::Dialect;
pub use self::reply::Reply;
use self::reply::{Ends, Says};

/// A running stub; it ends with this value.
pub struct LlmStub {
    origin: String,
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model that was asked.
    pub model: String,
    /// Path and query.
    pub path: String,
    /// The whole body.
    pub body: Value,
    /// The `authorization` header, if there was one.
    pub authorization: Option<String>,
    /// The key, in whichever header the dialect has it.
    pub key: Option<String>,
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<Scripts>,
    calls: Mutex<Vec<Call>>,
    abandoned: AtomicUsize,
    billed: Mutex<(i64, i64)>,
}

impl Shared {
    fn bill(&self, prompt: i64, completion: i64) {
        let mut billed = lock(&self.billed);
        billed.0 = billed.0.saturating_add(prompt);
        billed.1 = billed.1.saturating_add(completion);
    }
}

#[derive(Default)]
struct Scripts {
    any: VecDeque<Reply>,
    of_model: HashMap<String, VecDeque<Reply>>,
}

impl LlmStub {
    /// Starts on a free port of 127.0.0.1.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its stub")]
    pub async fn start() -> LlmStub {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/v1/chat/completions", post(openai))
            .route("/v1/embeddings", post(embedding::openai))
            .route("/v1/messages", post(anthropic))
            .route("/v1beta/models/{action}", post(gemini))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = async move {
            // It serves until the test ends; there is nobody to tell about an error.
            let _ended = axum::serve(listener, router).await;
        };
        #[expect(clippy::disallowed_methods, reason = "a stub ends with its test; there is nothing to drain")]
        let server = tokio::spawn(serving);
        LlmStub { origin: format!("http://{address}"), url: format!("http://{address}/v1"), shared, server }
    }

    /// The base URL without a path: what `ANTHROPIC_BASE_URL` and `GEMINI_BASE_URL` take.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The base URL, ending in `/v1`: what `OPENAI_BASE_URL` and `XAI_BASE_URL` take.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds replies to the queue that every model takes from.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.shared.scripts).any.extend(replies);
    }

    /// Adds replies to the queue of one model; it goes before the common one.
    pub fn script_for(&self, model: &str, replies: impl IntoIterator<Item = Reply>) {
        lock(&self.shared.scripts).of_model.entry(model.to_owned()).or_default().extend(replies);
    }

    /// The requests so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Drops the replies that nobody asked for.
    pub fn forget(&self) {
        *lock(&self.shared.scripts) = Scripts::default();
    }

    /// The stub's own meter: tokens in and out that a provider would send a bill for. Of a whole answer what it reports (a
    /// word counts as one where it reports nothing); of a stream that was cut or left its prompt and the pieces of text
    /// that were sent, nothing if none was; of any other answer without an end nothing.
    pub fn billed(&self) -> (i64, i64) {
        *lock(&self.shared.billed)
    }

    /// How many answers were left by their reader before they ended.
    pub fn abandoned(&self) -> usize {
        self.shared.abandoned.load(Ordering::SeqCst)
    }
}

impl Drop for LlmStub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn openai(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let with_usage = body["stream_options"]["include_usage"].as_bool().unwrap_or(false);
    let streamed = body["stream"].as_bool().unwrap_or(false);
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let asked = Asked { dialect: Dialect::OpenAi, model, streamed, with_usage: with_usage || !streamed };
    respond(&shared, asked, &uri, &headers, body)
}

async fn anthropic(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    // Both are required there.
    if !headers.contains_key("anthropic-version") || !body["max_tokens"].is_u64() {
        return refuse(400, &Dialect::Anthropic.error(400), None);
    }
    let streamed = body["stream"].as_bool().unwrap_or(false);
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let asked = Asked { dialect: Dialect::Anthropic, model, streamed, with_usage: true };
    respond(&shared, asked, &uri, &headers, body)
}

async fn gemini(
    State(shared): State<Arc<Shared>>,
    Path(action): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let (model, streamed) = match action.rsplit_once(':') {
        Some((model, "batchEmbedContents")) => return embedding::gemini(&shared, model, &uri, &headers, body),
        Some((model, "generateContent")) => (model, false),
        // Without `alt=sse` the vendor answers with one JSON list.
        Some((model, "streamGenerateContent")) if uri.query() == Some("alt=sse") => (model, true),
        _ => return refuse(404, &Dialect::Gemini.error(404), None),
    };
    let asked = Asked { dialect: Dialect::Gemini, model: model.to_owned(), streamed, with_usage: true };
    respond(&shared, asked, &uri, &headers, body)
}

/// A request as far as the dialect reads it.
struct Asked {
    dialect: Dialect,
    model: String,
    streamed: bool,
    with_usage: bool,
}

fn respond(shared: &Arc<Shared>, asked: Asked, uri: &Uri, headers: &HeaderMap, body: Value) -> Response {
    let Asked { dialect, model, streamed, with_usage } = asked;
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = said("authorization");
    let bearer = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let key = match dialect {
        Dialect::OpenAi => bearer,
        Dialect::Anthropic => said("x-api-key"),
        Dialect::Gemini => said("x-goog-api-key"),
    };
    let words = dialect.conversation(&body).to_string().split_whitespace().count();
    let reply = next_reply(shared, &model);
    lock(&shared.calls).push(Call { model: model.clone(), path: uri.to_string(), body, authorization, key });
    let billed = reply.tokens(words).unwrap_or((words as i64, reply.spoken()));
    let tokens = reply.tokens(words).filter(|_| with_usage);
    let mut chunks = match &reply.says {
        Says::Status { code, body, retry_after } => {
            let usual = || dialect.error(*code);
            return refuse(*code, &body.clone().unwrap_or_else(usual), *retry_after);
        }
        Says::Raw(text) => vec![Bytes::from(text.clone())],
        _ if streamed => dialect.events(&reply, &model, tokens),
        _ => halves(&dialect.whole(&reply, &model, tokens)),
    };
    if let Ends::Error(count) = reply.ends {
        chunks.truncate(count);
        chunks.push(dialect.failure());
    }
    body::answer(shared, chunks, &reply, streamed, billed)
}

fn next_scripted(shared: &Shared, model: &str) -> Option<Reply> {
    let mut scripts = lock(&shared.scripts);
    scripts.of_model.get_mut(model).and_then(VecDeque::pop_front).or_else(|| scripts.any.pop_front())
}

fn next_reply(shared: &Shared, model: &str) -> Reply {
    next_scripted(shared, model).or_else(|| Reply::of_name(model)).unwrap_or_else(|| Reply::text("stub answer"))
}

fn refuse(code: u16, body: &Value, retry_after: Option<u32>) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body.clone())).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A plain answer in two chunks, so that it too can be cut in its middle.
fn halves(whole: &Value) -> Vec<Bytes> {
    let text = Bytes::from(whole.to_string());
    let middle = text.len() / 2;
    vec![text.slice(..middle), text.slice(middle..)]
}
