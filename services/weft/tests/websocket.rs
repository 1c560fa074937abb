//! WebSockets as a browser has them, through the whole mesh.
use std::process::Stdio;
use std::time::Duration;

use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;

use crate::WEFT;

const PAGE: &str = include_str!("websocket.html");
/// How often the edge asks whether the browser is there, and for how long the page then says nothing.
const PING_MS: u64 = 200;
const PAUSE_MS: u64 = 2_000;

/// What the page tells when Chromium opens it.
async fn in_chromium(settings: &Value) -> Value {
    let page = PAGE.replacen("SETTINGS", &settings.to_string(), 1);
    let (tell, mut told) = mpsc::unbounded_channel();
    let router = Router::new().route("/", get(move || async move { Html(page) })).route(
        "/told",
        post(move |Json(value): Json<Value>| async move {
            let _sent = tell.send(value);
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://localhost:{port}/"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("chromium, which scripts/tools installs");
    let value = tokio::select! {
        value = timeout(Duration::from_secs(60), told.recv()) => value.expect("the page tells").unwrap(),
        ended = chromium.wait() => panic!("chromium has ended: {ended:?}"),
        served = axum::serve(listener, router) => panic!("{served:?}"),
    };
    chromium.kill().await.unwrap();
    value
}

fn texts(frames: &Value) -> Vec<&str> {
    frames.as_array().unwrap().iter().map(|frame| frame.as_str().unwrap_or_else(|| panic!("{frame}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_talks_over_one_socket_and_goes_on_with_a_broken_answer() {
    let stub = LlmStub::start().await;
    let reply = || Reply::text("one two {\"done\": true} three four five six seven").delay(Duration::from_millis(60));
    stub.script((0..3).map(|_| reply()));
    let mut options = Options::new(WEFT);
    for (key, value) in [
        ("OPENAI_BASE_URL", stub.url()),
        ("OPENAI_API_KEY", "a key of nobody"),
        ("WEFT_EDGE_PING_MS", &PING_MS.to_string()),
    ] {
        options.environment.push((key.to_owned(), value.to_owned()));
    }
    let mesh = Mesh::start(options).await;
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    let told = in_chromium(&json!({
        "url": format!("{}/api/v1/chat/stream", mesh.edge().replacen("http", "ws", 1)),
        "token": ana.access_token(),
        "request": {"message": "hello", "agent": "task_agent"},
        "pause": PAUSE_MS,
    }))
    .await;
    assert!(told.get("error").is_none(), "{told}");

    let plain = &told["plain"];
    assert_eq!((&plain["protocol"], &plain["extensions"]), (&json!("weft.v1"), &json!("")), "{plain}");
    for answer in [&plain["first"], &plain["second"]] {
        let frames = texts(answer);
        let (done, tokens) = frames.split_last().unwrap();
        assert!(done.starts_with("{\"done\":true,\"response\":"), "{done}");
        let done: Value = serde_json::from_str(done).unwrap();
        assert_eq!(done["response"], tokens.concat());
        assert!(tokens.len() > 3 && done["actions"].is_array(), "{done}");
        for token in tokens {
            assert!(!serde_json::from_str::<Value>(token).is_ok_and(|value| value.is_object()), "{token}");
        }
    }

    let broken = &told["broken"];
    let (first, rest) = (broken["first"].as_array().unwrap(), broken["rest"].as_array().unwrap());
    let (done, tail) = rest.split_last().unwrap();
    let tokens = first.iter().chain(tail).map(|event| event["token"].as_str().unwrap_or_else(|| panic!("{broken}")));
    assert_eq!(done["done"]["response"], tokens.collect::<String>(), "byte for byte: {broken}");
    let numbers = first.iter().chain(rest).map(|event| event["id"].as_str().unwrap().rsplit_once('.').unwrap().1);
    assert!(numbers.map(|number| number.parse::<usize>().unwrap()).eq(0..first.len() + rest.len()), "{broken}");
    assert_eq!(stub.calls().len(), 3, "the broken answer was made once");

    assert_eq!(told["stranger"], json!({"opened": false, "end": {"closed": 1006}}));
    let logs = mesh.logs();
    assert!(logs.contains("\"protocol\":\"websocket\"") && !logs.contains(ana.access_token()), "no token in the log");
}
