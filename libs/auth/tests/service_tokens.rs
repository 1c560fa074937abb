//! How services know each other.
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tonic::Code;
use weft_auth::ServiceKey;
use weft_core::Clock;

use crate::fakes::{START_MS, START_S, claims, secret, signer};

fn key(me: &'static str, clock: &Clock) -> ServiceKey {
    ServiceKey::with_clock(&secret(), me, clock.clone())
}

/// A service token with any claims, signed with the mesh's secret.
fn forge(claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret().expose_secret().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

#[test]
fn the_service_that_is_meant_learns_who_calls() {
    let clock = Clock::manual(START_MS);
    let token = key("gateway", &clock).mint("billing");
    let billing = key("billing", &clock);
    assert_eq!(&*billing.verify(&token).unwrap(), "gateway");
    assert_eq!(&*billing.verify(&token).unwrap(), "gateway", "remembered");
}

#[test]
fn a_token_for_another_service_is_refused() {
    let clock = Clock::manual(START_MS);
    let token = key("gateway", &clock).mint("billing");
    assert_eq!(key("identity", &clock).verify(&token).unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(key("gateway", &clock).verify(&token).unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn a_token_is_the_same_for_half_its_life_and_refused_after_it() {
    let clock = Clock::manual(START_MS);
    let (gateway, billing) = (key("gateway", &clock), key("billing", &clock));
    let first = gateway.mint("billing");
    assert_ne!(first, gateway.mint("identity"));
    clock.advance(Duration::from_secs(29));
    assert_eq!(gateway.mint("billing"), first);
    clock.advance(Duration::from_secs(1));
    let second = gateway.mint("billing");
    assert_ne!(second, first);
    assert_eq!(&*billing.verify(&first).unwrap(), "gateway");

    clock.advance(Duration::from_secs(30));
    assert!(billing.verify(&first).is_err(), "60 s old");
    assert!(billing.verify(&first).is_err(), "and stays refused");
    assert_eq!(&*billing.verify(&second).unwrap(), "gateway");
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_token_from_the_future() {
    let clock = Clock::manual(START_MS);
    let first = key("gateway", &clock).mint("billing");
    let back = Clock::manual(START_MS - 3_600_000);
    assert!(key("billing", &back).verify(&first).is_err());
}

#[test]
fn whatever_is_wrong_with_a_service_token_the_answer_is_the_same() {
    let clock = Clock::manual(START_MS);
    let billing = key("billing", &clock);
    let good = json!({"iss": "gateway", "aud": "billing", "iat": START_S, "exp": START_S + 60});
    assert_eq!(&*billing.verify(&forge(&good)).unwrap(), "gateway");

    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        forge(&claims)
    };
    let other = SecretString::from("another secret");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJnYXRld2F5IiwiYXVkIjoiYmlsbGluZyJ9.";
    let bad = [
        ("another secret", ServiceKey::with_clock(&other, "gateway", clock.clone()).mint("billing")),
        ("an access token", signer("one").mint(&claims("ada"))),
        ("no signature", unsigned.to_owned()),
        ("expired", with("exp", json!(START_S))),
        ("exp as text", with("exp", json!((START_S + 60).to_string()))),
        ("no exp", with("exp", Value::Null)),
        ("lives for a year", with("exp", json!(START_S + 365 * 24 * 3600))),
        ("lives for ever", with("exp", json!(i64::MAX))),
        ("from the future", with("iat", json!(START_S + 3600))),
        ("nobody's", with("iss", json!(""))),
        ("for all", with("aud", json!(["billing", "identity"]))),
        ("empty", String::new()),
        ("garbage", "garbage".into()),
        ("huge", "a".repeat(1_000_000)),
    ];
    for (what, token) in bad {
        let status = billing.verify(&token).expect_err(what);
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "the service token is not valid"),
            "{what}"
        );
    }
}

#[test]
fn a_service_key_does_not_print_its_secret() {
    let key = ServiceKey::new(&secret(), "gateway");
    let token = key.mint("billing");
    let text = format!("{key:?}");
    assert_eq!(key.me(), "gateway");
    assert!(text.contains("gateway"));
    assert!(!text.contains(secret().expose_secret()) && !text.contains(&token), "{text}");
}
