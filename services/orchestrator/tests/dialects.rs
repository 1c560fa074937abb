//! Every dialect from the caller to the provider and back: what holds for one holds for all.
use std::time::Duration;

use serde_json::json;
use tonic::Code;
use weft_core::Reason;
use weft_orchestrator::Config;
use weft_testing::eventually;
use weft_testing::llm::{LlmStub, Reply};

use crate::harness::{Orchestrator, Start, actions, logs, say};

/// Where a vendor's requests go and how they are told whose they are.
struct Vendor {
    name: &'static str,
    path: &'static str,
    streamed: &'static str,
    cap: &'static str,
}

const VENDORS: [Vendor; 4] = [
    Vendor { name: "openai", path: "/v1/chat/completions", streamed: "/v1/chat/completions", cap: "/max_tokens" },
    Vendor { name: "xai", path: "/v1/chat/completions", streamed: "/v1/chat/completions", cap: "/max_tokens" },
    Vendor { name: "anthropic", path: "/v1/messages", streamed: "/v1/messages", cap: "/max_tokens" },
    Vendor {
        name: "gemini",
        path: "/v1beta/models/stub-5-3:generateContent",
        streamed: "/v1beta/models/stub-5-3:streamGenerateContent?alt=sse",
        cap: "/generationConfig/maxOutputTokens",
    },
];

/// An orchestrator whose only provider is this vendor, and whose product names the vendor's `stub-5-3`.
async fn only(vendor: &Vendor) -> (Orchestrator, LlmStub) {
    let stub = LlmStub::start().await;
    let key = Some(format!("CANARY-key-{}", vendor.name).into());
    let mut config = Config { weft_model_idle_ms: 300, weft_chat_resume_ms: 0, ..Config::default() };
    match vendor.name {
        "openai" => (config.openai_api_key, config.openai_base_url) = (key, Some(stub.url().to_owned())),
        "xai" => (config.xai_api_key, config.xai_base_url) = (key, Some(stub.url().to_owned())),
        "anthropic" => (config.anthropic_api_key, config.anthropic_base_url) = (key, Some(stub.origin().to_owned())),
        _ => (config.gemini_api_key, config.gemini_base_url) = (key, Some(stub.origin().to_owned())),
    }
    let model = format!("{}/stub-5-3", vendor.name);
    let weft =
        Orchestrator::start_with(Start { config, offline: true, products: Some(products(&model)), ..Start::default() });
    (weft.await, stub)
}

/// A folder with an adiuva whose model is this one.
fn products(model: &str) -> &'static std::path::Path {
    let folder = tempfile::tempdir().unwrap().keep();
    let manifest = include_str!("../../../products/adiuva.toml")
        .replace("default = \"gpt-4o\"", &format!("default = \"{model}\""))
        .replace("[model_prices]", &format!("[model_prices]\n\"{model}\" = {{ input = 1, output = 1 }}"));
    std::fs::write(folder.join("adiuva.toml"), manifest).unwrap();
    Box::leak(folder.into_boxed_path())
}

#[tokio::test]
async fn every_dialect_says_the_stubs_words_under_the_vendors_own_key() {
    for vendor in &VENDORS {
        let (weft, stub) = only(vendor).await;
        assert_eq!(weft.chat(say("count")).await.unwrap().response, "w0 w1 w2", "{}", vendor.name);
        let told = weft.stream(say("count")).await;
        assert_eq!(told.tokens.concat(), "w0 w1 w2", "{}", vendor.name);
        assert_eq!(told.end.unwrap().model, format!("{}/stub-5-3", vendor.name));
        let calls = stub.calls();
        let paths: Vec<&str> = calls.iter().map(|call| call.path.as_str()).collect();
        assert_eq!(paths, [vendor.path, vendor.streamed]);
        for call in calls {
            assert_eq!((call.model.as_str(), call.key), ("stub-5-3", Some(format!("CANARY-key-{}", vendor.name))));
            assert_eq!(call.body.pointer(vendor.cap), Some(&json!(2_048)), "{}", vendor.name);
        }
    }
    assert!(!logs().text().contains("CANARY-key"));
}

