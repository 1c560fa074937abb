//! A streamed answer is read on where the connection broke: at the replica that makes it, or at another one through Redis.
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use weft_core::Reason;
use weft_orchestrator::Config;
use weft_proto::billing::v1::HoldState;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_proto::orchestrator::v1::{CancelChatRequest, ChatEvent, ChatRequest, ChatResponse, ResumeChatRequest};
use weft_testing::llm::Reply;
use weft_testing::{eventually, redis};

use crate::harness::{Orchestrator, RATE, Replica, Start, logs, say, with_token};

/// Who asks, and pays.
const PAYER: &str = "paying";
/// More than any answer here needs.
const PLENTY: i64 = 1_000_000_000;
/// What is not there in this time will not be.
const SOON: Duration = Duration::from_secs(10);
/// An answer of so many words has this many events: the end of the last word waits for the end of the answer, and the
/// last event is the whole.
const fn event_count(words: usize) -> usize {
    words + 2
}
/// A word of the answers that nobody else uses.
const CANARY: &str = "canaryc41d";

/// An orchestrator, and who is asked for the rest of an answer: itself, or another replica on the same Redis.
struct Stage {
    elsewhere: Option<Replica>,
    weft: Orchestrator,
}

impl Stage {
    async fn alone(config: Config, products: Option<&'static Path>) -> Stage {
        let weft = Orchestrator::start_with(Start { config, products, ..Start::default() }).await;
        weft.book.give(PAYER, PLENTY);
        Stage { elsewhere: None, weft }
    }

    async fn shared(config: Config, products: Option<&'static Path>) -> Stage {
        let redis_url = Some(redis::shared().await.url().into());
        let mut stage = Stage::alone(Config { redis_url, ..config }, products).await;
        stage.elsewhere = Some(stage.weft.replica());
        stage
    }

    fn there(&self) -> ChatServiceClient<Channel> {
        self.elsewhere.as_ref().map_or_else(|| self.weft.client(), Replica::client)
    }

    fn of<M>(&self, account: &str, message: M) -> Request<M> {
        with_token(message, "adiuva", &self.weft.token("adiuva", account, 600))
    }

    /// Asks, and gives the events.
    async fn ask(&self) -> Streaming<ChatEvent> {
        self.weft.client().stream_chat(self.of(PAYER, message())).await.unwrap().into_inner()
    }

    async fn resume(&self, run: &str, after: Option<i64>) -> Result<Streaming<ChatEvent>, Status> {
        let message = ResumeChatRequest { run_id: run.to_owned(), after };
        self.there().resume_chat(self.of(PAYER, message)).await.map(tonic::Response::into_inner)
    }

    async fn cancel(&self, account: &str, run: &str) -> Result<(), Status> {
        let message = CancelChatRequest { run_id: run.to_owned() };
        let answer = self.there().cancel_chat(self.of(account, message)).await?.into_inner();
        assert!(answer.ok);
        Ok(())
    }

    async fn until_settled(&self, calls: usize) {
        let book = &self.weft.book;
        eventually("every call to be settled", SOON, || async {
            book.count(HoldState::Open) == 0 && book.usage().len() == calls
        })
        .await;
    }
}

/// What a reader got.
struct Got {
    events: Vec<ChatEvent>,
    end: Result<(), Status>,
}

impl Got {
    fn text(&self) -> String {
        let token = |event: &ChatEvent| match &event.event {
            Some(Event::Token(token)) => token.clone(),
            _ => String::new(),
        };
        self.events.iter().map(token).collect()
    }

    fn done(&self) -> Option<ChatResponse> {
        match self.events.last().and_then(|event| event.event.clone()) {
            Some(Event::Done(done)) => Some(done),
            _ => None,
        }
    }

    fn reason(&self) -> Option<Reason> {
        self.end.as_ref().err().and_then(Reason::of)
    }
}

fn message() -> ChatRequest {
    say("hello")
}

