//! What the ledger charged is what the provider's own meter shows, whatever ended the calls.
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use weft_core::Reason;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_proto::orchestrator::v1::{ChatRequest, ChatUsage};
use weft_testing::eventually;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;
use weft_testing::postgres;

use crate::{WEFT, adiuva_with};

/// Credits of everybody, a day.
const CREDITS: f64 = 1_000_000.0;
/// Tokens of a credit.
const TOKENS_PER_CREDIT: f64 = 10_000.0;
/// Calls of each kind in each of the four ways: 408 in all.
const CALLS: usize = 17;
/// Tokens of every prompt, of a whole answer, and of one that is cut.
const TOKENS: (i64, i64, i64) = (20, 1_000, 500);
/// Tokens of a round that only calls a tool.
const ROUND: (i64, i64) = (100, 10);
/// So often a call is asked for.
const TRIES: usize = 100;
/// All holds have ended in this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How a call goes and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Stream,
    /// A round that calls a tool, then the answer: streamed every other time.
    Tools,
    /// The provider fails once before it answers: streamed every other time.
    Retry,
    ClientCut,
    ProviderCut,
}

const KINDS: [Kind; 6] = [Kind::Plain, Kind::Stream, Kind::Tools, Kind::Retry, Kind::ClientCut, Kind::ProviderCut];

impl Kind {
    /// The model that stands for it: each has replies of its own.
    fn model(self) -> &'static str {
        match self {
            Kind::Plain => "meter-plain",
            Kind::Stream => "meter-stream",
            Kind::Tools => "meter-tools",
            Kind::Retry => "meter-retry",
            Kind::ClientCut => "meter-client-cut",
            Kind::ProviderCut => "meter-provider-cut",
        }
    }

    /// What its provider says to one call.
    fn replies(self, on_disconnect: &str) -> Vec<Reply> {
        match self {
            Kind::Plain | Kind::Stream => vec![words()],
            Kind::Tools => {
                let every = json!({"status": "", "priority": "", "limit": -1});
                vec![Reply::tool("list_tasks", &every).usage(ROUND.0, ROUND.1), words()]
            }
            Kind::Retry => vec![Reply::status(500), words()],
            Kind::ClientCut if on_disconnect == "cancel" => vec![words().hang_after(500)],
            // Slow enough for its reader to leave in the middle.
            Kind::ClientCut => vec![words().delay(Duration::from_millis(1))],
            Kind::ProviderCut => vec![words().cut_after(500)],
        }
    }

    /// What one call of it costs, in tokens.
    fn tokens(self, on_disconnect: &str) -> i64 {
        let (whole, cut) = (TOKENS.0 + TOKENS.1, TOKENS.0 + TOKENS.2);
        match self {
            Kind::Plain | Kind::Stream | Kind::Retry => whole,
            Kind::Tools => ROUND.0 + ROUND.1 + whole,
            Kind::ClientCut if on_disconnect != "cancel" => whole,
            Kind::ClientCut | Kind::ProviderCut => cut,
        }
    }

    fn is_streamed(self, at: usize) -> bool {
        match self {
            Kind::Plain => false,
            Kind::Tools | Kind::Retry => at.is_multiple_of(2),
            Kind::Stream | Kind::ClientCut | Kind::ProviderCut => true,
        }
    }
}

/// Words that no prompt has, so that each comes to the reader as it is, as a piece of its own.
fn words() -> Reply {
    Reply::chunks((0..TOKENS.1).map(|_| " слово")).usage(TOKENS.0, TOKENS.1)
}

/// Adiuva with credits, the models of the stub's, and one of the two ways with readers who leave.
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

fn client(orchestrator: &str) -> ChatServiceClient<Channel> {
    ChatServiceClient::new(Endpoint::from_shared(orchestrator.to_owned()).unwrap().connect_lazy())
}

/// One call, ended as its kind is. Who is refused before it begins, because billing has too much to do, asks again.
async fn call(orchestrator: &str, person: &Persona, kind: Kind, is_streamed: bool, on_disconnect: &str) {
    let mut usual = kind.tokens(on_disconnect);
    for _ in 0..TRIES {
        let ended = match is_streamed {
            true => streamed(orchestrator, person, kind).await,
            false => client(orchestrator).chat(request(person, kind)).await.map(|answer| answer.into_inner().usage),
        };
        match ended {
            Ok(usage) => {
                let told = usage.map(|usage| (usage.total_tokens, usage.estimated));
                return assert_eq!(told.unwrap_or((usual, false)), (usual, false), "{kind:?}");
            }
            Err(status) => assert_eq!(Reason::of(&status), Some(Reason::Unavailable), "{kind:?}: {status}"),
        }
        // The tool may have been called already.
        if kind == Kind::Tools {
            usual = TOKENS.0 + TOKENS.1;
        }
    }
    panic!("{kind:?}: billing never answered");
}

/// A whole answer of a kind's model.
async fn answered(orchestrator: &str, person: &Persona, kind: Kind) {
    for _ in 0..TRIES {
        match client(orchestrator).chat(request(person, kind)).await {
            Ok(_) => return,
            Err(status) => assert_eq!(Reason::of(&status), Some(Reason::Unavailable), "{kind:?}: {status}"),
        }
    }
    panic!("{kind:?}: billing never answered");
}

