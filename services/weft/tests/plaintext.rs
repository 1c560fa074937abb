//! A product that keeps nothing of what is said: of 50 words that its users, their data and their models say by every way
//! that there is, none is anywhere once they are said: not in a database, in Redis, in a file, a log, a trace or a metric.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use weft_proto::orchestrator::v1::ChatRequest;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_testing::eventually;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;
use weft_testing::postgres::{self, Postgres};
use weft_testing::redis::Redis;

use crate::WEFT;
use crate::canary::Collected;

/// An address that has to be in the database: who looks for words there finds what is there.
const EMAIL: &str = "somebody-who-is-kept@example.com";
/// So many different words are said.
const WORDS: usize = 50;

/// Every command that Redis gets, as it gets it.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    async fn on(redis: &Redis) -> Heard {
        let heard = Heard::default();
        let mut stream = TcpStream::connect(redis.url().trim_start_matches("redis://")).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let kept = heard.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        drop(tokio::spawn(async move {
            let mut part = vec![0; 65_536];
            while let Ok(length @ 1..) = stream.read(&mut part).await {
                kept.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..length]);
            }
        }));
        eventually("the monitor", Duration::from_secs(5), || async { heard.bytes().starts_with(b"+OK") }).await;
        heard
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The words that somebody said.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn word(&mut self) -> String {
        let word = format!("canary{}", weft_core::new_id().replace('-', ""));
        self.0.push(word.clone());
        word
    }

    /// Those that are in some bytes, as they are or in hexadecimal digits, as dumps write bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        let hex = |word: &str| word.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.0.iter().map(String::as_str).filter(|word| text.contains(*word) || text.contains(&hex(word))).collect()
    }
}

/// A mesh in which everything is looked at.
struct Watched {
    mesh: Mesh,
    llm: LlmStub,
    heard: Heard,
    traces: Collected,
    /// Where its databases are, if they are no files of the mesh.
    postgres: Option<&'static Postgres>,
    _redis: Redis,
}

impl Watched {
    async fn start(postgres: Option<&'static Postgres>) -> Watched {
        let (llm, redis) = (LlmStub::start().await, Redis::start().await);
        let (traces, collector) = Collected::start().await;
        let mut options = Options::new(WEFT);
        options.redis = Some(redis.url());
        if let Some(postgres) = postgres {
            options.postgres = Some(postgres.database().await);
        }
        let environment = [
            ("RUST_LOG", "trace"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector),
            ("OPENAI_BASE_URL", llm.url()),
            ("OPENAI_API_KEY", "a key of nobody"),
        ];
        options.environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let heard = Heard::on(&redis).await;
        Watched { mesh: Mesh::start(options).await, llm, heard, traces, postgres, _redis: redis }
    }

    /// Everything that could be found somewhere, by its place.
    async fn places(&self, somebody: &Persona) -> Vec<(String, Vec<u8>)> {
        let mut places = vec![
            ("redis".to_owned(), self.heard.bytes()),
            ("traces".to_owned(), self.traces.text().into_bytes()),
            ("metrics".to_owned(), somebody.ask("/metrics").await.bytes().await.unwrap().to_vec()),
        ];
        if let Some(postgres) = self.postgres {
            places.push(("postgres".to_owned(), dump(postgres)));
        }
        for file in files(self.mesh.folder()) {
            places.push((file.display().to_string(), std::fs::read(&file).unwrap()));
        }
        places
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// All databases of a cluster, with every row of every table.
fn dump(postgres: &Postgres) -> Vec<u8> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = installed.map(|entry| entry.path().join("bin/pg_dumpall")).filter(|program| program.is_file());
    let program = folders.max().unwrap_or_else(|| "pg_dumpall".into());
    let port = postgres.port().to_string();
    let dumped = Command::new(program).args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port]).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    dumped.stdout
}

