//! How often: by plan, by organization, by address, by class, and over several edges.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::task::JoinSet;
use weft_testing::eventually;
use weft_testing::redis::Redis;

use crate::harness::{Answer, CLIMBER, Edge, LIMITED, ORGANIZATION, Raw, SEAT, frame, message};

/// A call of an RPC for users, as `user`.
async fn call(edge: &Edge, user: &str) -> Answer {
    let bearer = format!("Bearer {}", edge.token(user));
    edge.call(Method::GET, "/v1/orders/o1", &[("authorization", &bearer)], "").await
}

/// Limit, remaining and reset as the answer says them.
fn told(answer: &Answer) -> (u64, u64, u64) {
    let number = |name: &str| answer.header(name).parse().unwrap_or_else(|_| panic!("no {name}: {answer:?}"));
    (number("ratelimit-limit"), number("ratelimit-remaining"), number("ratelimit-reset"))
}

/// Checks a refusal by the limit of so many a minute that was wholly spent since `begun`: one that refills every `wait`
/// seconds.
fn refused(answer: &Answer, limit: u64, wait: u64, begun: Instant) {
    let retry_after: u64 = answer.header("retry-after").parse().unwrap_or_else(|_| panic!("not refused: {answer:?}"));
    let least = wait.saturating_sub(begun.elapsed().as_secs()).max(1);
    assert!((least..=wait).contains(&retry_after), "{retry_after} s, not {least} to {wait}: {answer:?}");
    assert_eq!(told(answer), (limit, 0, retry_after));
}

/// How many of these calls were admitted. The others have to be refused as they should be, with a wait within `waits`.
fn admitted(answers: &[Answer], waits: std::ops::RangeInclusive<u64>) -> u64 {
    let (admitted, refused): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!(waits.contains(&wait), "{wait} s");
        assert_eq!((told(answer).1, told(answer).2), (0, wait));
    }
    admitted.len() as u64
}

