//! A product's models the way OpenAI's API has them, over gRPC.
use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;
use weft_core::Reason;
use weft_proto::billing::v1::HoldState;
use weft_proto::json::Kind;
use weft_proto::orchestrator::v1::open_ai_service_client::OpenAiServiceClient;
use weft_proto::orchestrator::v1::{
    ChatCompletion, ChatCompletionChunk, CompletionFunction, CompletionFunctionCall, CompletionMessage, CompletionTool,
    CompletionToolCall, CreateChatCompletionRequest, CreateEmbeddingRequest, CreateEmbeddingResponse,
    GetOpenAiModelRequest, ListOpenAiModelsRequest, StreamOptions,
};
use weft_testing::eventually;
use weft_testing::llm::Reply;

use crate::harness::{NOW_MS, Orchestrator, RATE, Start, as_struct, as_value, say, with_token};

/// Who pays in these tests.
const PAYER: &str = "paying-ana";
/// More than anything here costs.
const PLENTY: i64 = 1_000_000_000;

async fn rich() -> Orchestrator {
    let weft = Orchestrator::start().await;
    weft.book.give(PAYER, PLENTY);
    weft
}

fn message(role: &str, content: Value) -> CompletionMessage {
    CompletionMessage { role: role.to_owned(), content: Some(as_value(&content)), ..CompletionMessage::default() }
}

fn hello() -> CreateChatCompletionRequest {
    CreateChatCompletionRequest { messages: vec![message("user", json!("hello"))], ..Default::default() }
}

fn of_model(model: &str) -> CreateChatCompletionRequest {
    CreateChatCompletionRequest { model: model.to_owned(), ..hello() }
}

fn tool(name: &str) -> CompletionTool {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = CompletionFunction {
        name: name.to_owned(),
        description: "Tells.".to_owned(),
        parameters: Some(as_struct(&schema)),
        strict: Some(true),
    };
    CompletionTool { r#type: "function".to_owned(), function: Some(function) }
}

fn with_tools(names: &[&str]) -> CreateChatCompletionRequest {
    CreateChatCompletionRequest { tools: names.iter().map(|name| tool(name)).collect(), ..hello() }
}

fn client(at: &Orchestrator) -> OpenAiServiceClient<tonic::transport::Channel> {
    OpenAiServiceClient::new(at.channel.clone())
}

async fn ask(at: &Orchestrator, request: CreateChatCompletionRequest) -> Result<ChatCompletion, Status> {
    let request = with_token(request, "adiuva", &at.token("adiuva", PAYER, 600));
    client(at).create_chat_completion(request).await.map(Response::into_inner)
}

/// The chunks, and how the stream ended.
async fn stream(
    at: &Orchestrator,
    request: CreateChatCompletionRequest,
) -> (Vec<ChatCompletionChunk>, Result<(), Status>) {
    let request = with_token(request, "adiuva", &at.token("adiuva", PAYER, 600));
    let mut told = Vec::new();
    let mut chunks = match client(at).stream_chat_completion(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (told, Err(status)),
    };
    loop {
        match chunks.message().await {
            Ok(Some(chunk)) => told.push(chunk),
            Ok(None) => return (told, Ok(())),
            Err(status) => return (told, Err(status)),
        }
    }
}

/// The text of chunks, joined.
fn text(chunks: &[ChatCompletionChunk]) -> String {
    let deltas = chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.delta.as_ref());
    deltas.filter_map(|delta| delta.content.as_deref()).collect()
}

/// The calls of chunks, put together the way OpenAI's SDKs do: id, name, arguments.
fn calls(chunks: &[ChatCompletionChunk]) -> Vec<(String, String, String)> {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    let deltas = chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.delta.as_ref());
    for piece in deltas.flat_map(|delta| &delta.tool_calls) {
        let at = usize::try_from(piece.index.unwrap()).unwrap();
        let function = piece.function.as_ref().unwrap();
        if at == calls.len() {
            assert_eq!(piece.r#type.as_deref(), Some("function"));
            calls.push((piece.id.clone().unwrap(), function.name.clone().unwrap(), String::new()));
        } else {
            assert!(piece.id.is_none() && piece.r#type.is_none() && function.name.is_none(), "told once: {piece:?}");
        }
        calls[at].2.push_str(&function.arguments);
    }
    calls
}

fn finish(chunks: &[ChatCompletionChunk]) -> Vec<&str> {
    chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.finish_reason.as_deref()).collect()
}

