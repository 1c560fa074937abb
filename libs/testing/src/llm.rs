//! A model provider that speaks the OpenAI dialect on a free port and misbehaves on order.
//!
//! `POST /v1/chat/completions`, plain and streamed (SSE), with tool calls in fragments, usage, errors, cuts and
//! hangs. What it answers, in this order: the next [`Reply`] scripted for the model, the next one scripted for
//! any model, what the model's name says (`stub-p-c`), `stub answer`.
//!
//! `stub-p-c` reports `p` prompt tokens and `c` completion tokens and says `w0 w1 … w(c-1)`, one word a chunk.
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, future, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Chunks before a cut are on their way after this time.
const FLUSHED_WITHIN: Duration = Duration::from_millis(30);

/// A running stub; it ends with this value.
pub struct LlmStub {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model that was asked.
    pub model: String,
    /// The whole body.
    pub body: Value,
    /// The `authorization` header, if there was one.
    pub authorization: Option<String>,
}

/// What to answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    says: Says,
    usage: Option<(u64, u64)>,
    fragment: usize,
    ends: Ends,
    delay: Duration,
    finish: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Says {
    Text(Vec<String>),
    Tools { before: String, calls: Vec<(String, String)> },
    Status { code: u16, body: Value, retry_after: Option<u32> },
    Raw(String),
}

/// How an answer ends. The number counts chunks that are sent before.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Well,
    Cut(usize),
    Hang(usize),
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<Scripts>,
    calls: Mutex<Vec<Call>>,
    abandoned: AtomicUsize,
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
        let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = async move {
            // It serves until the test ends; there is nobody to tell about an error.
            let _ended = axum::serve(listener, router).await;
        };
        #[expect(clippy::disallowed_methods, reason = "a stub ends with its test; there is nothing to drain")]
        let server = tokio::spawn(serving);
        LlmStub { url: format!("http://{address}/v1"), shared, server }
    }

    /// The base URL, ending in `/v1`: what `OPENAI_BASE_URL` takes.
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

impl Reply {
    /// A text, streamed word by word.
    pub fn text(text: &str) -> Reply {
        let words = text.split_inclusive(' ').map(str::to_owned).collect();
        Reply::new(Says::Text(words))
    }

    /// A text, streamed in exactly these chunks.
    pub fn chunks(chunks: impl IntoIterator<Item = &'static str>) -> Reply {
        Reply::new(Says::Text(chunks.into_iter().map(str::to_owned).collect()))
    }

    /// One call of a tool.
    pub fn tool(name: &str, arguments: &Value) -> Reply {
        Reply::tools([(name, arguments.clone())])
    }

    /// Several calls of tools in one answer.
    pub fn tools<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Reply {
        let calls = calls.into_iter().map(|(name, arguments)| (name.to_owned(), arguments.to_string())).collect();
        Reply::new(Says::Tools { before: String::new(), calls })
    }

    /// One call of a tool whose arguments are this text, JSON or not.
    pub fn tool_raw(name: &str, arguments: &str) -> Reply {
        Reply::new(Says::Tools { before: String::new(), calls: vec![(name.to_owned(), arguments.to_owned())] })
    }

    /// An HTTP error with an OpenAI-like body.
    pub fn status(code: u16) -> Reply {
        let error = json!({"error": {"message": "stub says no", "type": "stub_error", "code": "stub"}});
        Reply::status_with(code, error)
    }

    /// An HTTP error with this body.
    pub fn status_with(code: u16, body: Value) -> Reply {
        Reply::new(Says::Status { code, body, retry_after: None })
    }

    /// A 200 with exactly this body, whatever it is.
    pub fn raw(body: &str) -> Reply {
        Reply::new(Says::Raw(body.to_owned()))
    }

    /// Says this text before the tool calls.
    #[must_use]
    pub fn after_saying(mut self, text: &str) -> Reply {
        if let Says::Tools { before, .. } = &mut self.says {
            text.clone_into(before);
        }
        self
    }