/// 600 calls of one user spread over several edges; and how long they took. The first of each edge asks who this is and
/// what the plan allows, then all others come at once.
async fn flood(edges: &[Arc<Edge>], user: &str) -> (Vec<Answer>, Duration) {
    let bearer = format!("Bearer {}", edges[0].token(user));
    let call = async |edge: Arc<Edge>, bearer: String| {
        edge.call(Method::GET, "/v1/orders/o1", &[("authorization", &bearer)], "").await
    };
    let begun = Instant::now();
    let mut answers = Vec::new();
    for edge in edges {
        answers.push(call(edge.clone(), bearer.clone()).await);
    }
    let mut calls = JoinSet::new();
    for number in answers.len()..600 {
        calls.spawn(call(edges[number % edges.len()].clone(), bearer.clone()));
    }
    answers.extend(calls.join_all().await);
    (answers, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_edges_admit_exactly_the_limit_and_without_redis_each_its_share() {
    let redis = Redis::start().await;
    let mut edges = Vec::new();
    for _ in 0..3 {
        let url = redis.url();
        let edge = Edge::with(|config| (config.redis_url, config.weft_edge_replicas) = (Some(url.into()), 3)).await;
        edges.push(Arc::new(edge));
    }
    let (answers, took) = flood(&edges, "sixty").await;
    let count = admitted(&answers, 1..=1);
    let refilled = took.as_secs();
    assert!((60..=60 + refilled).contains(&count), "{count} admitted, {refilled} of them refilled in {took:?}");

    redis.kill();
    let (answers, took) = flood(&edges, "sixty, later").await;
    let count = admitted(&answers, 1..=3);
    // Each edge has a third of the limit and refills it at a third of the rate.
    let refilled = 3 * (took.as_secs() / 3);
    assert!((60..=60 + refilled).contains(&count), "{count} admitted, {refilled} of them refilled in {took:?}");

    redis.restart().await;
    eventually("limits counted together again", Duration::from_secs(20), || async {
        // A share could not have that many remaining.
        told(&call(&edges[0], &format!("sixty {}", weft_core::new_id())).await).1 == 59
    })
    .await;
}

#[tokio::test]
async fn every_answer_says_how_the_caller_stands_in_every_protocol() {
    let edge = Edge::start().await;
    let begun = Instant::now();
    let bearer = format!("Bearer {}", edge.token("limited"));
    let json = call(&edge, "limited").await;
    assert_eq!((json.status, told(&json)), (200, (LIMITED as u64, 4, 12)));

    let headers = [("authorization", bearer.as_str()), ("origin", "app://adiuva")];
    let events = edge.call(Method::GET, "/v1/watch?count=1", &headers, "").await;
    assert_eq!((events.status, events.header("content-type")), (200, "text/event-stream"));
    assert_eq!((told(&events).0, told(&events).1), (5, 3));
    let exposed = events.header("access-control-expose-headers");
    for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after", "x-request-id"] {
        assert!(exposed.split(", ").any(|one| one == name), "{name} is not in {exposed}");
    }

    let web = [("authorization", bearer.as_str()), ("content-type", "application/grpc-web")];
    let call_web = async || edge.call(Method::POST, "/shop.v1.ShopService/GetOrder", &web, frame(&[])).await;
    let answer = call_web().await;
    assert_eq!((answer.status, answer.header("grpc-status"), told(&answer).1), (200, "", 2));

    let mut client = edge.grpc().await;
    let mut native = async || {
        let mut request = tonic::Request::new(Bytes::from(message("shop.v1.GetOrderRequest", serde_json::json!({}))));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        client.ready().await.unwrap();
        client.unary(request, "/shop.v1.ShopService/GetOrder".parse().unwrap(), Raw).await
    };
    let answer = native().await.unwrap();
    assert_eq!(answer.metadata().get("ratelimit-remaining").unwrap(), "1");

    // A call that fails is counted as well.
    let failed = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let failed = edge.call(Method::POST, "/v1/fail", &failed, "{\"code\": 5}").await;
    assert_eq!((failed.status, told(&failed).1, failed.header("retry-after")), (404, 0, ""));

    let (json, web) = (call(&edge, "limited").await, call_web().await);
    assert_eq!((json.status, json.code().as_str(), web.header("grpc-status")), (429, "rate_limited", "8"));
    refused(&json, 5, 12, begun);
    refused(&web, 5, 12, begun);
    let status = native().await.unwrap_err();
    let answer = Answer { status: 429, headers: status.metadata().clone().into_headers(), body: Bytes::new() };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    refused(&answer, 5, 12, begun);

    // Whoever is on no limit is told of none.
    for free in [edge.get("/v1/orders/o1").await, edge.call(Method::GET, "/health", &[], "").await] {
        assert_eq!((free.status, free.header("ratelimit-limit")), (200, ""));
    }
    // A refused stranger stands with the limit of their address.
    let stranger = edge.call(Method::GET, "/v1/orders/o1", &[], "").await;
    assert_eq!((stranger.status, told(&stranger).0), (401, 100_000));
}

#[tokio::test]
async fn the_seats_of_an_organization_share_a_limit_besides_their_own() {
    let edge = Edge::start().await;
    let begun = Instant::now();
    let (seat, organization) = (SEAT as u64, ORGANIZATION as u64);
    for remaining in (0..seat).rev() {
        let answer = call(&edge, "seat 1").await;
        assert_eq!((answer.status, told(&answer).0, told(&answer).1), (200, seat, remaining));
    }
    // The first has spent their own, which leaves the organization what they did not get.
    refused(&call(&edge, "seat 1").await, seat, 15, begun);
    for remaining in (0..organization - seat).rev() {
        let answer = call(&edge, "seat 2").await;
        assert_eq!((answer.status, told(&answer).0, told(&answer).1), (200, organization, remaining));
    }
    for user in ["seat 2", "seat 3"] {
        let answer = call(&edge, user).await;
        refused(&answer, organization, 10, begun);
        assert!(answer.text().contains("of the organization"), "{answer:?}");
    }
    // Both refuse: the longer wait counts.
    refused(&call(&edge, "seat 1").await, seat, 15, begun);
    assert_eq!(call(&edge, "ana").await.status, 200, "others are not concerned");
}

#[tokio::test]
async fn a_changed_plan_keeps_what_is_spent() {
    let edge = Edge::start().await;
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(call(&edge, "climber").await.status, 200);
    }
    assert_eq!(call(&edge, "climber").await.status, 429);
    CLIMBER.store(100, Ordering::Relaxed);
    eventually("the higher plan", Duration::from_secs(5), || async { told(&call(&edge, "climber").await).0 == 100 })
        .await;
    let mut answers = Vec::new();
    for _ in 0..150 {
        answers.push(call(&edge, "climber").await);
    }
    let refilled = begun.elapsed().as_millis() as u64 * 100 / 60_000;
    // Five by the lower plan, one when the higher was noticed, and perhaps one that the lower plan refilled.
    let count = admitted(&answers, 1..=1) + 6;
    assert!((99..=100 + refilled).contains(&count), "{count} of 100 and {refilled} of the refill");
    CLIMBER.store(5, Ordering::Relaxed);
    eventually("the lower plan", Duration::from_secs(5), || async { told(&call(&edge, "climber").await).0 == 5 }).await;
    assert_eq!(call(&edge, "climber").await.status, 429, "the minute is spent in the lower plan as well");
}