/// The parameter that a refusal names.
fn param(status: &Status) -> String {
    let bad = status.get_details_bad_request().unwrap_or_else(|| panic!("{status:?}"));
    bad.field_violations[0].field.clone()
}

#[tokio::test]
async fn an_answer_is_held_charged_and_told_with_what_it_took() {
    let weft = rich().await;
    let answer = ask(&weft, of_model("stub-500-500")).await.unwrap();
    assert!(answer.id.starts_with("chatcmpl-"));
    assert_eq!((answer.object.as_str(), answer.created), ("chat.completion", NOW_MS / 1000));
    assert_eq!((answer.model.as_str(), answer.choices.len()), ("stub-500-500", 1));
    let choice = &answer.choices[0];
    assert_eq!((choice.index, choice.finish_reason.as_str()), (0, "stop"));
    assert!(choice.message.as_ref().unwrap().content.as_deref().unwrap().starts_with("w0 w1 "));
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (500, 500, 1_000));
    assert_eq!(weft.book.balance(PAYER), PLENTY - 1_000 * RATE);
    eventually("the call recorded", Duration::from_secs(5), || async { !weft.book.usage().is_empty() }).await;
    let call = &weft.book.usage()[0];
    assert_eq!((call.agent_role.as_str(), call.model.as_str()), ("completion", "stub-500-500"));
    // Nothing of ours is in between.
    assert_eq!(weft.llm.calls()[0].body["messages"], json!([{"role": "user", "content": "hello"}]));
}

#[tokio::test]
async fn a_stream_tells_role_text_end_and_usage_in_this_order() {
    let weft = rich().await;
    let options = Some(StreamOptions { include_usage: true });
    let asked = CreateChatCompletionRequest { stream: true, stream_options: options, ..of_model("stub-500-500") };
    let (chunks, end) = stream(&weft, asked).await;
    end.unwrap();
    let whole = ask(&weft, of_model("stub-500-500")).await.unwrap();
    assert_eq!(text(&chunks), whole.choices[0].message.as_ref().unwrap().content.as_deref().unwrap());
    let roles: Vec<bool> = chunks.iter().flat_map(|chunk| &chunk.choices).map(has_role).collect();
    assert!(roles[0] && !roles[1..].contains(&true));
    assert_eq!(finish(&chunks), ["stop"]);
    let [.., last, used] = chunks.as_slice() else { panic!("at least two") };
    assert_eq!(last.choices[0].finish_reason.as_deref(), Some("stop"));
    assert!(used.choices.is_empty());
    let usage = used.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (500, 500, 1_000));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk.usage.is_none()));
    let same = |chunk: &ChatCompletionChunk| (chunk.id.clone(), chunk.object.clone(), chunk.model.clone());
    assert!(chunks.iter().all(|chunk| same(chunk) == same(&chunks[0])));
    assert_eq!((chunks[0].object.as_str(), chunks[0].model.as_str()), ("chat.completion.chunk", "stub-500-500"));
    // Both are paid when they are told.
    assert_eq!(weft.book.balance(PAYER), PLENTY - 2_000 * RATE);
    let (chunks, end) = stream(&weft, of_model("stub-20-1000")).await;
    end.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.usage.is_none()), "only who asks for it is told");
}

fn has_role(choice: &weft_proto::orchestrator::v1::ChunkChoice) -> bool {
    choice.delta.as_ref().is_some_and(|delta| delta.role.as_deref() == Some("assistant"))
}

