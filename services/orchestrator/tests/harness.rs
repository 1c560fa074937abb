//! An orchestrator between a fake identity, a fake billing and a stub of the model's provider.
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tracing_subscriber::fmt::MakeWriter;
use weft_auth::{AUDIENCE, Claims, ISSUER, PRODUCT_HEADER, Signer};
use weft_core::{Clock, new_id};
use weft_orchestrator::{Config, serve};
use weft_product::Products;
use weft_proto::billing::v1::Entitlements;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_proto::orchestrator::v1::{ChatContext, ChatRequest, ChatResponse};
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::FakeService;
use weft_testing::llm::LlmStub;

/// 2026-11-20 10:00 UTC, a Friday.
pub const NOW_MS: i64 = 1_795_168_800_000;
/// 00:00 of that day.
pub const TODAY_MS: i64 = 1_795_132_800_000;
/// Length of a day.
pub const DAY_MS: i64 = 86_400_000;

/// A running orchestrator; it ends with this value.
pub struct Orchestrator {
    /// Where it is.
    pub channel: Channel,
    /// The provider's stub; not asked by an orchestrator that is offline.
    pub llm: LlmStub,
    signer: Signer,
    shutdown: Shutdown,
    /// Identity and billing.
    _fakes: [FakeService; 2],
}

/// How to start one.
#[derive(Default)]
pub struct Start {
    /// Its configuration; the provider's URL is added unless it is offline.
    pub config: Config,
    /// Without a provider.
    pub offline: bool,
    /// Where billing is, if not at the fake one.
    pub billing_url: Option<String>,
    /// Manifests that replace built-in ones.
    pub products: Option<&'static Path>,
}

/// What came of a streamed chat.
pub struct Told {
    /// The tokens, one by one.
    pub tokens: Vec<String>,
    /// The end.
    pub end: Result<ChatResponse, Status>,
}

impl Orchestrator {
    /// With a provider and the default limits.
    pub async fn start() -> Orchestrator {
        Orchestrator::start_with(Start::default()).await
    }

    /// Without a provider.
    pub async fn offline() -> Orchestrator {
        Orchestrator::start_with(Start { offline: true, ..Start::default() }).await
    }

