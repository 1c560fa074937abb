//! Wire transcripts: for each dialect, the exact bytes of a provider's answer, the exact request that brings it about,
//! and what we make of it. They are in `tests/golden/<vendor>/<case>.txt`: `response` is given, `request` and `outcome`
//! are compared, or written anew with `WEFT_GOLDEN_WRITE=1 cargo test -p weft-orchestrator golden`.
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_core::Clock;

use super::wants::{Effort, Format, Schema, ToolChoice};
use super::*;

/// Vendor, the model that is asked for, and the cases besides the common ones.
const VENDORS: [(&str, &str, &[&str]); 4] = [
    ("openai", "gpt-4o", &[]),
    ("xai", "grok", &[]),
    ("anthropic", "sonnet", &["error_in_stream"]),
    ("gemini", "gemini-2.0-flash", &["blocked"]),
];
/// What every dialect has to stand.
const CASES: [&str; 7] = ["plain", "stream", "tool_call", "wants", "error", "cut", "hang"];
/// These are asked without a listener, so they are not streamed.
const PLAIN: [&str; 4] = ["plain", "wants", "error", "blocked"];

#[tokio::test]
async fn every_dialect_is_spoken_to_the_byte() {
    let mut wrong = Vec::new();
    for (vendor, model, more) in VENDORS {
        for case in CASES.iter().chain(more) {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{vendor}/{case}.txt"));
            let transcript = Transcript::read(file);
            let (request, outcome) = exchange(vendor, model, case, &transcript).await;
            let now = transcript.with(&request, &outcome);
            if std::env::var_os("WEFT_GOLDEN_WRITE").is_some() {
                fs::write(&transcript.file, &now).unwrap();
            } else if now != transcript.text {
                wrong.push(format!("{}\n{now}", transcript.file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these changed:\n{}", wrong.join("\n"));
}

struct Transcript {
    file: PathBuf,
    text: String,
    /// From its header line to the next one.
    response: String,
    /// How the response ends: `end`, `cut` or `hang`.
    ends: String,
}

impl Transcript {
    fn read(file: PathBuf) -> Transcript {
        let text = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{}", file.display()));
        let response = text.split("=== request\n").next().unwrap().to_owned();
        let ends = response.lines().next().unwrap().strip_prefix("=== response, then ").unwrap().to_owned();
        Transcript { file, text, response, ends }
    }

    fn with(&self, request: &str, outcome: &str) -> String {
        format!("{}=== request\n{request}\n=== outcome\n{outcome}\n", self.response)
    }

    /// Status line and headers, and the body.
    fn parts(&self) -> (String, &str) {
        let (_, message) = self.response.split_once('\n').unwrap();
        let (head, body) = message.split_once("\n\n").unwrap();
        (head.replace('\n', "\r\n"), body)
    }
}

/// Asks a provider that answers like the transcript.
async fn exchange(vendor: &str, model: &str, case: &str, transcript: &Transcript) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let models = models(vendor, &url);
    let messages = conversation(case == "tool_call");
    let (mut create, list) = tools();
    let wants = (case == "wants").then(|| wants(vendor));
    create.strict = wants.as_ref().map(|_| true);
    let tools = [&create, &list];
    let tools: &[&ToolSpec] = if matches!(case, "tool_call" | "wants") { &tools } else { &[] };
    let (messages, wants) = (&messages, wants.as_ref());
    let call = Call { model, messages, tools, may_call: true, output_tokens: 256, aim: Aim::Answer, wants };
    assert_eq!(models.lacks(model, false, &call), Ok(None), "{vendor}");
    let (sender, mut pieces) = mpsc::channel(64);
    let reader = Some(sender).filter(|_| !PLAIN.contains(&case));
    let mut speaker = reader.map_or_else(Speaker::collecting, Speaker::telling);
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let request = receive(&mut socket).await;
        answer(&mut socket, transcript).await;
        // A socket that lives as long as the asking makes it hang; a second request would find nobody.
        (request, (transcript.ends == "hang").then_some(socket))
    };
    let (outcome, (request, _socket)) = tokio::join!(models.ask(&call, &mut speaker), served);
    let used = speaker.meter().answers();
    drop(speaker);
    let mut told = Vec::new();
    while let Some(piece) = pieces.recv().await {
        told.push(piece);
    }
    (request.replace(&url["http://".len()..], "HOST"), format!("told: {told:?}\n{outcome:#?}\n{used:#?}"))
}

fn models(vendor: &str, url: &str) -> Models {
    let mut config = Config { weft_model_idle_ms: 300, ..Config::default() };
    let (key, base) = (Some("key-of-nobody".into()), Some(url.to_owned()));
    match vendor {
        "openai" => (config.openai_api_key, config.openai_base_url) = (key, base),
        "xai" => (config.xai_api_key, config.xai_base_url) = (key, base),
        "anthropic" => (config.anthropic_api_key, config.anthropic_base_url) = (key, base),
        _ => (config.gemini_api_key, config.gemini_base_url) = (key, base),
    }
    Models::new(&config, Clock::System).unwrap()
}

/// All that a client may ask for and the vendor's dialect has a word for.
fn wants(vendor: &str) -> Wants {
    let schema = json!({"type": "object", "properties": {"day": {"type": "string"}}, "additionalProperties": false});
    let (name, description, strict) = ("day".to_owned(), "A day.".to_owned(), Some(true));
    let is_anthropic = vendor == "anthropic";
    Wants {
        temperature: Some(0.5),
        top_p: Some(1.0),
        presence_penalty: Some(if is_anthropic { 0.0 } else { -1.5 }),
        frequency_penalty: (!is_anthropic).then_some(0.25),
        stop: vec!["END".to_owned(), "\"".to_owned()],
        seed: (!is_anthropic).then_some(7),
        choice: ToolChoice::Named("create_task".to_owned()),
        parallel: (vendor != "gemini").then_some(false),
        format: Format::Schema(Schema { name, description, schema, strict }),
        effort: Some(Effort::Low),
    }
}

/// A question; or a round of tools in the middle of an answer.
fn conversation(with_tools: bool) -> Vec<Message> {
    let mut messages = vec![
        Message::System("Today is 2026-11-20.".to_owned()),
        Message::Assistant { text: "How can I help?".to_owned(), calls: Vec::new() },
        Message::User("Name: Ána".to_owned()),
        Message::User("Remind me to call \"Ana\".".to_owned()),
    ];
    if with_tools {
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            signature: (id == "call_1").then(|| "c2lnbmF0dXJl".to_owned()),
        };
        let calls = vec![call("call_1", "list_tasks", "{}"), call("call_2", "create_task", "{\"title\": ")];
        let result = |id: &str, content: &str| Message::Tool { call_id: id.to_owned(), content: content.to_owned() };
        messages.push(Message::Assistant { text: "Let me look.".to_owned(), calls });
        messages.push(result("call_1", "{\"count\":0,\"tasks\":[]}"));
        messages.push(result("call_2", "{\"error\":\"no JSON\"}"));
    }
    messages
}

fn tools() -> (ToolSpec, ToolSpec) {
    let title = json!({"type": "string", "maxLength": 500});
    let parameters =
        json!({"type": "object", "properties": {"title": title}, "required": ["title"], "additionalProperties": false});
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    (
        ToolSpec { name: "create_task".into(), description: "Creates a task.".into(), parameters, strict: None },
        ToolSpec {
            name: "list_tasks".into(),
            description: "Lists the tasks.".into(),
            parameters: nothing,
            strict: None,
        },
    )
}

/// A request as it was sent.
async fn receive(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0, "half a request");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            return text.replace("\r\n", "\n");
        }
    }
}

async fn answer(socket: &mut TcpStream, transcript: &Transcript) {
    let (head, body) = transcript.parts();
    let chunk = format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    socket.write_all(chunk.as_bytes()).await.unwrap();
    if transcript.ends == "end" {
        socket.write_all(b"0\r\n\r\n").await.unwrap();
    }
}
