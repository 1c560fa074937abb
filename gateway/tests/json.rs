//! JSON in and out.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{Edge, message, to_json};

#[tokio::test]
async fn an_order_is_priced() {
    let edge = Edge::start().await;
    let order = json!({"order_id": "o1", "customer": {"id": "c1", "name": "Ana \u{1f600}", "tags": ["a", "b"]}, "items": [{"sku": "s", "quantity": 2, "unit_price_micros": 5}], "labels": {"x": "y"}, "weightKg": 1.5});
    let answer = edge.post("/v1/orders:price", order.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    let expected = json!({"order_id": "o1", "customer": {"id": "c1", "name": "Ana \u{1f600}", "tags": ["a", "b"]}, "items": [{"sku": "s", "quantity": 2, "unit_price_micros": 5}],
        "total_micros": 9_007_199_254_740_993_i64, "status": "STATUS_PRICED", "labels": {"x": "y"}, "express": false, "weight_kg": 1.5});
    assert_eq!(answer.json(), expected);
}

/// What every kind of field looks like; the second JSON is what comes back.
#[tokio::test]
async fn every_kind_of_field_goes_in_and_out_as_the_reference_has_it() {
    let edge = Edge::start().await;
    for body in [
        json!({}),
        json!({"double": 1.25, "float": 0.25, "int32": -5, "int64": "-9223372036854775808", "uint32": 4_294_967_295_u32, "uint64": 18_446_744_073_709_551_615_u64}),
        json!({"sint32": -1, "sint64": -2, "fixed32": 3, "fixed64": "4", "sfixed32": -5, "sfixed64": -6, "bool": true, "string": "a\"\\\n\u{0}é\u{1f600}"}),
        json!({"bytes": "+/8=", "status": "STATUS_OPEN", "numbers": [1, 2, 300], "statuses": ["STATUS_PRICED", 1, 77], "strings": ["", "b"], "maybe": 0}),
        json!({"text": ""}),
        json!({"item": {"sku": "s"}}),
        json!({"nothing": null}),
        json!({"by_number": {"-3": {"quantity": 1}, "4": {}}, "by_bool": {"true": 2.0, "false": "NaN"}, "double": "Infinity", "float": "-Infinity"}),
        json!({"structure": {"a": [1, 2.5, null, true, "x", {"b": {}}], "c": {}}, "value": null, "list": [1, [], {}]}),
        json!({"value": {"deep": [1]}, "at": "2026-11-20T14:00:00.5Z", "wrapped": "w", "mask": "a,bC", "empty": {}}),
        json!({"inner": {"inner": {"int32": 1, "strings": ["x"]}, "int32": 2}, "camelName": "kept"}),
        json!({"int32": 1e3, "int64": 2.0, "uint64": "7", "string": null, "numbers": null, "item": null, "at": null}),
    ] {
        let answer = edge.post("/v1/echo", body.to_string()).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        let reference = to_json("shop.v1.Everything", &message("shop.v1.Everything", body.clone()));
        assert!(same(&answer.json(), &reference), "{body}:\n{}\n{reference}", answer.json());
    }
}

/// Equal, with 1 and 1.0 as the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_and_never_our_fault() {
    let edge = Edge::start().await;
    let deep = |name: &str, depth: usize| format!("{{\"{name}\":").repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    let structure = |depth: usize| format!("{{\"structure\":{}}}", deep("a", depth));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"{".to_vec(), ""),
        (b"[]".to_vec(), "expected an object"),
        (b"null".to_vec(), "expected an object"),
        (b"{} {}".to_vec(), "trailing"),
        (b"{\"strange\":1}".to_vec(), "`strange`"),
        (b"{\"inner\":{\"item\":{\"nope\":1}}}".to_vec(), "inner.item"),
        (b"{\"int32\":\"x\"}".to_vec(), "int32"),
        (b"{\"int32\":2147483648}".to_vec(), "int32"),
        (b"{\"int32\":1.5}".to_vec(), "int32"),
        (b"{\"uint32\":-1}".to_vec(), "uint32"),
        (b"{\"int32\":true}".to_vec(), "int32"),
        (b"{\"string\":5}".to_vec(), "string"),
        (b"{\"bool\":\"true\"}".to_vec(), "bool"),
        (b"{\"bool\":1}".to_vec(), "bool"),
        (b"{\"bytes\":\"*\"}".to_vec(), "bytes"),
        (b"{\"status\":\"STATUS_NOPE\"}".to_vec(), "status"),
        (b"{\"numbers\":5}".to_vec(), "numbers"),
        (b"{\"numbers\":[null]}".to_vec(), "numbers"),
        (b"{\"item\":[]}".to_vec(), "item"),
        (b"{\"by_number\":{\"x\":{}}}".to_vec(), "by_number"),
        (b"{\"by_number\":{\"1\":{},\"1\":{}}}".to_vec(), "twice"),
        (b"{\"int32\":1,\"int32\":2}".to_vec(), "twice"),
        (b"{\"camelName\":\"a\",\"camelName\":\"b\"}".to_vec(), "twice"),
        (b"{\"text\":\"a\",\"item\":{}}".to_vec(), "item"),
        (b"{\"at\":\"yesterday\"}".to_vec(), "at"),
        (b"{\"double\":NaN}".to_vec(), ""),
        (b"{\"double\":1e400}".to_vec(), "double"),
        (b"{\"double\":01}".to_vec(), ""),
        (b"{\"float\":1e39}".to_vec(), "float"),
        (b"{\"string\":\"\\ud800\"}".to_vec(), "string"),
        (b"{\"string\":\"\xff\"}".to_vec(), "string"),
        (b"{\"string\":\"\n\"}".to_vec(), "string"),
        (b"\xef\xbb\xbf{}".to_vec(), ""),
        (deep("inner", 65).into_bytes(), "64 levels"),
        // Three levels of protobuf for each of JSON: more than services decode.
        (structure(35).into_bytes(), "100 levels"),
        ("[".repeat(100_000).into_bytes(), ""),
        (format!("{{\"value\":{}", "[".repeat(100_000)).into_bytes(), "levels"),
        (format!("{{\"structure\":{}", "{\"a\":".repeat(100_000)).into_bytes(), "levels"),
        (format!("{{\"string\":{}}}", "9".repeat(5000)).into_bytes(), "string"),
    ];
    for (body, names) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = edge.post("/v1/echo", body).await;
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], "invalid_argument", "{shown}");
        assert_eq!(error["status"], "INVALID_ARGUMENT", "{shown}");
        assert_eq!(error["request_id"], answer.header("x-request-id"), "{shown}");
        let sentence = error["message"].as_str().unwrap();
        assert!(sentence.contains(names) && sentence.len() < 300, "{shown}: {sentence}");
    }
    assert_eq!(edge.post("/v1/echo", deep("inner", 64)).await.status, 200);
    assert_eq!(edge.post("/v1/echo", structure(34)).await.status, 200);
}

