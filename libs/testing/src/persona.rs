//! People who call the edge as a web client would.
#![expect(clippy::panic, reason = "a call that gets no answer at all ends the test")]
use std::time::Duration;

use serde_json::{Value, json};

/// An HTTP client that waits as long as a patient user would.
pub(crate) fn http() -> reqwest::Client {
    // Only one provider is compiled in; a second installation would be the same one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
    client.unwrap_or_else(|error| panic!("an http client: {error}"))
}

/// A signed-in user of one product.
#[derive(Clone)]
pub struct Persona {
    /// Address of the account.
    pub email: String,
    /// Its password.
    pub password: String,
    /// What Register answered: `access_token`, `refresh_token`, `expires_at`.
    pub tokens: Value,
    client: Client,
}

/// JSON calls to an edge for one product.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    edge: String,
    product: String,
}

impl Client {
    /// Calls `edge` for `product`.
    pub fn new(edge: &str, product: &str) -> Self {
        Client { http: http(), edge: edge.to_owned(), product: product.to_owned() }
    }

    /// POSTs JSON; the status and the JSON that came back.
    pub async fn post(&self, path: &str, bearer: Option<&str>, body: &Value) -> (u16, Value) {
        self.send(self.http.post(format!("{}{path}", self.edge)).json(body), bearer).await
    }

    /// GETs; the status and the JSON that came back.
    pub async fn get(&self, path: &str, bearer: Option<&str>) -> (u16, Value) {
        self.send(self.http.get(format!("{}{path}", self.edge)), bearer).await
    }

    /// PUTs JSON; the status and the JSON that came back.
    pub async fn put(&self, path: &str, bearer: Option<&str>, body: &Value) -> (u16, Value) {
        self.send(self.http.put(format!("{}{path}", self.edge)).json(body), bearer).await
    }

    /// PATCHes JSON; the status and the JSON that came back.
    pub async fn patch(&self, path: &str, bearer: Option<&str>, body: &Value) -> (u16, Value) {
        self.send(self.http.patch(format!("{}{path}", self.edge)).json(body), bearer).await
    }

    /// DELETEs; the status and the JSON that came back.
    pub async fn delete(&self, path: &str, bearer: Option<&str>) -> (u16, Value) {
        self.send(self.http.delete(format!("{}{path}", self.edge)), bearer).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, bearer: Option<&str>) -> (u16, Value) {
        let mut request = request.header("x-weft-product", &self.product);
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("no answer: {error}"));
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_else(|error| panic!("a cut answer: {error}"));
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

impl Persona {
    /// Registers `email` in a product and stays signed in.
    pub async fn register(edge: &str, product: &str, email: &str) -> Persona {
        let client = Client::new(edge, product);
        let password = format!("the password of {email}");
        let body = json!({"email": email, "password": password});
        let (status, tokens) = client.post("/api/v1/auth/register", None, &body).await;
        assert_eq!(status, 200, "register {email}: {tokens}");
        Persona { email: email.to_owned(), password, tokens, client }
    }

    /// The access token.
    pub fn access_token(&self) -> &str {
        self.tokens["access_token"].as_str().unwrap_or_default()
    }

    /// The refresh token.
    pub fn refresh_token(&self) -> &str {
        self.tokens["refresh_token"].as_str().unwrap_or_default()
    }

    /// GETs as this person.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.client.get(path, Some(self.access_token())).await
    }

    /// GETs as this person, for the whole answer with its headers.
    pub async fn ask(&self, path: &str) -> reqwest::Response {
        let request = self.client.http.get(format!("{}{path}", self.client.edge)).bearer_auth(self.access_token());
        let answer = request.header("x-weft-product", &self.client.product).send().await;
        answer.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The same person at another edge, over connections of its own.
    #[must_use]
    pub fn at(&self, edge: &str) -> Persona {
        Persona { client: Client::new(edge, &self.client.product), ..self.clone() }
    }

    /// POSTs these bytes with these headers, for an answer that is read while it comes.
    ///
    /// # Errors
    /// No answer.
    pub async fn open(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let request = self.client.http.post(format!("{}{path}", self.client.edge)).bearer_auth(self.access_token());
        let request = request.header("x-weft-product", &self.client.product).body(body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await
    }

    /// PUTs as this person.
    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.client.put(path, Some(self.access_token()), body).await
    }

    /// DELETEs as this person.
    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.client.delete(path, Some(self.access_token())).await
    }

    /// POSTs as this person.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.client.post(path, Some(self.access_token()), body).await
    }
}
