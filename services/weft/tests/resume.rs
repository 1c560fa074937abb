//! A streamed answer survives the death of the edge that served it: the rest comes over another one, each word once, paid
//! once.
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message as _;
use serde_json::{Value, json};
use weft_core::new_id;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::{ChatEvent, ChatRequest};
use weft_testing::eventually;
use weft_testing::llm::LlmStub;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;
use weft_testing::redis;

use crate::{WEFT, adiuva_with};

/// What the model says: `w0 w1 … w1999`, for 10 + 2000 tokens.
const MODEL: &str = "stub-10-2000";
const WORDS: usize = 2_000;
const TOKENS: i64 = 2_010;
/// Credits of everybody, a day, and tokens of a credit.
const CREDITS: f64 = 100_000.0;
const TOKENS_PER_CREDIT: f64 = 10_000.0;
/// How often the serving edge is killed, by protocol.
const ROUNDS: usize = 2;
/// Who comes back hears something in this time.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// All holds have ended in this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How a client reads a stream. Each is a way to ask, with or without the id of the last event, and a way to read events.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    /// Server-sent events of JSON.
    Events,
    /// grpc-web in binary.
    GrpcWeb,
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Events, Protocol::GrpcWeb];

/// An event as every protocol tells it.
#[derive(Debug, PartialEq)]
struct Told {
    id: String,
    /// None: the end.
    token: Option<String>,
}

/// A stream that is read.
struct Reader {
    protocol: Protocol,
    reading: reqwest::Response,
    unread: Vec<u8>,
    told: VecDeque<Told>,
}

impl Protocol {
    async fn open(self, person: &Persona, last: Option<&str>) -> Reader {
        let mut headers = match self {
            Protocol::Events => vec![("content-type", "application/json"), ("accept", "text/event-stream")],
            Protocol::GrpcWeb => vec![("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")],
        };
        headers.extend(last.map(|last| ("last-event-id", last)));
        let (message, agent, model) = ("go on".to_owned(), "task_agent".to_owned(), MODEL.to_owned());
        let (path, body) = match self {
            Protocol::Events => {
                let body = json!({"message": message, "agent": agent, "model": model});
                ("/api/v1/chat/stream", body.to_string().into_bytes())
            }
            Protocol::GrpcWeb => {
                let request = ChatRequest { message, agent, model, ..ChatRequest::default() };
                ("/weft.orchestrator.v1.ChatService/StreamChat", frame(&request))
            }
        };
        let reading = person.open(path, &headers, body).await.unwrap();
        assert_eq!(reading.status().as_u16(), 200, "{self:?}");
        Reader { protocol: self, reading, unread: Vec::new(), told: VecDeque::new() }
    }

    /// Takes one event from what has come, or says how the stream ended; None: not enough has come.
    fn take(self, unread: &mut Vec<u8>) -> Option<Result<Told, Ended>> {
        match self {
            Protocol::Events => {
                let end = unread.windows(2).position(|two| two == b"\n\n")? + 2;
                let event: Vec<u8> = unread.drain(..end).collect();
                Some(read_sse(std::str::from_utf8(&event).unwrap()))
            }
            Protocol::GrpcWeb => {
                let head: [u8; 5] = unread.get(..5)?.try_into().unwrap();
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                let message = unread.get(5..5 + length)?.to_vec();
                unread.drain(..5 + length);
                Some(if head[0] == 0 { Ok(told(&message)) } else { Err(trailers(&message)) })
            }
        }
    }
}

/// How a stream ended, by its own word; and without one.
#[derive(Debug, PartialEq)]
enum Ended {
    Well,
    /// Nothing to read: a comment.
    Pause,
    Badly(String),
}

fn frame(message: &ChatRequest) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

fn told(message: &[u8]) -> Told {
    let event = ChatEvent::decode(message).unwrap();
    let token = match event.event.unwrap() {
        Event::Token(token) => Some(token),
        Event::Done(_) => None,
    };
    Told { id: event.id, token }
}

fn trailers(text: &[u8]) -> Ended {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    if text.lines().any(|line| line.replace(' ', "") == "grpc-status:0") { Ended::Well } else { Ended::Badly(text) }
}

fn read_sse(event: &str) -> Result<Told, Ended> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("event:") == Some("error") {
        return Err(Ended::Badly(event.to_owned()));
    }
    let Some(data) = field("data:") else { return Err(Ended::Pause) };
    let data: Value = serde_json::from_str(data).unwrap();
    let id = field("id:").unwrap_or_else(|| panic!("an event without id: {event}")).to_owned();
    assert_eq!(data["id"], json!(id), "the id is in the message too");
    let token = data.get("token").map(|token| token.as_str().unwrap().to_owned());
    assert!(token.is_some() || data["done"].is_object(), "{data}");
    Ok(Told { id, token })
}

