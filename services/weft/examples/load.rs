//! What `scripts/bench chat` and `scripts/bench identity` measure with.
//!
//! `load stub` is a model that speaks OpenAI's chat completions, plain and streamed, and costs next to nothing: it says
//! `max_tokens` words, each streamed one in a write of its own. `load drive` calls one URL with callers that wait for each
//! answer before they ask again, on one thread, and prints what it saw as one line of JSON. Every answer is looked at.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measuring tool may fail loudly")]
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use clap::{Parser, ValueEnum};
use futures_util::stream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

/// Tokens that the stub says a prompt had: no more than Weft sets aside for the bench's.
const PROMPT_TOKENS: u32 = 20;

#[derive(Parser)]
enum Arguments {
    /// Serves a model.
    Stub(Stub),
    /// Calls a URL.
    Drive(Drive),
}

#[derive(clap::Args, Clone, Copy)]
struct Stub {
    /// Port of 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// How long each answer takes to begin.
    #[arg(long, default_value_t = 0)]
    wait_ms: u64,
}

#[derive(clap::Args)]
struct Drive {
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "POST")]
    method: Method,
    /// JSON. `#` in it becomes a number from 0 to below `numbers`, each in its turn.
    #[arg(long)]
    body: Option<String>,
    #[arg(long, default_value_t = 1)]
    numbers: u32,
    /// `name: value`.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// A file of access tokens, one a line: each caller has the next.
    #[arg(long)]
    tokens: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    callers: usize,
    #[arg(long)]
    seconds: f64,
    /// All callers together ask so often, at random times that are the same in every run; an answer's time counts from
    /// when its request was due, also if no caller was free. Default: each asks at once again.
    #[arg(long)]
    per_second: Option<f64>,
    #[arg(long, value_enum, default_value_t = Expect::Anything)]
    expect: Expect,
}

/// What a good answer has.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Expect {
    Anything,
    /// A text.
    Completion,
    /// A text in pieces, and its end.
    Stream,
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    stream: bool,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stream_options: Options,
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    include_usage: bool,
}

