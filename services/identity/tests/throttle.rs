//! How often one account's password may be guessed.
use std::time::Duration;

use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use weft_core::Reason;
use weft_identity::Config;
use weft_testing::on_both_databases;

use crate::harness::{Node, OTHER_PRODUCT, PASSWORD, PRODUCT, World, reason};

/// How long a failure counts, in s.
const WINDOW: u64 = 600;
const MOST: u32 = 3;

on_both_databases! {
    after_too_many_failures_even_the_right_password_waits
    who_has_an_account_is_not_told_by_the_limit
    many_guesses_at_once_are_no_way_around_the_limit
}

async fn node(world: &World) -> Node {
    world.node_with(Config { weft_identity_login_failures: MOST, ..world.config.clone() }).await
}

/// A login that fails.
async fn fails(node: &Node, email: &str, password: &str) -> Status {
    node.login_in(PRODUCT, email, password).await.unwrap_err()
}

async fn after_too_many_failures_even_the_right_password_waits(world: &World) {
    let (node, other) = (node(world).await, node(world).await);
    let session = node.register("ana@example.com").await;
    node.register("bob@example.com").await;
    node.register_in(OTHER_PRODUCT, "ana@example.com", PASSWORD).await.unwrap();
    for _ in 0..MOST {
        assert_eq!(reason(&fails(&node, "ana@example.com", "a wrong guess").await), Reason::InvalidCredentials);
        world.pass(60);
    }
    let status = fails(&other, "Ana@Example.com", PASSWORD).await;
    assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, Reason::RateLimited));
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_secs(WINDOW - u64::from(MOST) * 60));
    assert!(node.login("bob@example.com").await.is_ok(), "another address");
    assert!(node.login_in(OTHER_PRODUCT, "ana@example.com", PASSWORD).await.is_ok(), "another product");
    assert!(node.refresh(&session).await.is_ok(), "who is signed in does not notice");

    world.pass(wait.as_secs() - 1);
    assert_eq!(reason(&fails(&node, "ana@example.com", PASSWORD).await), Reason::RateLimited);
    world.pass(1);
    assert!(node.login("ana@example.com").await.is_ok(), "it ends by itself: to be refused is no failure");
    fails(&node, "ana@example.com", "a wrong guess").await;
    assert_eq!(node.login("ana@example.com").await, Err(Reason::RateLimited), "again three within ten minutes");
}

async fn who_has_an_account_is_not_told_by_the_limit(world: &World) {
    let node = node(world).await;
    node.register("ana@example.com").await;
    for _ in 0..=MOST {
        let known = fails(&node, "ana@example.com", "a wrong guess").await;
        for email in ["nobody@example.com", "no address"] {
            let unknown = fails(&node, email, "a wrong guess").await;
            assert_eq!(unknown.message(), known.message());
            assert_eq!((unknown.code(), unknown.details()), (known.code(), known.details()));
        }
    }
    assert_eq!(reason(&fails(&node, "nobody@example.com", PASSWORD).await), Reason::RateLimited);
}

async fn many_guesses_at_once_are_no_way_around_the_limit(world: &World) {
    let config = Config { weft_identity_login_failures: MOST, weft_identity_hash_threads: 1, ..world.config.clone() };
    let node = world.node_with(config).await;
    node.register("ana@example.com").await;
    // All are let in before the first is hashed. Right and wrong ones, because nobody knows in which order.
    let guesses = (0..40).map(|number| {
        let password = if number < 20 { "a wrong guess" } else { PASSWORD };
        let node = &node;
        async move { node.login_in(PRODUCT, "ana@example.com", password).await.map_err(|status| reason(&status)) }
    });
    let outcomes = join_all(guesses).await;
    assert!(outcomes[20..].contains(&Err(Reason::RateLimited)), "every right guess was told so");
    let wrong = outcomes[..20].iter().filter(|outcome| **outcome == Err(Reason::InvalidCredentials)).count();
    assert!(wrong <= MOST as usize, "{wrong} guesses were told that they are wrong");
    assert!(outcomes[..20].iter().all(Result::is_err));
}
