//! An orchestrator between a fake identity, a fake billing and a stub of the model's provider.
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use weft_auth::{AUDIENCE, Claims, ISSUER, PRODUCT_HEADER, Signer};
use weft_core::{Clock, new_id};
use weft_orchestrator::{Config, migrate, serve};
use weft_product::Products;
use weft_proto::billing::v1::Entitlements;
use weft_proto::billing::v1::usage_service_server::UsageServiceServer;
use weft_proto::billing::v1::wallet_service_server::WalletServiceServer;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_proto::orchestrator::v1::plan_service_client::PlanServiceClient;
use weft_proto::orchestrator::v1::{ChatContext, ChatRequest, ChatResponse};
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::llm::LlmStub;
use weft_testing::{Database, FakeService, Logs};

use crate::book::Book;

/// 2026-11-20 10:00 UTC, a Friday.
pub const NOW_MS: i64 = 1_795_168_800_000;
/// 00:00 of that day.
pub const TODAY_MS: i64 = 1_795_132_800_000;
/// What a token costs those who pay, in micro-credits.
pub const RATE: i64 = 100;
/// What those who pay may choose from.
pub const MODELS: [&str; 3] = ["gpt-4o-mini", "stub-500-500", "stub-20-1000"];
/// What it seals with.
pub const SECRET: &str = "a secret that only this orchestrator knows";
/// Length of a day.
pub const DAY_MS: i64 = 86_400_000;

/// A running orchestrator; it ends with this value.
pub struct Orchestrator {
    /// Where it is.
    pub channel: Channel,
    /// The provider's stub; not asked by an orchestrator that is offline.
    pub llm: LlmStub,
    /// What billing has in its book.
    pub book: Book,
    /// Billing itself.
    pub billing: Arc<FakeService>,
    /// What it keeps.
    pub database: Arc<Database>,
    /// Its time.
    pub clock: Clock,
    signer: Signer,
    shutdown: Shutdown,
    _identity: FakeService,
    /// What another one like it is made of.
    config: Config,
    mesh: MeshConfig,
    products: Option<&'static Path>,
}

/// A further replica of an orchestrator, with threads of its own; it ends with this value.
pub struct Replica {
    /// Where it is.
    pub channel: Channel,
    running: Option<Runtime>,
}

/// How to start one.
pub struct Start {
    /// Its configuration; the provider's URL is added unless it is offline.
    pub config: Config,
    /// Without a provider.
    pub offline: bool,
    /// Where billing is, if not at the fake one.
    pub billing_url: Option<String>,
    /// Manifests that replace built-in ones.
    pub products: Option<&'static Path>,
    /// Where it keeps what it keeps; None: an SQLite file of its own.
    pub database: Option<Arc<Database>>,
    /// Networks that users' URLs may lead to.
    pub networks: &'static str,
    /// The database is as it is, and may be away.
    pub unmigrated: bool,
}

