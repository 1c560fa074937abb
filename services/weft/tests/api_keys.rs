//! API keys as programs use them: through the edge, and their budgets while billing dies.
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::Reason;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::{
    Bucket, GrantRequest, Hold, KeyBudget, KeySpending, ListKeySpendingRequest, ReserveRequest, SettleRequest,
};
use weft_testing::eventually;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options, SERVICE_SECRET};
use weft_testing::persona::{Client, Persona};
use weft_testing::postgres::Postgres;

use crate::{WEFT, adiuva_with};

const PRODUCT: &str = "adiuva";
const KEYS: &str = "/api/v1/access-keys";
const CHAT: &str = "/v1/chat/completions";
const ME: &str = "/api/v1/auth/me";
const SLOW: &str = "stub-1-200";
const QUICK: &str = "stub-1-20";

/// Adiuva with credits and the stub's models.
async fn metered(stub: &LlmStub, folder: &Path) -> Mesh {
    let plan = format!(
        "requests_per_minute = 100000\ncredits = {{ initial = 0, daily = 1000000000, micro_credits_per_token = 100 }}\n\
         models = {{ allowed = [\"{SLOW}\", \"{QUICK}\"] }}\n"
    );
    let price = "{ input = 1, output = 1 }";
    let prices = format!("\n[model_prices]\n{SLOW} = {price}\n{QUICK} = {price}\n");
    adiuva_with(folder, &[("requests_per_minute = 20\n", &plan), ("\n[model_prices]\n", &prices)]);
    let mut options = Options::new(WEFT);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), folder.display().to_string()));
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    options.environment.push(("WEFT_EDGE_ANONYMOUS_PER_MINUTE".to_owned(), "100000".to_owned()));
    Mesh::start(options).await
}

/// A new key of somebody: its text and its id.
async fn key(owner: &Persona, order: &Value) -> (String, String) {
    let (status, made) = owner.post(KEYS, order).await;
    assert_eq!(status, 200, "{made}");
    (made["key"].as_str().unwrap().to_owned(), made["api_key"]["id"].as_str().unwrap().to_owned())
}

