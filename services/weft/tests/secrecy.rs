//! Nothing of a prompt gets out, however a model splits what it was told and whichever way its answer takes.
use std::collections::{BTreeMap, HashSet};

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::{ChatEvent, ChatRequest};
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;

use crate::{WEFT, adiuva_with};

/// So many characters of a prompt in a row are too many.
const RUN: usize = 32;
const QUESTION: &str = "What can you do?";
const AGENT: &str = "task_agent";
const MODEL: &str = "gpt-4o-mini";
/// What a tool takes as a title, in characters.
const TITLE: usize = 400;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Json,
    Events,
    GrpcWeb,
    WebSocket,
    OpenAi,
}

const WAYS: [Way; 5] = [Way::Json, Way::Events, Way::GrpcWeb, Way::WebSocket, Way::OpenAi];

/// All texts that a client gets, each put together from its pieces.
#[derive(Default)]
struct Heard(BTreeMap<String, String>);

impl Heard {
    fn add(&mut self, field: &str, value: &Value) {
        match value {
            Value::String(text) => self.0.entry(field.to_owned()).or_default().push_str(text),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, item)| self.add(&format!("{field}.{at}"), item));
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.add(&format!("{field}.{name}"), value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn event(&mut self, event: ChatEvent) {
        match event.event.unwrap() {
            Event::Token(token) => self.add("token", &Value::String(token)),
            Event::Done(done) => {
                self.add("done.response", &Value::String(done.response.clone()));
                self.add("done", &Value::String(format!("{:?}", done.actions)));
            }
        }
    }

    fn has(&self, text: &str) -> bool {
        self.0.values().any(|heard| heard.contains(text))
    }

    /// The first run of a prompt that is in any of the texts.
    fn leak(&self, secret: &HashSet<String>) -> Option<String> {
        let letters = |text: &String| plain(text).chars().collect::<Vec<_>>();
        let runs = |letters: Vec<char>| letters.windows(RUN).map(String::from_iter).collect::<Vec<String>>();
        self.0.values().flat_map(|text| runs(letters(text))).find(|run| secret.contains(run))
    }
}

impl Way {
    async fn ask(self, person: &Persona, edge: &str) -> Heard {
        let mut heard = Heard::default();
        let body = json!({"message": QUESTION, "agent": AGENT, "model": MODEL});
        let headers = |accept| [("content-type", "application/json"), ("accept", accept)];
        match self {
            Way::Json => heard.add("", &person.post("/api/v1/chat", &body).await.1),
            Way::Events => {
                let path = "/api/v1/chat/stream";
                let answer = person.open(path, &headers("text/event-stream"), body.to_string().into()).await.unwrap();
                events(&answer.text().await.unwrap(), &mut heard);
            }
            Way::OpenAi => {
                let tool =
                    json!({"type": "function", "function": {"name": "create_task", "parameters": {"type": "object"}}});
                let messages = json!([{"role": "user", "content": QUESTION}]);
                let body = json!({"model": MODEL, "stream": true, "messages": messages, "tools": [tool]});
                let path = "/v1/chat/completions";
                let answer = person.open(path, &headers("text/event-stream"), body.to_string().into()).await.unwrap();
                events(&answer.text().await.unwrap(), &mut heard);
            }
            Way::GrpcWeb => {
                let (message, agent, model) = (QUESTION.to_owned(), AGENT.to_owned(), MODEL.to_owned());
                let request = ChatRequest { message, agent, model, ..ChatRequest::default() }.encode_to_vec();
                let body = [&[0], &u32::try_from(request.len()).unwrap().to_be_bytes()[..], &request].concat();
                let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
                let answer = person.open("/weft.orchestrator.v1.ChatService/StreamChat", &headers, body).await.unwrap();
                heard.add("headers", &Value::String(format!("{:?}", answer.headers())));
                frames(&answer.bytes().await.unwrap(), &mut heard);
            }
            Way::WebSocket => {
                let mut socket = connect(edge, person.access_token()).await;
                socket.send(Message::text(body.to_string())).await.unwrap();
                loop {
                    let frame = socket.next().await.unwrap().unwrap();
                    let Message::Text(text) = frame else { continue };
                    let value: Value = serde_json::from_str(&text).unwrap();
                    heard.add("", &value);
                    if value.get("token").is_none() {
                        break;
                    }
                }
            }
        }
        heard
    }
}

/// The events of a stream, or the error that came instead.
fn events(text: &str, heard: &mut Heard) {
    if text.starts_with('{') {
        return heard.add("", &serde_json::from_str(text).unwrap());
    }
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).filter(|data| data.trim() != "[DONE]") {
        heard.add("", &serde_json::from_str(data).unwrap());
    }
}

