//! How often identity is asked for its keys, and what holds while it is away.
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;
use weft_auth::{Keys, Revocations, Verifier};
use weft_core::{Clock, Reason};
use weft_proto::identity::v1::key_service_client::KeyServiceClient;

use crate::fakes::{Identity, Mood, START_MS, claims, connect, eventually, nobody, signer};

const TEN_SECONDS: Duration = Duration::from_secs(10);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const AN_HOUR: Duration = Duration::from_secs(3600);

struct Setting {
    identity: Identity,
    verifier: Verifier,
    clock: Clock,
    _tasks: JoinSet<()>,
}

/// An identity with the key `one`, and a verifier that gets its keys there.
async fn setting() -> Setting {
    let mut tasks = JoinSet::new();
    let identity = Identity::with_keys(vec![signer("one").jwk()]);
    let clock = Clock::manual(START_MS);
    let keys = Keys::remote(identity.client(&mut tasks).await);
    let verifier = Verifier::new(keys, Revocations::new(), clock.clone());
    Setting { identity, verifier, clock, _tasks: tasks }
}

/// A token of `user` under the key `kid`.
fn token(kid: &str, user: &str) -> String {
    signer(kid).mint(&claims(user))
}

impl Setting {
    async fn accepts(&self, token: &str) -> bool {
        match self.verifier.verify(token).await {
            Ok(_) => true,
            Err(status) if status.code() == Code::Unauthenticated => false,
            Err(status) => panic!("neither good nor bad: {status:?}"),
        }
    }

    /// Shows `count` tokens at once, each under a key id that nobody has heard of.
    async fn flood(&self, name: &str, count: usize) {
        let tokens: Vec<String> = (0..count).map(|n| token(&format!("{name}-{n}"), "eve")).collect();
        let outcomes = join_all(tokens.iter().map(|token| self.verifier.verify(token))).await;
        assert!(outcomes.iter().all(|outcome| { outcome.as_ref().is_err_and(|s| s.code() == Code::Unauthenticated) }));
    }
}

