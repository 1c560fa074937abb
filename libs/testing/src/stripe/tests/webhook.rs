//! Signatures, weather, deliveries.
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use super::*;

#[test]
fn a_signature_is_the_one_that_another_program_computes() {
    // python3: hmac.new(b"whsec_test", b'1700000000.{"id":"evt_1"}', sha256).hexdigest()
    let expected = "c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925";
    assert_eq!(sign("whsec_test", r#"{"id":"evt_1"}"#, 1_700_000_000), format!("t=1700000000,v1={expected}"));
    let event = json!({"id": "evt_1"});
    let genuine = Signed::genuine("whsec_test", &event, 7);
    assert_ne!(Signed::wrong_secret(&event, 7).header, genuine.header);
    let altered = Signed::altered("whsec_test", &event, 7);
    assert_eq!(altered.header, genuine.header);
    assert_ne!(altered.body, genuine.body);
    let right = signature("whsec_test", &genuine.body, 7);
    assert!(Signed::several("whsec_test", &event, 7).header.ends_with(&format!("v1={right}")));
}

#[test]
fn the_same_seed_gives_the_same_weather_and_another_seed_another() {
    let events: Vec<Value> = (0..100).map(|at| json!({"id": at})).collect();
    let weather = Weather { drop_percent: 10, ..Weather::rough(1) };
    let plan = weather.plan(&events);
    assert_eq!(plan, weather.plan(&events));
    assert_ne!(plan, Weather { seed: 2, ..weather.clone() }.plan(&events));
    assert!((220..300).contains(&plan.len()), "{} of 300 are left", plan.len());
    let fair: Vec<Value> = Weather::fair().plan(&events).into_iter().map(|(event, _)| event).collect();
    assert_eq!(fair, events);
    let shuffled = Weather { duplicates: 0, drop_percent: 0, ..weather }.plan(&events);
    assert!(!shuffled.is_sorted_by_key(|(event, _)| event["id"].as_u64()));
    let mut ids: Vec<u64> = shuffled.iter().filter_map(|(event, _)| event["id"].as_u64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<u64>>(), "nothing is lost");
}

type Received = Arc<Mutex<Vec<(String, String)>>>;

/// An endpoint that answers 503 to its first request and 200 to the others.
async fn endpoint() -> (String, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let take = async move |headers: HeaderMap, body: String| {
        let mut kept = lock(&kept);
        kept.push((headers["stripe-signature"].to_str().unwrap().to_owned(), body));
        if kept.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(take));
    #[expect(clippy::disallowed_methods, reason = "it ends with its test")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

#[tokio::test]
async fn events_reach_an_endpoint_signed_and_again_after_a_failure() {
    let stub = start().await;
    let (url, received) = endpoint().await;
    let customer = text(&stub.post("customers", &[]).await["id"]);
    let event = stub.emit("customer.updated", &customer).remove(0);
    assert!(!stub.deliver(&url, &event).await.ok());
    assert!(stub.deliver(&url, &event).await.ok());
    let (header, body) = lock(&received)[1].clone();
    assert_eq!(header, sign(stub.webhook_secret(), &body, NOW_MS / 1000));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), event);

    let delivered = stub.deliver_all(&url, &stub.events(), &Weather::rough(5)).await;
    assert_eq!(delivered.len(), 6, "2 events, each 3 times");
    assert!(delivered.iter().all(Delivery::ok));
}

#[tokio::test]
async fn events_are_sent_by_themselves_once_an_endpoint_is_named() {
    let stub = start().await;
    let (url, received) = endpoint().await;
    stub.send_to(&url, Weather { shuffle: 50, duplicates: 1, ..Weather::rough(9) });
    let subscription = stub.subscription().await;
    stub.cancel_now(&subscription);
    let made = stub.events().len();
    let all = || async { stub.deliveries().len() == 2 * made };
    eventually("every event is delivered twice", Duration::from_secs(10), all).await;
    assert!(stub.deliveries().iter().all(Delivery::ok));
    assert_eq!(lock(&received).len(), 2 * made + 1, "the first was refused once");

    stub.send_nowhere();
    stub.renew(&stub.subscription().await);
    stub.send_to(&url, Weather::fair());
    let last = stub.post("customers", &[]).await;
    let all = || async { stub.deliveries().len() > 2 * made };
    eventually("the new customer is delivered", Duration::from_secs(10), all).await;
    assert_eq!(stub.deliveries().len(), 2 * made + 1, "nothing of what was made in between");
    let (_, body) = lock(&received).last().unwrap().clone();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["data"]["object"]["id"], last["id"]);
}
