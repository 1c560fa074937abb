//! Every call of a model is held before and settled after, exactly once, whatever ends it.
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};
use weft_core::Reason;
use weft_orchestrator::Config;
use weft_proto::billing::v1::HoldState;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::provider_key_service_client::ProviderKeyServiceClient;
use weft_proto::orchestrator::v1::{ChatRequest, ChatResponse, CreateProviderKeyRequest};
use weft_testing::eventually;
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, RATE, Start, logs, patiently, say, with_token};

/// An account with credits.
const PAYER: &str = "paying";
/// More than any call here needs.
const PLENTY: i64 = 1_000_000_000;
/// What is not told in this time will not be.
const SOON: Duration = Duration::from_secs(15);

fn with_model(model: &str) -> ChatRequest {
    ChatRequest { model: model.to_owned(), agent: "task_agent".to_owned(), ..say("hello") }
}

fn to_agent() -> ChatRequest {
    with_model("")
}

async fn rich() -> Orchestrator {
    let weft = Orchestrator::start().await;
    weft.book.give(PAYER, PLENTY);
    weft
}

/// What was charged for the holds so far.
fn charged(weft: &Orchestrator) -> i64 {
    weft.book.holds().iter().map(|hold| hold.charged).sum()
}

/// Waits until every hold has ended and every call is recorded.
async fn until_settled(weft: &Orchestrator, calls: usize) {
    eventually("every call to be settled", SOON, || async {
        weft.book.count(HoldState::Open) == 0 && weft.book.usage().len() == calls
    })
    .await;
}

/// Streams, and leaves after so many tokens.
async fn leave_after(weft: &Orchestrator, product: &str, message: ChatRequest, tokens: usize) {
    let request = with_token(message, product, &weft.token(product, PAYER, 600));
    let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
    for _ in 0..tokens {
        let event = events.message().await.unwrap().unwrap();
        assert!(matches!(event.event, Some(Event::Token(_))));
    }
}

#[tokio::test]
async fn a_call_is_held_at_its_most_and_charged_what_it_was() {
    let weft = rich().await;
    let answer = weft.chat_on(PAYER, with_model("stub-500-500")).await.unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (500, 500, 1_000));
    assert_eq!((usage.credits, usage.estimated), (1_000 * RATE, false));
    // The books are done when the answer is there.
    assert_eq!(weft.book.balance(PAYER), PLENTY - 1_000 * RATE);
    let hold = &weft.book.holds()[0];
    assert!(hold.amount >= (500 + 2_048) * RATE, "the whole cap is held");
    assert!(hold.reference.starts_with("chat ") && !hold.reference.contains("hello"));
    until_settled(&weft, 1).await;
    let call = &weft.book.usage()[0];
    assert_eq!((call.model.as_str(), call.agent_role.as_str()), ("stub-500-500", "task_agent"));
    assert_eq!((call.input_tokens, call.output_tokens, call.charged), (500, 500, 1_000 * RATE));
    assert!(!call.failed && !call.estimated);
    assert_eq!(weft.llm.billed(), (500, 500));
}

