//! Logins by authorization code with PKCE: what the browser sees, and the token endpoint.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future;
use reqwest::Url;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::server::{Shared, Weather, lock};
use super::{Algorithm, IssuerStub};

/// The client that a fresh stub knows.
pub const CLIENT_ID: &str = "weft client";
/// Its secret, which has to be encoded in a header.
pub const CLIENT_SECRET: &str = "a secret: 100% + more";

/// What the browser is sent back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Where to, without the query.
    pub to: String,
    /// `code`.
    pub code: String,
    /// `state`.
    pub state: String,
    /// `iss`; empty if the stub does not say who it is.
    pub issuer: String,
}

/// What the stub keeps of logins.
#[derive(Default)]
pub(super) struct Logins {
    person: Map<String, Value>,
    bent: Map<String, Value>,
    secret: Option<String>,
    codes: HashMap<String, Begun>,
    numbered: usize,
    exchanges: usize,
}

struct Begun {
    client_id: String,
    redirect_uri: String,
    challenge: String,
    nonce: String,
    person: Map<String, Value>,
}

impl IssuerStub {
    /// Who signs in from now on: claims such as `sub`, `email`, `iat`, `exp`.
    pub fn person(&self, claims: &Value) {
        lock(&self.shared.logins).person = claims.as_object().cloned().unwrap_or_default();
    }

    /// Writes these claims over what id tokens rightly say; with none it is honest again.
    pub fn bend(&self, claims: &Value) {
        lock(&self.shared.logins).bent = claims.as_object().cloned().unwrap_or_default();
    }

    /// Writes these members over the description of itself.
    pub fn describe(&self, members: &Value) {
        *lock(&self.shared.described) = members.as_object().cloned().unwrap_or_default();
    }

    /// Gives its client another secret.
    pub fn set_client_secret(&self, secret: &str) {
        lock(&self.shared.logins).secret = Some(secret.to_owned());
    }

    /// How often a code was brought to the token endpoint.
    pub fn exchanges(&self) -> usize {
        lock(&self.shared.logins).exchanges
    }

    /// Signs in as a browser does that was sent to this URL.
    #[expect(clippy::panic, reason = "a test whose browser is sent nowhere has failed")]
    pub async fn browse(&self, url: &str) -> Callback {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build();
        let answer = match browser {
            Ok(browser) => browser.get(url).send().await.unwrap_or_else(|error| panic!("{url}: {error}")),
            Err(error) => panic!("a client: {error}"),
        };
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = answer.status();
        let Some(location) = location else { panic!("{url}: {status}, not sent back") };
        let Ok(location) = Url::parse(&location) else { panic!("{location} is no URL") };
        let query: HashMap<String, String> = location.query_pairs().into_owned().collect();
        let named = |name: &str| query.get(name).cloned().unwrap_or_default();
        let to = location.as_str().split('?').next().unwrap_or_default().to_owned();
        Callback { to, code: named("code"), state: named("state"), issuer: named("iss") }
    }
}

/// `GET /authorize`: whoever comes is the person that the test named.
pub(super) async fn authorize(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let query = pairs(uri.query().unwrap_or_default());
    let named = |name: &str| query.get(name).cloned().unwrap_or_default();
    let right = named("response_type") == "code"
        && named("code_challenge_method") == "S256"
        && named("code_challenge").len() == 43
        && named("client_id") == CLIENT_ID
        && named("scope").split(' ').any(|scope| scope == "openid")
        && !named("nonce").is_empty();
    let Some(mut back) = Url::parse(&named("redirect_uri")).ok().filter(|_| right) else {
        return (StatusCode::BAD_REQUEST, "not a login").into_response();
    };
    let says_issuer = lock(&shared.described).contains_key("authorization_response_iss_parameter_supported");
    let mut logins = lock(&shared.logins);
    logins.numbered += 1;
    let code = format!("code-{}", logins.numbered);
    let begun = Begun {
        client_id: named("client_id"),
        redirect_uri: named("redirect_uri"),
        challenge: named("code_challenge"),
        nonce: named("nonce"),
        person: logins.person.clone(),
    };
    logins.codes.insert(code.clone(), begun);
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &named("state"));
    if says_issuer {
        back.query_pairs_mut().append_pair("iss", &shared.url);
    }
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

/// `POST /token`.
pub(super) async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let weather = *lock(&shared.weather);
    match weather {
        Weather::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Weather::Hang => future::pending().await,
        Weather::Fair | Weather::Redirect => {}
    }
    let form = pairs(std::str::from_utf8(&body).unwrap_or_default());
    let mut logins = lock(&shared.logins);
    logins.exchanges += 1;
    if !is_client(&shared, &logins, &headers, &form) {
        return refusal(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let named = |name: &str| form.get(name).cloned().unwrap_or_default();
    let Some(begun) = logins.codes.remove(&named("code")) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(named("code_verifier")));
    let right = named("grant_type") == "authorization_code"
        && named("redirect_uri") == begun.redirect_uri
        && challenge == begun.challenge;
    if !right {
        return refusal(StatusCode::BAD_REQUEST, "invalid_grant");
    }
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), json!(shared.url));
    claims.insert("aud".to_owned(), json!(begun.client_id));
    claims.insert("nonce".to_owned(), json!(begun.nonce));
    claims.extend(begun.person);
    claims.extend(logins.bent.clone());
    drop(logins);
    let id_token = lock(&shared.keys).sign(Algorithm::Rs256, &Value::Object(claims));
    let answer = json!({"access_token": "an access token", "token_type": "Bearer", "id_token": id_token});
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// Whether the client proves who it is in the one way that the stub says it takes.
fn is_client(shared: &Shared, logins: &Logins, headers: &HeaderMap, form: &BTreeMap<String, String>) -> bool {
    let secret = logins.secret.as_deref().unwrap_or(CLIENT_SECRET);
    let methods = lock(&shared.described).get("token_endpoint_auth_methods_supported").cloned();
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if methods.is_some_and(|methods| methods == json!(["client_secret_post"])) {
        let named = |name: &str| form.get(name).map(String::as_str);
        return header.is_none() && named("client_id") == Some(CLIENT_ID) && named("client_secret") == Some(secret);
    }
    let text = header.and_then(|text| STANDARD.decode(text.strip_prefix("Basic ")?).ok());
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    // Both are encoded as in a form (RFC 6749, 2.3.1).
    let Some((id, given)) = text.split_once(':') else { return false };
    let decoded = pairs(&format!("id={id}&secret={given}"));
    !form.contains_key("client_secret") && decoded["id"] == CLIENT_ID && decoded["secret"] == secret
}

fn refusal(status: StatusCode, error: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], json!({ "error": error }).to_string()).into_response()
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let url = Url::parse(&format!("http://stub/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}
