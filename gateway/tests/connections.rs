//! Connections, and services that come and go.
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft_testing::eventually;

use crate::harness::{Edge, Seen, listen, serve_shop};

#[tokio::test]
async fn a_request_that_can_be_cut_in_two_ways_is_refused() {
    let edge = Edge::start().await;
    let patience = Duration::from_secs(5);
    for bad in [
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n{}",
        "GET /v1/hello HTTP/1.1\nhost: x\n\n",
        "GET /v1/hello HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n",
        "GET /v1/hello HTTP/1.1\r\nhost: x\r\nx_user_id: 1\r\n\r\n",
        "GET /v1/hello HTTP/1.1\r\nhost : x\r\n\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        let (answer, closed) = edge.wire(bad.as_bytes(), patience).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.matches("HTTP/1.1").count() == 1 && closed,
            "{bad:?}: {answer:?} {closed}"
        );
    }
    let (answer, _) = edge
        .wire(
            b"GET /v1/hello HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            patience,
        )
        .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
}

#[tokio::test]
async fn headers_have_a_size_and_a_number() {
    let edge = Edge::start().await;
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    let (answer, _) =
        edge.wire(format!("GET /v1/hello HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let large = "y".repeat(17 * 1024);
    let (answer, _) = edge
        .wire(
            format!("GET /v1/hello HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n").as_bytes(),
            Duration::from_secs(5),
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_headers_or_body_is_given_up() {
    let edge = Edge::with(|config| {
        config.weft_edge_header_timeout_ms = 300;
        config.weft_edge_body_timeout_ms = 600;
    })
    .await;
    let bearer = edge.token("ana");
    for slow in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let (_, closed) = edge.wire(slow.as_bytes(), Duration::from_secs(5)).await;
        assert!(closed, "{slow:?}");
    }
    let begun = Instant::now();
    let body = format!(
        "POST /v1/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("did not arrive in time"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_service_that_is_away_is_unavailable_at_once_and_comes_back_by_itself() {
    // Bound and not listening: connections are refused, and no other test is given the port.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let shop = reserved.local_addr().unwrap();
    let edge = Edge::before(shop, Seen::default(), |_config| {}).await;
    let begun = Instant::now();
    let answer = edge.get("/v1/orders/o1").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert!(begun.elapsed() < Duration::from_secs(1));
    let detailed = edge.call(Method::GET, "/health/detailed", &[], "").await;
    // Ours are well; the operator's own service does not make the edge unfit.
    assert_eq!(
        (detailed.status, &detailed.json()["status"], &detailed.json()["broken"]),
        (200, &json!("degraded"), &json!(["shop"]))
    );

    let mut reserved = Some(reserved);
    for _round in 0..2 {
        let listener = match reserved.take() {
            Some(socket) => socket.listen(64).unwrap(),
            None => TcpListener::bind(shop).await.unwrap(),
        };
        let running = tokio::spawn(serve_shop(listener, Seen::default()));
        eventually("the shop answering", Duration::from_secs(5), || async {
            edge.get("/v1/orders/o1").await.status == 200
        })
        .await;
        running.abort();
        let _aborted = running.await;
    }
}

#[tokio::test]
async fn the_edge_says_how_everything_is() {
    let edge = Edge::start().await;
    let get = async |path: &str| edge.call(Method::GET, path, &[], "").await;
    assert_eq!(get("/health").await.json(), json!({"status": "ok"}));
    assert_eq!(get("/api/v1/health").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let detailed = get("/health/detailed").await;
    assert_eq!((detailed.status, &detailed.json()["status"]), (200, &json!("ok")), "{detailed:?}");
    for service in ["identity", "billing", "orchestrator", "shop"] {
        assert_eq!(detailed.json()["services"][service]["status"], "ok", "{service}");
    }
    edge.get("/v1/orders/o1").await;
    let metrics = get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains(r#"weft_edge_requests_total{rpc="shop.v1.ShopService/GetOrder",protocol="json",code="OK"}"#),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn a_shutdown_lets_calls_finish_and_then_ends() {
    let edge = Edge::start().await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let head = format!(
        "GET /v1/watch?count=1&hang=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        edge.token("ana")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK\r");
    let begun = Instant::now();
    edge.shutdown.trigger();
    edge.served.await.unwrap().unwrap();
    // The stream would go on for ever: it is cut when the drain time is over.
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(edge.address).await.is_err());
}

#[tokio::test]
async fn a_mistake_in_the_settings_is_one_sentence() {
    let edge = Edge::start().await;
    let descriptors = edge.descriptors().to_owned();
    let cases: Vec<(weft_gateway::Config, &str)> = vec![
        (weft_gateway::Config { cors_origins: "*".to_owned(), ..Default::default() }, "CORS_ORIGINS"),
        (
            weft_gateway::Config { weft_default_product: "nope".to_owned(), ..Default::default() },
            "WEFT_DEFAULT_PRODUCT",
        ),
        (
            weft_gateway::Config { weft_edge_upstreams: "shop=http://127.0.0.1:1".to_owned(), ..Default::default() },
            "WEFT_EDGE_DESCRIPTORS",
        ),
        (
            weft_gateway::Config {
                weft_edge_upstreams: "nope=http://127.0.0.1:1".to_owned(),
                weft_edge_descriptors: Some(descriptors),
                ..Default::default()
            },
            "nope",
        ),
        (weft_gateway::Config { weft_edge_descriptors: Some("/nowhere".into()), ..Default::default() }, "/nowhere"),
    ];
    for (config, names) in cases {
        let mesh = weft_runtime::Mesh::new(
            "gateway",
            weft_runtime::MeshConfig::default(),
            weft_core::Clock::System,
            weft_runtime::Shutdown::new(),
        );
        let products = std::sync::Arc::new(weft_product::Products::builtin());
        let error = weft_gateway::serve(config, mesh, products, listen().await).await.unwrap_err().to_string();
        assert!(error.contains(names) && !error.contains('\n'), "{error}");
    }
}
