//! Following identity's list of ended sessions.
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_auth::{Claims, Keys, Refusal, Revocations, Verifier, follow};
use weft_core::{Clock, Reason};

use crate::fakes::{Identity, Mood, START_MS, claims, eventually, key_claims, signer};

const TOMORROW_MS: i64 = START_MS + 24 * 3600 * 1000;

struct Setting {
    identity: Identity,
    revocations: Revocations,
    verifier: Verifier,
    clock: Clock,
    cancel: CancellationToken,
    follower: JoinSet<()>,
    _server: JoinSet<()>,
}

async fn following(identity: Identity) -> Setting {
    let mut server = JoinSet::new();
    let client = identity.client(&mut server).await;
    let (revocations, cancel) = (Revocations::new(), CancellationToken::new());
    let mut follower = JoinSet::new();
    let keys = Keys::fixed(vec![signer("key").jwk()]);
    let clock = Clock::manual(START_MS);
    let verifier = Verifier::new(keys, revocations.clone(), clock.clone());
    follower.spawn(follow(client, verifier.clone(), cancel.clone()));
    Setting { identity, revocations, verifier, clock, cancel, follower, _server: server }
}

impl Setting {
    /// Somebody uses a token with this id.
    async fn uses(&self, jti: &str) {
        let claims = Claims { jti: jti.to_owned(), ..claims("ada") };
        self.verifier.verify(&signer("key").mint(&claims)).await.unwrap();
    }
}

#[tokio::test]
async fn all_pages_are_read_and_then_the_news() {
    let identity = Identity::with_keys(Vec::new());
    for n in 0..20_500 {
        identity.ends(format!("session {n}"), TOMORROW_MS);
    }
    let setting = following(identity).await;
    eventually("all pages are read", || setting.revocations.len() == 20_500).await;
    assert!(setting.revocations.contains("session 20499"));

    setting.identity.ends("one more", TOMORROW_MS);
    eventually("the news is read", || setting.revocations.contains("one more")).await;
}

#[tokio::test]
async fn a_follower_keeps_what_it_has_while_identity_is_away_and_goes_on_afterwards() {
    let identity = Identity::with_keys(Vec::new());
    identity.ends("before", TOMORROW_MS);
    let setting = following(identity).await;
    eventually("the first is read", || setting.revocations.contains("before")).await;

    setting.identity.is(Mood::Away);
    setting.identity.ends("meanwhile", TOMORROW_MS);
    let polls = setting.identity.polls();
    eventually("it goes on asking", || setting.identity.polls() > polls + 1).await;
    assert!(setting.revocations.contains("before"));
    assert!(!setting.revocations.contains("meanwhile"));

    setting.identity.is(Mood::Well);
    eventually("the rest is read", || setting.revocations.contains("meanwhile")).await;
}

#[tokio::test]
async fn a_restored_identity_is_read_from_the_start() {
    let identity = Identity::with_keys(Vec::new());
    identity.ends("before", TOMORROW_MS);
    let setting = following(identity).await;
    eventually("the first is read", || setting.revocations.contains("before")).await;

    setting.identity.is_restored();
    setting.identity.ends("after", TOMORROW_MS);
    eventually("the new list is read", || setting.revocations.contains("after")).await;
    assert!(setting.revocations.contains("before"), "an ended session does not come back");
}

