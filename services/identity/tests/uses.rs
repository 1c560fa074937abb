//! What other services see of access tokens, and what they are told of them.
use std::time::Duration;

use tonic::Code;
use weft_core::Reason;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{World, reason, token_id};

/// Past the seconds within which an exchanged token gives its successor again.
const PAST_GRACE: u64 = 11;

on_both_databases! {
    a_stolen_refresh_token_is_found_out_though_its_owner_never_comes_to_identity
    a_withdrawn_access_token_is_refused_by_other_services_within_a_second
    a_use_that_came_too_late_does_not_bring_a_withdrawn_pair_back
    reports_of_unknown_tokens_are_ignored_and_too_long_ones_refused
    reports_of_the_same_tokens_at_once_do_not_stand_in_each_others_way
}

async fn a_stolen_refresh_token_is_found_out_though_its_owner_never_comes_to_identity(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let stolen = node.register("ana@example.com").await;
    let next = node.refresh(&stolen).await.unwrap();
    elsewhere.verifier().verify(&next.access_token).await.unwrap();
    world.is_used(&next).await;
    world.pass(PAST_GRACE);

    assert_eq!(node.refresh(&stolen).await, Err(Reason::RefreshReused));
    assert_eq!(node.refresh(&next).await, Err(Reason::Unauthenticated));
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        elsewhere.verifier().verify(&next.access_token).await.is_err()
    })
    .await;
    elsewhere.shutdown().trigger();
}

async fn a_withdrawn_access_token_is_refused_by_other_services_within_a_second(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let first = node.register("ana@example.com").await;
    let lost = node.refresh(&first).await.unwrap();
    // It follows the list from here on.
    elsewhere.verifier().verify(&first.access_token).await.unwrap();
    world.pass(PAST_GRACE);

    let next = node.refresh(&first).await.unwrap();
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        let refused = elsewhere.verifier().verify(&lost.access_token).await;
        refused.is_err_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    elsewhere.verifier().verify(&next.access_token).await.expect("the pair in its place");
    let gateway = world.service("gateway");
    let news = node.revocations(&gateway, "", 0).await.unwrap().revocations;
    let [withdrawn] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!((withdrawn.id.as_str(), withdrawn.expires_at), (token_id(&lost).as_str(), lost.expires_at));
    elsewhere.shutdown().trigger();
}

async fn a_use_that_came_too_late_does_not_bring_a_withdrawn_pair_back(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let lost = node.refresh(&first).await.unwrap();
    world.pass(PAST_GRACE);
    let next = node.refresh(&first).await.unwrap();
    node.report_use(&world.service("gateway"), vec![token_id(&lost)]).await.unwrap();
    assert_eq!(node.me(&lost).await, Err(Reason::Unauthenticated));
    assert!(node.me(&next).await.is_ok());
}

async fn reports_of_unknown_tokens_are_ignored_and_too_long_ones_refused(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    let gateway = world.service("gateway");
    let mut ids: Vec<String> = (0..996).map(|number| format!("nobody's-{number}")).collect();
    ids.extend([r#""]}';--"#.to_owned(), "\0".to_owned(), "x".repeat(100_000), token_id(&tokens)]);
    node.report_use(&gateway, ids.clone()).await.unwrap();
    let used: Vec<i64> = world.column("SELECT COUNT(*) FROM refresh_tokens WHERE access_seen_at IS NOT NULL").await;
    assert_eq!(used, [1]);
    ids.push("one more".to_owned());
    let status = node.report_use(&gateway, ids).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidArgument);
}

async fn reports_of_the_same_tokens_at_once_do_not_stand_in_each_others_way(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let gateway = world.service("gateway");
    nodes[0].register("ana@example.com").await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(token_id(&nodes[0].login("ana@example.com").await.unwrap()));
    }
    let backwards: Vec<String> = ids.iter().rev().cloned().collect();
    let reports = (0..8).map(|number| {
        let ids = if number % 2 == 0 { &ids } else { &backwards };
        nodes[number % 2].report_use(&gateway, ids.clone())
    });
    for outcome in futures_util::future::join_all(reports).await {
        outcome.unwrap();
    }
    let used: Vec<i64> = world.column("SELECT COUNT(*) FROM refresh_tokens WHERE access_seen_at IS NOT NULL").await;
    assert_eq!(used, [20]);
}
