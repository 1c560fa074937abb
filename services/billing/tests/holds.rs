//! Credits set aside for a call.
use std::time::Duration;

use futures_util::future::join_all;
use weft_core::Reason;
use weft_proto::billing::v1::{Bucket, Hold, HoldState};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{COMPANION, CREDIT, DAY_MS, World, moved};

on_both_databases! {
    a_hundred_and_fifty_holds_at_once_on_three_nodes_take_exactly_what_is_there
    a_hold_is_charged_once_and_the_rest_is_back
    a_hold_that_has_ended_stays_as_it_ended
    more_than_a_hold_is_charged_up_to_it
    a_hold_that_nobody_ends_is_charged_what_was_delivered
    progress_keeps_a_hold_from_expiring_and_never_falls
    a_hold_of_nothing_always_succeeds
    what_a_hold_took_of_yesterday_does_not_come_back
    a_hold_of_somebody_else_is_not_there
}

async fn a_hundred_and_fifty_holds_at_once_on_three_nodes_take_exactly_what_is_there(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let reserves = (0..150).map(|n| {
        let node = &nodes[n % 3];
        async move { node.reserve("ana", CREDIT / 10, &format!("call {n}")).await }
    });
    let held: Vec<Result<Hold, Reason>> = join_all(reserves).await;
    let refused: Vec<Reason> = held.iter().filter_map(|held| held.as_ref().err().copied()).collect();
    assert_eq!(refused, vec![Reason::InsufficientCredits; 50]);
    let balance = nodes[0].balance(world, "ana").await;
    assert_eq!((balance.total, balance.held), (0, 10 * CREDIT));
    let settles = held.iter().flatten().enumerate().map(|(n, hold)| nodes[(n + 1) % 3].settle(hold, CREDIT / 20));
    for settled in join_all(settles).await {
        assert_eq!(settled.unwrap().charged, CREDIT / 20);
    }
    let balance = nodes[1].balance(world, "ana").await;
    assert_eq!((balance.total, balance.held), (5 * CREDIT, 0));
    nodes[2].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn a_hold_is_charged_once_and_the_rest_is_back(world: &World) {
    let node = world.node().await;
    let hold = node.reserve("ana", 4 * CREDIT, "k").await.unwrap();
    assert_eq!((hold.state(), hold.amount, hold.product.as_str()), (HoldState::Open, 4 * CREDIT, COMPANION));
    assert_eq!(node.reserve("ana", 4 * CREDIT, "k").await.unwrap(), hold);
    assert_eq!(node.balance(world, "ana").await.total, 6 * CREDIT);
    assert_eq!(node.reserve("ana", 7 * CREDIT, "more").await, Err(Reason::InsufficientCredits));
    let settled = node.settle(&hold, CREDIT).await.unwrap();
    assert_eq!((settled.state(), settled.charged, settled.capped), (HoldState::Settled, CREDIT, false));
    let again = join_all((0..10).map(|_| node.settle(&hold, CREDIT))).await;
    assert!(again.into_iter().all(|again| again.unwrap() == settled));
    assert_eq!(node.balance(world, "ana").await.total, 9 * CREDIT);
    assert_eq!(node.story(world, "ana").await[1..], [moved("usage", "daily", -CREDIT)]);
    node.verified(world).await;
    node.stop().await;
}

async fn a_hold_that_has_ended_stays_as_it_ended(world: &World) {
    let node = world.node().await;
    let hold = node.reserve("ana", 4 * CREDIT, "1").await.unwrap();
    node.settle(&hold, CREDIT).await.unwrap();
    assert_eq!(node.settle(&hold, 2 * CREDIT).await, Err(Reason::FailedPrecondition));
    assert_eq!(node.void(&hold).await, Err(Reason::FailedPrecondition));
    assert_eq!(node.progress(&hold, 1).await, Err(Reason::FailedPrecondition));
    let hold = node.reserve("ana", 4 * CREDIT, "2").await.unwrap();
    let voided = node.void(&hold).await.unwrap();
    assert_eq!((voided.state(), voided.charged), (HoldState::Voided, 0));
    assert_eq!(node.void(&hold).await.unwrap(), voided);
    assert_eq!(node.settle(&hold, 0).await, Err(Reason::FailedPrecondition));
    assert_eq!(node.balance(world, "ana").await.total, 9 * CREDIT);
    assert_eq!(node.settle(&hold, -1).await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn more_than_a_hold_is_charged_up_to_it(world: &World) {
    let node = world.node().await;
    let hold = node.reserve("ana", 4 * CREDIT, "k").await.unwrap();
    let settled = node.settle(&hold, i64::MAX).await.unwrap();
    assert_eq!((settled.charged, settled.capped), (4 * CREDIT, true));
    assert_eq!(node.settle(&hold, i64::MAX).await.unwrap(), settled);
    assert_eq!(node.settle(&hold, 4 * CREDIT).await, Err(Reason::FailedPrecondition));
    assert_eq!(node.balance(world, "ana").await.total, 6 * CREDIT);
    node.stop().await;
}

async fn a_hold_that_nobody_ends_is_charged_what_was_delivered(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let silent = nodes[0].reserve("ana", 2 * CREDIT, "silent").await.unwrap();
    let slow = nodes[0].reserve("ana", 2 * CREDIT, "slow").await.unwrap();
    assert_eq!(nodes[1].progress(&slow, CREDIT / 2).await.unwrap().progress, CREDIT / 2);
    world.clock.advance(Duration::from_millis(60_000));
    eventually("the end of both holds", Duration::from_secs(10), async || {
        nodes[0].balance(world, "ana").await.held == 0
    })
    .await;
    assert_eq!(nodes[0].balance(world, "ana").await.total, 10 * CREDIT - CREDIT / 2);
    assert_eq!(nodes[0].settle(&slow, CREDIT / 2).await, Err(Reason::FailedPrecondition));
    assert_eq!(nodes[1].void(&silent).await, Err(Reason::FailedPrecondition));
    assert_eq!(nodes[0].story(world, "ana").await[1..], [moved("usage", "daily", -CREDIT / 2)]);
    nodes[0].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn progress_keeps_a_hold_from_expiring_and_never_falls(world: &World) {
    let node = world.node().await;
    let hold = node.reserve("ana", 2 * CREDIT, "k").await.unwrap();
    let other = node.reserve("ana", CREDIT, "other").await.unwrap();
    world.clock.advance(Duration::from_millis(40_000));
    let marked = node.progress(&hold, CREDIT).await.unwrap();
    assert_eq!(marked.expires_at, world.clock.now_ms() + 60_000);
    assert_eq!(node.progress(&hold, 1).await.unwrap().progress, CREDIT);
    assert_eq!(node.progress(&hold, 9 * CREDIT).await.unwrap().progress, 2 * CREDIT);
    world.clock.advance(Duration::from_millis(40_000));
    eventually("the end of the other hold", Duration::from_secs(10), async || {
        node.balance(world, "ana").await.held == 2 * CREDIT
    })
    .await;
    assert_eq!(node.void(&other).await, Err(Reason::FailedPrecondition));
    assert_eq!(node.settle(&hold, CREDIT).await.unwrap().charged, CREDIT);
    node.stop().await;
}

async fn a_hold_of_nothing_always_succeeds(world: &World) {
    let node = world.node().await;
    node.debit("ana", 10 * CREDIT, "all").await.unwrap();
    let hold = node.reserve("ana", 0, "k").await.unwrap();
    assert_eq!(node.settle(&hold, 0).await.unwrap().state(), HoldState::Settled);
    let other = node.reserve("ana", 0, "other").await.unwrap();
    assert!(node.settle(&other, 5).await.unwrap().capped);
    node.verified(world).await;
    node.stop().await;
}

async fn what_a_hold_took_of_yesterday_does_not_come_back(world: &World) {
    let node = world.node().await;
    node.grant("ana", Bucket::Bonus, 5 * CREDIT, "b").await.unwrap();
    let hold = node.reserve("ana", 12 * CREDIT, "k").await.unwrap();
    world.clock.advance(Duration::from_millis(DAY_MS));
    node.progress(&hold, 0).await.unwrap();
    let balance = node.balance(world, "ana").await;
    assert_eq!((balance.daily, balance.bonus, balance.held), (10 * CREDIT, 3 * CREDIT, 12 * CREDIT));
    node.settle(&hold, 4 * CREDIT).await.unwrap();
    let balance = node.balance(world, "ana").await;
    assert_eq!((balance.daily, balance.bonus, balance.held), (10 * CREDIT, 5 * CREDIT, 0));
    assert_eq!(
        node.story(world, "ana").await[2..],
        [
            moved("daily_refresh", "daily", 10 * CREDIT),
            moved("usage", "daily", -4 * CREDIT),
            moved("daily_expiry", "daily", -6 * CREDIT),
        ]
    );
    node.verified(world).await;
    node.stop().await;
}

async fn a_hold_of_somebody_else_is_not_there(world: &World) {
    let node = world.node().await;
    let hold = node.reserve("ana", CREDIT, "k").await.unwrap();
    node.reserve("ben", CREDIT, "k").await.unwrap();
    for user_id in ["ben", "nobody"] {
        let theirs = Hold { user_id: user_id.into(), ..hold.clone() };
        assert_eq!(node.settle(&theirs, 1).await, Err(Reason::NotFound));
        assert_eq!(node.void(&theirs).await, Err(Reason::NotFound));
        assert_eq!(node.progress(&theirs, 1).await, Err(Reason::NotFound));
    }
    node.stop().await;
}