#[tokio::test]
async fn the_cap_of_a_request_is_the_cap_of_its_hold() {
    let weft = rich().await;
    for (max_tokens, least) in [(0, 2_048), (100, 100)] {
        weft.chat_on(PAYER, ChatRequest { max_tokens, ..to_agent() }).await.unwrap();
        let call = weft.llm.calls().pop().unwrap();
        assert_eq!(call.body["max_tokens"], least);
    }
    let held: Vec<i64> = weft.book.holds().iter().map(|hold| hold.amount).collect();
    assert_eq!(held[0] - held[1], 1_948 * RATE);
    let refused = weft.chat_on(PAYER, ChatRequest { max_tokens: 4_096, ..to_agent() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_balance_for_three_calls_is_three_calls_however_many_ask_at_once() {
    let weft = rich().await;
    weft.chat_on(PAYER, with_model("stub-500-500")).await.unwrap();
    let bound = weft.book.holds()[0].amount;
    weft.book.give(PAYER, 3 * bound - weft.book.balance(PAYER));
    // Nobody gets anything back before all have asked.
    weft.llm.script((0..3).map(|_| Reply::text("slowly").delay(Duration::from_secs(3)).usage(500, 500)));
    let weft = Arc::new(weft);
    let mut chats = JoinSet::new();
    for _ in 0..64 {
        let weft = Arc::clone(&weft);
        chats.spawn(async move { patiently(|| weft.chat_on(PAYER, with_model("stub-500-500"))).await });
    }
    let answers = chats.join_all().await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for refusal in refused {
        let status = refusal.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::InsufficientCredits), "{status}");
    }
    // On a machine that is busy with other tests billing's answer may have come too late: then nobody was asked.
    let late = weft.book.count(HoldState::Open);
    assert!(answered.len() + late == 3 && !answered.is_empty(), "{} answered, {late} late", answered.len());
    assert_eq!((weft.book.holds().len(), weft.llm.calls().len()), (1 + 3, 1 + answered.len()));
    let paid = answered.len() as i64 * 1_000 * RATE;
    assert_eq!(weft.book.balance(PAYER), (3 - late as i64) * bound - paid);
}

#[tokio::test]
async fn who_leaves_with_the_last_token_has_paid() {
    let weft = rich().await;
    for round in 0..100 {
        weft.llm.script([Reply::chunks(["one", " two", " three"]).usage(7, 3), Reply::text("one").usage(7, 3)]);
        // Right after the last token, and right after `done`.
        leave_after(&weft, "adiuva", to_agent(), 3).await;
        eventually("the call to be recorded", SOON, || async { weft.book.usage().len() == 2 * round + 1 }).await;
        let request = weft.request(PAYER, to_agent());
        let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
        while !matches!(events.message().await.unwrap().unwrap().event, Some(Event::Done(_))) {}
    }
    until_settled(&weft, 200).await;
    assert_eq!(weft.book.count(HoldState::Settled), 200);
    assert_eq!(PLENTY - weft.book.balance(PAYER), charged(&weft));
    assert!(weft.book.holds().iter().all(|hold| hold.charged > 0));
}

#[tokio::test]
async fn an_answer_that_the_client_leaves_is_stopped_and_paid_as_far_as_it_came() {
    let weft = rich().await;
    // What the provider says of a whole prompt is known of the next one.
    weft.chat_on(PAYER, with_model("stub-20-1000")).await.unwrap();
    until_settled(&weft, 1).await;
    let words = (0..1_000).map(|_| " word");
    weft.llm.script([Reply::chunks(words).usage(20, 1_000).hang_after(500)]);
    leave_after(&weft, "adiuva", with_model("stub-20-1000"), 500).await;
    until_settled(&weft, 2).await;
    let call = &weft.book.usage()[1];
    assert_eq!((call.input_tokens, call.output_tokens, call.estimated, call.failed), (20, 500, true, true));
    assert_eq!(weft.book.holds()[1].charged, 520 * RATE);
    eventually("the provider to notice", SOON, || async { weft.llm.abandoned() == 1 }).await;
    assert_eq!(weft.llm.billed(), (20 + 20, 1_000 + 500));
}

#[tokio::test]
async fn what_arrived_before_the_client_left_is_counted_to_the_last_token() {
    let weft = rich().await;
    weft.chat_on(PAYER, with_model("stub-20-1000")).await.unwrap();
    until_settled(&weft, 1).await;
    // All of it is on its way at once; the client reads a tenth.
    weft.llm.script([Reply::chunks((0..200).map(|_| " word")).usage(20, 200).hang_after(200)]);
    leave_after(&weft, "adiuva", with_model("stub-20-1000"), 20).await;
    until_settled(&weft, 2).await;
    eventually("the provider to notice", SOON, || async { weft.llm.abandoned() == 1 }).await;
    let tokens: i64 = weft.book.usage().iter().map(|call| call.input_tokens + call.output_tokens).sum();
    let (read, written) = weft.llm.billed();
    assert_eq!(tokens, read + written);
    assert_eq!(charged(&weft), tokens * RATE);
}

#[tokio::test]
async fn a_plain_chat_that_the_client_leaves_is_stopped_too() {
    let weft = rich().await;
    weft.llm.script([Reply::text("never").hang_after(1)]);
    let mut client = weft.client();
    let request = weft.request(PAYER, to_agent());
    let mut chats = JoinSet::new();
    chats.spawn(async move { client.chat(request).await });
    eventually("the provider to be asked", SOON, || async { weft.llm.calls().len() == 1 }).await;
    chats.shutdown().await;
    until_settled(&weft, 1).await;
    eventually("the provider to notice", SOON, || async { weft.llm.abandoned() == 1 }).await;
    assert_eq!(weft.book.count(HoldState::Voided), 1, "nobody got anything");
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

#[tokio::test]
async fn a_product_may_have_answers_finished_for_nobody() {
    let weft = Orchestrator::start_with(Start { products: Some(finishing()), ..Start::default() }).await;
    weft.book.give(PAYER, PLENTY);
    let slowly = || Reply::chunks((0..100).map(|_| " word")).delay(Duration::from_millis(5)).usage(20, 100);
    weft.llm.script([slowly()]);
    leave_after(&weft, "adiuva", to_agent(), 10).await;
    until_settled(&weft, 1).await;
    let call = &weft.book.usage()[0];
    assert_eq!((call.input_tokens, call.output_tokens, call.failed, call.estimated), (20, 100, false, false));
    assert_eq!((weft.llm.billed(), weft.llm.abandoned()), ((20, 100), 0));

    weft.llm.script([slowly()]);
    let mut client = weft.client();
    let request = weft.request(PAYER, to_agent());
    let mut chats = JoinSet::new();
    chats.spawn(async move { client.chat(request).await });
    eventually("the provider to be asked", SOON, || async { weft.llm.calls().len() == 2 }).await;
    chats.shutdown().await;
    until_settled(&weft, 2).await;
    assert_eq!(weft.llm.billed(), (40, 200));
    assert_eq!(charged(&weft), 240 * RATE);
}

#[tokio::test]
async fn a_provider_that_breaks_off_is_paid_for_what_it_gave() {
    let weft = rich().await;
    weft.chat_on(PAYER, with_model("stub-20-1000")).await.unwrap();
    until_settled(&weft, 1).await;
    weft.llm.script([Reply::chunks((0..1_000).map(|_| " word")).usage(20, 1_000).cut_after(500)]);
    let request = weft.request(PAYER, with_model("stub-20-1000"));
    let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
    let end = loop {
        match events.message().await {
            Ok(event) => assert!(matches!(event.unwrap().event, Some(Event::Token(_)))),
            Err(status) => break status,
        }
    };
    assert_eq!(Reason::of(&end), Some(Reason::ProviderStreamInterrupted));
    until_settled(&weft, 2).await;
    let call = &weft.book.usage()[1];
    assert_eq!((call.input_tokens, call.output_tokens, call.estimated, call.failed), (20, 500, true, true));
    assert_eq!(weft.llm.billed(), (40, 1_500));
    assert_eq!(charged(&weft), 1_540 * RATE);
}

#[tokio::test]
async fn what_gave_nothing_costs_nothing() {
    let weft = rich().await;
    let failures = || {
        [
            Reply::status(401),
            Reply::raw("nonsense"),
            Reply::raw(""),
            Reply::raw("{}"),
            Reply::raw("data: {\n\n"),
            Reply::text("half").cut_after(0),
        ]
    };
    for (at, failure) in failures().into_iter().enumerate() {
        weft.llm.script([failure]);
        weft.chat_on(PAYER, to_agent()).await.unwrap_err();
        assert_eq!(weft.book.balance(PAYER), PLENTY, "failure {at}");
    }
    for failure in failures() {
        weft.llm.script([failure]);
        let request = weft.request(PAYER, to_agent());
        let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
        assert!(events.message().await.is_err());
    }
    until_settled(&weft, 12).await;
    assert_eq!(weft.book.count(HoldState::Voided), 12);
    assert!(weft.book.usage().iter().all(|call| call.failed && call.input_tokens + call.output_tokens == 0));
}

#[tokio::test]
async fn an_answer_without_end_costs_no_more_than_its_hold() {
    let config = Config { weft_model_response_bytes: 200_000, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, ..Start::default() }).await;
    weft.book.give(PAYER, PLENTY);
    weft.llm.script([Reply::chunks((0..20_000).map(|_| "0123456789 0123456789 0123456789 "))]);
    let request = weft.request(PAYER, to_agent());
    let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
    while let Ok(event) = events.message().await {
        assert!(matches!(event.unwrap().event, Some(Event::Token(_))));
    }
    until_settled(&weft, 1).await;
    let hold = &weft.book.holds()[0];
    assert!(hold.charged <= hold.amount && hold.charged > 0);
    assert!(weft.book.balance(PAYER) >= PLENTY - hold.amount);
}

#[tokio::test]
async fn usage_that_cannot_be_is_capped_and_told_to_operators() {
    let weft = rich().await;
    for (calls, (read, written)) in [(1_000_000, 7), (i64::MAX, i64::MAX), (7, i64::MAX)].into_iter().enumerate() {
        weft.llm.script([Reply::text("expensive").usage(read, written)]);
        let usage = weft.chat_on(PAYER, to_agent()).await.unwrap().usage.unwrap();
        let hold = weft.book.holds().pop().unwrap();
        assert_eq!((hold.charged, hold.capped), (hold.amount, true));
        assert_eq!(usage.credits, hold.amount);
        // Nor does it use up the account's day.
        until_settled(&weft, calls + 1).await;
        let call = weft.book.usage().pop().unwrap();
        assert_eq!((call.input_tokens + call.output_tokens) * RATE, hold.amount);
        assert_eq!(call.charged, hold.amount);
    }
    assert!(logs().text().contains("a provider reports more than its call could use"));
    // What is less than nothing was not said.
    weft.llm.script([Reply::text("one two").usage(-1_000_000, -1_000_000)]);
    let usage = weft.chat_on(PAYER, to_agent()).await.unwrap().usage.unwrap();
    assert!(usage.estimated && usage.completion_tokens > 0 && usage.credits > 0);
    assert!(weft.book.balance(PAYER) < PLENTY);
}

#[tokio::test]
async fn nothing_used_is_nothing_and_not_told_is_estimated() {
    let weft = rich().await;
    weft.llm.script([Reply::text("free").usage(0, 0)]);
    let usage = weft.chat_on(PAYER, to_agent()).await.unwrap().usage.unwrap();
    assert_eq!((usage.total_tokens, usage.credits, usage.estimated), (0, 0, false));
    assert_eq!((weft.book.balance(PAYER), weft.book.count(HoldState::Settled)), (PLENTY, 1));

    weft.llm.script([Reply::text("one two three").without_usage()]);
    let told = weft.stream_on(PAYER, to_agent()).await;
    let usage = told.end.unwrap().usage.unwrap();
    assert_eq!((usage.completion_tokens, usage.estimated), (3, true));
    assert!(usage.prompt_tokens > 0 && usage.credits == usage.total_tokens * RATE);
    until_settled(&weft, 2).await;
    assert!(weft.book.usage()[1].estimated);
}

#[tokio::test]
async fn every_round_and_the_classifier_are_paid() {
    let weft = rich().await;
    let listed = Reply::tool("list_tasks", &json!({"status": "", "priority": "", "limit": -1})).usage(100, 10);
    weft.llm.script_for("gpt-4o-mini", [Reply::text("task_agent").usage(50, 2)]);
    weft.llm.script([listed, Reply::text("You have none.").usage(120, 4)]);
    let usage = weft.chat_on(PAYER, say("what is there to do?")).await.unwrap().usage.unwrap();
    until_settled(&weft, weft.book.holds().len()).await;
    let mut roles: Vec<_> = weft.book.usage().iter().map(|call| call.agent_role.clone()).collect();
    roles.sort();
    let (last_rounds, classified) = (2, roles.contains(&"classifier".to_owned()));
    assert_eq!(roles.iter().filter(|role| *role == "task_agent").count(), last_rounds);
    assert_eq!(usage.total_tokens, 234 + if classified { 52 } else { 0 });
    assert_eq!(usage.credits, usage.total_tokens * RATE);
    assert_eq!(PLENTY - weft.book.balance(PAYER), usage.credits);
    let references: Vec<_> = weft.book.holds().iter().map(|hold| hold.reference.clone()).collect();
    assert!(references.iter().all(|reference| *reference == references[0]), "one answer, one reference");
}

#[tokio::test]
async fn an_answer_ends_when_it_has_used_what_one_may() {
    let config = Config { weft_chat_run_tokens: 200, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, ..Start::default() }).await;
    weft.book.give(PAYER, PLENTY);
    let again = || Reply::tool("list_tasks", &json!({"status": "", "priority": "", "limit": -1})).usage(90, 10);
    weft.llm.script((0..6).map(|_| again()));
    let answer = weft.chat_on(PAYER, to_agent()).await.unwrap();
    assert!(answer.response.contains("as much as one answer may"), "{}", answer.response);
    assert_eq!((weft.llm.calls().len(), answer.usage.unwrap().total_tokens), (2, 200));
}