/// Takes so many events.
async fn some(events: &mut Streaming<ChatEvent>, count: usize) -> Got {
    let mut got = Got { events: Vec::new(), end: Ok(()) };
    for _ in 0..count {
        match events.message().await {
            Ok(Some(event)) => got.events.push(event),
            Ok(None) => break,
            Err(status) => {
                got.end = Err(status);
                break;
            }
        }
    }
    got
}

async fn all(mut events: Streaming<ChatEvent>) -> Got {
    some(&mut events, usize::MAX).await
}

/// The parts of an event's id.
fn place(event: &ChatEvent) -> (String, i64) {
    let (run, number) = event.id.split_once('.').unwrap();
    (run.to_owned(), number.parse().unwrap())
}

/// The id of the answer that the metadata names.
fn run_id(answer: &tonic::Response<Streaming<ChatEvent>>) -> String {
    answer.metadata().get("x-run-id").unwrap().to_str().unwrap().to_owned()
}

/// An answer of so many words, one every `each`.
fn words(count: usize, each: Duration) -> Reply {
    let words: Vec<String> = (0..count).map(|at| format!("w{at} ")).collect();
    Reply::text(words.concat().trim_end()).usage(20, count as i64).delay(each)
}

fn graceful(weft_chat_resume_ms: u64) -> Config {
    Config { weft_chat_resume_ms, ..Config::default() }
}

/// Adiuva, but answers are finished for nobody.
fn finishing() -> &'static Path {
    let folder = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../products/adiuva.toml")).unwrap();
    let changed = text.replace("on_disconnect = \"cancel\"", "on_disconnect = \"continue\"");
    assert_ne!(text, changed);
    std::fs::write(folder.path().join("adiuva.toml"), changed).unwrap();
    folder.path()
}

/// Each of them at the replica that makes the answer, and at another one.
macro_rules! at_both {
    ($($name:ident: $config:expr, $products:expr;)*) => {
        mod here {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Stage::alone($config, $products).await).await })*
        }
        mod elsewhere {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Stage::shared($config, $products).await).await })*
        }
    };
}

at_both! {
    an_answer_is_read_on_behind_any_event: Config::default(), None;
    many_readers_read_one_answer_while_it_is_made: Config::default(), None;
    nobody_else_reads_or_stops_it: Config::default(), None;
    an_answer_can_be_read_for_two_minutes: Config::default(), None;
    nobody_returns_and_the_answer_is_stopped: graceful(400), None;
    somebody_returns_and_the_answer_goes_on: graceful(2_000), None;
    a_product_finishes_answers_for_nobody: graceful(0), Some(finishing());
    a_stopped_answer_is_paid_as_far_as_it_came: Config::default(), None;
    an_answer_that_fails_fails_for_every_reader: Config::default(), None;
    of_a_long_answer_the_beginning_is_gone: Config { weft_chat_log_bytes: 2_000, ..Config::default() }, None;
    a_lost_connection_is_taken_up_by_asking_again: Config::default(), None;
}

