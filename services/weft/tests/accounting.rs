//! What the ledger charged is what the provider's own meter shows, whatever ended the calls.
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::Endpoint;
use weft_proto::orchestrator::v1::ChatRequest;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_testing::eventually;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;
use weft_testing::postgres;

use crate::{WEFT, adiuva_with};

/// Credits of everybody, a day.
const CREDITS: f64 = 100_000.0;
/// Tokens of a credit.
const TOKENS_PER_CREDIT: f64 = 10_000.0;
/// Calls of each kind.
const CALLS: usize = 15;
/// So many run at once.
const AT_ONCE: usize = 5;
/// Tokens of every prompt, of a whole answer, and of one that is cut.
const TOKENS: (i64, i64, i64) = (20, 1_000, 500);
/// All holds have ended in this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How a call ends, and the model that stands for it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Stream,
    ClientCut,
    ProviderCut,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Stream, Kind::ClientCut, Kind::ProviderCut];

impl Kind {
    fn model(self) -> &'static str {
        match self {
            Kind::Plain => "stub-20-1000",
            Kind::Stream => "stub-020-1000",
            Kind::ClientCut => "stub-20-01000",
            Kind::ProviderCut => "stub-020-01000",
        }
    }
}

/// Adiuva with credits, a model of the stub's, and one of the two ways with readers who leave.
async fn metered(mut options: Options, stub: &LlmStub, on_disconnect: &str) -> (Mesh, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let models: Vec<String> = KINDS.map(|kind| format!("\"{}\"", kind.model())).to_vec();
    let prices: String = models.iter().map(|model| format!("{model} = {{ input = 1, output = 1 }}\n")).collect();
    let daily = CREDITS as i64 * 1_000_000;
    let plan = format!(
        "requests_per_minute = 100000\ncredits = {{ initial = 0, daily = {daily}, micro_credits_per_token = 100 }}\n\
         models = {{ allowed = [{}] }}\n",
        models.join(", ")
    );
    adiuva_with(
        folder.path(),
        &[
            ("requests_per_minute = 20\n", &plan),
            ("\n[model_prices]\n", &format!("\n[model_prices]\n{prices}")),
            ("on_disconnect = \"cancel\"", &format!("on_disconnect = \"{on_disconnect}\"")),
        ],
    );
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), folder.path().display().to_string()));
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    // Who leaves does not come back.
    options.environment.push(("WEFT_CHAT_RESUME_MS".to_owned(), "0".to_owned()));
    (Mesh::start(options).await, folder)
}