/// A message with everything that may go with one.
fn asking(said: &mut Said) -> Value {
    let (task, note) = (said.word(), said.word());
    json!({"message": format!("finish {}", said.word()), "agent": "task_agent", "context": {
        "user_profile": {"name": said.word(), said.word(): 1, "home": {"town": said.word()}},
        "relevant_documents": [{"text": said.word(), "tags": [said.word(), {"deep": said.word()}]}],
        "recent_tasks": [{"id": task, "title": said.word(), "description": said.word(),
            "assignees": json!([said.word()]).to_string(), "comments": [{"id": said.word(), "content": said.word()}]}],
        "projects": [{"id": "p1", "name": said.word(), "description": said.word()}],
        "checkpoints": [{"id": "c1", "project_id": "p1", "title": said.word(), "description": said.word()}],
        "notes": [{"id": note, "title": said.word(), "content": said.word()}],
        "conversation_history": [{"role": "user", "content": said.word()}, {"role": "assistant", "content": said.word()}],
    }})
}

fn with(mut request: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// Everything goes well: an answer with tools, a stream, a plan, a step of it, a pipeline, native gRPC, vectors.
async fn converse(weft: &Watched, somebody: &Persona, said: &mut Said) {
    let request = asking(said);
    let (id, title, word) = (request["context"]["recent_tasks"][0]["id"].clone(), said.word(), said.word());
    let script = || [Reply::tool("update_task", &json!({"task_id": id, "title": title})), Reply::text(&word)];
    weft.llm.script(script());
    let (status, answer) = somebody.post("/api/v1/chat", &request).await;
    assert_eq!((status, answer["actions"][0]["data"]["title"].as_str()), (200, Some(title.as_str())), "{answer}");
    assert!(answer["response"].as_str().unwrap().contains(&word), "{answer}");
    weft.llm.script(script());
    let (status, told) = somebody.post("/api/v1/chat/stream", &request).await;
    assert!(status == 200 && told.to_string().contains(&word), "{told}");

    let focus = said.word();
    let plan = json!({"steps": [
        {"action": "llm", "prompt_template": "weekly_report", "variables": {"focus": focus}},
        {"action": "create_record", "variables": {"table": "notes", "data": {"title": said.word()}}, "data_from_step": 0},
    ]});
    weft.llm.script([Reply::text(&plan.to_string())]);
    let planned = with(request.clone(), &json!({"execution_mode": "plan", "message": said.word()}));
    let (status, answer) = somebody.post("/api/v1/chat", &planned).await;
    assert_eq!((status, answer["steps"][0]["variables"]["focus"].as_str()), (200, Some(focus.as_str())), "{answer}");
    // This one is kept in memory, under a hash of the request.
    let kept = json!({"steps": [{"action": "llm", "prompt_template": "day_plan"}]});
    weft.llm.script([Reply::text(&kept.to_string())]);
    let planned = json!({"message": format!("plan {}", said.word()), "agent": "task_agent", "execution_mode": "plan"});
    for _ in 0..2 {
        let (status, answer) = somebody.post("/api/v1/chat", &planned).await;
        assert_eq!((status, answer["steps"][0]["prompt_template"].as_str()), (200, Some("day_plan")), "{answer}");
    }

    let word = said.word();
    weft.llm.script([Reply::text(&word)]);
    let step = json!({"message": said.word(), "prompt_template": "weekly_report", "variables": {"focus": said.word()}});
    let (status, answer) = somebody.post("/api/v1/chat", &step).await;
    assert_eq!((status, answer["response"].as_str()), (200, Some(word.as_str())), "{answer}");
    weft.llm.script([said.word(), said.word(), said.word()].map(|word| Reply::text(&word)));
    let chain = json!({"message": said.word(), "pipeline": ["task_agent", "project_agent"]});
    assert_eq!(somebody.post("/api/v1/chat", &chain).await.0, 200);

    let word = said.word();
    weft.llm.script([Reply::text(&word)]);
    let message = ChatRequest { message: said.word(), agent: "task_agent".to_owned(), ..ChatRequest::default() };
    let mut native = tonic::Request::new(message);
    native.metadata_mut().insert("authorization", format!("Bearer {}", somebody.access_token()).parse().unwrap());
    native.metadata_mut().insert("x-weft-product", "adiuva".parse().unwrap());
    let channel = Endpoint::from_shared(weft.mesh.edge().to_owned()).unwrap().connect().await.unwrap();
    assert_eq!(ChatServiceClient::new(channel).chat(native).await.unwrap().into_inner().response, word);
    let texts = json!({"texts": [said.word(), said.word()], "model": "offline"});
    let (status, answer) = somebody.post("/api/v1/embeddings", &texts).await;
    assert_eq!((status, answer["embeddings"].as_array().map(Vec::len)), (200, Some(2)), "{answer}");
}

/// Everything goes wrong, by who asks and by who answers; no error repeats a word.
async fn fail(weft: &Watched, somebody: &Persona, said: &mut Said) {
    let mut told = String::new();
    let asked = json!({"message": said.word(), "agent": "task_agent"});
    for field in ["agent", "model", "execution_mode", "prompt_template", "session_id"] {
        let (status, error) = somebody.post("/api/v1/chat", &with(asked.clone(), &json!({field: said.word()}))).await;
        assert_eq!(status, 400, "{error}");
        told.push_str(&error.to_string());
    }
    let session = json!({"title": said.word(), "metadata": {"note": said.word()}});
    let (status, error) = somebody.post("/api/v1/chat/sessions", &session).await;
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("zero_plaintext")), "{error}");
    told.push_str(&error.to_string());
    let wrong = Reply::tool_raw("create_task", &format!("{{\"{}\": \"{}\"}}", said.word(), said.word()));
    let refusal = json!({"error": {"message": said.word(), "code": said.word(), "type": said.word()}});
    let scripts = [vec![wrong.clone(), wrong], vec![Reply::status_with(400, refusal)], vec![Reply::raw(&said.word())]];
    for script in scripts {
        weft.llm.script(script);
        let (status, error) = somebody.post("/api/v1/chat", &asked).await;
        assert!(status >= 500, "{status} {error}");
        told.push_str(&error.to_string());
        weft.llm.forget();
    }
    let texts = json!({"texts": [said.word()], "model": said.word()});
    let (status, error) = somebody.post("/api/v1/embeddings", &texts).await;
    assert_eq!(status, 400, "{error}");
    told.push_str(&error.to_string());
    assert_eq!(said.found_in(told.as_bytes()), [""; 0], "{told}");
}