#[tokio::test]
async fn parallel_tools_stream_in_fragments_and_come_together() {
    let weft = rich().await;
    let reply = || {
        Reply::tools([("weather", json!({"city": "Lisboa"})), ("time", json!({"city": "Ávila \"x\""}))])
            .after_saying("Let me look. ")
            .fragments(3)
            .delay(Duration::from_millis(2))
    };
    weft.llm.script([reply(), reply()]);
    let asked = || CreateChatCompletionRequest {
        tool_choice: Some(as_value(&json!("required"))),
        parallel_tool_calls: Some(true),
        ..with_tools(&["weather", "time"])
    };
    let (chunks, end) = stream(&weft, asked()).await;
    end.unwrap();
    let told = calls(&chunks);
    let names: Vec<&str> = told.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["weather", "time"]);
    assert_eq!(serde_json::from_str::<Value>(&told[1].2).unwrap(), json!({"city": "Ávila \"x\""}));
    assert_eq!((text(&chunks).as_str(), finish(&chunks)), ("Let me look. ", vec!["tool_calls"]));
    assert!(chunks.len() > 4, "it comes in pieces: {}", chunks.len());
    let whole = ask(&weft, asked()).await.unwrap();
    let choice = &whole.choices[0];
    let answer = choice.message.as_ref().unwrap();
    let call = |call: &CompletionToolCall| {
        let function = call.function.clone().unwrap();
        assert!(call.index.is_none() && call.r#type.as_deref() == Some("function"));
        (call.id.clone().unwrap(), function.name.unwrap(), function.arguments)
    };
    // Each answer has ids of its own.
    let without_ids = |calls: Vec<(String, String, String)>| {
        calls.into_iter().map(|(_, name, arguments)| (name, arguments)).collect::<Vec<_>>()
    };
    assert_eq!(without_ids(answer.tool_calls.iter().map(call).collect()), without_ids(told));
    assert_eq!(choice.finish_reason, "tool_calls");
    let sent = &weft.llm.calls()[0].body;
    assert_eq!((&sent["tool_choice"], &sent["parallel_tool_calls"]), (&json!("required"), &json!(true)));
    assert_eq!(sent["tools"][0]["function"]["strict"], true);
    assert_eq!(sent["tools"][0]["function"]["parameters"]["required"], json!(["city"]));
}

#[tokio::test]
async fn a_round_of_tools_goes_back_as_it_was() {
    let weft = rich().await;
    let function = Some(CompletionFunctionCall { name: Some("weather".into()), arguments: "{\"city\":\"x\"}".into() });
    let called = CompletionToolCall { index: None, id: Some("c1".into()), r#type: Some("function".into()), function };
    let asked = CompletionMessage {
        role: "assistant".into(),
        tool_calls: vec![called],
        content: Some(as_value(&Value::Null)),
        ..Default::default()
    };
    let result = CompletionMessage { tool_call_id: Some("c1".into()), ..message("tool", json!("{\"c\": 21}")) };
    let parts = json!([{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}]);
    let messages = vec![message("developer", parts), message("user", json!("weather?")), asked, result];
    ask(&weft, CreateChatCompletionRequest { messages, ..with_tools(&["weather"]) }).await.unwrap();
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"x\"}"}});
    let sent = json!([
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "{\"c\": 21}"},
    ]);
    assert_eq!(weft.llm.calls()[0].body["messages"], sent);
}

