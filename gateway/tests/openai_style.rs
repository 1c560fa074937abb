//! RPCs in the style of OpenAI's API, answers whole or streamed on one path, and streams that can be gone on with.
use http::Method;
use serde_json::{Value, json};
use weft_gateway::Config;
use weft_product::Products;

use crate::harness::{Answer, Edge};

/// Headers of the last call of an RPC that reached the shop.
fn last(edge: &Edge, rpc: &str) -> http::HeaderMap {
    let seen = edge.seen.lock().unwrap();
    let found = seen.iter().rev().find(|(path, _)| path.ends_with(&format!("/{rpc}")));
    found.unwrap_or_else(|| panic!("{rpc} was not called")).1.clone()
}

#[tokio::test]
async fn an_error_says_its_type_and_whether_to_try_again() {
    let edge = Edge::start().await;
    for (reason, status, kind, again) in [
        ("INVALID_ARGUMENT", 400, "invalid_request_error", "false"),
        ("PAYLOAD_TOO_LARGE", 413, "invalid_request_error", "false"),
        ("UNAUTHENTICATED", 401, "authentication_error", "false"),
        ("INSUFFICIENT_CREDITS", 402, "insufficient_quota", "false"),
        ("DAILY_TOKENS_EXCEEDED", 403, "insufficient_quota", "false"),
        ("FEATURE_NOT_IN_PLAN", 403, "permission_error", "false"),
        ("NOT_FOUND", 404, "not_found_error", "false"),
        ("IDEMPOTENCY_KEY_REUSED", 409, "invalid_request_error", "false"),
        ("ABORTED", 409, "invalid_request_error", "true"),
        ("RATE_LIMITED", 429, "rate_limit_error", "true"),
        ("INTERNAL", 500, "api_error", "true"),
        ("UNIMPLEMENTED", 501, "api_error", "false"),
        ("PROVIDER_STREAM_INTERRUPTED", 502, "api_error", "true"),
        ("UNAVAILABLE", 503, "api_error", "true"),
        ("DEADLINE_EXCEEDED", 504, "api_error", "true"),
    ] {
        let body = json!({"reason": reason}).to_string();
        let answer = edge.post("/v1/openfail", body.clone()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, answer.header("x-should-retry")), (status, again), "{reason}");
        assert_eq!((&error["type"], &error["param"]), (&json!(kind), &Value::Null), "{reason}");
        assert_eq!(error["code"], reason.to_lowercase(), "and ours is there as ever");
        assert!(error["request_id"].is_string() && error["message"].is_string() && error["details"].is_array());

        let plain = edge.post("/v1/fail", body).await;
        assert!(plain.json()["error"].get("type").is_none() && !plain.headers.contains_key("x-should-retry"));
    }
    // What the edge itself refuses, and a path that nobody has.
    let malformed = edge.post("/v1/openfail", "{").await;
    assert_eq!((malformed.status, &malformed.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    let stranger = edge.call(Method::POST, "/v1/openfail", &[("content-type", "application/json")], "{}").await;
    assert_eq!((stranger.status, &stranger.json()["error"]["type"]), (401, &json!("authentication_error")));
    assert_eq!(stranger.header("x-should-retry"), "false");
    let nowhere = edge.post("/v1/images/generations", "{}").await;
    assert_eq!((nowhere.status, &nowhere.json()["error"]["type"]), (404, &json!("not_found_error")));
    let elsewhere = edge.post("/api/v1/nothing", "{}").await;
    assert!(elsewhere.json()["error"].get("type").is_none());
}

#[tokio::test]
async fn a_page_may_read_whether_to_try_again_and_send_what_openais_sdk_sends() {
    let edge = Edge::start().await;
    let asked = [("origin", "http://localhost:1"), ("access-control-request-method", "POST")];
    let preflight = edge.call(Method::OPTIONS, "/v1/complete", &asked, "").await;
    let allowed = preflight.header("access-control-allow-headers").to_owned();
    for name in ["authorization", "last-event-id", "openai-organization", "x-stainless-retry-count"] {
        assert!(allowed.split(", ").any(|one| one == name), "{name}: {allowed}");
    }
    let answer = edge.call(Method::GET, "/v1/hello", &asked[..1], "").await;
    assert!(answer.header("access-control-expose-headers").contains("x-should-retry"));
}

fn lines(answer: &Answer) -> Vec<String> {
    answer.text().split("\n\n").filter(|block| !block.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn one_path_answers_whole_or_as_a_stream_as_the_body_says() {
    let edge = Edge::start().await;
    for body in [
        json!({"say": ["a", "b"]}),
        json!({"say": ["a", "b"], "stream": false}),
        json!({"say": ["a", "b"], "stream": null}),
    ] {
        let whole = edge.post("/v1/complete", body.to_string()).await;
        assert_eq!((whole.status, whole.header("content-type")), (200, "application/json"));
        assert_eq!(whole.json(), json!({"response": "ab", "room": ""}));
    }
    assert_eq!(last(&edge, "Complete")["grpc-timeout"], "90000m", "it may take longer than other calls");

    let body = "{\"say\": [\"a\", \"b\"],  \"stream\" :true }";
    let streamed = edge.post("/v1/complete", body).await;
    assert_eq!((streamed.status, streamed.header("content-type")), (200, "text/event-stream"));
    assert_eq!(
        lines(&streamed),
        ["data: {\"response\":\"a\",\"room\":\"\"}", "data: {\"response\":\"b\",\"room\":\"\"}", "data: [DONE]"]
    );

    assert_eq!(last(&edge, "StreamComplete")["grpc-timeout"], "600000m", "it has the time of a stream");
    let broken =
        edge.post("/v1/complete", json!({"say": ["a", "b"], "fail_after": 1, "stream": true}).to_string()).await;
    let told = lines(&broken);
    assert_eq!((told.len(), told[0].as_str()), (2, "data: {\"response\":\"a\",\"room\":\"\"}"));
    let error: Value = serde_json::from_str(told[1].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (&error["error"]["type"], &error["error"]["code"]),
        (&json!("api_error"), &json!("provider_stream_interrupted"))
    );

    for wrong in [
        "{\"stream\": \"true\"}",
        "{\"stream\": 1}",
        "{\"stream\": true, \"stream\": false}",
        "[true]",
        "{\"stream\": true",
    ] {
        let answer = edge.post("/v1/complete", wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{wrong}");
    }
    let stranger =
        edge.call(Method::POST, "/v1/complete", &[("content-type", "application/json")], "{\"stream\": true}").await;
    assert_eq!(stranger.status, 401);
    let metrics = edge.get("/metrics").await.text();
    for (rpc, protocol) in [("Complete", "json"), ("StreamComplete", "sse")] {
        let counted = format!(
            "weft_edge_requests_total{{rpc=\"shop.v1.ShopService/{rpc}\",protocol=\"{protocol}\",code=\"OK\"}}"
        );
        assert!(metrics.contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn a_stream_numbers_its_events_and_goes_on_behind_the_last_one() {
    let edge = Edge::start().await;
    let whole = edge.post("/v1/talk", json!({"say": ["Hi", " there"]}).to_string()).await;
    assert_eq!(
        lines(&whole),
        [
            "id: run.0\ndata: {\"token\":\"Hi\",\"id\":\"run.0\"}",
            "id: run.1\ndata: {\"token\":\" there\",\"id\":\"run.1\"}",
            "id: run.2\ndata: {\"done\":{\"response\":\"Hi there\",\"room\":\"\"},\"id\":\"run.2\"}",
        ]
    );
    assert!(!last(&edge, "Talk").contains_key("last-event-id"));

    let bearer = format!("Bearer {}", edge.token("ana"));
    let resume = async |path: &str, id: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("last-event-id", id)];
        edge.call(Method::POST, path, &headers, "").await
    };
    let rest = resume("/v1/talk", "run.1").await;
    assert_eq!(lines(&rest)[0], "id: run.2\ndata: {\"token\":\"ain\",\"id\":\"run.2\"}");
    assert_eq!(last(&edge, "Talk")["last-event-id"], "run.1");

    for wrong in [&"x".repeat(129), "run 1"] {
        let answer = resume("/v1/talk", wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{wrong}");
    }
    // Where nothing streams nobody asks for it.
    assert_eq!(resume("/v1/echo", &"x".repeat(129)).await.status, 200);
    assert!(!last(&edge, "Echo").contains_key("last-event-id"));
    assert_eq!(resume("/v1/complete", "run.1").await.status, 200);
    assert!(!last(&edge, "Complete").contains_key("last-event-id"));
}

/// What is wrong with an operator's service like this one.
fn problem(service: &str, field: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let source = format!(
        "syntax = \"proto3\"; package says.v1; import \"weft/options/v1/policy.proto\";
        import \"google/api/annotations.proto\";
        message Ask {{ bool stream = 1; }} message Word {{ {field} }} service SayService {{ {service} }}"
    );
    std::fs::write(folder.path().join("says.proto"), source).unwrap();
    let ours = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut compiler = protox::Compiler::new([folder.path(), &ours]).unwrap();
    compiler.include_imports(true).open_file("says.proto").unwrap();
    let file = folder.path().join("says.binpb");
    std::fs::write(&file, compiler.encode_file_descriptor_set()).unwrap();
    let config = Config {
        weft_edge_upstreams: "says=http://127.0.0.1:1".to_owned(),
        weft_edge_descriptors: Some(file),
        ..Config::default()
    };
    config.check(&Products::builtin()).err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn options_that_cannot_be_meant_are_refused_at_the_start() {
    let say = |http: &str, options: &str, stream: &str| {
        format!(
            "rpc Say(Ask) returns (Word) {{ option (google.api.http) = {http};
               option (weft.options.v1.streamed_by) = \"Stream\"; }}
             rpc Stream(Ask) returns ({stream} Word) {{ {options} }}"
        )
    };
    let post = "{post: \"/v1/say\" body: \"*\"}";
    let word = "string text = 1;";
    assert_eq!(problem(&say(post, "", "stream"), word), "");
    for (service, names) in [
        (say(post, "", ""), "stream answers"),
        (say("{get: \"/v1/say\"}", "", "stream"), "body"),
        (say(post, "option (weft.options.v1.policy) = {access: ACCESS_PUBLIC};", "stream"), "policy"),
        (say(post, "", "stream").replace("\"Stream\"", "\"Nobody\""), "Nobody"),
    ] {
        let told = problem(&service, word);
        assert!(told.contains(names) && told.contains("says.v1.SayService"), "{service}: {told}");
    }
    let talk = |stop: &str, options: &str| {
        format!(
            "rpc Talk(Ask) returns (stream Word) {{ option (weft.options.v1.stopped_by) = \"Stop\"; }}
             rpc Stop({stop}) returns (Ask) {{ {options} }}"
        )
    };
    let run = "string run_id = 1;";
    assert_eq!(problem(&talk("Word", ""), run), "");
    for (service, field, names) in [
        (talk("Word", ""), word, "run_id"),
        (talk("Word", ""), "int64 run_id = 1;", "run_id"),
        (talk("stream Word", ""), run, "unary"),
        (talk("Word", "").replace("\"Stop\"", "\"Nobody\""), run, "stopped_by"),
        (talk("Word", "").replace("(stream Word)", "(Word)"), run, "stream answers"),
        (talk("Word", "option (weft.options.v1.policy) = {access: ACCESS_ADMIN};"), run, "access"),
    ] {
        let told = problem(&service, field);
        assert!(told.contains(names) && told.contains("says.v1.SayService"), "{service}: {told}");
    }
    for (field, names) in [
        ("int64 id = 1 [(weft.options.v1.json) = {event_id: true}];", "event_id"),
        ("repeated string id = 1 [(weft.options.v1.json) = {event_id: true}];", "event_id"),
        ("Ask text = 1 [(weft.options.v1.json) = {frame: FRAME_TEXT}];", "FRAME_TEXT"),
        ("string text = 1 [(weft.options.v1.json) = {frame: FRAME_DONE}];", "FRAME_DONE"),
        (
            "string a = 1 [(weft.options.v1.json) = {event_id: true}]; string b = 2 [(weft.options.v1.json) = {event_id: true}];",
            "two fields",
        ),
    ] {
        let told = problem(&say(post, "", "stream"), field);
        assert!(told.contains(names) && told.contains("says.v1.Word"), "{field}: {told}");
    }
}
