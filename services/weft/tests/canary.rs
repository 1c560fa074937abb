//! Nothing that somebody could sign in with, or that a user wrote to a product that keeps nothing, is anywhere where
//! operators look: logs at TRACE, metrics, traces, error bodies.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Client;
use weft_testing::smtp::link_token;

use crate::WEFT;

/// What a collector of traces was sent.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// A collector on a free port, and its URL.
    pub async fn start() -> (Collected, String) {
        let collected = Collected::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(collect).with_state(collected.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        let _serving = tokio::spawn(async move { axum::serve(listener, app).await });
        (collected, url)
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

async fn collect(State(collected): State<Collected>, body: Bytes) -> impl IntoResponse {
    collected.0.lock().unwrap().extend_from_slice(&body);
    [(CONTENT_TYPE.as_str(), "application/grpc"), ("grpc-status", "0")]
}

/// What must be found nowhere, by what it is; and every error that a client was told.
#[derive(Default)]
struct Secrets {
    canaries: Vec<(String, String)>,
    told: String,
}

impl Secrets {
    fn new_one(&mut self, what: &str) -> String {
        let canary = format!("canary{}{what}", weft_core::new_id().replace('-', ""));
        self.keep(what, &canary);
        canary
    }

    fn keep(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 20, "{what} is too short to be looked for: {secret}");
        self.canaries.push((what.to_owned(), secret.to_owned()));
    }

    /// The parts of a pair that nobody else may know: the refresh token, and the signature of the access token.
    fn keep_pair(&mut self, tokens: &Value) {
        self.keep("refresh token", tokens["refresh_token"].as_str().unwrap());
        let access = tokens["access_token"].as_str().unwrap();
        self.keep("access token", access.rsplit('.').next().unwrap());
    }

    fn refused(&mut self, (status, body): (u16, Value)) {
        assert!(status >= 400, "{status} {body}");
        self.told.push_str(&body.to_string());
    }

    fn found_in<'a>(&'a self, text: &'a str) -> Vec<&'a str> {
        self.canaries.iter().filter(|(_, secret)| text.contains(secret)).map(|(what, _)| what.as_str()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_whole_run_is_in_logs_metrics_traces_or_errors() {
    let mail = tempfile::tempdir().unwrap();
    let (collected, collector) = Collected::start().await;
    let mut options = Options::new(WEFT);
    let environment = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector),
        ("WEFT_MAIL_DIR", mail.path().to_str().unwrap()),
    ];
    options.environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let mesh = Mesh::start(options).await;
    let client = Client::new(mesh.edge(), "adiuva");
    let mut secrets = Secrets::default();
    live(&client, &mut secrets, mail.path()).await;
    try_to_get_in(&client, &mut secrets).await;
    chat(&client, &mut secrets).await;

    let metrics = client.get("/metrics", None).await.1.to_string();
    assert!(metrics.contains("weft_"), "these are the metrics: {metrics}");
    eventually("spans of each kind", Duration::from_secs(20), || async {
        ["Login", "ResetPassword", "Chat"].iter().all(|rpc| collected.text().contains(rpc))
    })
    .await;
    let logs = mesh.logs();
    assert!(logs.contains("\"TRACE\"") && logs.contains("ResetPassword"), "everything is logged");
    assert!(secrets.canaries.len() > 15 && !secrets.told.is_empty());
    for (place, text) in
        [("logs", &logs), ("metrics", &metrics), ("traces", &collected.text()), ("errors", &secrets.told)]
    {
        let found = secrets.found_in(text);
        let line = text.lines().find(|line| !secrets.found_in(line).is_empty()).unwrap_or_default();
        assert!(found.is_empty(), "{place}: {found:?}, first in {}", line.chars().take(2_000).collect::<String>());
    }
}

/// Somebody registers, signs in, refreshes, changes the password, forgets it and sets a new one.
async fn live(client: &Client, secrets: &mut Secrets, mail: &std::path::Path) {
    let (first, second, third) =
        (secrets.new_one("password"), secrets.new_one("password"), secrets.new_one("password"));
    let email = "ana@example.com";
    let (_, tokens) = client.post("/api/v1/auth/register", None, &json!({"email": email, "password": first})).await;
    secrets.keep_pair(&tokens);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let (status, tokens) = client.post("/api/v1/auth/refresh", None, &refresh).await;
    assert_eq!(status, 200, "{tokens}");
    secrets.keep_pair(&tokens);
    let access = tokens["access_token"].as_str();
    let change = json!({"old_password": first, "new_password": second});
    let (status, told) = client.put("/api/v1/auth/password", access, &change).await;
    assert_eq!(status, 200, "{told}");
    secrets.refused(client.put("/api/v1/auth/password", access, &change).await);
    let (status, tokens) = client.post("/api/v1/auth/login", None, &json!({"email": email, "password": second})).await;
    assert_eq!(status, 200, "{tokens}");
    secrets.keep_pair(&tokens);

    client.post("/api/v1/auth/password/forgot", None, &json!({"email": email})).await;
    let mails = || std::fs::read_dir(mail).unwrap().map(|file| file.unwrap().path());
    let eml = || mails().find(|file| file.extension().is_some_and(|end| end == "eml"));
    eventually("the mail", Duration::from_secs(10), || async { eml().is_some() }).await;
    let (_, token) = link_token(&std::fs::read_to_string(eml().unwrap()).unwrap());
    secrets.keep("reset token", &token);
    let reset = json!({"token": token, "new_password": third});
    assert_eq!(client.post("/api/v1/auth/password/reset", None, &reset).await.0, 200);
    secrets.refused(client.post("/api/v1/auth/password/reset", None, &reset).await);
    secrets.refused(client.post("/api/v1/auth/refresh", None, &refresh).await);
}

/// Somebody tries what they should not: each is refused, and what they typed may be a password of theirs.
async fn try_to_get_in(client: &Client, secrets: &mut Secrets) {
    for field in ["password", "clerk_token", "firebase_token", "oidc_token", "token"] {
        let typed = secrets.new_one(field);
        let body = json!({"email": "ana@example.com", (field): typed});
        secrets.refused(client.post("/api/v1/auth/login", None, &body).await);
    }
    let address = secrets.new_one("address");
    secrets.refused(client.post("/api/v1/auth/login", None, &json!({"email": address, "password": address})).await);
    let (refresh, bearer, reset) = (secrets.new_one("refresh"), secrets.new_one("bearer"), secrets.new_one("reset"));
    secrets.refused(client.post("/api/v1/auth/refresh", None, &json!({"refresh_token": refresh})).await);
    secrets.refused(client.get("/api/v1/auth/me", Some(&bearer)).await);
    let body = json!({"token": reset, "new_password": secrets.new_one("password")});
    secrets.refused(client.post("/api/v1/auth/password/reset", None, &body).await);
    let header = "eyJhbGciOiJFZERTQSIsImtpZCI6IngifQ.eyJpc3MiOiJodHRwczovL2V4YW1wbGUuY29tIn0";
    let foreign = format!("{header}.{}", secrets.new_one("foreign"));
    secrets.refused(client.get("/api/v1/auth/me", Some(&foreign)).await);
    let wrong = json!({"email": secrets.new_one("field"), "surprise": secrets.new_one("value")});
    secrets.refused(client.post("/api/v1/auth/register", None, &wrong).await);
}

/// A product that keeps nothing of what users say is told something, and refuses something.
async fn chat(client: &Client, secrets: &mut Secrets) {
    let account = json!({"email": "chatty@example.com", "password": secrets.new_one("password")});
    let (_, tokens) = client.post("/api/v1/auth/register", None, &account).await;
    secrets.keep_pair(&tokens);
    let access = tokens["access_token"].as_str();
    let said = format!("Create a task: {}", secrets.new_one("task"));
    let context = json!({"user_profile": {"name": secrets.new_one("name")}});
    let (status, answer) =
        client.post("/api/v1/chat", access, &json!({"message": said, "context": context, "model": "offline"})).await;
    assert_eq!(status, 200, "{answer}");
    let model = secrets.new_one("model");
    secrets.refused(client.post("/api/v1/chat", access, &json!({"message": said, "model": model})).await);
    let agent = secrets.new_one("agent");
    secrets.refused(client.post("/api/v1/chat", access, &json!({"message": said, "agent": agent})).await);
}
