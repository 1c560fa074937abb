//! The life of refresh tokens.
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Code;
use weft_core::Reason;
use weft_proto::identity::v1::RefreshRequest;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, OTHER_PRODUCT, PRODUCT, Session, World, claim, reason, with};

/// Seconds within which an exchanged token gives its successor again.
const GRACE: u64 = 10;

on_both_databases! {
    within_ten_seconds_a_token_gives_the_same_pair_again
    a_used_token_whose_successor_was_refreshed_ends_the_session_everywhere
    a_used_token_whose_successor_was_seen_ends_the_session
    a_lost_answer_does_not_sign_anybody_out
    an_answer_may_be_lost_again_and_again
    the_pair_of_a_lost_answer_is_withdrawn
    parallel_refreshes_after_a_lost_answer_agree_too
    use_of_the_pair_before_is_no_use_of_its_successor
    a_repeat_is_answered_though_the_pair_was_forgotten_too_early
    a_refresh_token_expires_by_itself
    a_session_ends_however_often_it_is_refreshed
    what_is_no_refresh_token_is_refused
    a_token_of_another_product_is_unknown
    fifty_refreshes_at_once_get_one_answer
}

async fn within_ten_seconds_a_token_gives_the_same_pair_again(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let next = node.refresh(&first).await.unwrap();
    world.pass(GRACE);
    assert_eq!(node.refresh(&first).await, Ok(next.clone()));
    let third = node.refresh(&next).await.unwrap();
    assert_ne!(third, next);
    assert_eq!(node.refresh(&first).await, Ok(next), "though that was refreshed meanwhile: a tab that lags behind");
    assert!(node.me(&third).await.is_ok());
}

async fn a_used_token_whose_successor_was_refreshed_ends_the_session_everywhere(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let first = nodes[0].register("ana@example.com").await;
    let second = nodes[1].refresh(&first).await.unwrap();
    let third = nodes[2].refresh(&second).await.unwrap();
    let elsewhere = nodes[0].login("ana@example.com").await.unwrap();
    world.pass(GRACE + 1);

    let message = RefreshRequest { refresh_token: first.refresh_token.clone() };
    let status = nodes[0].auth().refresh(with(PRODUCT, None, message)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, Reason::RefreshReused));
    for node in &nodes {
        for tokens in [&first, &second, &third] {
            assert_eq!(node.refresh(tokens).await, Err(Reason::Unauthenticated));
            assert_eq!(node.me(tokens).await, Err(Reason::Unauthenticated));
        }
        assert!(node.me(&elsewhere).await.is_ok(), "another session of the account goes on");
        // Only the guard can refuse this: to end a session again is no error.
        let refused = async || node.logout(&third).await == Err(Reason::Unauthenticated);
        eventually("the refusal by the guard", Duration::from_secs(1), refused).await;
    }
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events WHERE session_id IS NOT NULL").await;
    assert_eq!(kinds, ["refresh_replay"]);
}

async fn a_used_token_whose_successor_was_seen_ends_the_session(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let next = node.refresh(&first).await.unwrap();
    node.me(&next).await.unwrap();
    world.is_used(&next).await;
    world.pass(GRACE + 1);
    assert_eq!(node.refresh(&first).await, Err(Reason::RefreshReused));
    assert_eq!(node.refresh(&next).await, Err(Reason::Unauthenticated));
    assert_eq!(node.me(&next).await, Err(Reason::Unauthenticated));
}

async fn a_lost_answer_does_not_sign_anybody_out(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let lost = node.refresh(&first).await.unwrap();
    world.pass(5 * 60);
    let next = node.refresh(&first).await.unwrap();
    assert_ne!((&next.access_token, &next.refresh_token), (&lost.access_token, &lost.refresh_token));
    assert_eq!(claim(&next, "sid"), claim(&first, "sid"));
    assert_eq!(node.refresh(&first).await, Ok(next.clone()), "the new pair has its ten seconds too");
    assert!(node.me(&next).await.is_ok());
    world.pass(GRACE + 1);
    assert!(node.refresh(&next).await.is_ok());
}

async fn an_answer_may_be_lost_again_and_again(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    for _ in 0..3 {
        node.refresh(&first).await.unwrap();
        world.pass(GRACE + 1);
    }
    let next = node.refresh(&first).await.unwrap();
    assert!(node.refresh(&next).await.is_ok());
    world.pass(GRACE + 1);
    assert_eq!(node.refresh(&first).await, Err(Reason::RefreshReused), "this answer did arrive");
}

async fn the_pair_of_a_lost_answer_is_withdrawn(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let lost = node.refresh(&first).await.unwrap();
    world.pass(GRACE + 1);
    let next = node.refresh(&first).await.unwrap();
    assert_eq!(node.me(&lost).await, Err(Reason::Unauthenticated));
    assert!(node.me(&next).await.is_ok());
    assert_eq!(node.refresh(&lost).await, Err(Reason::RefreshReused), "somebody has it: it was not lost");
    assert_eq!(node.me(&next).await, Err(Reason::Unauthenticated), "and nobody knows who is who");
}