#[tokio::test]
async fn a_product_without_credits_has_no_holds_but_usage() {
    let weft = Orchestrator::start().await;
    let usage = weft.chat(to_agent()).await.unwrap().usage.unwrap();
    assert!(weft.book.holds().is_empty());
    until_settled(&weft, 1).await;
    assert!(usage.total_tokens > 0 && usage.credits == 0);
}

#[tokio::test]
async fn the_tokens_of_a_day_come_to_an_end() {
    let weft = Orchestrator::start().await;
    let who = "limited";
    weft.book.limit(who, 1_000);
    for _ in 0..2 {
        weft.llm.script([Reply::text("hello").usage(300, 200)]);
        weft.chat_on(who, to_agent()).await.unwrap();
        assert_eq!(weft.book.running(), 0);
    }
    let status = weft.chat_on(who, to_agent()).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::DailyTokensExceeded));
    assert_eq!(weft.llm.calls().len(), 2);
}

#[tokio::test]
async fn what_the_day_refuses_is_not_held() {
    let weft = Orchestrator::start().await;
    let who = "limited and paying";
    weft.book.limit(who, 0);
    weft.book.give(who, PLENTY);
    let status = weft.chat_on(who, to_agent()).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::DailyTokensExceeded));
    assert!(weft.llm.calls().is_empty());
    eventually("the hold to be given back", SOON, || async { weft.book.count(HoldState::Voided) == 1 }).await;
    assert_eq!(weft.book.balance(who), PLENTY);
}

