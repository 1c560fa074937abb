//! A provider or a billing that misbehaves.
use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tonic_types::StatusExt;
use weft_core::Reason;
use weft_orchestrator::Config;
use weft_testing::llm::Reply;

use crate::harness::{Orchestrator, Start, address, logs, say};

async fn impatient() -> Orchestrator {
    let config = Config {
        weft_model_first_byte_ms: 300,
        weft_model_idle_ms: 300,
        weft_model_plain_ms: 300,
        ..Config::default()
    };
    Orchestrator::start_with(Start { config, ..Start::default() }).await
}

fn told(status: &Status) -> (Code, Option<Reason>) {
    (status.code(), Reason::of(status))
}

const UNAVAILABLE: (Code, Option<Reason>) = (Code::Unavailable, Some(Reason::Unavailable));
const INTERRUPTED: (Code, Option<Reason>) = (Code::Unavailable, Some(Reason::ProviderStreamInterrupted));

#[tokio::test]
async fn a_stream_that_is_cut_ends_with_an_error_after_its_tokens() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::chunks(["раз", " два", " три", " четыре"]).cut_after(3)]);
    let heard = weft.stream(say("count")).await;
    assert_eq!(heard.tokens, ["раз", " два", " три"]);
    assert_eq!(told(&heard.end.unwrap_err()), INTERRUPTED);
    assert_eq!(weft.llm.calls().len(), 1, "no second try after the first token");
}

#[tokio::test]
async fn a_tool_call_that_is_cut_changes_nothing() {
    let weft = Orchestrator::start().await;
    let call = Reply::tool("create_task", &serde_json::json!({"title": "half a task"}));
    weft.llm.script([call.cut_after(3)]);
    let heard = weft.stream(say("make a task")).await;
    assert!(heard.tokens.is_empty());
    assert_eq!(told(&heard.end.unwrap_err()), INTERRUPTED);
}

#[tokio::test]
async fn a_plain_answer_that_is_cut_is_not_paid_for_twice() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::text("half").cut_after(1), Reply::text("never")]);
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), INTERRUPTED);
    assert_eq!(weft.llm.calls().len(), 1);
}

#[tokio::test]
async fn a_provider_that_hangs_is_left() {
    let weft = impatient().await;
    weft.llm.script([Reply::text("never").hang_after(0), Reply::text("never").hang_after(0)]);
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), UNAVAILABLE);
    assert_eq!(told(&weft.stream(say("hello")).await.end.unwrap_err()), UNAVAILABLE);
    weft.llm.script([Reply::chunks(["one", " two"]).hang_after(1)]);
    let heard = weft.stream(say("hello")).await;
    assert_eq!(heard.tokens, ["one"]);
    assert_eq!(told(&heard.end.unwrap_err()), INTERRUPTED);
    assert_eq!(weft.llm.calls().len(), 3, "silence is not tried again");
}

#[tokio::test]
async fn an_answer_without_end_has_one() {
    let config = Config { weft_chat_total_ms: 400, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, ..Start::default() }).await;
    let words = (0..1000).map(|_| "word ");
    weft.llm.script([Reply::chunks(words).delay(Duration::from_millis(20))]);
    let heard = weft.stream(say("go on")).await;
    assert!(!heard.tokens.is_empty());
    assert_eq!(told(&heard.end.unwrap_err()), (Code::DeadlineExceeded, Some(Reason::DeadlineExceeded)));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_left() {
    let config = Config { weft_model_response_bytes: 2_000, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, ..Start::default() }).await;
    let long = "word ".repeat(1_000);
    weft.llm.script([Reply::text(&long), Reply::text(&long)]);
    assert_eq!(told(&weft.chat(say("go on")).await.unwrap_err()), INTERRUPTED);
    assert_eq!(told(&weft.stream(say("go on")).await.end.unwrap_err()), INTERRUPTED);
}

#[tokio::test]
async fn a_provider_that_fails_is_tried_twice_more() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::status(500), Reply::status(529).retry_after(1), Reply::text("better")]);
    let begun = Instant::now();
    assert_eq!(weft.stream(say("hello")).await.end.unwrap().response, "better");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it waits as long as it is asked to");
    weft.llm.script([Reply::status(503), Reply::status(429), Reply::status(500), Reply::text("never")]);
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), UNAVAILABLE);
    assert_eq!(weft.llm.calls().len(), 6);
}