#[tokio::test]
async fn logins_are_few_by_address_and_product() {
    let edge = Edge::with(|config| {
        config.weft_edge_logins_per_minute = 3;
        config.weft_edge_anonymous_per_minute = 5;
        config.weft_edge_trusted_proxies = 1;
    })
    .await;
    let begun = Instant::now();
    let enter = async |from: &str, product: &str| {
        let headers = [("x-forwarded-for", from), ("x-weft-product", product)];
        edge.call(Method::POST, "/v1/enter", &headers, "").await
    };
    for remaining in [2, 1, 0] {
        let answer = enter("192.0.2.1", "adiuva").await;
        assert_eq!((answer.status, told(&answer).0, told(&answer).1), (200, 3, remaining));
    }
    for _ in 0..20 {
        let answer = enter("192.0.2.1", "adiuva").await;
        refused(&answer, 3, 20, begun);
        assert!(answer.text().contains("logins"), "{answer:?}");
    }
    assert_eq!(enter("192.0.2.2", "adiuva").await.status, 200);
    // What was refused did not count, so the address has two left of what it may ask without a user, and no more.
    for remaining in [1, 0] {
        let answer = enter("192.0.2.1", "companion").await;
        assert_eq!((answer.status, told(&answer).1), (200, remaining));
    }
    refused(&enter("192.0.2.1", "companion").await, 5, 12, begun);
}

#[tokio::test]
async fn events_are_many_from_one_address_and_a_stranger_cannot_use_them_up() {
    let edge = Edge::with(|config| {
        config.weft_edge_webhooks_per_minute = 10;
        config.weft_edge_anonymous_per_minute = 2;
        config.weft_edge_trusted_proxies = 1;
    })
    .await;
    let begun = Instant::now();
    let send = async |from: &str, product: &str| {
        let headers = [("x-forwarded-for", from), ("x-weft-product", product)];
        edge.call(Method::POST, "/v1/events", &headers, "{}").await
    };
    for number in 0..10 {
        let answer = send("192.0.2.1", "adiuva").await;
        assert_eq!((answer.status, told(&answer).0, told(&answer).1), (200, 10, 9 - number));
    }
    refused(&send("192.0.2.1", "adiuva").await, 10, 6, begun);
    refused(&send("::ffff:192.0.2.1", "adiuva").await, 10, 6, begun);
    assert_eq!(send("192.0.2.9", "adiuva").await.status, 200);
    assert_eq!(send("192.0.2.1", "companion").await.status, 200);
    // Everything else from there has its usual limit.
    let hello = async || edge.call(Method::GET, "/v1/hello", &[("x-forwarded-for", "192.0.2.1")], "").await.status;
    assert_eq!([hello().await, hello().await, hello().await], [200, 200, 429]);
}