    /// As told.
    pub async fn start_with(start: Start) -> Orchestrator {
        let _installed = logs();
        let llm = LlmStub::start().await;
        let (signer, _) = Signer::generate().unwrap();
        let (identity, billing) = (FakeService::identity(signer.jwk()), FakeService::billing(allowed));
        let mesh = MeshConfig {
            weft_identity_url: identity.url(),
            weft_billing_url: start.billing_url.unwrap_or_else(|| billing.url()),
            weft_service_secret: Some("a secret that only these tests know".into()),
            weft_drain_ms: 100,
            ..MeshConfig::default()
        };
        let mut config = start.config;
        if !start.offline {
            config.openai_base_url = Some(llm.url().to_owned());
            config.openai_api_key = Some("sk-stub".into());
        }
        let shutdown = Shutdown::new();
        let mesh = Mesh::new("orchestrator", mesh, Clock::manual(NOW_MS), shutdown.clone());
        let products = Arc::new(Products::load(start.products).unwrap());
        let (listener, url) = address();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(async move { serve(config, mesh, products, listener).await.unwrap() }));
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        Orchestrator { channel, llm, signer, shutdown, _fakes: [identity, billing] }
    }

    /// A client of the service.
    pub fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel.clone())
    }

    /// A token of a user of a product; the fake billing takes the user's name for the plan.
    pub fn token(&self, product: &str, plan: &str, expires_in_s: i64) -> String {
        let now = NOW_MS / 1000;
        self.signer.mint(&Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: plan.to_owned(),
            prd: product.to_owned(),
            sid: new_id(),
            jti: new_id(),
            email: String::new(),
            roles: Vec::new(),
            iat: now - 10,
            exp: now + expires_in_s,
        })
    }

    /// A request of a user of adiuva on this plan.
    pub fn request(&self, plan: &str, message: ChatRequest) -> Request<ChatRequest> {
        with_token(message, "adiuva", &self.token("adiuva", plan, 600))
    }

    /// One chat of a user on the plan `pro`.
    pub async fn chat(&self, message: ChatRequest) -> Result<ChatResponse, Status> {
        self.chat_on("pro", message).await
    }

    /// One chat of a user on this plan.
    pub async fn chat_on(&self, plan: &str, message: ChatRequest) -> Result<ChatResponse, Status> {
        self.client().chat(self.request(plan, message)).await.map(Response::into_inner)
    }

    /// One streamed chat of a user on the plan `pro`, read to its end.
    pub async fn stream(&self, message: ChatRequest) -> Told {
        let mut tokens = Vec::new();
        let mut events = match self.client().stream_chat(self.request("pro", message)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Told { tokens, end: Err(status) },
        };
        let mut done = None;
        loop {
            match events.message().await {
                Ok(Some(event)) => match event.event.unwrap() {
                    Event::Token(token) => {
                        assert!(done.is_none(), "a token after the end");
                        tokens.push(token);
                    }
                    Event::Done(response) => assert!(done.replace(response).is_none(), "two ends"),
                },
                Ok(None) => return Told { tokens, end: Ok(done.expect("a stream that ends well has its end")) },
                Err(status) => {
                    assert!(done.is_none(), "an error after the end");
                    return Told { tokens, end: Err(status) };
                }
            }
        }
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// A request with this token for this product.
pub fn with_token<M>(message: M, product: &str, token: &str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.metadata_mut().insert(PRODUCT_HEADER, product.parse().unwrap());
    request
}

/// A message without context.
pub fn say(message: &str) -> ChatRequest {
    ChatRequest { message: message.to_owned(), ..ChatRequest::default() }
}

/// A message with tasks.
pub fn say_with_tasks(message: &str, tasks: &[serde_json::Value]) -> ChatRequest {
    let context = ChatContext { recent_tasks: tasks.iter().map(as_struct).collect(), ..ChatContext::default() };
    ChatRequest { context: Some(context), ..say(message) }
}

/// A JSON object as a message carries it.
pub fn as_struct(value: &serde_json::Value) -> prost_types::Struct {
    let fields = value.as_object().expect("an object").iter().map(|(name, field)| (name.clone(), as_value(field)));
    prost_types::Struct { fields: fields.collect() }
}

fn as_value(value: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    use serde_json::Value;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(as_value).collect() }),
        Value::Object(_) => Kind::StructValue(as_struct(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Type, table and text fields of each action, for comparing.
pub fn actions(response: &ChatResponse) -> Vec<(String, String, HashMap<String, String>)> {
    use prost_types::value::Kind;
    let text = |value: &prost_types::Value| match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(flag)) => flag.to_string(),
        _ => "null".to_owned(),
    };
    let told = |action: &weft_proto::orchestrator::v1::PlanAction| {
        let fields = action.data.as_ref().unwrap().fields.iter().map(|(name, value)| (name.clone(), text(value)));
        (action.r#type.clone(), action.table.clone().unwrap(), fields.collect())
    };
    response.actions.iter().map(told).collect()
}

/// A listener on a free port and its URL.
pub fn address() -> (TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (TcpListener::from_std(listener).unwrap(), url)
}

/// The user's id is the plan: `free` has 3 agents, `none` has 0, every other plan all.
fn allowed(user_id: &str) -> Entitlements {
    let agents = match user_id {
        "free" => Some(3),
        "none" => Some(0),
        _ => None,
    };
    let limits = agents.map(|count| ("agents".to_owned(), count)).into_iter().collect();
    Entitlements { plan: user_id.to_owned(), limits, ..Entitlements::default() }
}

/// Everything that this test process logs, at every level.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// The logs, recorded from the first call on.
pub fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let logs = Logs::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(logs.clone());
        tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
        logs
    })
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Logs;

    fn make_writer(&'a self) -> Logs {
        self.clone()
    }
}