#[tokio::test]
async fn every_dialect_calls_tools() {
    for vendor in &VENDORS {
        let (weft, stub) = only(vendor).await;
        let script = || {
            let task = |title: &str| ("create_task", json!({"title": title}));
            let round = Reply::tools([task("Call Ána"), task("Call Bo")]).after_saying("Let me see.").fragments(3);
            [round, Reply::text("Both are noted.")]
        };
        stub.script(script());
        let plain = weft.chat(say("call Ana and Bo")).await.unwrap();
        stub.script(script());
        let streamed = weft.stream(say("call Ana and Bo")).await.end.unwrap();
        for answer in [plain, streamed] {
            assert_eq!(answer.response, "Let me see.\n\nBoth are noted.", "{}", vendor.name);
            let titles: Vec<String> = actions(&answer).iter().map(|action| action.2["title"].clone()).collect();
            assert_eq!(titles, ["Call Ána", "Call Bo"], "{}", vendor.name);
        }
        let second = stub.calls()[1].body.to_string();
        assert!(second.contains("Call Bo") && second.contains("Let me see."), "{second}");
    }
}

#[tokio::test]
async fn in_every_dialect_what_breaks_off_never_ends_well() {
    // In letters that no prompt has: nothing of it is held back.
    let words = || Reply::chunks(["раз", " два", " три"]);
    for vendor in &VENDORS {
        let (weft, stub) = only(vendor).await;
        for reply in [words().cut_after(2), words().error_after(2), words().hang_after(2)] {
            stub.script([reply.clone()]);
            let heard = weft.stream(say("count")).await;
            assert_eq!(heard.tokens, ["раз", " два"], "{} {reply:?}", vendor.name);
            let reason = Reason::of(&heard.end.unwrap_err());
            assert_eq!(reason, Some(Reason::ProviderStreamInterrupted), "{} {reply:?}", vendor.name);
        }
        assert_eq!(stub.calls().len(), 3, "no second try after the first token");
    }
}

#[tokio::test]
async fn in_every_dialect_errors_are_told_as_what_they_are() {
    for vendor in &VENDORS {
        let (weft, stub) = only(vendor).await;
        stub.script([Reply::status(529), Reply::status(500), Reply::text("better")]);
        assert_eq!(weft.chat(say("hello")).await.unwrap().response, "better");
        for (code, requests) in [(401, 1), (403, 1), (404, 1), (400, 1)] {
            let before = stub.calls().len();
            stub.script([Reply::status(code)]);
            let status = weft.chat(say("hello")).await.unwrap_err();
            assert_eq!((status.code(), Reason::of(&status)), (Code::Unavailable, Some(Reason::Unavailable)));
            assert_eq!(stub.calls().len() - before, requests, "{} {code}", vendor.name);
        }
    }
    let refused = |key: &str| {
        logs().text().contains(&format!(
            "the model provider refused our key; check it, its rights and its balance key=\"{key}\""
        ))
    };
    for key in ["OPENAI_API_KEY", "XAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"] {
        assert!(refused(key), "{key}");
    }
    assert!(!logs().text().contains("stub says no"));
}

#[tokio::test]
async fn in_every_dialect_a_caller_who_leaves_ends_the_call_within_a_second() {
    for vendor in &VENDORS {
        let (weft, stub) = only(vendor).await;
        stub.script([Reply::chunks(["раз", " два", " три"]).delay(Duration::from_millis(100)).hang_after(2)]);
        let mut events = weft.client().stream_chat(weft.request("pro", say("count"))).await.unwrap().into_inner();
        assert!(events.message().await.unwrap().is_some());
        drop(events);
        eventually("the end of the provider's answer", Duration::from_secs(1), || async { stub.abandoned() == 1 })
            .await;
    }
}

#[tokio::test]
async fn a_model_of_a_vendor_without_a_key_is_not_answered_by_another() {
    let stub = LlmStub::start().await;
    for (model, reason) in [("sonnet", Reason::FailedPrecondition), ("nobodys-model", Reason::InvalidArgument)] {
        let config = Config { openai_api_key: Some("k".into()), ..Config::default() };
        let start = Start { config, offline: true, products: Some(products(model)), ..Start::default() };
        let weft = Orchestrator::start_with(start).await;
        for status in [weft.chat(say("hello")).await.unwrap_err(), weft.stream(say("hello")).await.end.unwrap_err()] {
            assert_eq!(Reason::of(&status), Some(reason), "{model}");
        }
    }
    // A server of the operator's own is asked for names that nobody knows.
    let config = Config { anthropic_base_url: Some(stub.origin().to_owned()), ..Config::default() };
    let start = Start { config, offline: true, products: Some(products("nobodys-model")), ..Start::default() };
    let weft = Orchestrator::start_with(start).await;
    assert_eq!(weft.chat(say("hello")).await.unwrap().response, "stub answer");
    assert_eq!((stub.calls()[0].model.as_str(), &stub.calls()[0].key), ("nobodys-model", &None));
}