impl Reader {
    /// The next event; None: the end.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            match self.protocol.take(&mut self.unread) {
                Some(Ok(told)) => self.told.push_back(told),
                Some(Err(Ended::Pause)) => {}
                Some(Err(Ended::Well)) => return None,
                Some(Err(Ended::Badly(how))) => panic!("{:?} ended badly: {how}", self.protocol),
                None => match self.reading.chunk().await.unwrap() {
                    Some(chunk) => self.unread.extend_from_slice(&chunk),
                    None => return None,
                },
            }
        }
    }
}

/// Adiuva with credits and the stub's model.
async fn metered(mut options: Options, stub: &LlmStub, folder: &Path) -> Mesh {
    let daily = CREDITS as i64 * 1_000_000;
    let plan = format!(
        "requests_per_minute = 100000\ncredits = {{ initial = 0, daily = {daily}, micro_credits_per_token = 100 }}\n\
         models = {{ allowed = [\"{MODEL}\"] }}\n"
    );
    let prices = format!("\n[model_prices]\n{MODEL} = {{ input = 1, output = 1 }}\n");
    adiuva_with(folder, &[("requests_per_minute = 20\n", &plan), ("\n[model_prices]\n", &prices)]);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), folder.display().to_string()));
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    Mesh::start(options).await
}

/// Waits until nothing is held, and says how many tokens are paid.
async fn paid(person: &Persona) -> i64 {
    let balance = async || person.get("/api/v1/wallet/balance").await.1;
    eventually("every hold to end", SETTLED_WITHIN, || async { balance().await["held"] == json!(0) }).await;
    ((CREDITS - balance().await["total"].as_f64().unwrap()) * TOKENS_PER_CREDIT).round() as i64
}

/// A number below `most`, another one each time.
fn any(most: usize) -> usize {
    let id = new_id();
    usize::from_str_radix(&id[id.len() - 8..], 16).unwrap() % most
}

fn number(told: &Told) -> usize {
    told.id.rsplit_once('.').unwrap().1.parse().unwrap()
}

/// Edges in turn serve, and die in the middle of an answer.
#[expect(clippy::print_stdout, reason = "the figures of the proof")]
async fn the_rest_comes_over_the_other_edge(options: Options, another_orchestrator: bool) {
    let (stub, folder) = (LlmStub::start().await, tempfile::tempdir().unwrap());
    let mut mesh = metered(options, &stub, folder.path()).await;
    let orchestrator = if another_orchestrator { Some(mesh.orchestrator.twin(&[]).await) } else { None };
    let url = orchestrator.as_ref().map_or(&mesh.orchestrator.url, |other| &other.url);
    let other = mesh.gateway.twin(&[("WEFT_ORCHESTRATOR_URL", url)]).await;
    let person = Persona::register(mesh.edge(), "adiuva", "reader@example.com").await;
    #[expect(clippy::disallowed_methods, reason = "a longer proof is asked for by the environment of a test")]
    let rounds = std::env::var("WEFT_PROVE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let expected: Vec<String> = (0..WORDS).map(|at| format!("w{at}")).collect();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds * PROTOCOLS.len() {
        let protocol = PROTOCOLS[round % PROTOCOLS.len()];
        let before = paid(&person.at(&other.url)).await;
        let cut = 1 + any(WORDS - 1);
        let mut reader = protocol.open(&person.at(&mesh.gateway.url), None).await;
        let mut events = Vec::new();
        for _ in 0..cut {
            events.push(reader.next().await.unwrap());
        }
        mesh.gateway.kill().await;
        drop(reader);
        let began = Instant::now();
        let last = events.last().map(|told| told.id.clone());
        let mut reader = protocol.open(&person.at(&other.url), last.as_deref()).await;
        events.extend(reader.next().await);
        let back = began.elapsed();
        assert!(back < BACK_WITHIN, "{protocol:?}, round {round}, cut at {cut}: back after {back:?}");
        slowest = slowest.max(back);
        while let Some(told) = reader.next().await {
            events.push(told);
        }
        let numbers: Vec<usize> = events.iter().map(number).collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "{protocol:?}, round {round}, cut at {cut}");
        let text: String = events.iter().filter_map(|told| told.token.clone()).collect();
        assert_eq!(text, expected.join(" "), "{protocol:?}, round {round}, cut at {cut}");
        assert!(events.last().is_some_and(|told| told.token.is_none()), "it ended with the whole");
        assert_eq!(paid(&person.at(&other.url)).await - before, TOKENS, "{protocol:?}, round {round}: one charge");
        assert_eq!(stub.calls().len(), round + 1);
        mesh.gateway.restart().await;
        mesh.until_healthy().await;
    }
    println!("{} answers survived their edge; the slowest went on after {slowest:?}", rounds * PROTOCOLS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_over_another_edge() {
    the_rest_comes_over_the_other_edge(Options::new(WEFT), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_over_another_edge_and_another_orchestrator() {
    let redis = Some(redis::shared().await.url());
    the_rest_comes_over_the_other_edge(Options { redis, ..Options::new(WEFT) }, true).await;
}