#[tokio::test]
async fn first_verifications_at_once_share_one_fetch() {
    let setting = setting().await;
    setting.identity.is(Mood::Slow);
    let tokens: Vec<String> = (0..50).map(|n| token("one", &format!("user {n}"))).collect();
    let outcomes = join_all(tokens.iter().map(|token| setting.verifier.verify(token))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(setting.identity.fetches(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_causes_one_fetch_in_ten_seconds() {
    let setting = setting().await;
    setting.flood("cold", 200).await;
    assert_eq!(setting.identity.fetches(), 1);
    setting.flood("again", 200).await;
    assert_eq!(setting.identity.fetches(), 1, "the keys are new");

    setting.clock.advance(TEN_SECONDS);
    setting.flood("later", 200).await;
    setting.flood("later again", 200).await;
    assert_eq!(setting.identity.fetches(), 2);
    assert!(setting.accepts(&token("one", "ada")).await, "honest users notice nothing");
    assert_eq!(setting.identity.fetches(), 2);
}

#[tokio::test]
async fn tokens_that_name_no_key_cause_no_fetch() {
    let setting = setting().await;
    for bad in ["", "garbage", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(!setting.accepts(bad).await);
    }
    assert_eq!(setting.identity.fetches(), 0);
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_lose_the_fetch_for_the_others() {
    let setting = setting().await;
    setting.identity.is(Mood::Slow);
    let ada = token("one", "ada");
    let gone = timeout(Duration::from_millis(30), setting.verifier.verify(&ada)).await;
    assert!(gone.is_err(), "left before the answer");
    eventually("the fetch has arrived", || setting.identity.fetches() == 1).await;
    assert!(setting.accepts(&ada).await);
    assert_eq!(setting.identity.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_with_one_fetch() {
    let setting = setting().await;
    assert!(setting.accepts(&token("one", "ada")).await);
    setting.identity.lists(vec![signer("two").jwk(), signer("one").jwk()]);
    setting.clock.advance(TEN_SECONDS);
    assert!(setting.accepts(&token("two", "ada")).await);
    assert!(setting.accepts(&token("one", "ada")).await);
    assert_eq!(setting.identity.fetches(), 2);
}

#[tokio::test]
async fn keys_go_on_working_while_identity_is_away() {
    let setting = setting().await;
    let seen = token("one", "ada");
    assert!(setting.accepts(&seen).await);
    setting.identity.is(Mood::Away);
    for hour in 0..3 {
        setting.clock.advance(AN_HOUR);
        assert!(setting.accepts(&seen).await, "remembered, hour {hour}");
        assert!(setting.accepts(&token("one", &format!("user {hour}"))).await, "new, hour {hour}");
        assert!(!setting.accepts(&token("two", "eve")).await, "and others stay unknown, hour {hour}");
    }
    assert_eq!(setting.identity.fetches(), 1 + 3, "one attempt each time");
}

#[tokio::test]
async fn an_identity_that_hangs_holds_up_one_call_at_most() {
    let setting = setting().await;
    let seen = token("one", "ada");
    assert!(setting.accepts(&seen).await);
    setting.identity.is(Mood::Away);
    setting.clock.advance(AN_HOUR);
    assert!(setting.accepts(&seen).await);

    setting.identity.is(Mood::Hanging);
    setting.clock.advance(TEN_SECONDS);
    let waiting = setting.verifier.verify(&seen);
    let others = async {
        eventually("the attempt is under way", || setting.identity.fetches() == 3).await;
        timeout(Duration::from_millis(500), setting.verifier.verify(&seen)).await.expect("waits for nobody").unwrap();
    };
    let (waited, ()) = timeout(Duration::from_secs(5), async { tokio::join!(waiting, others) }).await.unwrap();
    waited.unwrap();
}

#[tokio::test]
async fn a_removed_key_is_refused_within_ten_minutes() {
    let setting = setting().await;
    let seen = token("one", "ada");
    assert!(setting.accepts(&seen).await);
    setting.identity.lists(vec![signer("two").jwk()]);
    assert!(setting.accepts(&seen).await, "nobody has asked yet");

    setting.clock.advance(TEN_MINUTES);
    let tokens = [seen, token("one", "eve")];
    for outcome in join_all(tokens.iter().cycle().take(20).map(|token| setting.accepts(token))).await {
        assert!(!outcome);
    }
    assert!(setting.accepts(&token("two", "ada")).await);
    assert_eq!(setting.identity.fetches(), 2);
}

#[tokio::test]
async fn another_key_under_a_known_id_replaces_it() {
    let setting = setting().await;
    let seen = token("one", "ada");
    assert!(setting.accepts(&seen).await);
    let replaced = weft_auth::Signer::from_seed("one".into(), &[9; 32]);
    setting.identity.lists(vec![replaced.jwk()]);
    setting.clock.advance(TEN_MINUTES);
    assert!(!setting.accepts(&seen).await);
    assert!(setting.accepts(&replaced.mint(&claims("ada"))).await);
}

#[tokio::test]
async fn keys_that_stay_the_same_are_asked_for_once_in_five_minutes() {
    let setting = setting().await;
    let seen = token("one", "ada");
    for _ in 0..6 {
        for _ in 0..60 {
            assert!(setting.accepts(&seen).await);
            setting.clock.advance(Duration::from_secs(5));
        }
    }
    assert_eq!(setting.identity.fetches(), 6);
}

#[tokio::test]
async fn an_empty_list_of_keys_locks_nobody_out() {
    let setting = setting().await;
    assert!(setting.accepts(&token("one", "ada")).await);
    setting.identity.lists(Vec::new());
    setting.clock.advance(TEN_MINUTES);
    assert!(setting.accepts(&token("one", "eve")).await);
}

#[tokio::test]
async fn without_keys_and_without_identity_the_answer_is_unavailable() {
    let setting = setting().await;
    setting.identity.is(Mood::Away);
    let ada = token("one", "ada");
    for _ in 0..20 {
        let status = setting.verifier.verify(&ada).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::Unavailable));
    }
    assert_eq!(setting.identity.fetches(), 1);

    setting.identity.is(Mood::Well);
    setting.clock.advance(Duration::from_secs(1));
    assert!(setting.accepts(&ada).await, "back within a second");
    assert_eq!(setting.identity.fetches(), 2);
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_never_hangs() {
    let client = KeyServiceClient::new(connect(&nobody().await));
    let verifier = Verifier::new(Keys::remote(client), Revocations::new(), Clock::manual(START_MS));
    let outcome = timeout(Duration::from_secs(5), verifier.verify(&token("one", "ada"))).await.unwrap();
    assert_eq!(Reason::of(&outcome.unwrap_err()), Some(Reason::Unavailable));
}