impl Default for Start {
    fn default() -> Start {
        Start {
            // Who leaves does not come back.
            config: Config { weft_chat_resume_ms: 0, ..Config::default() },
            offline: false,
            billing_url: None,
            products: None,
            database: None,
            networks: "",
            unmigrated: false,
        }
    }
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
        let (identity, book) = (FakeService::identity(signer.jwk()), Book::default());
        let (wallet, usage) = (WalletServiceServer::new(book.clone()), UsageServiceServer::new(book.clone()));
        let billing = FakeService::billing_and(allowed, |routes| routes.add_service(wallet).add_service(usage));
        let mesh = MeshConfig {
            weft_identity_url: identity.url(),
            weft_billing_url: start.billing_url.unwrap_or_else(|| billing.url()),
            weft_service_secret: Some("a secret that only these tests know".into()),
            weft_drain_ms: 100,
            weft_allow_private_addresses: start.networks.parse().unwrap(),
            ..MeshConfig::default()
        };
        let mut config = start.config;
        if !start.offline {
            config.openai_base_url = Some(llm.url().to_owned());
            config.openai_api_key = Some("sk-stub".into());
        }
        let database = start.database.unwrap_or_else(|| Arc::new(Database::sqlite()));
        config.database_url.clone_from(&database.url);
        config.weft_orchestrator_secret = Some(SECRET.into());
        if !start.unmigrated {
            migrate(&config).await.unwrap();
        }
        let shutdown = Shutdown::new();
        let clock = Clock::manual(NOW_MS);
        let (same_config, same_mesh) = (config.clone(), mesh.clone());
        let mesh = Mesh::new("orchestrator", mesh, clock.clone(), shutdown.clone());
        let products = Arc::new(Products::load(start.products).unwrap());
        let (listener, url) = address();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        drop(tokio::spawn(async move { serve(config, mesh, products, listener).await.unwrap() }));
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        let billing = Arc::new(billing);
        Orchestrator {
            channel,
            llm,
            book,
            billing,
            database,
            clock,
            signer,
            shutdown,
            _identity: identity,
            config: same_config,
            mesh: same_mesh,
            products: start.products,
        }
    }

    /// A further replica of it.
    pub fn replica(&self) -> Replica {
        let running = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (config, mesh, clock) = (self.config.clone(), self.mesh.clone(), self.clock.clone());
        let products = Arc::new(Products::load(self.products).unwrap());
        let url = {
            let _inside = running.enter();
            let (listener, url) = address();
            drop(running.spawn(async move {
                let mesh = Mesh::new("orchestrator", mesh, clock, Shutdown::new());
                serve(config, mesh, products, listener).await.unwrap();
            }));
            url
        };
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        Replica { channel, running: Some(running) }
    }

    /// A client of the service.
    pub fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel.clone())
    }

    /// A client of the playbooks.
    pub fn plans(&self) -> PlanServiceClient<Channel> {
        PlanServiceClient::new(self.channel.clone())
    }

    /// A token of a user of a product; the fake billing takes the user's name for the plan.
    pub fn token(&self, product: &str, plan: &str, expires_in_s: i64) -> String {
        self.token_with(product, plan, expires_in_s, &[])
    }

    /// The same for a user with roles.
    pub fn token_with(&self, product: &str, plan: &str, expires_in_s: i64, roles: &[&str]) -> String {
        let now = NOW_MS / 1000;
        self.signer.mint(&Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: plan.to_owned(),
            prd: product.to_owned(),
            sid: new_id(),
            jti: new_id(),
            email: String::new(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            scp: None,
            key: None,
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
        self.stream_on("pro", message).await
    }

    /// One streamed chat of a user on this plan, read to its end.
    pub async fn stream_on(&self, plan: &str, message: ChatRequest) -> Told {
        let mut tokens = Vec::new();
        let mut events = match self.client().stream_chat(self.request(plan, message)).await {
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

impl Replica {
    /// A client of the service.
    pub fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel.clone())
    }
}

impl Drop for Replica {
    /// As a crash would.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown_background();
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

/// A message without context to the task agent.
pub fn say(message: &str) -> ChatRequest {
    ChatRequest { agent: "task_agent".to_owned(), ..ask(message) }
}

/// A message without context to whoever fits.
pub fn ask(message: &str) -> ChatRequest {
    ChatRequest { message: message.to_owned(), ..ChatRequest::default() }
}

/// A message with tasks.
pub fn say_with_tasks(message: &str, tasks: &[serde_json::Value]) -> ChatRequest {
    let context = ChatContext { recent_tasks: tasks.iter().map(as_struct).collect(), ..ChatContext::default() };
    ChatRequest { context: Some(context), ..say(message) }
}

/// A JSON object as a message carries it.
pub fn as_struct(value: &serde_json::Value) -> weft_proto::json::Struct {
    let fields = value.as_object().expect("an object").iter().map(|(name, field)| (name.clone(), as_value(field)));
    fields.collect()
}

/// Any JSON value as a message carries it.
pub fn as_value(value: &serde_json::Value) -> weft_proto::json::Value {
    use serde_json::Value;
    use weft_proto::json::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => {
            Kind::ListValue(weft_proto::json::ListValue { values: items.iter().map(as_value).collect() })
        }
        Value::Object(_) => Kind::StructValue(as_struct(value)),
    };
    kind.into()
}

/// Type, table and text fields of each action, for comparing.
pub fn actions(response: &ChatResponse) -> Vec<(String, String, HashMap<String, String>)> {
    use weft_proto::json::Kind;
    let text = |value: &weft_proto::json::Value| match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(flag)) => flag.to_string(),
        _ => "null".to_owned(),
    };
    let told = |action: &weft_proto::orchestrator::v1::PlanAction| {
        let data = action.data.as_ref().unwrap();
        let fields = data.fields.iter().map(|field| (field.key.clone(), text(field.value.as_ref().unwrap())));
        (action.r#type.clone(), action.table.clone().unwrap(), fields.collect())
    };
    response.actions.iter().map(told).collect()
}

/// Asks again while the answer is UNAVAILABLE, which a machine that is busy with other tests may say to many at once.
pub async fn patiently<A, F>(ask: impl Fn() -> F) -> Result<A, Status>
where
    F: Future<Output = Result<A, Status>>,
{
    for _ in 0..100 {
        match ask().await {
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(Duration::from_millis(50)).await,
            end => return end,
        }
    }
    ask().await
}

/// A listener on a free port and its URL.
pub fn address() -> (TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (TcpListener::from_std(listener).unwrap(), url)
}

/// The user's id is the plan: `free` has 3 agents and 2 steps at once, `none` has 0 agents, every other plan all; `power` builds
/// batches. `paying…` pays [`RATE`] and may
/// choose from [`MODELS`], `limited…` has a limit of tokens a day.
fn allowed(user_id: &str) -> Entitlements {
    let agents = match user_id {
        "free" => Some(3),
        "none" => Some(0),
        _ => None,
    };
    let mut limits: HashMap<String, i64> = agents.map(|count| ("agents".to_owned(), count)).into_iter().collect();
    if user_id.starts_with("limited") {
        limits.insert("max_tokens_per_day".to_owned(), 1_000);
    }
    if user_id == "free" {
        limits.insert("batch_active".to_owned(), 2);
    }
    if user_id.starts_with("one-provider") {
        limits.insert("providers".to_owned(), 1);
    }
    let features = [("batch_builder".to_owned(), user_id == "power")].into_iter().collect();
    let rate = user_id.contains("paying").then_some(RATE);
    let allowed_models = if rate.is_some() { MODELS.map(str::to_owned).to_vec() } else { Vec::new() };
    let plan = user_id.to_owned();
    Entitlements { plan, limits, micro_credits_per_token: rate, allowed_models, features, ..Entitlements::default() }
}

/// The logs, recorded from the first call on.
pub fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(Logs::of_process)
}
