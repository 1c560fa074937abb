//! gRPC and grpc-web.
use bytes::Bytes;
use http::Method;
use serde_json::json;
use tonic::Code;
use weft_core::Reason;

use crate::harness::{Edge, Raw, frame, message, to_json};

#[tokio::test]
async fn one_call_has_one_answer_in_every_protocol() {
    let edge = Edge::start().await;
    let order = json!({"order_id": "o1", "items": [{"sku": "a", "quantity": 2}]});
    let over_json = edge.post("/v1/orders:price", order.to_string()).await.json();
    let wire = message("shop.v1.Order", order);
    for text in [false, true] {
        let (messages, trailers) = edge.web(text, "Price", &wire).await;
        assert_eq!((messages.len(), trailers["grpc-status"].as_str()), (1, "0"));
        assert_eq!(to_json("shop.v1.Order", &messages[0])["total_micros"], over_json["total_micros"]);
    }
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let answer =
        client.unary(edge.signed(Bytes::from(wire)), "/shop.v1.ShopService/Price".parse().unwrap(), Raw).await.unwrap();
    assert!(answer.metadata().contains_key("x-request-id"));
    assert_eq!(to_json("shop.v1.Order", &answer.into_inner())["items"], over_json["items"]);
}

#[tokio::test]
async fn one_error_is_the_same_in_every_protocol() {
    let edge = Edge::start().await;
    let body = json!({"reason": "INSUFFICIENT_CREDITS"});
    assert_eq!(edge.post("/v1/fail", body.to_string()).await.code(), "insufficient_credits");
    let wire = message("shop.v1.FailRequest", body);
    let (messages, trailers) = edge.web(true, "Fail", &wire).await;
    assert_eq!((messages.len(), trailers["grpc-status"].as_str()), (0, "8"));
    assert_eq!(trailers["grpc-message"], "told%20%E2%80%9Cso%E2%80%9D");
    let status = call(&edge, "Fail", wire).await.unwrap_err();
    assert_eq!(
        (status.code(), Reason::of(&status), status.message()),
        (Code::ResourceExhausted, Some(Reason::InsufficientCredits), "told “so”")
    );
}

async fn call(edge: &Edge, rpc: &str, wire: Vec<u8>) -> Result<Bytes, tonic::Status> {
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let path = format!("/shop.v1.ShopService/{rpc}").parse().unwrap();
    client.unary(edge.signed(Bytes::from(wire)), path, Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn requests_stream_over_grpc() {
    let edge = Edge::start().await;
    let ticks: Vec<Bytes> =
        (1..=1000).map(|number| message("shop.v1.Tick", json!({"number": number})).into()).collect();
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let answer = client
        .client_streaming(edge.signed(tokio_stream::iter(ticks)), "/shop.v1.ShopService/Sum".parse().unwrap(), Raw)
        .await
        .unwrap();
    assert_eq!(to_json("shop.v1.Tick", &answer.into_inner()), json!({"number": 500_500}));
    let (_, trailers) = edge.web(false, "Sum", &[]).await;
    assert_eq!(trailers["grpc-status"], "12");
}

#[tokio::test]
async fn a_message_is_taken_up_to_the_limit_and_not_a_byte_more() {
    const LIMIT: usize = 4 * 1024 * 1024;
    let edge = Edge::start().await;
    // Tag and length take five bytes.
    let wire = |bytes: usize| message("shop.v1.Everything", json!({"string": "a".repeat(bytes - 5)}));
    assert_eq!(wire(LIMIT).len(), LIMIT);
    assert_eq!(call(&edge, "Echo", wire(LIMIT)).await.unwrap().len(), LIMIT);
    let status = call(&edge, "Echo", wire(LIMIT + 1)).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::ResourceExhausted, Some(Reason::PayloadTooLarge)));
    for text in [false, true] {
        let (messages, trailers) = edge.web(text, "Echo", &wire(LIMIT)).await;
        assert_eq!((messages.len(), trailers["grpc-status"].as_str()), (1, "0"));
        let (_, trailers) = edge.web(text, "Echo", &wire(LIMIT + 1)).await;
        assert_eq!(trailers["grpc-status"], "8");
    }
    // Where requests stream, the length is seen before the message is there.
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let status = client
        .client_streaming(
            edge.signed(tokio_stream::iter([Bytes::from(wire(LIMIT + 1))])),
            "/shop.v1.ShopService/Sum".parse().unwrap(),
            Raw,
        )
        .await
        .unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::PayloadTooLarge));
}

