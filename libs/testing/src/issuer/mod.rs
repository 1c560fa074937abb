//! An issuer of tokens on a free port: what Clerk, Firebase, Supabase and any OpenID Connect provider have in common.
//!
//! It lists its keys at `/.well-known/jwks.json`, describes itself at `/.well-known/openid-configuration`, and signs
//! whatever it is told to: good tokens with [`IssuerStub::token`], and with [`IssuerStub::forge`] those that nobody may
//! accept. Keys rotate and are removed, and the whole of it is away, on order.
mod code;
mod keys;
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use keys::Keys;
use server::{Shared, lock};

pub use code::{CLIENT_ID, CLIENT_SECRET, Callback};
pub use keys::Algorithm;
pub use server::Weather;

/// A running stub; it ends with this value.
pub struct IssuerStub {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What stands as the signature of a forged token.
#[derive(Clone, Debug)]
pub enum Signature {
    /// A right one of the issuer's present key.
    Right(Algorithm),
    /// HMAC-SHA-256 under these bytes.
    Hs256(Vec<u8>),
    /// These bytes.
    Raw(Vec<u8>),
}

impl IssuerStub {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> IssuerStub {
        IssuerStub::start_at(0).await
    }

    /// Starts another one, whose keys have the same ids and are others: a forger's.
    pub async fn stranger() -> IssuerStub {
        IssuerStub::start_at(1).await
    }

    #[expect(clippy::expect_used, reason = "a test cannot go on without its stub")]
    async fn start_at(first_rsa: usize) -> IssuerStub {
        // Whoever asks it needs a client, which needs this; another part of the process may have installed it already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let shared = Arc::new(Shared::new(url.clone(), first_rsa));
        let router = Router::new()
            .route("/authorize", get(code::authorize))
            .route("/token", post(code::token))
            .fallback(server::answer)
            .with_state(Arc::clone(&shared));
        let serving = async move {
            // It serves until the test ends; there is nobody to tell about an error.
            let _ended = axum::serve(listener, router).await;
        };
        #[expect(clippy::disallowed_methods, reason = "a stub ends with its test; there is nothing to drain")]
        let server = tokio::spawn(serving);
        IssuerStub { url, shared, server }
    }

    /// The `iss` of its tokens: the base URL without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its keys are listed.
    pub fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url)
    }

    /// A token with these claims in RS256, as they are: neither `iss` nor times are added.
    pub fn token(&self, claims: &Value) -> String {
        self.token_in(Algorithm::Rs256, claims)
    }

    /// The same with another algorithm.
    pub fn token_in(&self, algorithm: Algorithm, claims: &Value) -> String {
        self.forge(&self.header(algorithm), &claims.to_string(), &Signature::Right(algorithm))
    }

    /// The header of a good token.
    pub fn header(&self, algorithm: Algorithm) -> Value {
        json!({"alg": algorithm.name(), "kid": self.kid(algorithm), "typ": "JWT"})
    }

    /// A token of any header, any text as claims and any signature.
    pub fn forge(&self, header: &Value, claims: &str, signature: &Signature) -> String {
        self.forge_text(&header.to_string(), claims, signature)
    }

    /// The same with any text as header.
    pub fn forge_text(&self, header: &str, claims: &str, signature: &Signature) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = match signature {
            Signature::Right(algorithm) => lock(&self.shared.keys).present().sign(*algorithm, message.as_bytes()),
            Signature::Hs256(secret) => hs256(secret, message.as_bytes()),
            Signature::Raw(bytes) => bytes.clone(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The id of the key that signs at present.
    pub fn kid(&self, algorithm: Algorithm) -> String {
        let keys = lock(&self.shared.keys);
        if algorithm == Algorithm::Ps256 { keys.present().pss_kid() } else { keys.present().kid(algorithm) }
    }

    /// The public RSA key as DER, which a forger may try as a secret.
    pub fn rsa_public_der(&self) -> Vec<u8> {
        lock(&self.shared.keys).present().rsa_public_der()
    }

    /// Signs with new keys from now on; the ones before stay listed.
    pub fn rotate(&self) {
        let mut keys = lock(&self.shared.keys);
        let number = keys.generations.len();
        let next = Keys::generate(number, keys.first_rsa + number);
        keys.generations.push(next);
    }

    /// Lists this key no more.
    pub fn remove_key(&self, kid: &str) {
        lock(&self.shared.keys).removed.insert(kid.to_owned());
    }

    /// Lists this in place of its keys; with none its keys again.
    pub fn list_instead(&self, body: Option<String>) {
        lock(&self.shared.keys).instead = body;
    }

    /// Answers every request with 503.
    pub fn down(&self) {
        self.set_weather(Weather::Down);
    }

    /// Answers again.
    pub fn up(&self) {
        self.set_weather(Weather::Fair);
    }

    /// Answers in this way from now on.
    pub fn set_weather(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// How often its keys were asked for, answered or not.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// How often its description was asked for.
    pub fn discoveries(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst)
    }
}

impl Drop for IssuerStub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What it signs with and what it lists.
struct KeyRing {
    first_rsa: usize,
    /// The last one signs.
    generations: Vec<Keys>,
    removed: BTreeSet<String>,
    instead: Option<String>,
}

impl KeyRing {
    fn new(first_rsa: usize) -> KeyRing {
        KeyRing { first_rsa, generations: vec![Keys::generate(0, first_rsa)], removed: BTreeSet::new(), instead: None }
    }

    fn present(&self) -> &Keys {
        &self.generations[self.generations.len() - 1]
    }

    /// A token of the present key.
    fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        let header = json!({"alg": algorithm.name(), "kid": self.present().kid(algorithm), "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.present().sign(algorithm, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwks(&self) -> String {
        let listed = self.generations.iter().flat_map(Keys::jwks);
        let listed: Vec<Value> =
            listed.filter(|key| key["kid"].as_str().is_some_and(|kid| !self.removed.contains(kid))).collect();
        self.instead.clone().unwrap_or_else(|| json!({ "keys": listed }).to_string())
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}
