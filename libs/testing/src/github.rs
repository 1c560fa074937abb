//! GitHub's OAuth web flow on a free port, and the little of its API that goes with it.
//!
//! `/login/oauth/authorize` and `/login/oauth/access_token` with PKCE, `/user`, and the ends of tokens and grants. A code
//! is good once; tokens may expire, and what renews one is good once too. It misbehaves on order.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The client id that is known.
pub const CLIENT_ID: &str = "Iv1.stub";
/// Its secret.
pub const CLIENT_SECRET: &str = "the client secret of the stub";

/// What it does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehave {
    /// Answers with this status.
    Status(u16),
    /// Waits for so long, then answers as it should.
    Slow(Duration),
    /// Answers with something that is no JSON.
    Malformed,
    /// Answers with an error of OAuth's: `bad_verification_code`, `bad_refresh_token`, …
    Refuse(&'static str),
}

/// A running stub; it ends with this value.
pub struct GitHubStub {
    url: String,
    shared: Arc<Mutex<Shared>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    made: u64,
    /// Seconds for which tokens are good; none: they do not expire.
    lifetime: Option<i64>,
    codes: HashMap<String, Code>,
    /// By access token.
    tokens: HashMap<String, Token>,
    /// By path, oldest first.
    orders: Vec<(String, Misbehave)>,
    calls: BTreeMap<String, usize>,
}

struct Code {
    login: String,
    redirect_uri: String,
    challenge: String,
    scope: String,
}

#[derive(Clone)]
struct Token {
    login: String,
    scope: String,
    refresh: Option<String>,
}

impl GitHubStub {
    /// Starts on a free port of 127.0.0.1.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its stub")]
    pub async fn start() -> GitHubStub {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let serving = async move {
            // It serves until the test ends; there is nobody to tell about an error.
            let _ended = axum::serve(listener, router).await;
        };
        #[expect(clippy::disallowed_methods, reason = "a stub ends with its test; there is nothing to drain")]
        let server = tokio::spawn(serving);
        GitHubStub { url, shared, server }
    }

    /// Both the base of the pages and that of the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Acts for a person in front of the page that `authorization_url` leads to: they allow it, and the browser is sent
    /// back with what is returned, the code and the state.
    #[expect(clippy::panic, reason = "a page that cannot be shown ends the test")]
    pub async fn allow(&self, authorization_url: &str, login: &str) -> (String, String) {
        let policy = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().no_proxy().redirect(policy).build();
        let client = client.unwrap_or_else(|error| panic!("a client: {error}"));
        let asked = client.get(authorization_url).header("x-stub-login", login).send().await;
        let asked = asked.unwrap_or_else(|error| panic!("{authorization_url}: {error}"));
        let back = asked.headers().get(header::LOCATION).and_then(|back| back.to_str().ok());
        let back = back.unwrap_or_else(|| panic!("{authorization_url}: {}", asked.status()));
        let back = Url::parse(back).unwrap_or_else(|error| panic!("{back}: {error}"));
        let mut query: HashMap<String, String> = back.query_pairs().into_owned().collect();
        (query.remove("code").unwrap_or_default(), query.remove("state").unwrap_or_default())
    }

    /// Tokens that are given from now on are good for so many seconds; none: they do not expire.
    pub fn expire_after(&self, seconds: Option<i64>) {
        self.with(|shared| shared.lifetime = seconds);
    }

    /// Does this wrong to the next request whose path begins so.
    pub fn misbehave_at(&self, path: &str, misbehave: Misbehave) {
        self.with(|shared| shared.orders.push((path.to_owned(), misbehave)));
    }

    /// How often each method and path was asked, and `renewal` and `exchange` how often tokens were.
    pub fn calls(&self, of: &str) -> usize {
        self.with(|shared| shared.calls.get(of).copied().unwrap_or(0))
    }

    /// The tokens that are good, and what renews them.
    pub fn tokens(&self) -> Vec<String> {
        self.with(|shared| {
            let refresh = shared.tokens.values().filter_map(|token| token.refresh.clone());
            shared.tokens.keys().cloned().chain(refresh).collect()
        })
    }

    /// Whether a token is good.
    pub fn is_good(&self, token: &str) -> bool {
        self.with(|shared| shared.tokens.contains_key(token))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut lock(&self.shared))
    }
}