#[tokio::test]
async fn the_built_in_model_is_free() {
    let weft = Orchestrator::offline().await;
    let answer = weft.chat_on(PAYER, to_agent()).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.usage.unwrap().credits), ("offline", 0));
    assert!(weft.book.holds().is_empty() && weft.book.usage().is_empty());
}

#[tokio::test]
async fn an_end_that_billing_did_not_confirm_is_told_again() {
    let weft = rich().await;
    let events = weft.request(PAYER, to_agent());
    weft.llm.script([Reply::chunks(["one", " two"]).delay(Duration::from_millis(100)).usage(7, 2)]);
    let mut events = weft.client().stream_chat(events).await.unwrap().into_inner();
    assert!(matches!(events.message().await.unwrap().unwrap().event, Some(Event::Token(_))));
    // The settlement twice, then the record.
    weft.book.lose(3);
    while events.message().await.unwrap().is_some() {}
    until_settled(&weft, 1).await;
    assert_eq!(weft.book.balance(PAYER), PLENTY - 9 * RATE);
}

#[tokio::test]
async fn a_billing_that_goes_away_in_the_middle_has_the_end_when_it_is_back() {
    let weft = rich().await;
    weft.llm.script([Reply::chunks((0..20).map(|_| " word")).delay(Duration::from_millis(20)).usage(7, 20)]);
    let mut events = weft.client().stream_chat(weft.request(PAYER, to_agent())).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    weft.billing.go_away();
    let mut done = None;
    while let Some(event) = events.message().await.unwrap() {
        done = event.event;
    }
    let Some(Event::Done(ChatResponse { usage: Some(usage), .. })) = done else { panic!("no end") };
    assert_eq!(usage.credits, 27 * RATE, "the answer does not wait for long");
    weft.billing.come_back();
    until_settled(&weft, 1).await;
    assert_eq!(weft.book.balance(PAYER), PLENTY - 27 * RATE);
}