async fn an_answer_is_read_on_behind_any_event(stage: Stage) {
    const WORDS: i64 = 40;
    stage.weft.llm.script([words(WORDS as usize, Duration::ZERO)]);
    let answer = stage.weft.client().stream_chat(stage.of(PAYER, message())).await.unwrap();
    let named = run_id(&answer);
    let whole = all(answer.into_inner()).await;
    whole.end.as_ref().unwrap();
    let (run, _) = place(&whole.events[0]);
    assert_eq!(named, run, "told before the first event");
    assert!(run.len() == 22 && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{run}");
    let places: Vec<_> = whole.events.iter().map(place).collect();
    let expected: Vec<_> = (0..event_count(WORDS as usize) as i64).map(|number| (run.clone(), number)).collect();
    assert_eq!(places, expected);
    assert_eq!(whole.done().unwrap().response, whole.text());

    for after in [None].into_iter().chain((0..expected.len() as i64).map(Some)) {
        let rest = all(stage.resume(&run, after).await.unwrap()).await;
        rest.end.as_ref().unwrap_or_else(|status| panic!("after {after:?}: {status}"));
        let from = after.map_or(0, |after| after as usize + 1);
        assert_eq!(rest.events, whole.events[from..], "after {after:?}");
    }
    stage.until_settled(1).await;
    assert_eq!(stage.weft.llm.calls().len(), 1);
    assert_eq!(stage.weft.book.balance(PAYER), PLENTY - (20 + WORDS) * RATE);
}

async fn many_readers_read_one_answer_while_it_is_made(stage: Stage) {
    stage.weft.llm.script([words(100, Duration::from_millis(10))]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 20).await;
    let (run, _) = place(&first.events[0]);
    let mut readers = JoinSet::new();
    for after in [None, Some(0), Some(9), Some(19), Some(15), None] {
        let rest = stage.resume(&run, after).await.unwrap();
        readers.spawn(async move { (after, all(rest).await) });
    }
    let mut whole = all(events).await;
    whole.end.as_ref().unwrap();
    whole.events.splice(0..0, first.events);
    for (after, got) in readers.join_all().await {
        got.end.as_ref().unwrap_or_else(|status| panic!("after {after:?}: {status}"));
        let from = after.map_or(0, |after| after as usize + 1);
        assert_eq!(got.events, whole.events[from..], "after {after:?}");
    }
    stage.until_settled(1).await;
    assert_eq!(stage.weft.book.balance(PAYER), PLENTY - 120 * RATE);
}

async fn nobody_else_reads_or_stops_it(stage: Stage) {
    stage.weft.llm.script([words(3, Duration::ZERO)]);
    let whole = all(stage.ask().await).await;
    let (run, _) = place(&whole.events[0]);
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let token = |product: &str, account: &str| (product.to_owned(), stage.weft.token(product, account, 600));
    let strangers = [
        (token("adiuva", "paying-too"), run.as_str()),
        (token("companion", PAYER), run.as_str()),
        (token("adiuva", PAYER), unknown),
        (token("adiuva", PAYER), "no id"),
    ];
    for ((product, token), run) in &strangers {
        let resume = ResumeChatRequest { run_id: (*run).to_owned(), after: None };
        let cancel = CancelChatRequest { run_id: (*run).to_owned() };
        let resumed = stage.there().resume_chat(with_token(resume, product, token)).await.map(drop);
        let cancelled = stage.there().cancel_chat(with_token(cancel, product, token)).await.map(drop);
        for status in [resumed.unwrap_err(), cancelled.unwrap_err()] {
            let told = (status.code(), Reason::of(&status), status.message());
            assert_eq!(told, (Code::NotFound, Some(Reason::NotFound), "there is no such answer"));
        }
    }
    assert!(stage.resume(&run, None).await.is_ok());
}

async fn an_answer_can_be_read_for_two_minutes(stage: Stage) {
    stage.weft.llm.script([words(5, Duration::ZERO)]);
    let whole = all(stage.ask().await).await;
    let (run, _) = place(&whole.events[0]);
    stage.weft.clock.advance(Duration::from_secs(119));
    assert_eq!(all(stage.resume(&run, None).await.unwrap()).await.events, whole.events);
    stage.weft.clock.advance(Duration::from_secs(2));
    let status = stage.resume(&run, None).await.map(drop).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no such answer"));
}

async fn nobody_returns_and_the_answer_is_stopped(stage: Stage) {
    stage.weft.llm.script([words(1_000, Duration::ZERO).hang_after(500)]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 500).await;
    let (run, _) = place(&first.events[0]);
    assert_eq!(stage.weft.llm.abandoned(), 0);
    drop(events);
    let left = Instant::now();
    eventually("the provider to notice", SOON, || async { stage.weft.llm.abandoned() == 1 }).await;
    assert!(left.elapsed() >= Duration::from_millis(350), "{:?}", left.elapsed());
    stage.until_settled(1).await;
    assert_eq!(stage.weft.book.usage()[0].output_tokens, 500);
    // Who comes too late reads what there was.
    let rest = all(stage.resume(&run, Some(489)).await.unwrap()).await;
    assert_eq!((rest.events.len(), rest.reason()), (11, Some(Reason::Cancelled)));
}

async fn somebody_returns_and_the_answer_goes_on(stage: Stage) {
    stage.weft.llm.script([words(200, Duration::from_millis(20))]);
    let mut events = stage.ask().await;
    let mut told = some(&mut events, 10).await;
    let (run, _) = place(&told.events[0]);
    drop(events);
    for _ in 0..2 {
        let (_, last) = place(told.events.last().unwrap());
        let mut rest = stage.resume(&run, Some(last)).await.unwrap();
        told.events.extend(some(&mut rest, 20).await.events);
    }
    let (_, last) = place(told.events.last().unwrap());
    let rest = all(stage.resume(&run, Some(last)).await.unwrap()).await;
    rest.end.as_ref().unwrap();
    told.events.extend(rest.events);
    let places: Vec<_> = told.events.iter().map(|event| place(event).1).collect();
    assert_eq!(places, (0..event_count(200) as i64).collect::<Vec<_>>());
    assert_eq!(told.done().unwrap().response, told.text());
    stage.until_settled(1).await;
    assert_eq!((stage.weft.llm.abandoned(), stage.weft.llm.billed()), (0, (20, 200)));
}

async fn a_product_finishes_answers_for_nobody(stage: Stage) {
    stage.weft.llm.script([words(100, Duration::from_millis(5))]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 10).await;
    let (run, last) = place(first.events.last().unwrap());
    drop(events);
    stage.until_settled(1).await;
    let rest = all(stage.resume(&run, Some(last)).await.unwrap()).await;
    rest.end.as_ref().unwrap();
    assert_eq!(rest.done().unwrap().response, first.text() + &rest.text());
    assert_eq!((stage.weft.llm.abandoned(), rest.events.len()), (0, event_count(100) - 10));
}

async fn a_stopped_answer_is_paid_as_far_as_it_came(stage: Stage) {
    // What the provider says of a whole prompt is known of the next one.
    stage.weft.llm.script([words(1, Duration::ZERO), words(1_000, Duration::ZERO).hang_after(300)]);
    all(stage.ask().await).await;
    stage.until_settled(1).await;
    let before = stage.weft.book.balance(PAYER);
    let mut events = stage.ask().await;
    let first = some(&mut events, 300).await;
    let (run, _) = place(&first.events[0]);
    let reader = stage.resume(&run, None).await.unwrap();
    let began = Instant::now();
    stage.cancel(PAYER, &run).await.unwrap();
    for (got, expected) in [(all(events).await, 1), (all(reader).await, 301)] {
        assert_eq!((got.events.len(), got.reason()), (expected, Some(Reason::Cancelled)));
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    stage.until_settled(2).await;
    assert_eq!(before - stage.weft.book.balance(PAYER), 320 * RATE);
    eventually("the provider to notice", SOON, || async { stage.weft.llm.abandoned() == 1 }).await;
    // Once more changes nothing, nor does stopping what has ended well.
    stage.cancel(PAYER, &run).await.unwrap();
    stage.weft.llm.script([words(4, Duration::ZERO)]);
    let whole = all(stage.ask().await).await;
    let (run, _) = place(&whole.events[0]);
    stage.cancel(PAYER, &run).await.unwrap();
    assert_eq!(all(stage.resume(&run, None).await.unwrap()).await.events, whole.events);
}

async fn an_answer_that_fails_fails_for_every_reader(stage: Stage) {
    stage.weft.llm.script([words(50, Duration::from_millis(5)).cut_after(30)]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 5).await;
    let (run, last) = place(first.events.last().unwrap());
    let during = stage.resume(&run, Some(last)).await.unwrap();
    let (own, during) = (all(events).await, all(during).await);
    let after = all(stage.resume(&run, Some(last)).await.unwrap()).await;
    for got in [&own, &during, &after] {
        let status = got.end.as_ref().unwrap_err();
        assert_eq!((status.code(), got.reason()), (Code::Unavailable, Some(Reason::ProviderStreamInterrupted)));
        assert_eq!(status.message(), own.end.as_ref().unwrap_err().message());
        assert_eq!(got.events, own.events);
        assert!(got.done().is_none());
    }
}

async fn of_a_long_answer_the_beginning_is_gone(stage: Stage) {
    stage.weft.llm.script([words(200, Duration::from_millis(1))]);
    let whole = all(stage.ask().await).await;
    whole.end.as_ref().unwrap();
    assert_eq!(whole.events.len(), event_count(200));
    let (run, _) = place(&whole.events[0]);
    for after in [None, Some(0), Some(100)] {
        let got = match stage.resume(&run, after).await {
            Ok(events) => all(events).await,
            Err(status) => Got { events: Vec::new(), end: Err(status) },
        };
        let status = got.end.as_ref().unwrap_err();
        assert_eq!((status.code(), got.reason(), got.events.len()), (Code::OutOfRange, Some(Reason::RunGone), 0));
    }
    let rest = all(stage.resume(&run, Some(200)).await.unwrap()).await;
    assert_eq!(rest.events, whole.events[201..]);
}

async fn a_lost_connection_is_taken_up_by_asking_again(stage: Stage) {
    stage.weft.llm.script([words(60, Duration::from_millis(5))]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 10).await;
    drop(events);
    let again = |last: &str| {
        // The body is not looked at: no request is as empty as this one.
        let mut request = stage.of(PAYER, ChatRequest::default());
        request.metadata_mut().insert("last-event-id", last.parse().unwrap());
        let mut client = stage.there();
        async move { client.stream_chat(request).await }
    };
    let answer = again(&first.events[9].id).await.unwrap();
    assert_eq!(run_id(&answer), place(&first.events[9]).0);
    let rest = all(answer.into_inner()).await;
    assert_eq!(first.text() + &rest.text(), rest.done().unwrap().response);
    for wrong in ["1", "nonsense.1", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA.-1"] {
        let status = again(wrong).await.map(drop).unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::InvalidArgument), "{wrong}");
    }
    let status = again("AAAAAAAAAAAAAAAAAAAAAA.7").await.map(drop).unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NotFound));
    stage.until_settled(1).await;
    assert_eq!(stage.weft.llm.calls().len(), 1);

    // The other way to say it is ResumeChat's.
    let (run, _) = place(&first.events[0]);
    let mut request = stage.of(PAYER, ResumeChatRequest { run_id: run, after: None });
    request.metadata_mut().insert("last-event-id", first.events[9].id.parse().unwrap());
    let again = all(stage.there().resume_chat(request).await.unwrap().into_inner()).await;
    assert_eq!(again.events, rest.events);
}