#[tokio::test]
async fn a_body_is_taken_up_to_the_limit_and_not_a_byte_more() {
    let edge = Edge::start().await;
    let body = |bytes: usize| format!("{{\"string\":\"{}\"}}", "a".repeat(bytes - "{\"string\":\"\"}".len()));
    assert_eq!(edge.post("/v1/echo", body(1024 * 1024)).await.status, 200);
    let answer = edge.post("/v1/echo", body(1024 * 1024 + 1)).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let answer =
            edge.call(Method::POST, "/v1/echo", &[("authorization", &bearer), ("content-type", kind)], "{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    let packed = edge
        .call(
            Method::POST,
            "/v1/echo",
            &[("authorization", &bearer), ("content-type", "application/json"), ("content-encoding", "gzip")],
            "{}",
        )
        .await;
    assert_eq!(packed.status, 415);
    let fine = edge
        .call(
            Method::POST,
            "/v1/echo",
            &[("authorization", &bearer), ("content-type", "Application/JSON; charset=utf-8")],
            "{}",
        )
        .await;
    assert_eq!(fine.status, 200);
    let empty = edge.call(Method::POST, "/v1/echo", &[("authorization", &bearer)], "").await;
    assert_eq!(empty.status, 200);
}

#[tokio::test]
async fn raw_bodies_pass_as_they_are() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let bytes: Vec<u8> = (0..=255).cycle().take(2 * 1024 * 1024).collect();
    let answer = edge
        .call(Method::POST, "/v1/raw", &[("authorization", &bearer), ("content-type", "image/png")], bytes.clone())
        .await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "image/png"));
    assert_eq!(answer.body, bytes);
    let answer = edge.get("/v1/raw?count=3").await;
    assert_eq!((answer.status, answer.header("content-type"), answer.text().as_str()), (200, "text/csv", "1\n2\n3\n"));
}