#[tokio::test]
async fn without_billing_nobody_is_asked() {
    let weft = rich().await;
    weft.chat_on(PAYER, to_agent()).await.unwrap();
    weft.billing.go_away();
    let begun = Instant::now();
    let status: Status = weft.chat_on(PAYER, to_agent()).await.map(|_| ()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unavailable, Some(Reason::Unavailable)));
    assert_eq!(weft.llm.calls().len(), 1);
}

#[tokio::test]
async fn a_running_call_says_how_far_it_is() {
    let weft = rich().await;
    weft.chat_on(PAYER, with_model("stub-20-1000")).await.unwrap();
    until_settled(&weft, 1).await;
    weft.llm.script([Reply::chunks((0..50).map(|_| " word")).usage(20, 50).hang_after(50)]);
    let mut events =
        weft.client().stream_chat(weft.request(PAYER, with_model("stub-20-1000"))).await.unwrap().into_inner();
    for _ in 0..50 {
        events.message().await.unwrap().unwrap();
    }
    eventually("a mark of all that came", SOON, || async { weft.book.holds()[1].progress == 70 * RATE }).await;
    assert_eq!(weft.book.count(HoldState::Open), 1);
}

#[tokio::test]
async fn a_hold_that_ran_out_is_recorded_as_what_was_charged_for_it() {
    let weft = rich().await;
    weft.chat_on(PAYER, with_model("stub-20-1000")).await.unwrap();
    until_settled(&weft, 1).await;
    weft.llm.script([Reply::chunks((0..50).map(|_| " word")).usage(20, 50).hang_after(50)]);
    let request = weft.request(PAYER, with_model("stub-20-1000"));
    let mut events = weft.client().stream_chat(request).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    eventually("a mark of all that came", SOON, || async { weft.book.holds()[1].progress == 70 * RATE }).await;
    weft.book.run_out();
    drop(events);
    until_settled(&weft, 2).await;
    let (hold, call) = (weft.book.holds().pop().unwrap(), weft.book.usage().pop().unwrap());
    assert_eq!((hold.state(), hold.charged, call.charged), (HoldState::Expired, 70 * RATE, 70 * RATE));
    assert!(logs().text().contains("a hold was not settled; it ends by its last mark"));
}