#[tokio::test]
async fn what_is_wrong_with_a_grpc_request_is_told_and_never_our_fault() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let web = async |kind: &str, more: (&str, &str), body: Bytes| {
        edge.call(
            Method::POST,
            "/shop.v1.ShopService/Echo",
            &[("authorization", &bearer), ("content-type", kind), more],
            body,
        )
        .await
    };
    let none = ("x-grpc-web", "1");
    let kind = "application/grpc-web+proto";
    for (body, code) in [
        (Bytes::new(), "3"),
        (Bytes::from_static(&[0, 0, 0]), "3"),
        (Bytes::from_static(&[0, 0, 0, 0, 9, 1]), "3"),
        (Bytes::from_static(&[1, 0, 0, 0, 0]), "12"),
        (Bytes::from_static(&[9, 0, 0, 0, 0]), "3"),
        (frame(&[0xff; 20]), "3"),
        (frame(&[0x72, 1, 0xff]), "3"),
        (frame(&[0x18, 0xff]), "3"),
        (frame(&[0x1a, 0]), "3"),
        (frame(&nested(101)), "3"),
    ] {
        let answer = web(kind, none, body.clone()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, code), "{body:?}");
    }
    let text = web("application/grpc-web-text", none, Bytes::from_static(b"!!!!")).await;
    assert_eq!(text.header("grpc-status"), "3");
    let metadata = web(kind, ("x-key-bin", "***"), frame(&[])).await;
    assert_eq!(metadata.header("grpc-status"), "3");
    let compressed = web(kind, ("grpc-encoding", "gzip"), frame(&[])).await;
    assert_eq!(compressed.header("grpc-status"), "12");
    assert_eq!(web("application/grpc-web+json", none, frame(&[])).await.status, 415);
    assert_eq!(web("application/grpc", none, frame(&[])).await.status, 415);
    let get = edge.call(Method::GET, "/shop.v1.ShopService/Echo", &[("content-type", kind)], "").await;
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    for path in [
        "/shop.v1.ShopService/Nope",
        "/shop.v1.ShopService/echo",
        "/shop.v1.ShopService/Echo/",
        "//shop.v1.ShopService/Echo",
        "/shop.v1.Shop%53ervice/Echo",
        "/weft.storage.v1.X/Y",
    ] {
        let answer =
            edge.call(Method::POST, path, &[("authorization", &bearer), ("content-type", kind)], frame(&[])).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"), "{path}");
    }
}

/// `inner` inside `inner`.
fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _level| {
        let mut outer = vec![0x8a, 2];
        let length = inner.len();
        if length > 127 {
            outer.push((length & 127) as u8 | 128);
        }
        outer.push(if length > 127 { (length >> 7) as u8 } else { length as u8 });
        outer.extend(inner);
        outer
    })
}

#[tokio::test]
async fn what_services_can_decode_passes() {
    let edge = Edge::start().await;
    let (_, trailers) = edge.web(false, "Echo", &nested(100)).await;
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn tools_find_health_and_reflection_at_the_edge() {
    let edge = Edge::start().await;
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let health = client
        .unary(tonic::Request::new(Bytes::new()), "/grpc.health.v1.Health/Check".parse().unwrap(), Raw)
        .await
        .unwrap();
    assert_eq!(health.into_inner(), [8, 1].as_slice());
    for version in ["v1", "v1alpha"] {
        client.ready().await.unwrap();
        // `list_services` is field 7.
        let list = tokio_stream::iter([Bytes::from_static(&[0x3a, 0])]);
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo").parse().unwrap();
        let mut answers = client.streaming(tonic::Request::new(list), path, Raw).await.unwrap().into_inner();
        let services = String::from_utf8_lossy(&answers.message().await.unwrap().unwrap()).into_owned();
        for service in ["shop.v1.ShopService", "weft.identity.v1.AuthService"] {
            assert!(services.contains(service), "{version}: {services}");
        }
    }
}
