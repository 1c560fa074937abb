//! Following identity's list of ended sessions.
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_auth::{Revocations, follow};
use weft_core::Clock;

use crate::fakes::{Identity, Mood, START_MS, eventually};

const TOMORROW_MS: i64 = START_MS + 24 * 3600 * 1000;

struct Setting {
    identity: Identity,
    revocations: Revocations,
    cancel: CancellationToken,
    follower: JoinSet<()>,
    _server: JoinSet<()>,
}

async fn following(identity: Identity) -> Setting {
    let mut server = JoinSet::new();
    let client = identity.client(&mut server).await;
    let (revocations, cancel) = (Revocations::new(), CancellationToken::new());
    let mut follower = JoinSet::new();
    follower.spawn(follow(client, revocations.clone(), Clock::manual(START_MS), cancel.clone()));
    Setting { identity, revocations, cancel, follower, _server: server }
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