async fn nothing_that_is_said_is_kept(postgres: Option<&'static Postgres>) {
    let weft = Watched::start(postgres).await;
    let (mut said, edge) = (Said::default(), weft.mesh.edge());
    let somebody = Persona::register(edge, "adiuva", EMAIL).await;
    converse(&weft, &somebody, &mut said).await;
    // A plan has so many requests a minute.
    let another = Persona::register(edge, "adiuva", "another-one@example.com").await;
    fail(&weft, &another, &mut said).await;
    assert!(said.0.len() >= WORDS, "{}", said.0.len());
    let asked: String = weft.llm.calls().iter().map(|call| call.body.to_string()).collect();
    assert!(said.found_in(asked.as_bytes()).len() > WORDS / 2, "the words got as far as to the model");

    eventually("the spans", Duration::from_secs(20), || async {
        ["Chat", "StreamChat", "CreateEmbeddings"].iter().all(|rpc| weft.traces.text().contains(rpc))
    })
    .await;
    let places = weft.places(&somebody).await;
    let has = |what: &str, is_in: &dyn Fn(&str) -> bool| {
        places.iter().any(|(place, bytes)| is_in(place) && String::from_utf8_lossy(bytes).contains(what))
    };
    let is_database = |place: &str| if postgres.is_some() { place == "postgres" } else { place.contains(".db") };
    assert!(has(EMAIL, &is_database), "the databases are looked into");
    assert!(has("weft:", &|place| place == "redis"), "Redis is used, and heard");
    assert!(has("\"TRACE\"", &|place| place.ends_with(".log")), "everything is logged");
    assert!(has("weft_", &|place| place == "metrics"), "these are the metrics");
    for (place, bytes) in &places {
        let found = said.found_in(bytes);
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().find(|line| found.iter().any(|word| line.contains(word))).unwrap_or_default();
        assert!(found.is_empty(), "{place}: {found:?}, first in {}", line.chars().take(2_000).collect::<String>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_said_is_kept_with_sqlite_and_redis() {
    nothing_that_is_said_is_kept(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_said_is_kept_with_postgres_and_redis() {
    nothing_that_is_said_is_kept(Some(postgres::shared().await)).await;
}