#[tokio::test]
async fn the_options_of_a_request_reach_the_model() {
    let weft = rich().await;
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"type": "object"}}});
    let asked = CreateChatCompletionRequest {
        max_tokens: Some(7),
        max_completion_tokens: Some(100_000),
        temperature: Some(0.5),
        top_p: Some(0.9),
        presence_penalty: Some(-1.0),
        frequency_penalty: Some(1.0),
        stop: Some(as_value(&json!(["a", "b"]))),
        seed: Some(7),
        response_format: Some(as_struct(&format)),
        reasoning_effort: Some("low".into()),
        n: Some(1),
        logprobs: Some(false),
        user: "ana".into(),
        store: Some(true),
        ..hello()
    };
    ask(&weft, asked).await.unwrap();
    let sent = &weft.llm.calls()[0].body;
    for (name, value) in [
        ("max_tokens", json!(2_048)),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.9)),
        ("presence_penalty", json!(-1.0)),
        ("frequency_penalty", json!(1.0)),
        ("stop", json!(["a", "b"])),
        ("seed", json!(7)),
        ("response_format", format),
        ("reasoning_effort", json!("low")),
        ("user", Value::Null),
        ("store", Value::Null),
    ] {
        assert_eq!(sent[name], value, "{name}");
    }
    ask(&weft, CreateChatCompletionRequest { max_tokens: Some(7), ..hello() }).await.unwrap();
    assert_eq!(weft.llm.calls()[1].body["max_tokens"], 7);
}

type Change = fn(&mut CreateChatCompletionRequest);

#[tokio::test]
async fn what_breaks_a_rule_or_is_not_supported_is_refused_by_name_before_anything_is_held() {
    let weft = rich().await;
    let cases: [(Change, &str, Reason); 23] = [
        (|asked| asked.n = Some(2), "n", Reason::UnsupportedParameter),
        (|asked| asked.logprobs = Some(true), "logprobs", Reason::UnsupportedParameter),
        (|asked| asked.stream = true, "stream", Reason::InvalidArgument),
        (|asked| asked.stream_options = Some(StreamOptions::default()), "stream_options", Reason::InvalidArgument),
        (|asked| asked.messages.clear(), "messages", Reason::InvalidArgument),
        (|asked| asked.message = "two".into(), "message", Reason::InvalidArgument),
        (|asked| asked.temperature = Some(2.1), "temperature", Reason::InvalidArgument),
        (|asked| asked.temperature = Some(f64::NAN), "temperature", Reason::InvalidArgument),
        (|asked| asked.top_p = Some(0.0), "top_p", Reason::InvalidArgument),
        (|asked| asked.max_tokens = Some(0), "max_tokens", Reason::InvalidArgument),
        (|asked| asked.stop = Some(as_value(&json!(["a", ""]))), "stop", Reason::InvalidArgument),
        (|asked| asked.stop = Some(as_value(&json!(vec!["a"; 5]))), "stop", Reason::InvalidArgument),
        (|asked| asked.reasoning_effort = Some("CANARY".into()), "reasoning_effort", Reason::InvalidArgument),
        (|asked| asked.tool_choice = Some(as_value(&json!("required"))), "tool_choice", Reason::InvalidArgument),
        (|asked| asked.tools = vec![tool("a"), tool("a")], "tools[1].function.name", Reason::InvalidArgument),
        (|asked| asked.tools = vec![tool("CANARY !")], "tools[0].function.name", Reason::InvalidArgument),
        (|asked| asked.tools[0].r#type = "CANARY".into(), "tools[0].type", Reason::UnsupportedParameter),
        (|asked| asked.messages[0].role = "CANARY".into(), "messages[0].role", Reason::InvalidArgument),
        (|asked| asked.messages[0].content = None, "messages[0].content", Reason::InvalidArgument),
        (
            |asked| asked.messages[0] = message("user", json!([{"type": "image_url", "image_url": {"url": "CANARY"}}])),
            "messages[0].content[0].type",
            Reason::UnsupportedParameter,
        ),
        (
            |asked| asked.messages.push(message("tool", json!("CANARY"))),
            "messages[1].tool_call_id",
            Reason::InvalidArgument,
        ),
        (
            |asked| asked.response_format = Some(as_struct(&json!({"type": "CANARY"}))),
            "response_format.type",
            Reason::InvalidArgument,
        ),
        (|asked| asked.model = "CANARY".into(), "model", Reason::InvalidArgument),
    ];
    for (change, name, reason) in cases {
        let mut asked =
            if name.ends_with("[0].type") && name.starts_with("tools") { with_tools(&["a"]) } else { hello() };
        change(&mut asked);
        let refused = ask(&weft, asked).await.unwrap_err();
        assert_eq!((param(&refused).as_str(), Reason::of(&refused)), (name, Some(reason)), "{refused:?}");
        assert!(!refused.message().contains("CANARY"), "{name}");
    }
    let long = CreateChatCompletionRequest { messages: vec![message("user", json!("x".repeat(262_145)))], ..hello() };
    assert_eq!(Reason::of(&ask(&weft, long).await.unwrap_err()), Some(Reason::PayloadTooLarge));
    let many = CreateChatCompletionRequest { messages: vec![message("user", json!("x")); 1_001], ..hello() };
    assert_eq!(Reason::of(&ask(&weft, many).await.unwrap_err()), Some(Reason::PayloadTooLarge));
    assert!(weft.book.holds().is_empty() && weft.llm.calls().is_empty());
}

#[tokio::test]
async fn who_cannot_pay_is_told_so_and_nobody_is_asked() {
    let weft = Orchestrator::start().await;
    let refused = ask(&weft, hello()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::InsufficientCredits));
    let (chunks, end) = stream(&weft, hello()).await;
    assert_eq!((chunks.len(), Reason::of(&end.unwrap_err())), (0, Some(Reason::InsufficientCredits)));
    assert!(weft.llm.calls().is_empty());
}

