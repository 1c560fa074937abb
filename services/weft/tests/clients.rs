//! The same journey over every transport, by the clients that people really use.
use std::collections::BTreeMap;

use serde_json::Value;
use tokio::process::Command;
use weft_testing::llm::{LlmStub, Reply};
use weft_testing::mesh::{Mesh, Options};

use crate::WEFT;

/// A path that `scripts/test` sets after it has installed the clients.
pub fn prepared(key: &str) -> String {
    let path = std::env::var_os(key)
        .unwrap_or_else(|| panic!("{key} is not set: run scripts/test, which installs the clients"));
    path.into_string().unwrap()
}

/// What one client printed, by step.
async fn journey(program: &str, arguments: &[&str]) -> BTreeMap<String, Value> {
    let output = Command::new(program).args(arguments).output().await.unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    let steps: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {said}"));
    steps.into_iter().map(|step| (step["step"].as_str().unwrap().to_owned(), step)).collect()
}

/// Without what is different for every account and call.
fn comparable(mut step: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for key in ["access_token", "refresh_token", "expires_at", "id", "email", "created_at"] {
                    if let Some(field) = fields.get_mut(key) {
                        let empty = field == "" || field == 0 || field.is_null();
                        *field = Value::from(if empty { "missing" } else { "present" });
                    }
                }
                // Protobuf's own JSON writes 64-bit numbers as text, the edge's as numbers. Credits have another unit there too:
                // this product has none, so they are zero in both.
                for key in ["prompt_tokens", "completion_tokens", "total_tokens", "credits"] {
                    if let Some(number) =
                        fields.get(key).and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok())
                    {
                        fields.insert(key.to_owned(), Value::from(number));
                    }
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            // Python prints the number of a Struct as 1.0, the others as 1.
            Value::Number(number) => *value = Value::from(number.as_f64()),
            _ => {}
        }
    }
    strip(&mut step["value"]);
    step
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_gives_the_same_values_and_codes() {
    let (python, clients) = (prepared("WEFT_TEST_PYTHON"), prepared("WEFT_TEST_CLIENTS"));
    let stub = LlmStub::start().await;
    // One for each of the five transports.
    stub.script((0..5).map(|_| Reply::chunks(["one ", "two ", "three ", "four"]).cut_after(3)));
    let mut options = Options::new(WEFT);
    options.environment.push(("OPENAI_BASE_URL".to_owned(), stub.url().to_owned()));
    options.environment.push(("OPENAI_API_KEY".to_owned(), "a key of nobody".to_owned()));
    let mesh = Mesh::start(options).await;
    let address = mesh.edge().trim_start_matches("http://");

    let script = format!("{clients}/journey.py");
    let grpc = journey(&python, &[&script, address, "adiuva", "grpc@example.com"]).await;
    let expected = |step: &str| (grpc[step]["code"].as_str().unwrap(), grpc[step]["reason"].as_str().unwrap());
    assert_eq!(expected("register again"), ("ALREADY_EXISTS", "EMAIL_TAKEN"));
    assert_eq!(expected("a short password"), ("INVALID_ARGUMENT", "INVALID_ARGUMENT"));
    assert_eq!(expected("a wrong password"), ("UNAUTHENTICATED", "INVALID_CREDENTIALS"));
    assert_eq!(expected("an unknown address"), expected("a wrong password"));
    assert_eq!(expected("me as nobody"), ("UNAUTHENTICATED", "UNAUTHENTICATED"));
    assert_eq!(expected("an unknown agent"), ("INVALID_ARGUMENT", "INVALID_ARGUMENT"));
    assert_eq!(expected("a service's own RPC"), ("PERMISSION_DENIED", "PERMISSION_DENIED"));
    for step in ["register", "login", "me", "chat", "stream"] {
        assert_eq!(expected(step), ("OK", ""), "{step}: {}", grpc[step]);
    }
    assert_eq!(grpc["me"]["value"]["tier"], "free");
    let chat = &grpc["chat"]["value"];
    assert_eq!((&chat["model"], &chat["agent"]), (&Value::from("offline"), &Value::from("task_agent")));
    assert_eq!((chat["usage"]["credits"].as_str(), chat["steps"].as_array().map(Vec::len)), (Some("0"), Some(0)));
    assert!(chat.get("decision").is_none(), "only administrators see how the model was chosen");
    assert_eq!(expected("a stream that breaks off"), ("UNAVAILABLE", "PROVIDER_STREAM_INTERRUPTED"));
    assert_eq!(
        grpc["a stream that breaks off"]["value"].as_array().unwrap().len(),
        3,
        "{}",
        grpc["a stream that breaks off"]
    );

    let script = format!("{clients}/journey.mjs");
    for mode in ["json", "grpc-web", "grpc-web-text", "connect-web"] {
        let email = format!("{mode}@example.com");
        let steps = journey("node", &[&script, mode, mesh.edge(), "adiuva", &email]).await;
        let routed = if mode == "json" { grpc.len() - 1 } else { grpc.len() };
        assert_eq!(steps.len(), routed, "{mode}: every step that has a route");
        for (name, step) in steps {
            assert_eq!(comparable(step), comparable(grpc[&name].clone()), "{mode}: {name}");
        }
    }
}
