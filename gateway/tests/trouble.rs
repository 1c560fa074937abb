//! Clients and services that go mute, break off or never end: nobody else notices.
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_testing::eventually;

use crate::harness::{Edge, Raw, Seen, frame, listen, message};

const ORDER: &str = "/v1/orders/o1";
/// Less than any deadline of a call that names none.
const SOON: Duration = Duration::from_secs(5);

/// An edge before a service that does with each call what `answer` does.
async fn before<F: Future<Output = ()> + Send + 'static>(
    answer: impl Fn(h2::server::SendResponse<Bytes>) -> F + Clone + Send + 'static,
) -> Edge {
    let listener = listen().await;
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, respond))) = connection.accept().await {
                    tokio::spawn(answer(respond));
                }
            });
        }
    });
    Edge::before(at, Seen::default(), |_config| {}).await
}

fn begin(mut respond: h2::server::SendResponse<Bytes>) -> h2::SendStream<Bytes> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    respond.send_response(head, false).unwrap()
}

/// Messages without end in small pieces, as fast as they are taken.
async fn flood(mut send: h2::SendStream<Bytes>) {
    let ticks: Bytes = frame(&message("shop.v1.Tick", json!({"number": 1}))).repeat(2).into();
    let mut left = ticks.clone();
    loop {
        send.reserve_capacity(left.len());
        match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(Ok(room)) => send.send_data(left.split_to(room.min(left.len())), false).unwrap(),
            _reset => return,
        }
        if left.is_empty() {
            left = ticks.clone();
        }
    }
}

/// An HTTP/2 client that asks for streams and takes nothing of them. It goes on as long as what it returns.
async fn takes_nothing(edge: &Edge, streams: usize, timeout: &str) -> Vec<h2::RecvStream> {
    let stream = TcpStream::connect(edge.address).await.unwrap();
    // It does not mind small frames.
    let (mut client, connection) =
        h2::client::Builder::new().data_frame_budget(1 << 30).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut untaken = Vec::new();
    for _ in 0..streams {
        let request = Request::get(edge.url("/v1/watch?count=1"))
            .header("authorization", format!("Bearer {}", edge.token("ana")))
            .header("grpc-timeout", timeout)
            .body(())
            .unwrap();
        client = client.ready().await.unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        untaken.push(answer.await.unwrap().into_body());
    }
    untaken
}

#[tokio::test]
async fn clients_that_take_nothing_stop_nobody_else() {
    let edge = before(|respond| async move { flood(begin(respond)).await }).await;
    let bearer = format!("Bearer {}", edge.token("ben"));
    let headers = [("authorization", bearer.as_str()), ("grpc-timeout", "1S")];
    let call = || edge.call(Method::GET, "/v1/watch?count=1", &headers, "");
    let begun = Instant::now();
    // One stream beside theirs, and one when whatever fits is on its way.
    let (beside, _untaken) = tokio::join!(call(), takes_nothing(&edge, 12, "60S"));
    for answer in [beside, call().await] {
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let end = text.get(text.len().saturating_sub(400)..);
        assert!(text.starts_with("data: ") && text.contains("deadline_exceeded"), "{end:?}");
    }
    assert!(begun.elapsed() < SOON * 2);
}

#[tokio::test]
async fn a_call_ends_in_time_though_its_client_takes_nothing() {
    let (ended, mut over) = mpsc::unbounded_channel();
    let edge = before(move |respond| {
        let ended = ended.clone();
        async move {
            flood(begin(respond)).await;
            let _nobody = ended.send(());
        }
    })
    .await;
    let _untaken = takes_nothing(&edge, 1, "500m").await;
    tokio::time::timeout(SOON, over.recv()).await.expect("the service hears that nobody wants more");
}

