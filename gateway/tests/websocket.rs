//! WebSockets: handshakes, frames, limits, and every way in which one ends.
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use weft_testing::eventually;

use crate::harness::{Edge, LIMITED, TALK_OVER};

pub const PATIENCE: Duration = Duration::from_secs(5);
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;
const OPCODE_TEXT: u8 = 1;
const OPCODE_CONTINUE: u8 = 0;
const OPCODE_PONG: u8 = 10;

/// A client behind its handshake.
pub struct Socket {
    pub stream: WebSocketStream<TcpStream>,
    /// What the server answered to the handshake.
    head: String,
}

/// What came instead of a socket: head and body.
#[derive(Debug)]
pub struct Refused {
    head: String,
    body: String,
}

impl Refused {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// A handshake like a browser's, with these headers besides.
fn handshake(path: &str, headers: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("host", "x"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
    ];
    lines.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
    lines.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}

/// Sends a request and reads the head of its answer, to the byte.
async fn ask(edge: &Edge, request: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    // A client that reads nothing is soon full.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    let mut stream = socket.connect(edge.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

pub async fn try_open(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Refused> {
    let (mut stream, head) = ask(edge, &handshake(path, headers)).await;
    if head.starts_with("http/1.1 101") {
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        return Ok(Socket { stream, head });
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    Err(Refused { head, body: String::from_utf8(body).unwrap() })
}

async fn refused(edge: &Edge, path: &str, headers: &[(&str, &str)]) -> Refused {
    match try_open(edge, path, headers).await {
        Ok(socket) => panic!("{path} {headers:?}: {}", socket.head),
        Err(refused) => refused,
    }
}

impl Socket {
    /// A socket of `user`.
    pub async fn of(edge: &Edge, user: &str, path: &str, protocols: &str) -> Socket {
        let bearer = format!("Bearer {}", edge.token(user));
        let opened = try_open(edge, path, &[("authorization", &bearer), ("sec-websocket-protocol", protocols)]).await;
        opened.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// A socket of `ana` with plain frames.
    pub async fn open(edge: &Edge) -> Socket {
        Socket::of(edge, "ana", "/v1/talk", "").await
    }

    pub async fn say(&mut self, text: impl ToString) {
        self.stream.send(Message::text(text.to_string())).await.unwrap();
    }

    /// The next text, or the close code.
    pub async fn hear(&mut self) -> Result<String, u16> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await.unwrap();
            match next {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    pub async fn text(&mut self) -> String {
        self.hear().await.unwrap_or_else(|code| panic!("closed: {code}"))
    }

    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The code of the error that comes next.
    pub async fn error(&mut self) -> String {
        let told = self.json().await;
        told["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {told}")).to_owned()
    }

    /// The close code that comes next.
    pub async fn close(&mut self) -> u16 {
        match self.hear().await {
            Ok(text) => panic!("not closed: {text}"),
            Err(code) => code,
        }
    }

    /// A frame as it stands on the wire, masked with zeros.
    async fn raw(&mut self, first: u8, announced: usize, payload: &[u8]) {
        let mut frame = vec![first];
        match announced {
            0..=125 => frame.push(0x80 | announced as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((announced as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((announced as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        // A server that has had enough takes no more.
        let _sent = self.stream.get_mut().write_all(&frame).await;
    }
}

/// How many answers are over.
fn over(edge: &Edge) -> usize {
    edge.seen.lock().unwrap().iter().filter(|(path, _)| path == TALK_OVER).count()
}

pub async fn until_over(edge: &Edge, count: usize) {
    eventually("the call cancelled", PATIENCE, || async { over(edge) == count }).await;
}

pub const HANGING: &str = r#"{"say": ["Hi"], "hang": true}"#;

#[tokio::test]
async fn plain_frames_are_the_text_and_then_the_whole() {
    let edge = Edge::start().await;
    let mut socket = Socket::of(&edge, "ana", "/v1/rooms/blue/talk", "").await;
    assert!(!socket.head.contains("sec-websocket-protocol") && !socket.head.contains("sec-websocket-extensions"));
    assert!(socket.head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{}", socket.head);
    socket.say(json!({"say": ["Hi", " {\"done\":true}", "{", "{}"]})).await;
    for piece in ["Hi", " {", "\"done\":true}", "{", "{", "}"] {
        assert_eq!(socket.text().await, piece);
    }
    let whole = "Hi {\"done\":true}{{}";
    assert_eq!(socket.text().await, json!({"done": true, "response": whole, "room": "blue"}).to_string());
    // The next one on the same socket, sent before the last one's end can be known.
    for number in 0..20 {
        socket.say(json!({"say": [number.to_string()]})).await;
        assert_eq!(socket.text().await, number.to_string());
        assert_eq!(socket.json().await["response"], number.to_string());
    }
    socket.say(json!({"say": ["Hi"], "fail_after": 1})).await;
    assert_eq!((socket.text().await.as_str(), socket.error().await.as_str()), ("Hi", "provider_stream_interrupted"));
    for wrong in ["Hi", "{\"say\": 1}", "{\"nonsense\": 1}", "{\"last_event_id\": \"run.1\"}"] {
        socket.say(wrong).await;
        assert_eq!(socket.error().await, "invalid_argument", "{wrong}");
    }
    socket.stream.close(None).await.unwrap();
    assert!(matches!(socket.stream.next().await, Some(Ok(Message::Close(_))) | None));
    let metrics = edge.get("/metrics").await.text();
    assert!(
        metrics.contains(r#"weft_edge_requests_total{rpc="shop.v1.ShopService/Talk",protocol="websocket",code="OK"}"#)
    );
}

#[tokio::test]
async fn events_have_ids_and_go_on_behind_the_last_one() {
    let edge = Edge::start().await;
    let mut socket = Socket::of(&edge, "ana", "/v1/talk", "other, weft.events.v1, weft.v1").await;
    assert!(socket.head.contains("sec-websocket-protocol: weft.events.v1\r\n"), "{}", socket.head);
    socket.say(json!({"say": ["{}", "b"]})).await;
    assert_eq!(socket.json().await, json!({"token": "{}", "id": "run.0"}));
    assert_eq!(socket.json().await, json!({"token": "b", "id": "run.1"}));
    assert_eq!(socket.json().await, json!({"done": {"response": "{}b", "room": ""}, "id": "run.2"}));
    drop(socket);

    let mut socket = Socket::of(&edge, "ana", "/v1/talk", "weft.events.v1").await;
    for wrong in
        [json!({"last_event_id": ""}), json!({"last_event_id": "x".repeat(129)}), json!({"last_event_id": "a b"})]
    {
        socket.say(&wrong).await;
        assert_eq!(socket.error().await, "invalid_argument", "{wrong}");
    }
    socket.say(json!({"last_event_id": "run.1"})).await;
    assert_eq!(socket.json().await, json!({"token": "ain", "id": "run.2"}));
    assert_eq!(socket.json().await["done"]["response"], "again");
    let seen = edge.seen.lock().unwrap().clone();
    let calls: Vec<_> = seen.iter().filter(|(path, _)| path.ends_with("/Talk")).collect();
    assert_eq!(calls.len(), 2, "what is no id never went inward");
    assert_eq!(calls[1].1["last-event-id"], "run.1");
    assert_ne!(calls[0].1["x-request-id"], calls[1].1["x-request-id"]);
    assert!(!calls[1].1.contains_key("sec-websocket-protocol") && !calls[1].1.contains_key("upgrade"));
}

#[tokio::test]
async fn a_token_and_a_product_may_come_as_subprotocols() {
    let edge = Edge::start().await;
    let token = edge.token_of("ana", "cofounder");
    let offered = format!("weft.bearer.{token}, weft.product.cofounder, weft.v1");
    let opened = try_open(&edge, "/v1/talk", &[("sec-websocket-protocol", &offered)]).await;
    let Ok(mut socket) = opened else { panic!("{:?}", opened.err()) };
    assert!(socket.head.contains("sec-websocket-protocol: weft.v1\r\n"), "{}", socket.head);
    assert!(!socket.head.contains("weft.bearer"));
    socket.say(json!({"say": ["Hi"]})).await;
    assert_eq!(socket.text().await, "Hi");
    let seen = edge.seen.lock().unwrap().clone();
    let (_, headers) = seen.iter().find(|(path, _)| path.ends_with("/Talk")).unwrap();
    assert_eq!(
        (&headers["x-weft-product"], headers["authorization"].to_str().unwrap()),
        (&"cofounder".parse().unwrap(), &*format!("Bearer {token}"))
    );

    let bearer = format!("Bearer {token}");
    for (headers, status, code) in [
        (vec![("sec-websocket-protocol", "weft.bearer.nonsense, weft.v1")], 401, "unauthenticated"),
        (vec![("sec-websocket-protocol", &*format!("weft.bearer.{token}, weft.v1"))], 403, "product_mismatch"),
        (vec![("sec-websocket-protocol", &*offered), ("authorization", &bearer)], 400, "invalid_argument"),
        (
            vec![("sec-websocket-protocol", &*format!("weft.bearer.{token},weft.bearer.{token}"))],
            400,
            "invalid_argument",
        ),
        (
            vec![("sec-websocket-protocol", "weft.product.nope, weft.v1"), ("authorization", &bearer)],
            400,
            "invalid_argument",
        ),
    ] {
        let refused = refused(&edge, "/v1/talk", &headers).await;
        assert_eq!((refused.status(), refused.code().as_str()), (status, code), "{headers:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused_as_http() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let elsewhere = format!("Bearer {}", edge.token_of("ana", "cofounder"));
    let ana = ("authorization", bearer.as_str());
    for (path, headers, status, code) in [
        ("/v1/talk", vec![], 401, "unauthenticated"),
        ("/v1/talk", vec![("authorization", "Bearer nonsense")], 401, "unauthenticated"),
        ("/v1/talk", vec![("authorization", elsewhere.as_str())], 403, "product_mismatch"),
        ("/v1/talk", vec![ana, ("sec-websocket-version", "")], 426, "invalid_argument"),
        ("/v1/talk", vec![ana, ("sec-websocket-version", "8")], 426, "invalid_argument"),
        ("/v1/talk", vec![ana, ("sec-websocket-key", "")], 400, "invalid_argument"),
        ("/v1/talk", vec![ana, ("sec-websocket-key", "c2hvcnQ=")], 400, "invalid_argument"),
        ("/v1/talk", vec![ana, ("sec-websocket-key", "***")], 400, "invalid_argument"),
        ("/v1/talk", vec![ana, ("connection", "keep-alive")], 400, "invalid_argument"),
        ("/v1/talk", vec![ana, ("content-length", "2")], 400, "invalid_argument"),
        ("/v1/talk", vec![ana, ("origin", "https://evil.example")], 403, "permission_denied"),
        ("/v1/talk", vec![ana, ("origin", "null")], 403, "permission_denied"),
        ("/v1/talk?access_token=x", vec![ana], 400, "invalid_argument"),
        ("/v1/talk?room=x", vec![ana], 400, "invalid_argument"),
        ("/v1/echo", vec![ana], 405, "method_not_allowed"),
        ("/v1/nothing", vec![ana], 404, "not_found"),
        // No upgrade at all.
        ("/v1/talk", vec![ana, ("upgrade", "")], 405, "method_not_allowed"),
        ("/v1/talk", vec![ana, ("upgrade", "h2c")], 405, "method_not_allowed"),
    ] {
        let refused = refused(&edge, path, &headers).await;
        assert_eq!((refused.status(), refused.code().as_str()), (status, code), "{path} {headers:?}");
        assert_eq!(refused.head.contains("sec-websocket-version: 13\r\n"), status == 426, "{refused:?}");
    }
    // Other paths do as if nobody had asked, and the connection goes on with HTTP.
    let answer = refused(&edge, "/v1/hello", &[]).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "{\"number\":1}"));
    let pages = [ana, ("origin", "http://localhost:5173")];
    assert!(try_open(&edge, "/v1/talk", &pages).await.is_ok(), "pages that may call may talk");
    assert!(edge.seen.lock().unwrap().iter().all(|(path, _)| !path.ends_with("/Talk")));
    let metrics = edge.get("/metrics").await.text();
    assert!(
        metrics.contains(r#"rpc="shop.v1.ShopService/Talk",protocol="websocket",code="UNAUTHENTICATED"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_is_no_request_ends_the_socket_with_its_code() {
    let edge = Edge::with(|config| config.weft_edge_max_json_bytes = 1000).await;
    let large = "x".repeat(1001);

    let mut socket = Socket::open(&edge).await;
    socket.stream.send(Message::binary(&b"{}"[..])).await.unwrap();
    assert_eq!(socket.close().await, 1003);

    let mut socket = Socket::open(&edge).await;
    socket.say(&large).await;
    assert_eq!(socket.close().await, 1009);
    // By its announcement alone.
    let mut socket = Socket::open(&edge).await;
    socket.raw(0x80 | OPCODE_TEXT, usize::MAX >> 1, b"").await;
    assert_eq!(socket.close().await, 1009);
    // In fragments, with and without something in them.
    let mut socket = Socket::open(&edge).await;
    socket.raw(OPCODE_TEXT, 900, &[b'x'; 900]).await;
    socket.raw(OPCODE_CONTINUE, 900, &[b'x'; 900]).await;
    assert_eq!(socket.close().await, 1009);

    let mut socket = Socket::open(&edge).await;
    socket.stream.get_mut().write_all(b"\x81\x02{}").await.unwrap();
    assert_eq!(socket.close().await, 1002, "unmasked");
    let mut socket = Socket::open(&edge).await;
    socket.raw(0xc0 | OPCODE_TEXT, 2, b"{}").await;
    assert_eq!(socket.close().await, 1002, "compressed, which nobody agreed to");
    let mut socket = Socket::open(&edge).await;
    socket.raw(0x80 | OPCODE_TEXT, 2, b"\xff\xff").await;
    assert_eq!(socket.close().await, 1007);

    // One that fits goes through, in fragments too.
    let mut socket = Socket::open(&edge).await;
    socket.raw(OPCODE_TEXT, 7, b"{\"say\":").await;
    socket.raw(0x80 | OPCODE_PONG, 0, b"").await;
    socket.raw(0x80 | OPCODE_CONTINUE, 7, b"[\"Hi\"]}").await;
    assert_eq!(socket.text().await, "Hi");
}

#[tokio::test]
async fn an_answer_can_be_stopped_and_only_one_runs_at_a_time() {
    let edge = Edge::start().await;
    let mut socket = Socket::open(&edge).await;
    // Nothing to stop.
    socket.say("{\"cancel\": true}").await;
    socket.say(HANGING).await;
    assert_eq!(socket.text().await, "Hi");
    socket.say("{\"cancel\": true}").await;
    assert_eq!(socket.error().await, "cancelled");
    until_over(&edge, 1).await;
    socket.say(HANGING).await;
    assert_eq!(socket.text().await, "Hi");
    socket.say(json!({"say": ["both"]})).await;
    assert_eq!((socket.error().await.as_str(), socket.close().await), ("failed_precondition", 1008));
    until_over(&edge, 2).await;
    let metrics = edge.get("/metrics").await.text();
    assert!(metrics.contains(r#"rpc="shop.v1.ShopService/Talk",protocol="websocket",code="CANCELLED"}"#), "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_cancels_the_call() {
    let edge = Edge::start().await;
    let mut polite = Socket::open(&edge).await;
    polite.say(HANGING).await;
    assert_eq!(polite.text().await, "Hi");
    polite.stream.close(None).await.unwrap();
    assert_eq!(polite.close().await, 1005);
    until_over(&edge, 1).await;
    let mut rude = Socket::open(&edge).await;
    rude.say(HANGING).await;
    assert_eq!(rude.text().await, "Hi");
    drop(rude);
    until_over(&edge, 2).await;
}

#[tokio::test]
async fn a_session_that_ends_ends_its_sockets_within_a_second() {
    let edge = Edge::start().await;
    for (user, suspended, code) in [("ana", false, "unauthenticated"), ("bob", true, "account_suspended")] {
        let mut idle = Socket::of(&edge, user, "/v1/talk", "").await;
        let mut busy = Socket::of(&edge, user, "/v1/talk", "weft.events.v1").await;
        busy.say(HANGING).await;
        assert_eq!(busy.json().await["token"], "Hi");
        edge.revoke(user, suspended);
        let told = async {
            for socket in [&mut idle, &mut busy] {
                assert_eq!((socket.error().await.as_str(), socket.close().await), (code, 1008));
            }
        };
        tokio::time::timeout(Duration::from_secs(1), told).await.expect("it ends within a second");
        let bearer = format!("Bearer {}", edge.token(user));
        let again = refused(&edge, "/v1/talk", &[("authorization", &bearer)]).await;
        assert_eq!(again.code(), code);
    }
    until_over(&edge, 2).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_answers_and_then_says_goodbye() {
    let edge = Edge::start().await;
    let mut idle = Socket::open(&edge).await;
    let mut busy = Socket::open(&edge).await;
    busy.say(HANGING).await;
    assert_eq!(busy.text().await, "Hi");
    let begun = Instant::now();
    edge.shutdown.trigger();
    assert_eq!(idle.close().await, 1001);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((busy.error().await.as_str(), busy.close().await), ("unavailable", 1001));
    assert!(begun.elapsed() > Duration::from_secs(1), "it was given time");
    drop((idle, busy));
    edge.served.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_given_up() {
    let edge = Edge::with(|config| config.weft_edge_ping_ms = 100).await;
    let mut alive = Socket::open(&edge).await;
    let pings = async {
        let mut count = 0;
        while count < 10 {
            let message = alive.stream.next().await.unwrap().unwrap();
            count += u32::from(matches!(message, Message::Ping(_)));
        }
    };
    tokio::time::timeout(PATIENCE, pings).await.unwrap();
    alive.say(json!({"say": ["Hi"]})).await;
    assert_eq!(alive.text().await, "Hi");

    let bearer = format!("Bearer {}", edge.token("ana"));
    let (mut mute, _) = ask(&edge, &handshake("/v1/talk", &[("authorization", &bearer)])).await;
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, mute.read_to_end(&mut said)).await.expect("given up").unwrap();
    // Two pings, and why.
    assert!(said.starts_with(b"\x89\x00\x89\x00\x88") && said.ends_with(b"unanswered"), "{said:?}");
}

#[tokio::test]
async fn frames_that_ask_nothing_are_counted_too() {
    let edge = Edge::start().await;
    let mut socket = Socket::open(&edge).await;
    let mut code = None;
    for _ in 0..1000 {
        if socket.stream.send(Message::Ping(Default::default())).await.is_err() {
            break;
        }
        if let Ok(Some(Ok(Message::Close(frame)))) =
            tokio::time::timeout(Duration::from_millis(1), socket.stream.next()).await
        {
            code = frame.map(|frame| u16::from(frame.code));
            break;
        }
    }
    let code = match code {
        Some(code) => code,
        None => socket.close().await,
    };
    assert_eq!(code, 1008);
}

#[tokio::test]
async fn a_message_that_trickles_is_given_up_although_pongs_come() {
    let edge = Edge::with(|config| config.weft_edge_body_timeout_ms = 400).await;
    let mut socket = Socket::open(&edge).await;
    socket.raw(OPCODE_TEXT, 8, b"{\"say\": ").await;
    let begun = Instant::now();
    let code = loop {
        socket.raw(0x80 | OPCODE_PONG, 0, b"").await;
        match tokio::time::timeout(Duration::from_millis(50), socket.stream.next()).await {
            Ok(Some(Ok(Message::Close(frame)))) => break u16::from(frame.unwrap().code),
            Ok(Some(Err(Error::Io(_))) | None) => panic!("cut without a word"),
            _ => assert!(begun.elapsed() < PATIENCE, "still open"),
        }
    };
    assert_eq!(code, 1008);
    // Half a frame.
    let mut socket = Socket::open(&edge).await;
    socket.raw(0x80 | OPCODE_TEXT, 100, b"{\"say\": ").await;
    assert_eq!(socket.close().await, 1008);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let edge = Edge::with(|config| config.weft_edge_write_timeout_ms = 500).await;
    let mut socket = Socket::open(&edge).await;
    socket.say(json!({"say": ["x".repeat(10_000)], "times": 2_000})).await;
    until_over(&edge, 1).await;
    let metrics = edge.get("/metrics").await.text();
    assert!(metrics.contains("\nweft_edge_sockets"), "{metrics}");
}

#[tokio::test]
async fn every_request_counts_and_a_limit_that_is_spent_ends_no_socket() {
    let edge = Edge::start().await;
    let mut socket = Socket::of(&edge, "limited", "/v1/talk", "").await;
    for _ in 0..LIMITED {
        socket.say(json!({"say": ["Hi"]})).await;
        assert_eq!(socket.text().await, "Hi");
        assert_eq!(socket.json().await["done"], true);
    }
    for _ in 0..3 {
        socket.say(json!({"say": ["Hi"]})).await;
        let told = socket.json().await;
        assert_eq!(told["error"]["code"], "rate_limited", "{told}");
        assert!(told["error"]["details"].to_string().contains("RetryInfo"));
    }
}

#[tokio::test]
async fn sockets_are_limited_for_each_and_in_all() {
    let edge = Edge::with(|config| config.weft_edge_max_sockets = 66).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(Socket::open(&edge).await);
    }
    let bearer = |user: &str| format!("Bearer {}", edge.token(user));
    let full = refused(&edge, "/v1/talk", &[("authorization", &bearer("ana"))]).await;
    assert_eq!((full.status(), full.code().as_str()), (429, "rate_limited"));
    held.push(Socket::of(&edge, "bob", "/v1/talk", "").await);
    held.push(Socket::of(&edge, "bob", "/v1/talk", "").await);
    let full = refused(&edge, "/v1/talk", &[("authorization", &bearer("bob"))]).await;
    assert_eq!((full.status(), full.code().as_str()), (503, "unavailable"));
    drop(held.remove(0));
    eventually("a place", PATIENCE, || async {
        try_open(&edge, "/v1/talk", &[("authorization", &bearer("bob"))]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn streams_without_an_end_of_their_own_get_one() {
    let edge = Edge::start().await;
    let mut socket = Socket::of(&edge, "ana", "/v1/complete", "weft.v1").await;
    for _ in 0..2 {
        socket.say(json!({"say": ["a", "b"]})).await;
        assert_eq!(socket.json().await, json!({"response": "a", "room": ""}));
        assert_eq!(socket.json().await, json!({"response": "b", "room": ""}));
        assert_eq!(socket.text().await, "[DONE]");
    }
    socket.say(json!({"say": ["a"], "fail_after": 1})).await;
    assert_eq!(socket.json().await["response"], "a");
    assert_eq!(socket.json().await["error"]["type"], "api_error");
}

#[tokio::test]
async fn http_goes_on_beside_and_before_a_socket() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let first = "GET /v1/hello HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    assert!(answer[..length].ends_with(b"{\"number\":1}"));
    stream.write_all(handshake("/v1/talk", &[("authorization", &bearer)]).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let mut socket = Socket { stream, head: String::from_utf8(head).unwrap() };
    // What looks like heads that must be refused is only text here.
    let odd = "a\r\nb_c: d\r\n\r\nGET / HTTP/1.1\nx\n\n";
    socket.say(json!({"say": [odd.repeat(20_000)]})).await;
    assert_eq!(socket.text().await.len(), odd.len() * 20_000);
    assert_eq!(edge.call(Method::GET, "/v1/hello", &[], "").await.status, 200);
}