async fn serve(stub: Stub) {
    let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(stub);
    let listener = TcpListener::bind(("127.0.0.1", stub.port)).await.unwrap();
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn complete(State(stub): State<Stub>, Json(ask): Json<Ask>) -> Response {
    if stub.wait_ms > 0 {
        sleep(Duration::from_millis(stub.wait_ms)).await;
    }
    let words = ask.max_tokens.or(ask.max_completion_tokens).unwrap_or(32);
    let usage = format!(
        r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{words},"total_tokens":{}}}"#,
        PROMPT_TOKENS + words
    );
    if !ask.stream {
        let text = "word ".repeat(words as usize);
        let choice =
            format!(r#"{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}"#);
        return framed("application/json", Body::from(whole("chat.completion", &choice, &usage)));
    }
    let event = |delta: &str, finish: &str| {
        let choice = format!(r#"{{"index":0,"delta":{delta},"finish_reason":{finish}}}"#);
        Bytes::from(format!("data: {}\n\n", whole("chat.completion.chunk", &choice, "null")))
    };
    let mut events = vec![event(r#"{"role":"assistant","content":""}"#, "null")];
    events.extend(vec![event(r#"{"content":"word "}"#, "null"); words as usize]);
    events.push(event("{}", "\"stop\""));
    if ask.stream_options.include_usage {
        events.push(Bytes::from(format!("data: {}\n\n", whole("chat.completion.chunk", "", &usage))));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    let pieces = stream::unfold(events.into_iter(), |mut events| async {
        // A piece that waited for nothing would go into one write with the next.
        yield_now().await;
        Some((Ok::<_, Infallible>(events.next()?), events))
    });
    framed("text/event-stream", Body::from_stream(pieces))
}

fn whole(object: &str, choice: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"{object}","created":1,"model":"stub","choices":[{choice}],"usage":{usage}}}"#
    )
}

fn framed(content_type: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

/// What the callers share.
struct Plan {
    drive: Drive,
    client: Client,
    headers: HeaderMap,
    bearers: Vec<HeaderValue>,
    begun: Instant,
    /// When each request is due, after the beginning; None: at once again.
    dues: Option<Vec<Duration>>,
    asked: AtomicU32,
}

/// Times of answers in µs, by what was answered.
#[derive(Default)]
struct Seen {
    answers: BTreeMap<Cow<'static, str>, Vec<u32>>,
    /// To the first text of a good answer.
    first: Vec<u32>,
}

impl Plan {
    fn new(drive: Drive) -> Plan {
        // Only one provider is compiled in; a second installation would be the same one.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let mut headers = HeaderMap::new();
        for header in &drive.headers {
            let (name, value) = header.split_once(':').expect("a header is `name: value`");
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
        }
        if drive.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let tokens = drive.tokens.as_ref().map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default();
        let bearers = tokens.lines().map(|token| HeaderValue::try_from(format!("Bearer {token}")).unwrap()).collect();
        let dues = drive.per_second.map(|per_second| arrivals(per_second, drive.seconds));
        Plan { drive, client, headers, bearers, begun: Instant::now(), dues, asked: AtomicU32::new(0) }
    }

    /// The number of the next request and when it was due, once it is its time; None when all time is over.
    async fn turn(&self) -> Option<(u32, Instant)> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let due = match &self.dues {
            Some(dues) => self.begun + *dues.get(number as usize)?,
            None => now,
        };
        if due > now {
            sleep(due - now).await;
        }
        (self.begun.elapsed().as_secs_f64() < self.drive.seconds).then_some((number, due))
    }

    async fn caller(self: Arc<Plan>, place: usize) -> Seen {
        let mut seen = Seen::default();
        let mut headers = self.headers.clone();
        if let Some(bearer) = self.bearers.iter().cycle().nth(place) {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        while let Some((number, asked)) = self.turn().await {
            let mut request = self.client.request(self.drive.method.clone(), &self.drive.url);
            request = request.headers(headers.clone());
            if let Some(body) = &self.drive.body {
                request = request.body(body.replace('#', &(number % self.drive.numbers.max(1)).to_string()));
            }
            let mut first = None;
            let answer = self.answer(request, asked, &mut first).await;
            let answer = answer.unwrap_or_else(|error| format!("no whole answer: {}", innermost(&error)).into());
            seen.answers.entry(answer).or_default().push(micros(asked));
            seen.first.extend(first);
        }
        seen
    }

    /// What was answered: `ok`, or what is wrong in words that are the same each time.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        asked: Instant,
        first: &mut Option<u32>,
    ) -> reqwest::Result<Cow<'static, str>> {
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        if status == 200 && self.drive.expect == Expect::Stream {
            let mut text = Vec::new();
            while let Some(piece) = response.chunk().await? {
                text.extend_from_slice(&piece);
                if first.is_none() && tells(&text) {
                    *first = Some(micros(asked));
                }
            }
            let ended = text.trim_ascii_end().ends_with(b"data: [DONE]");
            return Ok(if ended && first.is_some() { "ok" } else { "a stream without text or end" }.into());
        }
        let body = response.bytes().await?;
        if !matches!(status, 200..300) {
            return Ok(refusal(status, &body).into());
        }
        let told = || serde_json::from_slice(&body).is_ok_and(|answer: Value| says(&answer["choices"][0]["message"]));
        let good = self.drive.expect != Expect::Completion || told();
        Ok(if good { "ok" } else { "an answer without text" }.into())
    }
}

/// As those of many who know nothing of each other: with exponential gaps.
fn arrivals(per_second: f64, seconds: f64) -> Vec<Duration> {
    let (mut state, mut at, mut dues) = (1_u64, 0.0, Vec::new());
    loop {
        // Knuth's constants for 64 bits, of which the upper ones are random enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = (state >> 11) as f64 / (1_u64 << 53) as f64;
        at -= (1.0 - part).ln() / per_second;
        if at >= seconds {
            return dues;
        }
        dues.push(Duration::from_secs_f64(at));
    }
}

/// Whether there is text in one of these events.
fn tells(events: &[u8]) -> bool {
    events
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data: "))
        .any(|data| serde_json::from_slice(data).is_ok_and(|event: Value| says(&event["choices"][0]["delta"])))
}

fn says(message: &Value) -> bool {
    message["content"].as_str().is_some_and(|text| !text.is_empty())
}

/// Status, code and message, whatever numbers are in it.
fn refusal(status: u16, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| answer["error"][name].as_str().unwrap_or("-").to_owned();
    let mut words = Vec::new();
    for word in field("message").split(' ') {
        words.push(if word.parse::<u64>().is_ok() { "N".to_owned() } else { word.to_owned() });
    }
    format!("{status} {}: {}", field("code"), words.join(" "))
}

fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn figures(mut times: Vec<u32>) -> Value {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
    json!({"count": times.len(), "p50_us": at(50), "p99_us": at(99), "max_us": times.last()})
}

async fn drive(arguments: Drive) {
    let callers = arguments.callers;
    let plan = Arc::new(Plan::new(arguments));
    let mut running = JoinSet::new();
    for place in 0..callers {
        running.spawn(Arc::clone(&plan).caller(place));
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        let Seen { answers, first } = seen.unwrap();
        for (answer, times) in answers {
            all.answers.entry(answer).or_default().extend(times);
        }
        all.first.extend(first);
    }
    let seconds = plan.begun.elapsed().as_secs_f64();
    let answers: BTreeMap<_, _> = all.answers.into_iter().map(|(answer, times)| (answer, figures(times))).collect();
    println!("{}", json!({"seconds": seconds, "answers": answers, "first": figures(all.first)}));
}

fn main() {
    // One thread, so that what is measured has the others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match Arguments::parse() {
        Arguments::Stub(stub) => runtime.block_on(serve(stub)),
        Arguments::Drive(arguments) => runtime.block_on(drive(arguments)),
    }
}
