//! From a path and a query to an RPC and its fields.
use http::Method;
use serde_json::json;

use crate::harness::Edge;

#[tokio::test]
async fn a_path_fills_fields_and_the_more_literal_one_wins() {
    let edge = Edge::start().await;
    for (path, id, customer) in [
        ("/v1/orders/o1", "GetOrder:o1:", ""),
        ("/v1/orders/newest", "Newest::", ""),
        ("/v1/orders/a%20b%3Ac", "GetOrder:a b:c:", ""),
        ("/v1/orders/x:y", "GetOrder:x:y:", ""),
        ("/v1/customers/c%2Bd/orders/o2", "GetOrder:o2:", "c+d"),
        ("/v1/shelves/s1/latest", "GetOrder::shelves/s1", ""),
        ("/v1/files/a/b/c.txt", "GetOrder::a/b/c.txt", ""),
    ] {
        let answer = edge.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let order = answer.json();
        assert_eq!((&order["order_id"], &order["customer"]["id"]), (&json!(id), &json!(customer)), "{path}");
    }
}

#[tokio::test]
async fn paths_that_do_not_exist_are_never_taken_for_others() {
    let edge = Edge::start().await;
    for path in [
        "/",
        "/v1",
        "/v1/orders/",
        "/v1//orders/o1",
        "/v1/orders//o1",
        "/V1/orders/o1",
        "/v1/orders/o1/",
        "/v1/orders/o1/x",
        "/v1/orders/..",
        "/v1/orders/%2e%2e",
        "/v1/orders:prices",
        "/v1/files/",
    ] {
        let answer = edge.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    for path in [
        "/v1/orders/a%2Fb",
        "/v1/orders/%",
        "/v1/orders/%zz",
        "/v1/orders/%ff",
        "/v1/orders/a%5Cb",
        "/v1/orders/%00",
        "/v1%2Forders/o1",
    ] {
        let answer = edge.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{path}");
    }
    assert!(edge.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_method_is_405_with_those_that_are_allowed() {
    let edge = Edge::start().await;
    for (method, path, allow) in [
        (Method::GET, "/v1/orders:price", "POST"),
        (Method::POST, "/v1/orders/o1", "DELETE, GET, PUT"),
        (Method::PATCH, "/v1/orders/newest", "DELETE, GET, PUT"),
        (Method::OPTIONS, "/v1/search", "GET"),
        (Method::POST, "/health", "GET, HEAD"),
    ] {
        let answer = edge.call(method.clone(), path, &[], "").await;
        assert_eq!(
            (answer.status, answer.code().as_str(), answer.header("allow")),
            (405, "method_not_allowed", allow),
            "{method} {path}"
        );
    }
    let bearer = format!("Bearer {}", edge.token("ana"));
    let head = edge.call(Method::HEAD, "/v1/orders/o1", &[("authorization", &bearer)], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn a_body_may_be_one_field_and_so_may_an_answer() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let put = edge
        .call(Method::PUT, "/v1/orders/42?dry_run=true", &headers, json!({"order_id": "o"}).to_string())
        .await
        .json();
    assert_eq!((&put["id"], &put["order"]["order_id"], &put["dry_run"]), (&json!(42), &json!("o"), &json!(true)));
    let items = edge.post("/v1/items", json!([{"sku": "a"}, {"sku": "b"}]).to_string()).await.json();
    assert_eq!(
        items,
        json!([{"sku": "a", "quantity": 0, "unit_price_micros": 0}, {"sku": "b", "quantity": 0, "unit_price_micros": 0}])
    );
    assert_eq!(edge.call(Method::PUT, "/v1/orders/nan", &headers, "{}").await.status, 400);
    let wrong = edge.call(Method::PUT, "/v1/orders/1", &headers, "{\"nope\":1}").await;
    assert!(wrong.json()["error"]["message"].as_str().unwrap().contains("order"), "{wrong:?}");
    assert_eq!(edge.call(Method::DELETE, "/v1/orders/1", &headers[..1], "").await.json(), json!({}));
}

#[tokio::test]
async fn a_query_fills_fields() {
    let edge = Edge::start().await;
    let answer = edge.get("/v1/search?tags=a&tags=b+c%26&filter.text=x%3Dy&filter.weight=1.5&min=-7&open=true&since=2026-11-20T14:00:00Z&numbers=1&numbers=300&status=STATUS_OPEN&limit=9&key=-_8").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"tags": ["a", "b c&"], "filter": {"text": "x=y", "weight": 1.5}, "min": -7, "open": true, "since": "2026-11-20T14:00:00Z", "numbers": [1, 300], "status": "STATUS_OPEN", "limit": 9, "key": "+/8=", "labels": {}})
    );
    for (query, names) in [
        ("nope=1", "nope"),
        ("filter.nope=1", "filter.nope"),
        ("filter=1", "filter"),
        ("min=x", "min"),
        ("min=1&min=2", "min"),
        ("open=1", "open"),
        ("tags=%zz", "escape"),
        ("tags=%ff", "escape"),
        ("status=NOPE", "status"),
        ("since=yesterday", "since"),
        ("labels=x", "labels"),
        ("key=*", "key"),
    ] {
        let answer = edge.get(&format!("/v1/search?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let sentence = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(sentence.contains(names), "{query}: {sentence}");
    }
    assert_eq!(edge.post("/v1/echo?int32=1", "{}").await.status, 400);
    assert_eq!(edge.get("/v1/orders/o1?order_id=o2").await.status, 400);
}