#[tokio::test]
async fn a_pause_longer_than_the_time_for_the_first_byte_is_not_waited_for() {
    let config = Config { weft_model_plain_ms: 1_500, ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, ..Start::default() }).await;
    weft.llm.script([Reply::status(503).retry_after(2), Reply::text("never")]);
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), UNAVAILABLE);
    assert_eq!(weft.llm.calls().len(), 1);
}

#[tokio::test]
async fn a_refused_key_is_the_operators_business() {
    let weft = Orchestrator::start().await;
    for code in [401, 403] {
        weft.llm.script([Reply::status(code)]);
        let status = weft.chat(say("hello")).await.unwrap_err();
        assert_eq!(told(&status), UNAVAILABLE);
        assert!(!status.message().contains("key"), "{}", status.message());
    }
    assert_eq!(weft.llm.calls().len(), 2, "it is not tried again");
    assert!(logs().text().contains("the model provider refused our key"));
}

#[tokio::test]
async fn a_busy_provider_says_when_to_come_back() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::status(429).retry_after(7)]);
    let status = weft.chat(say("hello")).await.unwrap_err();
    assert_eq!(told(&status), UNAVAILABLE);
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_conversation_too_long_for_the_model_is_the_callers_business() {
    let weft = Orchestrator::start().await;
    let body = serde_json::json!({"error": {"message": "CANARY-OF-THE-PROVIDER", "code": "context_length_exceeded"}});
    weft.llm.script([Reply::status_with(400, body)]);
    let status = weft.chat(say("hello")).await.unwrap_err();
    assert_eq!(told(&status), (Code::ResourceExhausted, Some(Reason::PayloadTooLarge)));
    assert!(!logs().text().contains("CANARY-OF-THE-PROVIDER"));
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let weft = Orchestrator::start().await;
    for body in ["", "hello", "{}", "{\"choices\":[]}", "{\"choices\":{}}", "{\"error\":{\"message\":\"x\"}}"] {
        weft.llm.script([Reply::raw(body)]);
        assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), INTERRUPTED, "{body}");
        weft.llm.script([Reply::raw(&format!("data: {body}\n\n"))]);
        let heard = weft.stream(say("hello")).await;
        assert!(heard.tokens.is_empty(), "{body}");
        assert_eq!(told(&heard.end.unwrap_err()), INTERRUPTED, "{body}");
    }
}

#[tokio::test]
async fn a_model_that_says_nothing_is_no_answer() {
    let weft = Orchestrator::start().await;
    weft.llm.script([Reply::text("")]);
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), INTERRUPTED);
}

#[tokio::test]
async fn a_provider_that_is_away_is_unavailable() {
    let (listener, url) = address();
    drop(listener);
    let config = Config { openai_base_url: Some(format!("{url}/v1")), ..Config::default() };
    let weft = Orchestrator::start_with(Start { config, offline: true, ..Start::default() }).await;
    assert_eq!(told(&weft.chat(say("hello")).await.unwrap_err()), UNAVAILABLE);
}

#[tokio::test]
async fn a_billing_that_is_away_or_hangs_is_unavailable_within_a_second() {
    let (listener, hanging) = address();
    let (gone, away) = address();
    drop(gone);
    for billing_url in [away, hanging] {
        let weft = Orchestrator::start_with(Start { billing_url: Some(billing_url), ..Start::default() }).await;
        // The first call also fetches the keys.
        let _warm = weft.chat(say("")).await;
        // The quickest of some: the machine may be busy with other tests.
        let mut quickest = Duration::MAX;
        for _ in 0..4 {
            let begun = Instant::now();
            let status = weft.chat(say("hello")).await.unwrap_err();
            quickest = quickest.min(begun.elapsed());
            assert_eq!(told(&status), UNAVAILABLE);
        }
        assert!(quickest < Duration::from_secs(1), "{quickest:?}");
        assert!(weft.llm.calls().is_empty());
    }
    drop(listener);
}