fn question(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": 300, "messages": [{"role": "user", "content": "go on"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_calls_what_it_may_until_it_is_revoked_and_a_flood_of_wrong_ones_changes_nothing() {
    let (stub, folder) = (LlmStub::start().await, tempfile::tempdir().unwrap());
    let mesh = metered(&stub, folder.path()).await;
    let ana = Persona::register(mesh.edge(), PRODUCT, "ana@example.com").await;
    let client = Client::new(mesh.edge(), PRODUCT);
    let (good, id) = key(&ana, &json!({"name": "my program"})).await;
    let (models_only, _) = key(&ana, &json!({"name": "looks only", "scopes": ["models"]})).await;

    let (status, models) = client.get("/v1/models", Some(&good)).await;
    assert_eq!(status, 200, "{models}");
    let (status, said) = client.post(CHAT, Some(&good), &question(QUICK, false)).await;
    assert_eq!(status, 200, "{said}");
    for (path, bearer) in [(ME, &good), (KEYS, &good), ("/api/v1/wallet/balance", &good)] {
        let (status, refused) = client.get(path, Some(bearer)).await;
        assert_eq!((status, &refused["error"]["code"]), (403, &json!("scope_missing")), "{path}: {refused}");
    }
    let (status, refused) = client.post(CHAT, Some(&models_only), &question(QUICK, false)).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("scope_missing")), "{refused}");
    let public = client.get("/api/v1/products", Some(&good)).await;
    assert_eq!(public.0, client.get("/api/v1/products", None).await.0, "where anybody may call it is nobody");

    let mut garbage = client.get("/v1/models", Some("garbage")).await.1;
    garbage["error"]["request_id"].take();
    let wrong = |number: usize| format!("sk-weft-{number:043}");
    let begun = Instant::now();
    let flood = join_all((0..300).map(|number| {
        let client = client.clone();
        async move { client.get("/v1/models", Some(&wrong(number))).await }
    }));
    let (flood, goods) = tokio::join!(flood, join_all((0..20).map(|_| client.get("/v1/models", Some(&good)))));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(goods.iter().all(|(status, _)| *status == 200), "{goods:?}");
    for (status, mut refused) in flood.into_iter().chain([client.get("/v1/models", Some("sk-weft-short")).await]) {
        refused["error"]["request_id"].take();
        assert_eq!((status, &refused), (401, &garbage));
    }

    stub.script_for(SLOW, [Reply::text(&"word ".repeat(200)).delay(Duration::from_millis(100))]);
    let headers = [("content-type", "application/json")];
    let mut program = ana.clone();
    program.tokens = json!({"access_token": good});
    let mut stream = program.open(CHAT, &headers, question(SLOW, true).to_string().into()).await.unwrap();
    assert_eq!(stream.status().as_u16(), 200);
    stream.chunk().await.unwrap().expect("it has begun");
    assert_eq!(ana.delete(&format!("{KEYS}/{id}")).await.0, 200);
    let revoked = Instant::now();
    eventually("the refusal", Duration::from_secs(1), || async {
        client.get("/v1/models", Some(&good)).await.0 == 401
    })
    .await;
    let rest = async {
        let mut rest = Vec::new();
        while let Ok(Some(chunk)) = stream.chunk().await {
            rest.extend_from_slice(&chunk);
        }
        String::from_utf8_lossy(&rest).into_owned()
    };
    let rest = tokio::time::timeout(Duration::from_secs(2), rest).await.expect("the stream ends");
    assert!(rest.contains("unauthenticated") && !rest.contains("[DONE]"), "{rest}");
    assert!(revoked.elapsed() < Duration::from_secs(2));
    assert_eq!(ana.get(ME).await.0, 200, "the session goes on");
    assert_eq!(client.get("/v1/models", Some(&models_only)).await.0, 200, "so does the other key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_spends_up_to_its_budget_and_a_new_budget_counts_within_a_second() {
    let (stub, folder) = (LlmStub::start().await, tempfile::tempdir().unwrap());
    let mesh = metered(&stub, folder.path()).await;
    let ana = Persona::register(mesh.edge(), PRODUCT, "ana@example.com").await;
    let client = Client::new(mesh.edge(), PRODUCT);
    let (text, id) = key(&ana, &json!({"name": "a program", "budget": 0.000001})).await;
    let ask = async || client.post(CHAT, Some(&text), &question(QUICK, false)).await;
    let (status, refused) = ask().await;
    assert_eq!((status, &refused["error"]["code"]), (402, &json!("key_budget_exceeded")), "{refused}");

    let client_of_owner = reqwest::Client::builder().no_proxy().build().unwrap();
    let change = client_of_owner
        .patch(format!("{}{KEYS}/{id}", mesh.edge()))
        .header("x-weft-product", PRODUCT)
        .bearer_auth(ana.access_token())
        .json(&json!({"budget": 100}));
    assert_eq!(change.send().await.unwrap().status(), 200);
    eventually("the new budget", Duration::from_secs(1), || async { ask().await.0 == 200 }).await;
    let total = async || ana.get("/api/v1/wallet/balance").await.1;
    eventually("every hold to end", Duration::from_secs(60), || async { total().await["held"] == json!(0) }).await;
    let (_, listed) = ana.get(KEYS).await;
    let shown = &listed["api_keys"][0];
    let spent = shown["spent"].as_f64().unwrap();
    assert!(spent > 0.0 && (1000.0 - total().await["total"].as_f64().unwrap() - spent).abs() < 1e-6, "{listed}");
    assert_eq!((&shown["budget"], shown["last_used_at"].is_number()), (&json!(100), true), "{listed}");
}

/// Billing as the orchestrator calls it for one key.
#[derive(Clone)]
struct Billing {
    client: WalletServiceClient<Channel>,
    user_id: String,
}

const KEY: &str = "the key";
/// Micro-credits of one call: what is held, and what it costs.
const HELD: i64 = 1_000_000;
const COST: i64 = 400_000;
/// What the key may spend: a part of what is asked for.
const LIMIT: i64 = 150 * COST;
const CLIENTS: usize = 64;
const CALLS: usize = 6;
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