/// A streamed call that ends as it should, and what it says that it used.
async fn streamed(orchestrator: &str, person: &Persona, kind: Kind) -> Result<Option<ChatUsage>, Status> {
    let mut events = client(orchestrator).stream_chat(request(person, kind)).await?.into_inner();
    let (mut tokens, mut used) = (0, None);
    loop {
        match events.message().await.map(|event| event.and_then(|event| event.event)) {
            Ok(Some(Event::Token(_))) => tokens += 1,
            Ok(Some(Event::Done(done))) => used = done.usage,
            Ok(None) => {
                assert!(kind != Kind::ProviderCut && used.is_some() && tokens == TOKENS.1, "{kind:?}: {tokens}");
                return Ok(used);
            }
            Err(status) if tokens == 0 => return Err(status),
            Err(status) => {
                assert_eq!((kind, tokens), (Kind::ProviderCut, TOKENS.2), "{status}");
                assert_eq!(Reason::of(&status), Some(Reason::ProviderStreamInterrupted));
                return Ok(None);
            }
        }
        if kind == Kind::ClientCut && tokens == TOKENS.2 {
            return Ok(None);
        }
    }
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

async fn the_ledger_is_the_meter(options: Options, on_disconnect: &'static str) {
    let stub = LlmStub::start().await;
    let (mesh, _products) = metered(options, &stub, on_disconnect).await;
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    #[expect(clippy::disallowed_methods, reason = "a longer proof is asked for by the environment of a test")]
    let calls = std::env::var("WEFT_PROVE_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    // One whole answer of each model: what its provider says of the prompt is known of those that are cut.
    for kind in KINDS {
        stub.script_for(kind.model(), [words()]);
        answered(&mesh.orchestrator.url, &person, kind).await;
    }
    let mut running = JoinSet::new();
    for kind in KINDS {
        stub.script_for(kind.model(), (0..calls).flat_map(|_| kind.replies(on_disconnect)));
        let (orchestrator, person) = (mesh.orchestrator.url.clone(), person.clone());
        running.spawn(async move {
            for at in 0..calls {
                call(&orchestrator, &person, kind, kind.is_streamed(at), on_disconnect).await;
            }
        });
    }
    running.join_all().await;
    let paid = until_settled(&person).await;
    let firsts = (TOKENS.0 + TOKENS.1) * KINDS.len() as i64;
    let expected = firsts + KINDS.iter().map(|kind| kind.tokens(on_disconnect) * calls as i64).sum::<i64>();
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

/// Nobody waits for a hold to expire in this time: none of them lives so short.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn accounting_of_readers_who_leave_right_behind_the_last_byte() {
    const READERS: usize = 4;
    const EACH: usize = 50;
    let stub = LlmStub::start().await;
    let (mesh, _products) = metered(Options::new(WEFT), &stub, "cancel").await;
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    let model = Kind::Stream.model();
    stub.script_for(model, (0..READERS * EACH).map(|_| Reply::text("one two three").usage(7, 3)));
    let body =
        json!({"model": model, "stream": true, "max_tokens": 50, "messages": [{"role": "user", "content": "go on"}]});
    let body = body.to_string().into_bytes();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (person, body) = (person.at(mesh.edge()), body.clone());
        readers.spawn(async move {
            for _ in 0..EACH {
                let headers = [("content-type", "application/json")];
                let mut answer = person.open("/v1/chat/completions", &headers, body.clone()).await.unwrap();
                let mut heard = Vec::new();
                while !heard.ends_with(b"data: [DONE]\n\n") {
                    heard.extend_from_slice(&answer.chunk().await.unwrap().expect("it goes on until the end is told"));
                }
            }
        });
    }
    readers.join_all().await;
    eventually("every hold to end", AT_ONCE, || async { balance(&person).await["held"] == json!(0) }).await;
    let calls = (READERS * EACH) as i64;
    assert_eq!((stub.billed(), until_settled(&person).await), ((7 * calls, 3 * calls), 10 * calls));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_orchestrator_dies_is_paid_as_far_as_it_was_marked() {
    let stub = LlmStub::start().await;
    let (mut mesh, _products) = metered(Options::new(WEFT), &stub, "cancel").await;
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    let orchestrator = mesh.orchestrator.url.clone();
    stub.script_for(Kind::ClientCut.model(), [words(), words().hang_after(500)]);
    answered(&orchestrator, &person, Kind::ClientCut).await;
    let before = until_settled(&person).await;
    let mut events = client(&orchestrator).stream_chat(request(&person, Kind::ClientCut)).await.unwrap().into_inner();
    for _ in 0..500 {
        assert!(events.message().await.unwrap().is_some());
    }
    // Longer than it takes to mark what came.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    mesh.orchestrator.kill().await;
    assert_ne!(balance(&person).await["held"], json!(0));
    assert_eq!(until_settled(&person).await - before, TOKENS.0 + TOKENS.2);
}