#[tokio::test]
async fn a_failed_first_attempt_is_repeated_and_billed_once() {
    let weft = rich().await;
    for code in [500, 429] {
        weft.llm.script_for("stub-500-500", [Reply::status(code)]);
        ask(&weft, of_model("stub-500-500")).await.unwrap();
        weft.llm.script_for("stub-500-500", [Reply::status(code)]);
        stream(&weft, of_model("stub-500-500")).await.1.unwrap();
    }
    assert_eq!((weft.llm.calls().len(), weft.book.holds().len()), (8, 4));
    assert_eq!(weft.book.balance(PAYER), PLENTY - 4_000 * RATE);
}

#[tokio::test]
async fn what_a_provider_does_not_accept_is_the_callers_to_mend() {
    let weft = rich().await;
    weft.llm.script([Reply::status(400)]);
    let refused = ask(&weft, hello()).await.unwrap_err();
    assert_eq!((refused.code(), Reason::of(&refused)), (Code::InvalidArgument, Some(Reason::InvalidArgument)));
    assert_eq!((weft.book.count(HoldState::Voided), weft.book.balance(PAYER)), (1, PLENTY));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_an_error_and_never_an_end() {
    let weft = rich().await;
    for reply in [
        Reply::chunks(["one ", "two ", "three"]).cut_after(2),
        Reply::chunks(["one ", "two ", "three"]).error_after(2),
        Reply::tool("weather", &json!({"city": "Lisboa"})).cut_after(2),
    ] {
        weft.llm.script([reply]);
        let (chunks, end) = stream(&weft, with_tools(&["weather"])).await;
        assert_eq!(Reason::of(&end.unwrap_err()), Some(Reason::ProviderStreamInterrupted));
        assert!(finish(&chunks).is_empty() && !chunks.is_empty());
    }
}

#[tokio::test]
async fn a_reader_who_leaves_stops_the_model_and_pays_what_came() {
    let weft = rich().await;
    weft.llm.script([Reply::text(&"word ".repeat(500)).delay(Duration::from_millis(5))]);
    let request = with_token(hello(), "adiuva", &weft.token("adiuva", PAYER, 600));
    let mut chunks = client(&weft).stream_chat_completion(request).await.unwrap().into_inner();
    for _ in 0..3 {
        chunks.message().await.unwrap().unwrap();
    }
    drop(chunks);
    eventually("the hold to end", Duration::from_secs(5), || async { weft.book.count(HoldState::Settled) == 1 }).await;
    assert_eq!(weft.llm.abandoned(), 1);
    let charged = weft.book.holds()[0].charged;
    assert!(charged > 0 && charged < 300 * RATE, "{charged}");
}

#[tokio::test]
async fn what_a_product_tells_its_models_comes_out_of_no_part_of_a_completion() {
    let weft = rich().await;
    weft.chat(say("hello")).await.unwrap();
    let prompt = weft.llm.calls()[0].body["messages"][0]["content"].as_str().unwrap().to_owned();
    let secret: String = prompt.chars().take(120).collect();
    let letters: Vec<String> = secret.chars().map(String::from).collect();
    let chunks = letters.iter().map(|letter| &*letter.clone().leak()).collect::<Vec<&'static str>>();
    let refusal = |text: &str| {
        let delta = json!({"choices": [{"delta": {"refusal": text}, "finish_reason": null}]});
        let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
        format!("data: {delta}\n\ndata: {end}\n\ndata: [DONE]\n\n")
    };
    let name = secret.as_str();
    for reply in [
        Reply::chunks(chunks),
        Reply::tool("weather", &json!({"city": secret})).fragments(3),
        Reply::tool(name, &json!({})),
    ] {
        weft.llm.script([reply.clone(), reply]);
        let (chunks, end) = stream(&weft, with_tools(&["weather"])).await;
        end.unwrap();
        let told = format!("{} {:?}", text(&chunks), calls(&chunks));
        assert!(told.contains("[removed]") && !told.contains(&secret[..40]), "{told}");
        let whole = format!("{:?}", ask(&weft, with_tools(&["weather"])).await.unwrap());
        assert!(whole.contains("[removed]") && !whole.contains(&secret[..40]), "{whole}");
    }
    weft.llm.script([Reply::raw(&refusal(&secret))]);
    let (chunks, _) = stream(&weft, hello()).await;
    assert!(!format!("{chunks:?}").contains(&secret[..40]));
}

#[tokio::test]
async fn without_a_provider_the_built_in_model_answers_every_kind_of_request() {
    let weft = Orchestrator::offline().await;
    let said = ask(&weft, hello()).await.unwrap();
    assert_eq!((said.model.as_str(), said.choices[0].finish_reason.as_str()), ("offline", "stop"));
    assert!(said.choices[0].message.as_ref().unwrap().content.as_deref().unwrap().contains("offline model"));
    let (chunks, end) = stream(&weft, hello()).await;
    end.unwrap();
    assert_eq!(Some(text(&chunks)), said.choices[0].message.as_ref().unwrap().content);
    let named = json!({"type": "function", "function": {"name": "b"}});
    let asked = || CreateChatCompletionRequest { tool_choice: Some(as_value(&named)), ..with_tools(&["a", "b"]) };
    let (chunks, end) = stream(&weft, asked()).await;
    end.unwrap();
    let told = calls(&chunks);
    assert_eq!((told[0].1.as_str(), told[0].2.as_str()), ("b", "{\"city\":\"offline\"}"));
    let whole = ask(&weft, asked()).await.unwrap();
    assert_eq!(whole.choices[0].message.as_ref().unwrap().tool_calls[0].id.as_ref(), Some(&told[0].0));
    let short = ask(&weft, CreateChatCompletionRequest { max_tokens: Some(3), ..hello() }).await.unwrap();
    assert_eq!(short.choices[0].finish_reason, "length");
}

#[tokio::test]
async fn a_parameter_that_a_dialect_has_no_word_for_is_refused_by_name() {
    let weft = Orchestrator::start_with(Start { offline: true, ..Start::default() }).await;
    drop(weft);
    let mut start = Start::default();
    let anthropic = weft_testing::llm::LlmStub::start().await;
    start.config.anthropic_base_url = Some(anthropic.origin().to_owned());
    let weft = Orchestrator::start_with(start).await;
    let changes: [(Change, &str); 4] = [
        (|asked| asked.seed = Some(7), "seed"),
        (|asked| asked.presence_penalty = Some(0.5), "presence_penalty"),
        (|asked| asked.temperature = Some(1.5), "temperature"),
        (|asked| asked.response_format = Some(as_struct(&json!({"type": "json_object"}))), "response_format"),
    ];
    let on_sonnet = |asked| {
        let request: CreateChatCompletionRequest = asked;
        with_token(request, "cofounder", &weft.token("cofounder", "pro", 600))
    };
    for (change, name) in changes {
        let mut asked = of_model("sonnet");
        change(&mut asked);
        let refused = client(&weft).create_chat_completion(on_sonnet(asked)).await.unwrap_err();
        assert_eq!((param(&refused).as_str(), Reason::of(&refused)), (name, Some(Reason::UnsupportedParameter)));
    }
    assert!(anthropic.calls().is_empty());
    anthropic.script([Reply::tool("weather", &json!({"city": "x"})).after_saying("Look: ")]);
    let asked =
        CreateChatCompletionRequest { model: "sonnet".into(), presence_penalty: Some(0.0), ..with_tools(&["weather"]) };
    let answer = client(&weft).create_chat_completion(on_sonnet(asked)).await.unwrap().into_inner();
    assert_eq!(answer.choices[0].finish_reason, "tool_calls");
}

async fn embed(at: &Orchestrator, asked: CreateEmbeddingRequest) -> Result<CreateEmbeddingResponse, Status> {
    let request = with_token(asked, "adiuva", &at.token("adiuva", PAYER, 600));
    client(at).create_embedding(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn vectors_are_numbers_or_base64_of_one_text_or_several() {
    use base64::Engine;
    let weft = rich().await;
    let of = |input: Value, format: Option<&str>| CreateEmbeddingRequest {
        input: Some(as_value(&input)),
        encoding_format: format.map(str::to_owned),
        ..Default::default()
    };
    let made = embed(&weft, of(json!(["one", "two words"]), None)).await.unwrap();
    assert_eq!((made.object.as_str(), made.model.as_str()), ("list", "text-embedding-3-small"));
    assert_eq!(made.usage.unwrap().prompt_tokens, 3);
    let places: Vec<i32> = made.data.iter().map(|vector| vector.index).collect();
    assert_eq!(places, [0, 1]);
    let Some(Kind::ListValue(list)) = made.data[1].embedding.clone().unwrap().kind else { panic!("a list") };
    assert_eq!(list.values[0].kind, Some(Kind::NumberValue(9.0)));
    let made = embed(&weft, of(json!("one"), Some("base64"))).await.unwrap();
    let Some(Kind::StringValue(written)) = made.data[0].embedding.clone().unwrap().kind else { panic!("a text") };
    let bytes = base64::engine::general_purpose::STANDARD.decode(written).unwrap();
    assert_eq!(&bytes[..4], 3.0_f32.to_le_bytes());
    for input in [json!([1, 2, 3]), json!([[1, 2], [3]])] {
        let refused = embed(&weft, of(input, None)).await.unwrap_err();
        assert_eq!((param(&refused).as_str(), Reason::of(&refused)), ("input", Some(Reason::UnsupportedParameter)));
    }
    for asked in [of(json!({}), None), of(json!("x"), Some("CANARY")), of(json!([]), None)] {
        assert_eq!(embed(&weft, asked).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn models_are_those_of_the_plan() {
    let weft = rich().await;
    let asking = |message| with_token(message, "adiuva", &weft.token("adiuva", PAYER, 600));
    let list = client(&weft).list_open_ai_models(asking(ListOpenAiModelsRequest {})).await.unwrap().into_inner();
    assert_eq!(list.object, "list");
    let ids: Vec<&str> = list.data.iter().map(|model| model.id.as_str()).collect();
    assert!(ids.contains(&"stub-500-500") && ids.contains(&"offline") && ids.is_sorted(), "{ids:?}");
    let of = |model: &str| {
        let message = GetOpenAiModelRequest { model: model.to_owned() };
        with_token(message, "adiuva", &weft.token("adiuva", PAYER, 600))
    };
    let model = client(&weft).get_open_ai_model(of("stub-500-500")).await.unwrap().into_inner();
    assert_eq!((model.object.as_str(), model.owned_by.as_str()), ("model", "openai"));
    let unknown = client(&weft).get_open_ai_model(of("sonnet")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}