impl Billing {
    fn request<T>(service: &'static str, message: T) -> Request<T> {
        let key = ServiceKey::new(&SERVICE_SECRET.to_owned().into(), service);
        let mut request = Request::new(message);
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, key.mint("billing").parse().unwrap());
        request.set_timeout(Duration::from_secs(2));
        request
    }

    /// Asks until it is known what became of it.
    async fn known<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Reason> {
        let begun = Instant::now();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(status) if Reason::of(&status) == Some(Reason::KeyBudgetExceeded) => {
                    return Err(Reason::KeyBudgetExceeded);
                }
                // What others hold of the budget comes back in part.
                Err(status) if Reason::of(&status) == Some(Reason::RateLimited) => {}
                Err(status) => {
                    let unknown =
                        [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::Unknown];
                    assert!(unknown.contains(&status.code()), "{what}: {status:?}");
                }
            }
            assert!(begun.elapsed() < SETTLED_WITHIN, "{what} was not settled in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn reserve(&self, number: &str) -> Result<Hold, Reason> {
        let message = ReserveRequest {
            product: PRODUCT.to_owned(),
            user_id: self.user_id.clone(),
            amount: HELD,
            idempotency_key: number.to_owned(),
            ttl_ms: 600_000,
            reference: "a call".to_owned(),
            key_budget: Some(KeyBudget { key_id: KEY.to_owned(), limit: Some(LIMIT) }),
        };
        let ask = async || self.client.clone().reserve(Billing::request("orchestrator", message.clone())).await;
        self.known("a reserve", ask).await.map(|answer| answer.into_inner())
    }

    /// Settles it, twice.
    async fn settle(&self, hold: &Hold) {
        let message = SettleRequest {
            product: PRODUCT.to_owned(),
            user_id: self.user_id.clone(),
            hold_id: hold.id.clone(),
            amount: COST,
            estimated: false,
        };
        for _ in 0..2 {
            let ask = async || self.client.clone().settle(Billing::request("orchestrator", message.clone())).await;
            assert_eq!(self.known("a settle", ask).await.unwrap().into_inner().charged, COST);
        }
    }

    async fn grant(&self, amount: i64) {
        let message = GrantRequest {
            product: PRODUCT.to_owned(),
            user_id: self.user_id.clone(),
            amount,
            bucket: Bucket::Purchased.into(),
            idempotency_key: "the grant".to_owned(),
            reference: "test".to_owned(),
        };
        self.client.clone().grant(Billing::request("orchestrator", message)).await.unwrap();
    }

    async fn spending(&self) -> KeySpending {
        let message = ListKeySpendingRequest {
            product: PRODUCT.to_owned(),
            user_id: self.user_id.clone(),
            key_ids: vec![KEY.to_owned()],
        };
        let ask = async || self.client.clone().list_key_spending(Billing::request("identity", message.clone())).await;
        self.known("the spending", ask).await.unwrap().into_inner().spending.remove(0)
    }
}

/// Many calls of one key at once while billing is killed: each is counted once, and never more than the budget.
async fn a_budget_while_billing_dies(options: Options) {
    let mut mesh = Mesh::start(options).await;
    let endpoint = Endpoint::from_shared(mesh.billing.url.clone()).unwrap().connect_timeout(Duration::from_secs(1));
    let client = WalletServiceClient::new(endpoint.connect_lazy());
    let billing = Billing { client, user_id: weft_core::new_id() };
    billing.grant(CALLS as i64 * CLIENTS as i64 * HELD).await;
    let clients = (0..CLIENTS).map(|client| {
        let billing = billing.clone();
        async move {
            let mut settled = 0_i64;
            for call in 0..CALLS {
                if let Ok(hold) = billing.reserve(&format!("{client} {call}")).await {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    billing.settle(&hold).await;
                    settled += 1;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            settled
        }
    });
    let mut working = std::pin::pin!(join_all(clients));
    let mut kills = 0;
    let settled: i64 = loop {
        match tokio::time::timeout(Duration::from_millis(1_500), &mut working).await {
            Ok(settled) => break settled.into_iter().sum(),
            Err(_elapsed) => {
                mesh.billing.kill().await;
                mesh.billing.restart().await;
                kills += 1;
            }
        }
    };
    assert!(kills >= 1, "billing was never killed");
    let KeySpending { spent, held, .. } = billing.spending().await;
    assert_eq!((spent, held), (settled * COST, 0), "{kills} kills");
    assert!((LIMIT / 2..=LIMIT).contains(&spent), "{spent} of {LIMIT}");
    assert!(settled < (CALLS * CLIENTS) as i64, "nobody was refused");
    let verified = mesh.billing.run(&["ledger", "verify", "--product", PRODUCT]).await;
    let report: Value = serde_json::from_str(&verified).unwrap_or_else(|error| panic!("{error}: {verified}"));
    assert_eq!(report["ok"], json!(true), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_budget_on_sqlite_while_billing_dies() {
    a_budget_while_billing_dies(Options::new(WEFT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_budget_on_postgresql_while_billing_dies() {
    let postgres = Postgres::start_with(&["fsync=on"]).await;
    a_budget_while_billing_dies(Options { postgres: Some(postgres.database().await), ..Options::new(WEFT) }).await;
}