async fn parallel_refreshes_after_a_lost_answer_agree_too(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let first = nodes[0].register("ana@example.com").await;
    nodes[1].refresh(&first).await.unwrap();
    world.pass(GRACE + 1);
    let answer = one_answer(&nodes, &first, 20).await;
    assert!(nodes[0].refresh(&answer).await.is_ok());
}

/// All of it in one moment of the clock: nothing but their ids tells the access tokens of both pairs apart.
async fn use_of_the_pair_before_is_no_use_of_its_successor(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let lost = node.refresh(&first).await.unwrap();
    assert_ne!(first.access_token, lost.access_token);
    node.me(&first).await.unwrap();
    world.is_used(&first).await;
    world.pass(GRACE + 1);
    assert!(node.refresh(&first).await.is_ok(), "nothing of the lost pair was ever used");
}

/// As housekeeping of a replica would do it whose clock is far ahead.
async fn a_repeat_is_answered_though_the_pair_was_forgotten_too_early(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let forgotten = node.refresh(&first).await.unwrap();
    world.forget_sealed().await;
    let next = node.refresh(&first).await.unwrap();
    assert_ne!(next, forgotten, "as for a lost answer");
    assert_eq!(node.refresh(&first).await, Ok(next.clone()));

    node.refresh(&next).await.unwrap();
    world.forget_sealed().await;
    assert_eq!(node.refresh(&first).await, Err(Reason::Aborted), "in use, and nobody is to blame");
    assert!(node.me(&next).await.is_ok(), "the session goes on");
}

async fn a_refresh_token_expires_by_itself(world: &World) {
    let node = world.node().await;
    let life = world.product().identity.refresh_ttl_s.unsigned_abs();
    let first = node.register("ana@example.com").await;
    world.pass(life - 1);
    let next = node.refresh(&first).await.unwrap();
    world.pass(1);
    assert_eq!(node.refresh(&first).await, Err(Reason::Unauthenticated), "within ten seconds, but expired");
    world.pass(life);
    assert_eq!(node.refresh(&next).await, Err(Reason::Unauthenticated));
}

async fn a_session_ends_however_often_it_is_refreshed(world: &World) {
    let node = world.node().await;
    let identity = &world.product().identity;
    let begun_s = world.clock.now_ms() / 1000;
    let mut tokens = node.register("ana@example.com").await;
    let step = identity.refresh_ttl_s - 1;
    let mut age = step;
    while age < identity.family_ttl_s {
        world.pass(step.unsigned_abs());
        tokens = node.refresh(&tokens).await.unwrap();
        age += step;
    }
    let left = identity.family_ttl_s - (age - step);
    world.pass(left.unsigned_abs() - 1);
    tokens = node.refresh(&tokens).await.unwrap();
    assert_eq!(claim(&tokens, "exp"), begun_s + identity.family_ttl_s, "not even an access token lives on");
    world.pass(1);
    assert_eq!(node.refresh(&tokens).await, Err(Reason::Unauthenticated));
    assert_eq!(node.me(&tokens).await, Err(Reason::Unauthenticated));
}

async fn what_is_no_refresh_token_is_refused(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    let changed = format!("{}A", &tokens.refresh_token[..42]);
    for text in ["", "x", "a\0b", &"A".repeat(43), &"A".repeat(100_000), &tokens.access_token, &changed] {
        if *text != tokens.refresh_token {
            assert_eq!(node.refresh_in(PRODUCT, text).await, Err(Reason::Unauthenticated), "{} bytes", text.len());
        }
    }
    assert!(node.refresh(&tokens).await.is_ok());
}

async fn a_token_of_another_product_is_unknown(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    assert_eq!(node.refresh_in(OTHER_PRODUCT, &tokens.refresh_token).await, Err(Reason::Unauthenticated));
    assert_eq!(node.me_in(OTHER_PRODUCT, &tokens).await, Err(Reason::ProductMismatch));
    assert!(node.refresh(&tokens).await.is_ok(), "it was not consumed");
}

async fn fifty_refreshes_at_once_get_one_answer(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let mut tokens = nodes[0].register("ana@example.com").await;
    for round in 0..8 {
        let answer = one_answer(&nodes, &tokens, 50).await;
        let live: Vec<i64> = world.column("SELECT COUNT(*) FROM refresh_tokens WHERE consumed_at IS NULL").await;
        assert_eq!(live, [1], "usable leaves in round {round}");
        tokens = answer;
    }
    assert!(nodes[1].me(&tokens).await.is_ok(), "an honest client is still signed in");
}

/// Refreshes one token many times at once, spread over the servers; every answer is the same.
async fn one_answer(nodes: &[Node], tokens: &Session, times: usize) -> Session {
    let answers = join_all((0..times).map(|number| nodes[number % nodes.len()].refresh(tokens))).await;
    let first = answers[0].clone().unwrap();
    assert!(answers.iter().all(|answer| answer.as_ref() == Ok(&first)), "{answers:?}");
    first
}