#[tokio::test]
async fn a_stream_that_always_has_something_ends_in_time() {
    let edge = before(|respond| async move { flood(begin(respond)).await }).await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let begun = Instant::now();
    let answer =
        edge.call(Method::GET, "/v1/watch?count=1", &[("authorization", &bearer), ("grpc-timeout", "500m")], "").await;
    assert!(answer.text().contains("deadline_exceeded"));
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn an_answer_that_breaks_off_inside_a_message_is_no_success_and_no_riddle() {
    // A message of which half has come, and then: the end, an error, nothing.
    for ending in ["0", "13", ""] {
        let edge = before(move |respond| async move {
            let mut send = begin(respond);
            let whole = frame(&message("shop.v1.Tick", json!({"number": 7})));
            let half = frame(&message("shop.v1.Tick", json!({"number": 1_i64 << 40}))).split_to(8);
            send.send_data([whole, half].concat().into(), false).unwrap();
            match ending {
                "" => send.send_reset(h2::Reason::INTERNAL_ERROR),
                code => {
                    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
                    send.send_trailers(trailers).unwrap();
                }
            }
        })
        .await;
        let code = if ending == "13" { "13" } else { "14" };
        for text in [false, true] {
            let request = message("shop.v1.WatchRequest", json!({"count": 1}));
            let (messages, trailers) = edge.web(text, "Watch", &request).await;
            assert!(messages.len() <= 1, "{ending:?}");
            assert_eq!(trailers["grpc-status"], code, "{ending:?} {text}");
            let (messages, trailers) = edge.web(text, "Hello", &[]).await;
            assert_eq!(messages.len(), 0, "{ending:?}");
            assert_ne!(trailers["grpc-status"], "0", "{ending:?} {text}");
        }
        let events = edge.get("/v1/watch?count=1").await;
        assert!(events.status != 200 || events.text().contains("event: error"), "{ending:?} {events:?}");
        assert_ne!(edge.get("/v1/hello").await.status, 200, "{ending:?}");
    }
}

#[tokio::test]
async fn a_service_that_goes_mute_is_unavailable_soon() {
    let listener = listen().await;
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Nobody reads from it any more.
            held.push(h2::server::handshake(stream).await.unwrap());
        }
    });
    let edge = Edge::before(at, Seen::default(), |_config| {}).await;
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = edge.get(ORDER).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
}

/// Speaks just enough HTTP/2 to be called and pinged, and never answers a call. Counts the pings.
async fn never_answers(listener: TcpListener, pings: mpsc::UnboundedSender<()>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        let (kind, acknowledged) = (head[3], head[4] & 1 == 1);
        if matches!(kind, 4 | 6) && !acknowledged {
            let mut answer = vec![0, 0, if kind == 6 { 8 } else { 0 }, kind, 1];
            answer.put_u32(0);
            answer.extend(if kind == 6 { payload.as_slice() } else { &[] });
            stream.write_all(&answer).await.unwrap();
        }
        if kind == 6 && !acknowledged {
            pings.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_operators_slow_service_is_not_asked_so_often_that_it_hangs_up() {
    let listener = listen().await;
    let at = listener.local_addr().unwrap();
    let (pings, mut count) = mpsc::unbounded_channel();
    let service = tokio::spawn(never_answers(listener, pings));
    let edge = Edge::before(at, Seen::default(), |_config| {}).await;
    let bearer = format!("Bearer {}", edge.token("ana"));
    let answer = edge.call(Method::GET, ORDER, &[("authorization", &bearer), ("grpc-timeout", "2500m")], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    service.abort();
    let mut asked = 0;
    while count.recv().await.is_some() {
        asked += 1;
    }
    // gRPC's own servers hang up at the fourth.
    assert!((1..=3).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_billing_that_goes_mute_holds_nobody_up_whose_limit_was_known() {
    let edge = Edge::start().await;
    let bearer = format!("Bearer {}", edge.token("frozen"));
    let call = async || edge.call(Method::GET, ORDER, &[("authorization", &bearer)], "").await.status;
    assert_eq!(call().await, 200);
    // An answer of billing is good for a second, and the next question freezes it.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(call().await, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_watches_the_edge_hears_of_the_shutdown_and_is_let_go() {
    let edge = Edge::start().await;
    let mut client = edge.grpc().await;
    client.ready().await.unwrap();
    let path = "/grpc.health.v1.Health/Watch".parse().unwrap();
    let mut watched = client.server_streaming(tonic::Request::new(Bytes::new()), path, Raw).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap(), [8, 1].as_slice());
    let begun = Instant::now();
    edge.shutdown.trigger();
    assert_eq!(watched.message().await.unwrap().unwrap(), [8, 2].as_slice());
    assert!(watched.message().await.unwrap().is_none());
    edge.served.await.unwrap().unwrap();
    // The drain may take three seconds, and is cut then.
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn however_many_ask_for_details_each_service_is_asked_once() {
    let edge = Edge::start().await;
    let all = (0..20).map(|_| edge.call(Method::GET, "/health/detailed", &[], ""));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.status, 200);
    }
    let asked = edge.seen.lock().unwrap().iter().filter(|(path, _)| path.ends_with("/Check")).count();
    // Twice if the machine is so slow that a second passes meanwhile.
    assert!((1..=3).contains(&asked), "{asked}");
    eventually("a newer answer", SOON, || async {
        edge.call(Method::GET, "/health/detailed", &[], "").await;
        edge.seen.lock().unwrap().iter().filter(|(path, _)| path.ends_with("/Check")).count() > asked
    })
    .await;
}
