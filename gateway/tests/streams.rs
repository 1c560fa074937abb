//! Server streams in every protocol: three messages and then an error.
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::harness::{Edge, Raw, message, to_json};

fn numbers(messages: &[Bytes]) -> Vec<i64> {
    messages.iter().map(|message| to_json("shop.v1.Tick", message)["number"].as_i64().unwrap()).collect()
}

/// The events of a stream: name (`message` if it has none) and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    blocks
        .map(|block| {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            (field("event: ").unwrap_or("message").to_owned(), serde_json::from_str(field("data: ").unwrap()).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_stream_is_one_event_a_message() {
    let edge = Edge::start().await;
    let answer = edge.get("/v1/watch?count=3").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    let told: Vec<(String, Value)> = (1..=3).map(|number| ("message".to_owned(), json!({"number": number}))).collect();
    assert_eq!(events(&answer.text()), told);
    assert_eq!(edge.get("/v1/watch").await.text(), "");
}

#[tokio::test]
async fn an_error_after_three_messages_shows_three_messages_and_the_error() {
    let edge = Edge::start().await;
    let request = message("shop.v1.WatchRequest", json!({"fail_after": 3}));

    let told = events(&edge.get("/v1/watch?fail_after=3").await.text());
    assert_eq!(told.len(), 4);
    assert_eq!(told[2], ("message".to_owned(), json!({"number": 3})));
    assert_eq!(
        (told[3].0.as_str(), &told[3].1["error"]["code"], &told[3].1["error"]["status"]),
        ("error", &json!("provider_stream_interrupted"), &json!("UNAVAILABLE"))
    );

    for text in [false, true] {
        let (messages, trailers) = edge.web(text, "Watch", &request).await;
        assert_eq!(numbers(&messages), [1, 2, 3]);
        assert_eq!(
            (trailers["grpc-status"].as_str(), trailers["grpc-message"].as_str()),
            ("14", "the%20provider%20broke%20off")
        );
        assert!(trailers.contains_key("grpc-status-details-bin"));
    }

    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let path = "/shop.v1.ShopService/Watch".parse().unwrap();
    let mut stream = client.server_streaming(edge.signed(Bytes::from(request)), path, Raw).await.unwrap().into_inner();
    for number in 1..=3 {
        assert_eq!(numbers(&[stream.next().await.unwrap().unwrap()]), [number]);
    }
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), weft_core::Reason::of(&status)),
        (Code::Unavailable, Some(weft_core::Reason::ProviderStreamInterrupted))
    );
}

#[tokio::test]
async fn an_error_before_the_first_message_is_a_plain_error() {
    let edge = Edge::start().await;
    let answer = edge.get("/v1/watch?count=-1").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"));
    let (messages, trailers) = edge.web(false, "Watch", &message("shop.v1.WatchRequest", json!({"count": -1}))).await;
    assert_eq!((messages.len(), trailers["grpc-status"].as_str()), (0, "3"));
}

#[tokio::test]
async fn messages_arrive_while_the_stream_goes_on() {
    let edge = Edge::start().await;
    let stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(Method::GET)
        .uri("/v1/watch?count=2&hang=true")
        .header("host", "x")
        .header("authorization", format!("Bearer {}", edge.token("ana")))
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    let mut body = client.send_request(request).await.unwrap().into_body();
    let mut text = String::new();
    while events(&text).len() < 2 || !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(body.frame().await.unwrap().unwrap().data_ref().unwrap()).unwrap());
    }
    assert_eq!(events(&text).len(), 2);
}

#[tokio::test]
async fn an_open_stream_ends_within_a_second_when_its_session_does_or_its_account_is_suspended() {
    let edge = Edge::start().await;
    let request = || Bytes::from(message("shop.v1.WatchRequest", json!({"count": 1, "hang": true})));
    for (user, suspended, reason) in
        [("ana", false, weft_core::Reason::Unauthenticated), ("bob", true, weft_core::Reason::AccountSuspended)]
    {
        let token = format!("Bearer {}", edge.token(user));
        let mut client = edge.grpc().await;
        client.ready().await.unwrap();
        let mut signed = tonic::Request::new(request());
        signed.metadata_mut().insert("authorization", token.parse().unwrap());
        let path = "/shop.v1.ShopService/Watch".parse().unwrap();
        let mut stream = client.server_streaming(signed, path, Raw).await.unwrap().into_inner();
        assert_eq!(numbers(&[stream.next().await.unwrap().unwrap()]), [1]);
        let headers = [("authorization", token.as_str())];
        let answer = edge.call(Method::GET, "/v1/watch?count=1&hang=true", &headers, "");

        let ended = async {
            edge.revoke(user, suspended);
            tokio::time::timeout(Duration::from_secs(1), stream.next()).await.expect("it ends within a second")
        };
        let (answer, ended) = tokio::join!(answer, ended);
        assert_eq!(weft_core::Reason::of(&ended.unwrap().unwrap_err()), Some(reason));
        let told = events(&answer.text());
        assert_eq!(told.last().unwrap().1["error"]["code"], reason.as_str().to_lowercase(), "{told:?}");
        let again = edge.call(Method::GET, "/v1/watch?count=1", &headers, "").await;
        assert_eq!(again.status, reason.http());
    }
}