    /// Adds `retry-after` in seconds to an error.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Reply {
        if let Says::Status { retry_after, .. } = &mut self.says {
            *retry_after = Some(seconds);
        }
        self
    }

    /// Reports these prompt and completion tokens instead of counting words.
    #[must_use]
    pub fn usage(mut self, prompt: u64, completion: u64) -> Reply {
        self.usage = Some((prompt, completion));
        self
    }

    /// Streams tool arguments in fragments of this many bytes (default 5).
    #[must_use]
    pub fn fragments(mut self, bytes: usize) -> Reply {
        self.fragment = bytes.max(1);
        self
    }

    /// Ends with another `finish_reason` than `stop` or `tool_calls`.
    #[must_use]
    pub fn finish(mut self, reason: &'static str) -> Reply {
        self.finish = Some(reason);
        self
    }

    /// Breaks the connection after this many chunks (a plain answer: in the middle of its body).
    #[must_use]
    pub fn cut_after(mut self, chunks: usize) -> Reply {
        self.ends = Ends::Cut(chunks);
        self
    }

    /// Says nothing more after this many chunks, and never ends.
    #[must_use]
    pub fn hang_after(mut self, chunks: usize) -> Reply {
        self.ends = Ends::Hang(chunks);
        self
    }

    /// Waits this long before each chunk.
    #[must_use]
    pub fn delay(mut self, each: Duration) -> Reply {
        self.delay = each;
        self
    }

    fn new(says: Says) -> Reply {
        Reply { says, usage: None, fragment: 5, ends: Ends::Well, delay: Duration::ZERO, finish: None }
    }

    /// `stub-p-c`: `p` prompt tokens, `c` words.
    fn of_name(model: &str) -> Option<Reply> {
        let (prompt, completion) = model.strip_prefix("stub-")?.split_once('-')?;
        let (prompt, completion): (u64, u64) = (prompt.parse().ok()?, completion.parse().ok()?);
        let words = (0..completion).map(|at| if at == 0 { "w0".to_owned() } else { format!(" w{at}") }).collect();
        Some(Reply::new(Says::Text(words)).usage(prompt, completion))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let streamed = body["stream"].as_bool().unwrap_or(false);
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let with_usage = body["stream_options"]["include_usage"].as_bool().unwrap_or(false);
    let words = body["messages"].to_string().split_whitespace().count() as u64;
    let reply = next_reply(&shared, &model);
    lock(&shared.calls).push(Call { model: model.clone(), body, authorization });
    let usage = reply.usage.unwrap_or((words, reply.spoken()));
    match &reply.says {
        Says::Status { code, body, retry_after } => refuse(*code, body, *retry_after),
        Says::Raw(text) => answer(&shared, vec![Bytes::from(text.clone())], &reply, streamed),
        _ if streamed => answer(&shared, reply.events(&model, with_usage.then_some(usage)), &reply, true),
        _ => answer(&shared, halves(&reply.whole(&model, usage)), &reply, false),
    }
}

