//! How answers on WebSockets are stopped, and how sockets end by themselves.
use std::time::{Duration, Instant};

use serde_json::json;
use weft_testing::eventually;

use crate::harness::{Edge, TALK_OVER};
use crate::websocket::{HANGING, PATIENCE, Socket, try_open, until_over};

const CANCEL: &str = "{\"cancel\": true}";
const STOP: &str = "/shop.v1.ShopService/StopTalk";

/// How many answers were stopped.
fn stopped(edge: &Edge) -> usize {
    edge.seen.lock().unwrap().iter().filter(|(path, _)| path == "stopped run").count()
}

async fn until_stopped(edge: &Edge, count: usize) {
    eventually("the answer stopped", PATIENCE, || async { stopped(edge) == count }).await;
}

#[tokio::test]
async fn to_cancel_an_answer_stops_it_in_any_dialect_and_to_leave_does_not() {
    let edge = Edge::start().await;
    for (count, dialect) in ["weft.v1", "weft.events.v1"].into_iter().enumerate() {
        let mut socket = Socket::of(&edge, "ana", "/v1/talk", dialect).await;
        socket.say(HANGING).await;
        socket.text().await;
        socket.say(CANCEL).await;
        assert_eq!(socket.error().await, "cancelled");
        until_stopped(&edge, count + 1).await;
        // The socket goes on.
        socket.say(json!({"say": ["Hi"]})).await;
        socket.text().await;
    }
    let seen = edge.seen.lock().unwrap().clone();
    let (_, begun) = seen.iter().find(|(path, _)| path.ends_with("/Talk")).unwrap();
    let (_, stop) = seen.iter().find(|(path, _)| path == STOP).unwrap();
    for name in ["authorization", "x-weft-product", "x-request-id", "x-forwarded-for"] {
        assert_eq!(begun[name], stop[name], "{name}");
    }
    assert_eq!(stop["grpc-timeout"], "5S");

    for leaves_rudely in [false, true] {
        let before = edge.seen.lock().unwrap().iter().filter(|(path, _)| path == TALK_OVER).count();
        let mut socket = Socket::open(&edge).await;
        socket.say(HANGING).await;
        assert_eq!(socket.text().await, "Hi");
        if !leaves_rudely {
            socket.stream.close(None).await.unwrap();
        }
        drop(socket);
        until_over(&edge, before + 1).await;
    }
    assert_eq!(stopped(&edge), 2, "whoever only leaves may come back");
}

#[tokio::test]
async fn an_answer_is_stopped_before_it_says_anything_and_where_another_is_asked_for() {
    let edge = Edge::start().await;
    let mut socket = Socket::open(&edge).await;
    for count in 1..=5 {
        socket.say(json!({"say": [], "hang": true})).await;
        socket.say(CANCEL).await;
        assert_eq!(socket.error().await, "cancelled");
        until_stopped(&edge, count).await;
    }
    socket.say(HANGING).await;
    assert_eq!(socket.text().await, "Hi");
    socket.say(HANGING).await;
    assert_eq!((socket.error().await.as_str(), socket.close().await), ("failed_precondition", 1008));
    until_stopped(&edge, 6).await;
    // Who has no such RPC is hung up on.
    until_over(&edge, 6).await;
    let mut socket = Socket::of(&edge, "ana", "/v1/complete", "").await;
    socket.say(HANGING).await;
    assert_eq!(socket.json().await["response"], "Hi");
    socket.say(CANCEL).await;
    assert_eq!(socket.json().await["error"]["code"], "cancelled");
    until_over(&edge, 7).await;
    assert_eq!(stopped(&edge), 6);
}

#[tokio::test]
async fn an_old_socket_is_closed_where_nothing_runs() {
    let edge = Edge::with(|config| config.weft_edge_connection_age_ms = 500).await;
    let begun = Instant::now();
    let mut busy = Socket::open(&edge).await;
    busy.say(HANGING).await;
    assert_eq!(busy.text().await, "Hi");
    let mut idle = Socket::open(&edge).await;
    assert_eq!(idle.close().await, 1001);
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    busy.say(CANCEL).await;
    assert_eq!(
        (busy.error().await.as_str(), busy.close().await),
        ("cancelled", 1001),
        "not in the middle of an answer"
    );
}

#[tokio::test]
async fn a_socket_ends_with_its_token_where_nothing_runs() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token_for("ana", 3));
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let Ok(socket) = try_open(&edge, "/v1/talk", &[("authorization", &bearer)]).await else { panic!("refused") };
        sockets.push(socket);
    }
    let (mut busy, mut idle) = (sockets.remove(0), sockets.remove(0));
    busy.say(HANGING).await;
    assert_eq!(busy.text().await, "Hi");
    assert_eq!((idle.error().await.as_str(), idle.close().await), ("unauthenticated", 1008));
    busy.say(CANCEL).await;
    assert_eq!(busy.error().await, "cancelled", "not in the middle of an answer");
    assert_eq!((busy.error().await.as_str(), busy.close().await), ("unauthenticated", 1008));
}

#[tokio::test]
async fn a_client_that_lags_behind_hears_why_its_socket_ends() {
    let edge = Edge::start().await;
    let mut socket = Socket::open(&edge).await;
    socket.say(json!({"say": ["x".repeat(100_000)], "times": 300})).await;
    // It reads nothing. That its window is full by then cannot be seen from outside.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!edge.seen.lock().unwrap().iter().any(|(path, _)| path == TALK_OVER), "more to come");
    edge.revoke("ana", false);
    until_over(&edge, 1).await;
    let code = loop {
        if let Err(code) = socket.hear().await {
            break code;
        }
    };
    assert_eq!(code, 1008);
}
