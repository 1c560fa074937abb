//! API keys as bearers: what identity is asked about, and who pays for the asking.
use std::time::Duration;

use http::Method;
use weft_proto::identity::v1::Revocation;
use weft_testing::eventually;

use crate::harness::{Answer, Edge, GOOD_KEY, KEY_ID};

async fn call(edge: &Edge, key: &str) -> Answer {
    edge.call(Method::GET, "/v1/orders/newest", &[("authorization", &format!("Bearer {key}"))], "").await
}

#[tokio::test]
async fn an_address_pays_for_a_guess_before_identity_is_asked() {
    let edge = Edge::with(|config| config.weft_edge_anonymous_per_minute = 10).await;
    assert_eq!(call(&edge, GOOD_KEY).await.status, 200);
    let mut refused = Vec::new();
    for number in 0..20 {
        refused.push(call(&edge, &format!("sk-weft-{number:043}")).await.code());
    }
    let asked = refused.iter().filter(|code| *code == "unauthenticated").count();
    assert!((9..20).contains(&asked), "each guess is counted once: {refused:?}");
    assert_eq!(edge.exchanged.asked(), 1 + asked, "who is over the limit asks nothing: {refused:?}");
    let told = call(&edge, &format!("sk-weft-{:043}", 99)).await;
    assert_eq!((told.code().as_str(), told.header("ratelimit-limit")), ("rate_limited", "10"));
    assert!(!told.header("retry-after").is_empty());
    assert_eq!(call(&edge, GOOD_KEY).await.status, 200, "a key that is known asks nothing");
}

#[tokio::test]
async fn a_changed_keys_token_is_renewed_and_no_call_is_refused() {
    let edge = Edge::start().await;
    let bearer = || {
        let seen = edge.seen.lock().unwrap();
        seen.last().unwrap().1["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned()
    };
    assert_eq!(call(&edge, GOOD_KEY).await.status, 200);
    let first = bearer();
    let last_token_id = claims(&first)["jti"].as_str().unwrap().to_owned();
    let changed = Revocation { id: KEY_ID.to_owned(), expires_at: i64::MAX, last_token_id, ..Revocation::default() };
    edge.revoked.lock().unwrap().push(changed);
    eventually("a newer token", Duration::from_secs(1), async || {
        assert_eq!(call(&edge, GOOD_KEY).await.status, 200);
        bearer() != first
    })
    .await;
    assert_eq!(edge.exchanged.asked(), 2);
}

/// What a token says.
fn claims(token: &str) -> serde_json::Value {
    use base64::Engine;
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}