/// The messages of a grpc-web answer, and its trailers.
fn frames(mut bytes: &[u8], heard: &mut Heard) {
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (message, rest) = rest.split_at(length);
        match head[0] {
            0 => heard.event(ChatEvent::decode(message).unwrap()),
            _ => heard.add("trailers", &Value::String(String::from_utf8_lossy(message).into_owned())),
        }
        bytes = rest;
    }
}

async fn connect(edge: &str, token: &str) -> WebSocketStream<TcpStream> {
    let mut stream = TcpStream::connect(edge.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "GET /api/v1/chat/stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: weft.events.v1, weft.bearer.{token}, weft.product.adiuva\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

/// A text as it is compared: spaces and case say nothing.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A text in pieces of so many characters, the first of which is shorter.
fn cut(text: &str, first: usize, each: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let (head, tail) = letters.split_at(first.min(letters.len()));
    std::iter::once(head).chain(tail.chunks(each)).filter(|part| !part.is_empty()).map(String::from_iter).collect()
}

/// What a provider sends that thinks aloud in these pieces before it says yes; plain where nobody streams.
fn thinking(way: Way, pieces: &[String]) -> Reply {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 5});
    if way == Way::Json {
        let message = json!({"role": "assistant", "content": "Yes.", "reasoning_content": pieces.concat()});
        let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
        return Reply::raw(&json!({"choices": choices, "usage": usage}).to_string());
    }
    let chunk = |delta: Value, finish: Value| {
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage})
        )
    };
    let thoughts = pieces.iter().map(|piece| chunk(json!({"reasoning_content": piece}), Value::Null));
    let end = [chunk(json!({"content": "Yes."}), Value::Null), chunk(json!({}), json!("stop"))];
    Reply::raw(&(thoughts.chain(end).collect::<String>() + "data: [DONE]\n\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_of_a_prompt_gets_out_by_any_way_and_in_any_field() {
    let (stub, folder) = (LlmStub::start().await, tempfile::tempdir().unwrap());
    let mut options = Options::new(WEFT);
    adiuva_with(folder.path(), &[("requests_per_minute = 20\n", "requests_per_minute = 1000000\n")]);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), folder.path().display().to_string()));
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    options.environment.push(("OPENAI_API_KEY".to_owned(), "a key of nobody".to_owned()));
    let mesh = Mesh::start(options).await;
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;

    // What is secret is what the model is really told.
    stub.script([Reply::text("Tasks.")]);
    assert!(Way::Json.ask(&ana, mesh.edge()).await.has("Tasks."));
    let told = stub.calls().remove(0).body;
    let prompt = told["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(told["messages"][0]["role"] == "system" && prompt.chars().count() > 10 * RUN, "{prompt}");
    let letters: Vec<char> = plain(&prompt).chars().collect();
    let secret: HashSet<String> = letters.windows(RUN).map(String::from_iter).collect();
    let mut itself = Heard::default();
    itself.add("", &Value::String(prompt.clone()));
    assert!(itself.leak(&secret).is_some(), "what would be a leak is found");

    let mut asked = 0;
    for way in WAYS {
        // Between any two characters of every run there is a cut, and once between all.
        for (first, each) in (0..RUN).map(|first| (first, RUN)).chain([(0, 1)]) {
            let pieces = cut(&prompt, first, each);
            let title: String = prompt.chars().skip(first * 7).take(TITLE).collect();
            let arguments = json!({"title": title}).to_string();
            let tool = Reply::tool_raw("create_task", &arguments).fragments(each.min(1 + first));
            let mut scripts = vec![
                (vec![Reply::chunks(pieces.iter().cloned().chain([" And so on.".to_owned()]))], " And so on."),
                (vec![thinking(way, &pieces)], "Yes."),
                (vec![tool, Reply::text("Done.")], if way == Way::OpenAi { "create_task" } else { "Done." }),
            ];
            if first == 0 {
                let error = json!({"error": {"message": prompt, "type": prompt, "code": prompt, "param": prompt}});
                scripts.push((vec![Reply::status_with(400, error)], "provider"));
            }
            for (script, expected) in scripts {
                stub.forget();
                stub.script(script);
                let heard = way.ask(&ana, mesh.edge()).await;
                assert!(heard.has(expected), "{way:?}, {first}, {each}: no {expected:?} in {:?}", heard.0);
                assert_eq!(heard.leak(&secret), None, "{way:?}, {first}, {each}: {:?}", heard.0);
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked} answers each said the prompt");
}