fn request(person: &Persona, kind: Kind) -> Request<ChatRequest> {
    let (message, agent, model) = ("go on".to_owned(), "task_agent".to_owned(), kind.model().to_owned());
    let mut request = Request::new(ChatRequest { message, agent, model, ..ChatRequest::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {}", person.access_token()).parse().unwrap());
    request.metadata_mut().insert("x-weft-product", "adiuva".parse().unwrap());
    request
}

/// One call, ended as its kind is.
async fn call(orchestrator: String, person: Persona, kind: Kind) {
    let mut client = ChatServiceClient::new(Endpoint::from_shared(orchestrator).unwrap().connect_lazy());
    if kind == Kind::Plain {
        let usage = client.chat(request(&person, kind)).await.unwrap().into_inner().usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (TOKENS.0, TOKENS.1, false));
        return;
    }
    let mut events = client.stream_chat(request(&person, kind)).await.unwrap().into_inner();
    let mut tokens = 0;
    loop {
        match events.message().await.map(|event| event.and_then(|event| event.event)) {
            Ok(Some(Event::Token(_))) if kind == Kind::ClientCut && tokens + 1 == TOKENS.2 => return,
            Ok(Some(Event::Token(_))) => tokens += 1,
            Ok(Some(Event::Done(_))) => assert!(kind == Kind::Stream && tokens == TOKENS.1, "{tokens} tokens"),
            Ok(None) => return,
            Err(status) => {
                assert!(kind == Kind::ProviderCut, "{status}");
                assert_eq!(weft_core::Reason::of(&status), Some(weft_core::Reason::ProviderStreamInterrupted));
                return;
            }
        }
    }
}

fn words() -> Reply {
    Reply::chunks((0..TOKENS.1).map(|_| " word")).usage(TOKENS.0, TOKENS.1)
}

async fn balance(person: &Persona) -> Value {
    let (status, balance) = person.get("/api/v1/wallet/balance").await;
    assert_eq!(status, 200, "{balance}");
    balance
}

/// Waits until nothing is held, and says how many tokens are paid.
async fn until_settled(person: &Persona) -> i64 {
    eventually("every hold to end", SETTLED_WITHIN, || async { balance(person).await["held"] == json!(0) }).await;
    let left = balance(person).await["total"].as_f64().unwrap();
    ((CREDITS - left) * TOKENS_PER_CREDIT).round() as i64
}

async fn the_ledger_is_the_meter(options: Options, on_disconnect: &str) {
    let stub = LlmStub::start().await;
    let (mesh, _products) = metered(options, &stub, on_disconnect).await;
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    let calls = std::env::var("WEFT_PROVE_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    // One whole answer of each model: what its provider says of the prompt is known of those that are cut.
    for kind in KINDS {
        let mut client =
            ChatServiceClient::new(Endpoint::from_shared(mesh.orchestrator.url.clone()).unwrap().connect_lazy());
        client.chat(request(&person, kind)).await.unwrap();
    }
    let client_cut = || match on_disconnect {
        "cancel" => words().hang_after(500),
        _ => words().delay(Duration::from_millis(1)),
    };
    stub.script_for(Kind::ClientCut.model(), (0..calls).map(|_| client_cut()));
    stub.script_for(Kind::ProviderCut.model(), (0..calls).map(|_| words().cut_after(500)));
    let mut running = JoinSet::new();
    for kind in (0..calls).flat_map(|_| KINDS) {
        if running.len() >= AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(call(mesh.orchestrator.url.clone(), person.clone(), kind));
    }
    running.join_all().await;
    let paid = until_settled(&person).await;
    let whole = if on_disconnect == "cancel" { 2 } else { 3 };
    let (whole, cut) = (calls * whole + KINDS.len(), calls * (4 - whole));
    let expected = (TOKENS.0 + TOKENS.1) * whole as i64 + (TOKENS.0 + TOKENS.2) * cut as i64;
    eventually("the provider's meter", SETTLED_WITHIN, || async { stub.billed().0 + stub.billed().1 == expected })
        .await;
    assert_eq!(paid, expected, "the ledger and the provider's meter differ");
    let verified = mesh.billing.run(&["ledger", "verify", "--product", "adiuva"]).await;
    let report: Value = serde_json::from_str(&verified).unwrap_or_else(|error| panic!("{error}: {verified}"));
    assert_eq!((&report["ok"], &report["sum"]), (&json!(true), &json!(0)), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounting_on_sqlite_where_answers_are_stopped() {
    the_ledger_is_the_meter(Options::new(WEFT), "cancel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounting_on_sqlite_where_answers_are_finished() {
    the_ledger_is_the_meter(Options::new(WEFT), "continue").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounting_on_postgresql_where_answers_are_stopped() {
    let postgres = Some(postgres::shared().await.database().await);
    the_ledger_is_the_meter(Options { postgres, ..Options::new(WEFT) }, "cancel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounting_on_postgresql_where_answers_are_finished() {
    let postgres = Some(postgres::shared().await.database().await);
    the_ledger_is_the_meter(Options { postgres, ..Options::new(WEFT) }, "continue").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_orchestrator_dies_is_paid_as_far_as_it_was_marked() {
    let stub = LlmStub::start().await;
    let (mut mesh, _products) = metered(Options::new(WEFT), &stub, "cancel").await;
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    let client =
        || ChatServiceClient::new(Endpoint::from_shared(mesh.orchestrator.url.clone()).unwrap().connect_lazy());
    client().chat(request(&person, Kind::ClientCut)).await.unwrap();
    let before = until_settled(&person).await;
    stub.script_for(Kind::ClientCut.model(), [words().hang_after(500)]);
    let mut events = client().stream_chat(request(&person, Kind::ClientCut)).await.unwrap().into_inner();
    for _ in 0..500 {
        assert!(events.message().await.unwrap().is_some());
    }
    // Longer than it takes to mark what came.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    mesh.orchestrator.kill().await;
    assert_ne!(balance(&person).await["held"], json!(0));
    assert_eq!(until_settled(&person).await - before, TOKENS.0 + TOKENS.2);
}