/// Adiuva with another model for its usual one.
fn with_fallback() -> &'static Path {
    let folder = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../products/adiuva.toml")).unwrap();
    let default = text.lines().find_map(|line| line.strip_prefix("default = ").filter(|model| model.contains("gpt")));
    let fallbacks = format!(
        "fallbacks = {{ {} = [\"spare\"] }}\n\n[model_prices]\nspare = {{ input = 1, output = 1 }}",
        default.unwrap()
    );
    let changed = text.replacen("\n[model_prices]", &format!("\n{fallbacks}\n"), 1);
    assert_ne!(text, changed);
    std::fs::write(folder.path().join("adiuva.toml"), changed).unwrap();
    folder.path()
}

#[tokio::test]
async fn another_model_stands_in_while_nobody_has_heard_anything() {
    let config = Config { weft_model_first_byte_ms: 500, weft_model_plain_ms: 500, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, products: Some(with_fallback()), ..Start::default() }).await;
    weft.book.give(PAYER, PLENTY);
    for failure in [Reply::status(500), Reply::status(429).retry_after(30), Reply::text("never").hang_after(0)] {
        let (calls, holds) = (weft.book.usage().len(), weft.book.holds().len());
        // What may be tried again is tried again first.
        weft.llm.script_for("gpt-4o", (0..3).map(|_| failure.clone()));
        weft.llm.script_for("spare", [Reply::text("I stand in.").usage(30, 3)]);
        let end = weft.stream_on(PAYER, to_agent()).await.end;
        let asked: Vec<_> = weft.llm.calls().iter().map(|call| call.model.clone()).collect();
        let answer = end.unwrap_or_else(|status| panic!("{status} after {asked:?}"));
        assert_eq!((answer.model.as_str(), answer.response.as_str()), ("spare", "I stand in."));
        assert_eq!(answer.usage.unwrap().total_tokens, 33);
        until_settled(&weft, calls + 2).await;
        assert_eq!(weft.book.holds().len(), holds + 2, "each attempt has its own");
        weft.llm.forget();
    }
    for (failure, tokens) in [(Reply::text("one two").cut_after(1), 1), (Reply::status(400), 0)] {
        weft.llm.script_for("gpt-4o", [failure]);
        let told = weft.stream_on(PAYER, to_agent()).await;
        assert_eq!((told.tokens.len(), told.end.is_err()), (tokens, true), "nothing else would help");
    }
}

