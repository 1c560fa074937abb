//! OpenAI's own SDKs at the edge, with nothing changed but base URL and key.
use serde_json::{Value, json};
use tokio::process::Command;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Persona;

use crate::clients::prepared;
use crate::{WEFT, adiuva_with};

/// Models of these tests besides `stub-20-20`: each has its own replies.
const MODELS: [&str; 7] = ["stub-20-20", "one-tool", "two-tools", "a-form", "cut-off", "fails-once", "fails-often"];
/// Micro-credits of everybody, a day, and of a token: less than the longest prompts here could cost.
const CREDITS: (i64, i64) = (10_000_000, 100);

/// Adiuva, where everybody pays and may ask these models.
async fn metered(stub: &LlmStub) -> (Mesh, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let prices: String = MODELS.iter().map(|model| format!("{model} = {{ input = 1, output = 1 }}\n")).collect();
    let (daily, rate) = CREDITS;
    let plan = format!(
        "requests_per_minute = 100000\ncredits = {{ initial = 0, daily = {daily}, micro_credits_per_token = {rate} }}\n\
         models = {{ allowed = {MODELS:?} }}\n"
    );
    adiuva_with(
        folder.path(),
        &[("requests_per_minute = 20\n", &plan), ("\n[model_prices]\n", &format!("\n[model_prices]\n{prices}"))],
    );
    let mut options = Options::new(WEFT);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), folder.path().display().to_string()));
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    options.environment.push(("OPENAI_API_KEY".to_owned(), "a key of nobody".to_owned()));
    (Mesh::start(options).await, folder)
}

/// What one SDK printed.
async fn run(sdk: &str, mesh: &Mesh, person: &Persona, steps: &str) -> Value {
    let clients = prepared("WEFT_TEST_CLIENTS");
    let (program, script) = match sdk {
        "python" => (prepared("WEFT_TEST_PYTHON"), format!("{clients}/openai_client.py")),
        _ => ("node".to_owned(), format!("{clients}/openai_client.mjs")),
    };
    let base = format!("{}/v1", mesh.edge());
    let output = Command::new(program).args([&script, &base, person.access_token(), steps]).output().await.unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sdk}: {said}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{sdk}: {error}: {text} {said}"))
}

/// What the account can spend, in micro-credits.
async fn balance(person: &Persona) -> i64 {
    let (status, balance) = person.get("/api/v1/wallet/balance").await;
    assert_eq!(status, 200, "{balance}");
    (balance["total"].as_f64().unwrap() * 1_000_000.0).round() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdks_work_with_another_base_url_and_key() {
    let stub = LlmStub::start().await;
    let (mesh, _folder) = metered(&stub).await;
    let words: Vec<String> = (0..20).map(|at| format!("w{at}")).collect();
    let words = words.join(" ");
    for sdk in ["python", "node"] {
        stub.script_for("one-tool", [Reply::tool("weather", &json!({"city": "Ávila"}))]);
        let two = [("weather", json!({"city": "Ávila"})), ("time", json!({"city": "Lisboa \"x\""}))];
        stub.script_for("two-tools", [Reply::tools(two).after_saying("Let me look. ").fragments(3)]);
        stub.script_for("a-form", [Reply::text("{\"city\": \"Lisboa\"}")]);
        stub.script_for("cut-off", [Reply::chunks(["one ", "two ", "three"]).cut_after(2)]);
        let person = Persona::register(mesh.edge(), "adiuva", &format!("{sdk}@example.com")).await;
        let told = run(sdk, &mesh, &person, "all").await;
        for (step, value) in [
            ("chat", json!(["chat.completion", "stub-20-20", words, "stop", [20, 20, 40]])),
            ("stream", json!([words, "assistant", 1, 0, [20, 20, 40]])),
            ("tool", json!([null, "function", "weather", {"city": "Ávila"}, "tool_calls"])),
            ("tool result", json!("stop")),
            (
                "parallel tools, streamed",
                json!([
                    [["weather", {"city": "Ávila"}], ["time", {"city": "Lisboa \"x\""}]],
                    "Let me look. ",
                    "tool_calls",
                    true,
                ]),
            ),
            ("response format", json!({"city": "Lisboa"})),
            ("cut", json!(["one two ", "provider_stream_interrupted"])),
            ("embeddings", json!([true, [9.0, 1.0], 3])),
            ("models", json!([true, true, "stub-20-20", "model", "openai"])),
            (
                "a wrong key",
                json!([401, "unauthenticated", "authentication_error", null, "AuthenticationError", "false"]),
            ),
            ("an unknown model", refused(400, "invalid_argument", "model")),
            (
                "a model to get that is not there",
                json!([404, "not_found", "not_found_error", null, "NotFoundError", "false"]),
            ),
            ("several answers", refused(400, "unsupported_parameter", "n")),
            ("tokens to embed", refused(400, "unsupported_parameter", "input")),
        ] {
            assert_eq!(normal(&told[step]), normal(&value), "{sdk}: {step}");
        }
        let schema = json!({
            "type": "object",
            "properties": {"why": {"type": "string"}, "city": {"type": "string"}},
            "required": ["why", "city"],
            "additionalProperties": false,
        });
        for (model, place) in
            [("one-tool", "/tools/0/function/parameters"), ("a-form", "/response_format/json_schema/schema")]
        {
            let calls = stub.calls();
            let sent = calls.iter().rfind(|call| call.model == model).and_then(|call| call.body.pointer(place));
            assert_eq!(sent.unwrap().to_string(), schema.to_string(), "{sdk}: {model}: the same in the same order");
        }
        assert_eq!(told["too long"][0], 413, "{sdk}: {told}");
        for step in ["not enough credits", "not enough credits for a stream"] {
            let told = &told[step];
            assert_eq!(
                (&told[0], &told[1], &told[2]),
                (&json!(402), &json!("insufficient_credits"), &json!("insufficient_quota"))
            );
            assert_eq!(told[5], "false", "{sdk}: {step}");
        }
        let unknown = &told["a parameter that is unknown"];
        assert_eq!((&unknown[0], &unknown[4]), (&json!(400), &json!("BadRequestError")), "{sdk}: {unknown}");
    }
}

/// A refusal that names a parameter.
fn refused(status: u16, code: &str, param: &str) -> Value {
    json!([status, code, "invalid_request_error", param, "BadRequestError", "false"])
}

/// Node prints 9.0 as 9.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_repeated_is_billed_once() {
    let stub = LlmStub::start().await;
    let (mesh, _folder) = metered(&stub).await;
    for (sdk, code) in [("python", 500), ("node", 429)] {
        let person = Persona::register(mesh.edge(), "adiuva", &format!("{sdk}-again@example.com")).await;
        let answer = || Reply::text("done").usage(20, 20);
        stub.script_for("fails-once", [Reply::status(code), answer(), Reply::status(code), answer()]);
        // Three attempts of the mesh, then one more of the SDK.
        let often = [Reply::status(code), Reply::status(code), Reply::status(code), answer()];
        stub.script_for("fails-often", often);
        let (before, calls) = (balance(&person).await, stub.calls().len());
        let told = run(sdk, &mesh, &person, "retries").await;
        assert_eq!(told["retried"], json!([20, 20, 40]), "{sdk}");
        assert_eq!(stub.calls().len() - calls, 8, "{sdk}");
        assert_eq!(before - balance(&person).await, 3 * 40 * CREDITS.1, "{sdk}");
    }
}