fn next_reply(shared: &Shared, model: &str) -> Reply {
    let mut scripts = lock(&shared.scripts);
    let scripted = scripts.of_model.get_mut(model).and_then(VecDeque::pop_front).or_else(|| scripts.any.pop_front());
    scripted.or_else(|| Reply::of_name(model)).unwrap_or_else(|| Reply::text("stub answer"))
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

impl Reply {
    /// How many tokens were said, a word being one.
    fn spoken(&self) -> u64 {
        let chunks = match &self.says {
            Says::Text(words) => words.len(),
            Says::Tools { calls, .. } => calls.len() * 10,
            Says::Status { .. } | Says::Raw(_) => 0,
        };
        chunks as u64
    }

    fn finish_reason(&self) -> &'static str {
        let usual = if matches!(self.says, Says::Tools { .. }) { "tool_calls" } else { "stop" };
        self.finish.unwrap_or(usual)
    }

    /// The body of a plain answer.
    fn whole(&self, model: &str, usage: (u64, u64)) -> Value {
        let mut message = json!({"role": "assistant", "content": null});
        match &self.says {
            Says::Text(words) => message["content"] = words.concat().into(),
            Says::Tools { before, calls } => {
                if !before.is_empty() {
                    message["content"] = before.as_str().into();
                }
                message["tool_calls"] = calls.iter().enumerate().map(|(at, call)| tool_call(at, call)).collect();
            }
            Says::Status { .. } | Says::Raw(_) => {}
        }
        json!({
            "id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason()}],
            "usage": usage_json(usage),
        })
    }

    /// The events of a streamed answer, each a chunk of the body.
    fn events(&self, model: &str, usage: Option<(u64, u64)>) -> Vec<Bytes> {
        let chunk = |delta: Value, finish: Value| {
            event(&json!({
                "id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 0, "model": model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }))
        };
        let mut events: Vec<Bytes> = self.deltas().into_iter().map(|delta| chunk(delta, Value::Null)).collect();
        events.push(chunk(json!({}), self.finish_reason().into()));
        if let Some(usage) = usage {
            events.push(event(&json!({
                "id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 0, "model": model,
                "choices": [], "usage": usage_json(usage),
            })));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    fn deltas(&self) -> Vec<Value> {
        match &self.says {
            Says::Text(words) => words.iter().map(|word| json!({"content": word})).collect(),
            Says::Tools { before, calls } => {
                let mut deltas = Vec::new();
                if !before.is_empty() {
                    deltas.push(json!({"content": before}));
                }
                for (at, call) in calls.iter().enumerate() {
                    let opening = tool_call(at, &(call.0.clone(), String::new()));
                    deltas.push(json!({"tool_calls": [with_index(opening, at)]}));
                    deltas.extend(
                        pieces(&call.1, self.fragment)
                            .map(|piece| json!({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})),
                    );
                }
                deltas
            }
            Says::Status { .. } | Says::Raw(_) => Vec::new(),
        }
    }
}

fn tool_call(at: usize, (name, arguments): &(String, String)) -> Value {
    json!({"id": format!("call_{at}"), "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn with_index(mut call: Value, at: usize) -> Value {
    call["index"] = at.into();
    call
}

fn usage_json((prompt, completion): (u64, u64)) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn event(body: &Value) -> Bytes {
    Bytes::from(format!("data: {body}\n\n"))
}

/// Pieces of about `bytes` bytes, never splitting a character.
fn pieces(text: &str, bytes: usize) -> impl Iterator<Item = String> {
    let mut rest = text.to_owned();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (bytes..rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let tail = rest.split_off(end);
        Some(std::mem::replace(&mut rest, tail))
    })
}

/// Notices a reader that leaves before the end.
struct Reading {
    shared: Arc<Shared>,
    ended: bool,
}

impl Reading {
    fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn answer(shared: &Arc<Shared>, chunks: Vec<Bytes>, reply: &Reply, streamed: bool) -> Response {
    let reading = Reading { shared: Arc::clone(shared), ended: false };
    let content_type = if streamed { "text/event-stream" } else { "application/json" };
    let body = Body::from_stream(body(chunks, reply.ends, reply.delay, reading));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn body(
    chunks: Vec<Bytes>,
    ends: Ends,
    delay: Duration,
    mut reading: Reading,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let sent = match ends {
        Ends::Well => chunks.len(),
        Ends::Cut(count) | Ends::Hang(count) => count.min(chunks.len()),
    };
    let told = stream::iter(chunks.into_iter().take(sent)).then(move |chunk| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(chunk)
    });
    let end = stream::once(async move {
        if matches!(ends, Ends::Hang(_)) {
            future::pending::<Infallible>().await;
        }
        if matches!(ends, Ends::Cut(_)) {
            // The server drops what it has not written yet when its body fails.
            tokio::time::sleep(FLUSHED_WITHIN).await;
        }
        reading.end();
        matches!(ends, Ends::Cut(_)).then(|| Err(std::io::Error::other("cut on order")))
    });
    told.chain(end.filter_map(future::ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_model_says_as_many_words_as_its_name_tells() {
        let reply = Reply::of_name("stub-7-3").unwrap();
        let whole = reply.whole("stub-7-3", reply.usage.unwrap());
        assert_eq!(whole["choices"][0]["message"]["content"], "w0 w1 w2");
        assert_eq!(whole["usage"], json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}));
        assert!(Reply::of_name("gpt-4o-mini").is_none());
    }

    #[test]
    fn tool_arguments_are_streamed_in_fragments_that_join_again() {
        let arguments = json!({"title": "Llamar a Ána"});
        let deltas = Reply::tool("create_task", &arguments).fragments(3).deltas();
        let joined: String =
            deltas.iter().filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str()).collect();
        assert!(deltas.len() > 5);
        assert_eq!(joined, arguments.to_string());
    }
}