#[tokio::test]
async fn a_follower_stops_when_told() {
    let identity = Identity::with_keys(Vec::new());
    identity.is(Mood::Hanging);
    let mut setting = following(identity).await;
    eventually("it asks", || setting.identity.polls() > 0).await;
    setting.cancel.cancel();
    setting.follower.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn the_first_use_of_a_token_is_reported_and_no_other() {
    let setting = following(Identity::with_keys(Vec::new())).await;
    setting.uses("one").await;
    eventually("the report", || setting.identity.used() == ["one"]).await;
    setting.uses("one").await;
    setting.uses("two").await;
    eventually("the next report", || setting.identity.used() == ["one", "two"]).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_reported() {
    let setting = following(Identity::with_keys(Vec::new())).await;
    setting.revocations.insert("withdrawn", Refusal::Ended, TOMORROW_MS);
    let withdrawn = signer("key").mint(&Claims { jti: "withdrawn".into(), ..claims("ada") });
    let expired = signer("key").mint(&Claims { jti: "expired".into(), exp: START_MS / 1000, ..claims("ada") });
    let forged = signer("forger").mint(&Claims { jti: "forged".into(), ..claims("ada") });
    for token in [withdrawn, expired, forged] {
        setting.verifier.verify(&token).await.unwrap_err();
    }
    setting.uses("good").await;
    eventually("the report", || setting.identity.used() == ["good"]).await;
}

#[tokio::test]
async fn uses_are_kept_while_identity_is_away_and_reported_in_batches_afterwards() {
    let identity = Identity::with_keys(Vec::new());
    identity.is(Mood::Away);
    let setting = following(identity).await;
    for number in 0..1_100 {
        setting.uses(&number.to_string()).await;
    }
    let polls = setting.identity.polls();
    eventually("it goes on asking", || setting.identity.polls() > polls + 1).await;
    assert!(setting.identity.used().is_empty());
    setting.identity.is(Mood::Well);
    eventually("all are reported", || setting.identity.used().len() == 1_100).await;
}

#[tokio::test]
async fn what_was_used_is_reported_before_the_follower_stops() {
    let mut setting = following(Identity::with_keys(Vec::new())).await;
    eventually("it asks", || setting.identity.polls() > 0).await;
    setting.uses("the last").await;
    setting.cancel.cancel();
    setting.follower.join_next().await.unwrap().unwrap();
    assert_eq!(setting.identity.used(), ["the last"]);
}

#[tokio::test]
async fn a_token_of_a_suspended_account_is_refused_with_the_reason_until_it_is_restored() {
    let identity = Identity::with_keys(Vec::new());
    let setting = following(identity).await;
    let token = signer("key").mint(&Claims { jti: "one".into(), ..claims("ada") });
    let refusal = async || Reason::of(&setting.verifier.verify(&token).await.unwrap_err()).unwrap();
    setting.verifier.verify(&token).await.unwrap();

    setting.identity.suspends("one", TOMORROW_MS);
    eventually("the news is read", || setting.revocations.contains("one")).await;
    assert_eq!(refusal().await, Reason::AccountSuspended);
    let other = signer("key").mint(&Claims { jti: "two".into(), ..claims("bob") });
    setting.verifier.verify(&other).await.unwrap();

    // Restored: the old token stays worthless, and says that another one is to be had.
    setting.identity.ends("one", TOMORROW_MS);
    setting.identity.ends("and then", TOMORROW_MS);
    eventually("the news is read", || setting.revocations.contains("and then")).await;
    assert_eq!(refusal().await, Reason::Unauthenticated);
}

#[tokio::test]
async fn who_waits_for_the_end_of_a_session_hears_of_it_and_why() {
    let setting = following(Identity::with_keys(Vec::new())).await;
    for (jti, reason) in [("one", Reason::AccountSuspended), ("two", Reason::Unauthenticated)] {
        let claims = Claims { jti: jti.to_owned(), sid: format!("session of {jti}"), ..claims("ada") };
        let over = setting.verifier.until_over(&claims);
        match reason {
            Reason::AccountSuspended => setting.identity.suspends(jti, TOMORROW_MS),
            _ => setting.identity.ends(format!("session of {jti}"), TOMORROW_MS),
        }
        let status = tokio::time::timeout(std::time::Duration::from_secs(5), over).await.expect("it is told");
        assert_eq!(Reason::of(&status), Some(reason));
    }
}

#[tokio::test]
async fn the_use_of_an_api_keys_token_is_reported_once_a_minute() {
    let setting = following(Identity::with_keys(Vec::new())).await;
    let tokens = ["one", "two"].map(|jti| {
        let claims = Claims { jti: jti.to_owned(), ..key_claims("ada", &["chat"]) };
        signer("key").mint(&claims)
    });
    for _ in 0..3 {
        setting.verifier.verify(&tokens[0]).await.unwrap();
    }
    eventually("the report", || setting.identity.used() == ["key:key of ada"]).await;
    setting.clock.advance(std::time::Duration::from_secs(60));
    setting.verifier.verify(&tokens[0]).await.unwrap();
    setting.verifier.verify(&tokens[1]).await.unwrap();
    eventually("the next minute", || setting.identity.used() == ["key:key of ada"; 3]).await;
}

#[tokio::test]
async fn tokens_of_a_changed_api_key_are_refused_up_to_the_last_one_at_the_edge_and_nowhere_else() {
    let setting = following(Identity::with_keys(Vec::new())).await;
    let token =
        |user: &str, jti: &str| signer("key").mint(&Claims { jti: jti.to_owned(), ..key_claims(user, &["chat"]) });
    setting.revocations.insert_account("key of ada", "0190-5", Refusal::Ended, TOMORROW_MS);
    for (user, jti, good) in
        [("ada", "0190-4", false), ("ada", "0190-5", false), ("ada", "0190-6", true), ("bob", "0190-4", true)]
    {
        let token = token(user, jti);
        assert_eq!(setting.verifier.at_edge().verify(&token).await.is_ok(), good, "{user} {jti}");
        setting.verifier.verify(&token).await.expect("the edge may not have heard of it yet");
    }
    setting.revocations.insert("key:key of ada", Refusal::Ended, TOMORROW_MS);
    for verifier in [setting.verifier.clone(), setting.verifier.at_edge()] {
        assert!(verifier.verify(&token("ada", "0190-6")).await.is_err(), "a key that is gone");
        verifier.verify(&token("bob", "0190-6")).await.unwrap();
    }
}