#[tokio::test]
async fn who_brings_a_key_does_not_pay_for_another_model_unasked() {
    let weft = Orchestrator::start_with(Start { products: Some(with_fallback()), ..Start::default() }).await;
    weft.book.give(PAYER, PLENTY);
    let key =
        CreateProviderKeyRequest { provider: "openai".into(), key: "sk-of-the-payer".into(), ..Default::default() };
    let request = with_token(key, "adiuva", &weft.token("adiuva", PAYER, 600));
    ProviderKeyServiceClient::new(weft.channel.clone()).create_provider_key(request).await.unwrap();
    weft.llm.script_for("gpt-4o", (0..3).map(|_| Reply::status(500)));
    let failed = weft.chat_on(PAYER, to_agent()).await.unwrap_err();
    assert_eq!(Reason::of(&failed), Some(Reason::Unavailable));
    let calls = weft.llm.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.model == "gpt-4o" && call.key.as_deref() == Some("sk-of-the-payer")));
    assert!(weft.book.holds().is_empty() && weft.book.usage().is_empty());
    assert_eq!(weft.book.balance(PAYER), PLENTY);
}

#[tokio::test]
async fn who_chooses_a_model_of_another_plan_is_told_so() {
    let weft = rich().await;
    let answer = |model: &'static str| {
        let weft = &weft;
        async move { weft.chat_on(PAYER, with_model(model)).await.map(|answer| answer.model) }
    };
    assert_eq!(answer("stub-500-500").await.unwrap(), "stub-500-500");
    let refused = answer("gpt-4o").await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::FeatureNotInPlan));
    assert!(!refused.message().contains("gpt"), "{}", refused.message());
    assert_eq!(Reason::of(&answer("gpt-9").await.unwrap_err()), Some(Reason::InvalidArgument));
}

#[tokio::test]
async fn an_administrator_is_told_how_the_model_was_chosen() {
    let weft = rich().await;
    assert!(weft.chat_on(PAYER, to_agent()).await.unwrap().decision.is_none());
    let token = weft.token_with("adiuva", PAYER, 600, &["admin"]);
    let request = with_token(with_model("gpt-4o-mini"), "adiuva", &token);
    let answer: ChatResponse = weft.client().chat(request).await.map(Response::into_inner).unwrap();
    let decision = answer.decision.unwrap();
    assert_eq!(
        (decision.role.as_str(), decision.model.as_str(), decision.source.as_str()),
        ("task_agent", "gpt-4o-mini", "request")
    );
}