#[tokio::test]
async fn an_event_of_an_outside_party_arrives_byte_for_byte() {
    let edge = Edge::start().await;
    let odd = "{ \"id\" :\t\"evt_1\",\r\n\r\n  \"a\":1.0,\"a\":1e0 , \"u\":\"\\u00e9\u{e9}\" }\r\n\n ";
    let every: Vec<u8> = (0..=255).collect();
    let bodies = [odd.as_bytes(), &every, b"\xff\xfe not utf-8 \x80\r\n", b"\r\n", b"null", b"{", b""];
    let kinds = ["application/json", "application/json; charset=utf-8", "text/plain", "application/octet-stream", "x"];
    for body in bodies {
        for kind in kinds {
            let headers = [("content-type", kind), ("stripe-signature", "t=1,v1=aa,v1=bb")];
            for (path, shop, sequence) in [("/v1/events", "", 0), ("/v1/shops/a%20b/events/7", "a b", 7)] {
                let answer = edge.call(Method::POST, path, &headers, body.to_vec()).await;
                assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
                let data = STANDARD.encode(body);
                let expected = json!({"shop": shop, "sequence": sequence, "content_type": kind, "data": data});
                assert_eq!(answer.json(), expected, "{path}");
                assert_eq!(edge.seen.lock().unwrap().last().unwrap().1["stripe-signature"], "t=1,v1=aa,v1=bb");
            }
        }
    }
    let untyped = edge.call(Method::POST, "/v1/events", &[], "x").await;
    assert_eq!(untyped.json()["content_type"], "application/octet-stream");
}

#[tokio::test]
async fn an_event_is_taken_up_to_the_limit_and_not_a_byte_more() {
    let edge = Edge::with(|config| config.weft_edge_max_message_bytes = 100_000).await;
    for path in ["/v1/events", "/v1/shops/s/events/1"] {
        let call = async |bytes: usize| edge.call(Method::POST, path, &[], vec![b'\n'; bytes]).await;
        assert_eq!(call(100_000).await.status, 200, "{path}");
        let refused = call(100_001).await;
        assert_eq!((refused.status, refused.code().as_str()), (413, "payload_too_large"), "{path}");
    }
}

#[tokio::test]
async fn errors_have_one_shape_and_the_http_status_of_the_table() {
    let edge = Edge::start().await;
    for (body, http, code, status) in [
        (json!({"reason": "INSUFFICIENT_CREDITS"}), 402, "insufficient_credits", "RESOURCE_EXHAUSTED"),
        (json!({"reason": "FEATURE_NOT_IN_PLAN"}), 403, "feature_not_in_plan", "PERMISSION_DENIED"),
        (json!({"reason": "PRECONDITION_FAILED"}), 412, "precondition_failed", "FAILED_PRECONDITION"),
        (json!({"code": 5}), 404, "not_found", "NOT_FOUND"),
        (json!({"code": 6}), 409, "already_exists", "ALREADY_EXISTS"),
        (json!({"code": 2}), 500, "unknown", "UNKNOWN"),
    ] {
        let answer = edge.post("/v1/fail", body.to_string()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"], &error["status"]), (http, &json!(code), &json!(status)), "{body}");
        assert!(error["message"].as_str().unwrap().starts_with("told"), "{error}");
    }
    let answer = edge.post("/v1/fail", json!({"reason": "RATE_LIMITED", "retry_after_ms": 2500}).to_string()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "3"));
    let details = &answer.json()["error"]["details"];
    assert_eq!(
        details[0],
        json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMITED", "domain": "weft", "metadata": {}})
    );
    assert_eq!(details[1], json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "2.5s"}));
}