impl Drop for GitHubStub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every request.
async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let order = {
        let mut shared = lock(&shared);
        *shared.calls.entry(format!("{method} {path}")).or_default() += 1;
        let found = shared.orders.iter().position(|(begin, _)| path.starts_with(begin));
        found.map(|index| shared.orders.remove(index).1)
    };
    match order {
        Some(Misbehave::Status(status)) => {
            return StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        }
        Some(Misbehave::Slow(time)) => tokio::time::sleep(time).await,
        Some(Misbehave::Malformed) => return "<html>".into_response(),
        Some(Misbehave::Refuse(error)) => return json_answer(&json!({"error": error})),
        None => {}
    }
    let mut shared = lock(&shared);
    match (method.as_str(), path.as_str()) {
        ("GET", "/login/oauth/authorize") => shared.authorize(&uri, &headers),
        ("POST", "/login/oauth/access_token") => json_answer(&shared.token(&fields(&body))),
        ("GET", "/user") => match bearer(&headers).and_then(|token| shared.tokens.get(token)) {
            Some(token) if headers.contains_key(header::USER_AGENT) => json_answer(&json!({"login": token.login})),
            _ => StatusCode::UNAUTHORIZED.into_response(),
        },
        ("DELETE", _) => shared.end(&path, &headers, &body).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Shared {
    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}_{}", URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{kind} {}", self.made))))
    }

    fn authorize(&mut self, uri: &Uri, headers: &HeaderMap) -> Response {
        let query = fields(uri.query().unwrap_or_default().as_bytes());
        let field = |name: &str| query.get(name).cloned().unwrap_or_default();
        let good = field("client_id") == CLIENT_ID
            && field("code_challenge_method") == "S256"
            && !field("code_challenge").is_empty()
            && !field("state").is_empty();
        let Some(mut back) = Url::parse(&field("redirect_uri")).ok().filter(|_| good) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let login = headers.get("x-stub-login").and_then(|login| login.to_str().ok()).unwrap_or("octocat").to_owned();
        let code = self.name("code");
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &field("state"));
        let (redirect_uri, challenge) = (field("redirect_uri"), field("code_challenge"));
        self.codes.insert(code, Code { login, redirect_uri, challenge, scope: field("scope") });
        (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
    }

    fn token(&mut self, form: &HashMap<String, String>) -> Value {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let refused = |error: &str| json!({"error": error, "error_description": "in the stub's words"});
        if (field("client_id"), field("client_secret")) != (CLIENT_ID, CLIENT_SECRET) {
            return refused("incorrect_client_credentials");
        }
        if field("grant_type") == "refresh_token" {
            *self.calls.entry("renewal".to_owned()).or_default() += 1;
            let refresh = field("refresh_token");
            let old = self.tokens.iter().find(|(_, token)| token.refresh.as_deref() == Some(refresh));
            let Some((access, token)) = old.map(|(access, token)| (access.clone(), token.clone())) else {
                return refused("bad_refresh_token");
            };
            self.tokens.remove(&access);
            return self.give(token.login, token.scope);
        }
        *self.calls.entry("exchange".to_owned()).or_default() += 1;
        let Some(code) = self.codes.remove(field("code")) else { return refused("bad_verification_code") };
        if URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier"))) != code.challenge {
            return refused("bad_verification_code");
        }
        if field("redirect_uri") != code.redirect_uri {
            return refused("redirect_uri_mismatch");
        }
        self.give(code.login, code.scope)
    }

    fn give(&mut self, login: String, scope: String) -> Value {
        let access = self.name("gho");
        let refresh = self.lifetime.map(|_| self.name("ghr"));
        let mut given = json!({"access_token": access, "token_type": "bearer", "scope": scope});
        if let (Some(seconds), Some(refresh)) = (self.lifetime, &refresh) {
            given["expires_in"] = json!(seconds);
            given["refresh_token"] = json!(refresh);
            given["refresh_token_expires_in"] = json!(15_897_600);
        }
        self.tokens.insert(access, Token { login, scope, refresh });
        given
    }

    fn end(&mut self, path: &str, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let expected = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
        if headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok()) != Some(&expected) {
            return StatusCode::UNAUTHORIZED;
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let access = body["access_token"].as_str().unwrap_or_default();
        let Some(token) = self.tokens.get(access).cloned() else { return StatusCode::NOT_FOUND };
        match path.strip_prefix(&format!("/applications/{CLIENT_ID}/")) {
            Some("token") => drop(self.tokens.remove(access)),
            Some("grant") => self.tokens.retain(|_, other| other.login != token.login),
            _ => return StatusCode::NOT_FOUND,
        }
        StatusCode::NO_CONTENT
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn json_answer(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The fields of a form or a query.
fn fields(form: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(form);
    let url = Url::parse(&format!("http://form.test/?{text}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}
