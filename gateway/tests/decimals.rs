//! Integers that JSON shows as decimal numbers.
use http::Method;
use serde_json::json;
use weft_gateway::Config;
use weft_product::Products;

use crate::harness::{Edge, frame, message, to_json};

#[tokio::test]
async fn units_come_and_go_as_the_numbers_they_stand_for() {
    let edge = Edge::start().await;
    for (sent, returned) in [
        ("{}", "{\"balance\":0,\"history\":[],\"loose\":[],\"plain\":0}"),
        (
            "{\"balance\": 2039.950000, \"bonus\": -0.1, \"history\": [10, \"0.5\", 1e2, -0], \"loose\": [0.000000001, -2.5], \"plain\": 7}",
            "{\"balance\":2039.95,\"bonus\":-0.1,\"history\":[10,0.5,100,0],\"loose\":[0.000000001,-2.5],\"plain\":7}",
        ),
        (
            "{\"balance\": -9223372036854.775808, \"bonus\": \"9223372036854.775807\", \"history\": null, \"inner\": {\"balance\": \"1\\u0030\"}}",
            "{\"balance\":-9223372036854.775808,\"bonus\":9223372036854.775807,\"history\":[],\"loose\":[],\"plain\":0,\"inner\":{\"balance\":10,\"history\":[],\"loose\":[],\"plain\":0}}",
        ),
        // 0.1 + 0.2 of floats, and a number that no float holds.
        (
            "{\"balance\": 0.3, \"bonus\": 4503599627370.497999, \"history\": [90071992547409.93]}",
            "{\"balance\":0.3,\"bonus\":4503599627370.497999,\"history\":[90071992547409.93],\"loose\":[],\"plain\":0}",
        ),
    ] {
        let answer = edge.post("/v1/credits", sent).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, returned), "{sent}");
    }
    // In a path and a query too.
    let answer = edge.get("/v1/credits/-0.000001?bonus=12.5&history=1&history=2.25").await;
    assert_eq!(answer.text(), "{\"balance\":-0.000001,\"bonus\":12.5,\"history\":[1,2.25],\"loose\":[],\"plain\":0}");
}

#[tokio::test]
async fn what_a_decimal_field_cannot_hold_is_refused_by_name() {
    let edge = Edge::start().await;
    for (body, field) in [
        ("{\"balance\": 0.0000001}", "balance"),
        ("{\"balance\": 2039.9500001}", "balance"),
        ("{\"balance\": 1e-7}", "balance"),
        ("{\"balance\": 9223372036854.775808}", "balance"),
        ("{\"balance\": -9223372036854.775809}", "balance"),
        ("{\"balance\": 1e400}", "balance"),
        ("{\"balance\": \"1e99999999999999999999\"}", "balance"),
        ("{\"bonus\": \"\"}", "bonus"),
        ("{\"bonus\": \"ten\"}", "bonus"),
        ("{\"bonus\": \"1 \"}", "bonus"),
        ("{\"bonus\": true}", "bonus"),
        ("{\"bonus\": {}}", "bonus"),
        ("{\"bonus\": [1]}", "bonus"),
        ("{\"history\": [1, 0.001]}", "history"),
        ("{\"history\": [null]}", "history"),
        ("{\"history\": 1}", "history"),
        ("{\"inner\": {\"balance\": 0.00000001}}", "inner.balance"),
    ] {
        let answer = edge.post("/v1/credits", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{body}: {answer:?}");
        let error = answer.json();
        let sentence = error["error"]["message"].as_str().unwrap();
        assert!(sentence.starts_with(&format!("{field}: ")) && sentence.len() < 300, "{body}: {sentence}");
    }
    for (path, names) in [("/v1/credits/0.0000001", "path"), ("/v1/credits/1?bonus=x", "bonus")] {
        let answer = edge.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{path}");
        assert!(answer.text().contains(names), "{answer:?}");
    }
    assert!(edge.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn protobuf_clients_see_the_integer() {
    let edge = Edge::start().await;
    let wire = message("shop.v1.Credits", json!({"balance": 2_039_950_000_i64, "history": [1, -2]}));
    let (messages, trailers) = edge.web(false, "Account", &wire).await;
    assert_eq!(trailers["grpc-status"], "0");
    let back = to_json("shop.v1.Credits", &messages[0]);
    assert_eq!((&back["balance"], &back["history"]), (&json!(2_039_950_000_i64), &json!([1, -2])));
    let headers =
        [("content-type", "application/grpc-web"), ("authorization", &format!("Bearer {}", edge.token("ana")))];
    let answer = edge.call(Method::POST, "/shop.v1.ShopService/Account", &headers, frame(&wire)).await;
    assert_eq!(answer.status, 200);
}

/// What is wrong with an operator's service that has this field.
fn problem(field: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let source = format!(
        "syntax = \"proto3\"; package coins.v1; import \"weft/options/v1/policy.proto\";
        message Coins {{ {field} }} service CoinService {{ rpc Count(Coins) returns (Coins); }}"
    );
    std::fs::write(folder.path().join("coins.proto"), source).unwrap();
    let ours = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut compiler = protox::Compiler::new([folder.path(), &ours]).unwrap();
    compiler.include_imports(true).open_file("coins.proto").unwrap();
    let file = folder.path().join("coins.binpb");
    std::fs::write(&file, compiler.encode_file_descriptor_set()).unwrap();
    let config = Config {
        weft_edge_upstreams: "coins=http://127.0.0.1:1".to_owned(),
        weft_edge_descriptors: Some(file),
        ..Config::default()
    };
    config.check(&Products::builtin()).err().map(|errors| errors.to_string())
}

#[test]
fn decimals_of_anything_but_an_int64_are_refused_at_the_start() {
    let with =
        |kind: &str, decimals: u32| format!("{kind} amount = 1 [(weft.options.v1.json) = {{decimals: {decimals}}}];");
    for fine in [with("int64", 1), with("optional int64", 9), with("repeated int64", 6)] {
        assert_eq!(problem(&fine), None, "{fine}");
    }
    for wrong in [
        with("int32", 2),
        with("uint64", 2),
        with("sint64", 2),
        with("double", 2),
        with("string", 2),
        with("Coins", 2),
        with("map<string, int64>", 2),
        with("int64", 10),
        with("int64", 0),
        with("int64", 4_294_967_295),
    ] {
        let told = problem(&wrong).unwrap_or_default();
        assert!(told.contains("coins.v1.Coins.amount") && told.contains("int64"), "{wrong}: {told}");
    }
}