#[tokio::test]
async fn what_ended_first_leaves_first() {
    let config = Config { weft_chat_logs_bytes: 12_000, ..Config::default() };
    let stage = Stage::alone(config, None).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        stage.weft.llm.script([words(100, Duration::ZERO)]);
        let whole = all(stage.ask().await).await;
        whole.end.as_ref().unwrap();
        runs.push(place(&whole.events[0]).0);
    }
    assert!(stage.resume(&runs[0], None).await.is_err());
    assert!(stage.resume(&runs[2], None).await.is_ok());
}

#[tokio::test]
async fn an_answer_without_redis_is_known_to_its_maker_only() {
    let stage = Stage::alone(Config::default(), None).await;
    stage.weft.llm.script([words(3, Duration::ZERO)]);
    let (run, _) = place(&all(stage.ask().await).await.events[0]);
    let other = Stage { elsewhere: Some(stage.weft.replica()), weft: stage.weft };
    let status = other.resume(&run, None).await.map(drop).unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maker_that_dies_ends_its_answer_for_readers_elsewhere() {
    let mut stage = Stage::shared(Config::default(), Some(finishing())).await;
    let maker = stage.elsewhere.take().unwrap();
    stage.weft.llm.script([words(500, Duration::from_millis(20))]);
    let mut events = maker.client().stream_chat(stage.of(PAYER, message())).await.unwrap().into_inner();
    let first = some(&mut events, 20).await;
    let (run, last) = place(first.events.last().unwrap());
    let mut reader = stage.resume(&run, Some(last)).await.unwrap();
    assert_eq!(some(&mut reader, 20).await.events.len(), 20);
    drop(maker);
    let died = Instant::now();
    let rest = all(reader).await;
    assert!(died.elapsed() < Duration::from_secs(2), "{:?}", died.elapsed());
    let status = rest.end.as_ref().unwrap_err();
    assert_eq!((status.code(), rest.reason()), (Code::OutOfRange, Some(Reason::RunGone)));
    // Who comes now reads what there is and learns the same.
    let late = all(stage.resume(&run, None).await.unwrap()).await;
    assert_eq!(late.reason(), Some(Reason::RunGone));
    assert!(late.events.len() >= 40 && late.done().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_goes_away_keeps_no_answer_from_its_reader() {
    let redis = redis::Redis::start().await;
    let config = Config { redis_url: Some(redis.url().into()), ..Config::default() };
    let stage = Stage::alone(config, None).await;
    stage.weft.llm.script([words(100, Duration::from_millis(5))]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 10).await;
    redis.kill();
    let rest = all(events).await;
    rest.end.as_ref().unwrap();
    assert_eq!(first.text() + &rest.text(), rest.done().unwrap().response);
    let (run, last) = place(first.events.last().unwrap());
    assert_eq!(all(stage.resume(&run, Some(last)).await.unwrap()).await.events, rest.events);
    let status = stage.resume("AAAAAAAAAAAAAAAAAAAAAA", None).await.map(drop).unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::Unavailable), "another replica may have it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_redis_or_the_logs_reads_nothing() {
    let redis = redis::Redis::start().await;
    let config = Config { redis_url: Some(redis.url().into()), ..Config::default() };
    let stage = Stage { elsewhere: None, weft: Stage::alone(config, None).await.weft };
    let other = stage.weft.replica();
    let text = vec![CANARY; 60].join(" ");
    stage.weft.llm.script([Reply::text(&text).delay(Duration::from_millis(10))]);
    let mut events = stage.ask().await;
    let first = some(&mut events, 20).await;
    let (run, last) = place(first.events.last().unwrap());
    let request = stage.of(PAYER, ResumeChatRequest { run_id: run.clone(), after: Some(last) });
    let mut reader = other.client().resume_chat(request).await.unwrap().into_inner();
    some(&mut reader, 20).await;
    let secrets = [CANARY, "paying", "adiuva", run.as_str()];
    let during = everything_in(&redis).await;
    assert!(all(reader).await.done().unwrap().response.contains(CANARY));
    all(events).await;
    let after = everything_in(&redis).await;
    for held in [&during, &after] {
        assert!(held.contains("weft:journal:chat:") && held.len() > 400, "{held}");
        for secret in secrets {
            assert!(!held.contains(secret), "{secret} in {held}");
        }
    }
    redis.command(&format!("SET control {CANARY}")).await;
    assert!(everything_in(&redis).await.contains(CANARY), "what can be read is found");
    assert!(!logs().text().contains(&run), "the id opens what Redis holds");
}

/// Every key and value that a Redis holds.
async fn everything_in(redis: &redis::Redis) -> String {
    let listed = redis.command("KEYS *").await;
    let keys: Vec<&str> = listed.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    let mut held = listed.clone();
    for key in keys {
        let value = match redis.command(&format!("TYPE {key}")).await.trim() {
            "+zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
            "+string" => format!("GET {key}"),
            "+none" => continue,
            other => panic!("{key} is {other}"),
        };
        held += &redis.command(&value).await;
    }
    held
}
