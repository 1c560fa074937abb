//! The daily bucket: set at midnight, once, however many schedulers run.
use std::time::Duration;

use weft_db::sql;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{COMPANION, CREDIT, DAY_MS, World, moved};

on_both_databases! {
    the_first_use_of_a_day_refreshes_once
    three_schedulers_refresh_a_used_wallet_once
    a_scheduler_that_was_down_for_three_days_refreshes_once
    every_used_day_has_one_refresh_however_many_schedulers_lived_at_midnight
    without_a_scheduler_a_read_refreshes
    an_unused_day_leaves_no_entry
    a_raise_counts_at_once_and_a_lower_plan_from_midnight
    a_raise_is_never_more_than_once
    keys_are_forgotten_after_a_day_and_not_before
}

/// The refreshes of a wallet, the first included.
async fn refreshes(world: &World, user_id: &str) -> i64 {
    sql("SELECT COUNT(*) FROM ledger_entries WHERE product = $1 AND user_id = $2 AND kind = 'daily_refresh'")
        .bind(COMPANION)
        .bind(user_id)
        .one(&world.db)
        .await
        .unwrap()
}

fn days(world: &World, days: u64) {
    world.clock.advance(Duration::from_millis(days * DAY_MS));
}

async fn the_first_use_of_a_day_refreshes_once(world: &World) {
    let node = world.node().await;
    node.debit("ana", 4 * CREDIT, "1").await.unwrap();
    days(world, 1);
    node.debit("ana", CREDIT, "2").await.unwrap();
    node.debit("ana", CREDIT, "3").await.unwrap();
    assert_eq!(node.balance(world, "ana").await.total, 8 * CREDIT);
    assert_eq!(
        node.story(world, "ana").await[1..3],
        [moved("usage", "daily", -4 * CREDIT), moved("daily_refresh", "daily", 4 * CREDIT)]
    );
    assert_eq!(refreshes(world, "ana").await, 2);
    node.verified(world).await;
    node.stop().await;
}

async fn three_schedulers_refresh_a_used_wallet_once(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    for n in 0..20 {
        nodes[n % 3].debit(&format!("user {n}"), CREDIT, "1").await.unwrap();
    }
    days(world, 1);
    eventually("the refresh of all", Duration::from_secs(10), async || {
        let left = "SELECT COUNT(*) FROM wallets WHERE daily <> daily_granted";
        sql(left).one::<i64>(&world.db).await.unwrap() == 0
    })
    .await;
    for n in 0..20 {
        let user = format!("user {n}");
        assert_eq!(nodes[n % 3].balance(world, &user).await.total, 10 * CREDIT);
        assert_eq!(refreshes(world, &user).await, 2);
    }
    nodes[0].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn a_scheduler_that_was_down_for_three_days_refreshes_once(world: &World) {
    let node = world.node().await;
    node.debit("ana", CREDIT, "1").await.unwrap();
    node.stop().await;
    days(world, 3);
    let node = world.node().await;
    eventually("the refresh", Duration::from_secs(10), async || refreshes(world, "ana").await == 2).await;
    assert_eq!(node.balance(world, "ana").await.total, 10 * CREDIT);
    assert_eq!(refreshes(world, "ana").await, 2);
    node.verified(world).await;
    node.stop().await;
}

/// Everybody's refreshes by UTC day: (who, day, how many).
async fn refreshes_by_day(world: &World) -> Vec<(String, i64, i64)> {
    sql("SELECT user_id, created_at / 86400000, COUNT(*) FROM ledger_entries \
         WHERE product = $1 AND kind = 'daily_refresh' GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 1000")
    .bind(COMPANION)
    .all(&world.db)
    .await
    .unwrap()
}

async fn every_used_day_has_one_refresh_however_many_schedulers_lived_at_midnight(world: &World) {
    const USERS: [&str; 4] = ["ana", "ben", "eva", "tom"];
    let mut nodes = vec![world.node().await];
    let mut used: Vec<i64> = Vec::new();
    // How many live at the midnight before a day of use, and how many days after the one before that is.
    for (round, (alive, later)) in [(1, 0), (0, 1), (1, 1), (3, 1), (0, 3), (3, 3)].into_iter().enumerate() {
        while nodes.len() > alive {
            nodes.pop().unwrap().stop().await;
        }
        while nodes.len() < alive {
            nodes.push(world.node().await);
        }
        days(world, later);
        if nodes.is_empty() {
            nodes = vec![world.node().await, world.node().await];
        }
        // Used on every server while the schedulers find out that there is a new day.
        let debits = USERS.iter().flat_map(|user| nodes.iter().map(move |node| (*user, node))).enumerate();
        let debits = debits.map(|(at, (user, node))| async move {
            node.debit(user, CREDIT, &format!("{round} {at}")).await.unwrap();
        });
        futures_util::future::join_all(debits).await;
        used.push(world.clock.now_ms() / 86_400_000);
        let wanted: Vec<_> =
            USERS.iter().flat_map(|user| used.iter().map(move |day| ((*user).to_owned(), *day, 1))).collect();
        assert_eq!(refreshes_by_day(world).await, wanted, "{alive} alive, {later} days later");
        let left = (10 - i64::try_from(nodes.len()).unwrap()) * CREDIT;
        for user in USERS {
            assert_eq!(nodes[0].balance(world, user).await.total, left, "{user}, {alive} alive");
        }
    }
    nodes[0].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn without_a_scheduler_a_read_refreshes(world: &World) {
    let node = world.node().await;
    node.debit("ana", CREDIT, "1").await.unwrap();
    days(world, 1);
    // The read is at once; the scheduler looks every second.
    assert_eq!(node.balance(world, "ana").await.total, 10 * CREDIT);
    assert_eq!(refreshes(world, "ana").await, 2);
    node.stop().await;
}

async fn an_unused_day_leaves_no_entry(world: &World) {
    let node = world.node().await;
    node.balance(world, "ana").await;
    for _ in 0..3 {
        days(world, 1);
        assert_eq!(node.balance(world, "ana").await.total, 10 * CREDIT);
    }
    assert_eq!(refreshes(world, "ana").await, 1);
    node.verified(world).await;
    node.stop().await;
}

async fn a_raise_counts_at_once_and_a_lower_plan_from_midnight(world: &World) {
    let node = world.node().await;
    node.debit("ana", 4 * CREDIT, "1").await.unwrap();
    world.put(COMPANION, "ana", "premium").await;
    assert_eq!(node.balance(world, "ana").await.total, 96 * CREDIT);
    node.debit("ana", 50 * CREDIT, "2").await.unwrap();
    world.put(COMPANION, "ana", "free").await;
    assert_eq!(node.balance(world, "ana").await.total, 46 * CREDIT);
    node.debit("ana", 40 * CREDIT, "3").await.unwrap();
    days(world, 1);
    assert_eq!(node.balance(world, "ana").await.total, 10 * CREDIT);
    world.put(COMPANION, "ben", "premium").await;
    assert_eq!(node.balance(world, "ben").await.total, 100 * CREDIT);
    world.put(COMPANION, "ben", "free").await;
    days(world, 1);
    assert_eq!(node.balance(world, "ben").await.total, 10 * CREDIT);
    assert_eq!(node.story(world, "ben").await[1..], [moved("daily_refresh", "daily", -90 * CREDIT)]);
    node.verified(world).await;
    node.stop().await;
}

async fn a_raise_is_never_more_than_once(world: &World) {
    let nodes = [world.node().await, world.node().await];
    nodes[0].debit("ana", 10 * CREDIT, "1").await.unwrap();
    for plan in ["premium", "free", "premium", "free", "premium"] {
        world.put(COMPANION, "ana", plan).await;
        let (one, other) = tokio::join!(nodes[0].balance(world, "ana"), nodes[1].balance(world, "ana"));
        assert_eq!((one.total, other.total), (90 * CREDIT, 90 * CREDIT));
    }
    // What is refused for want of credits is refused by the plan of this moment.
    nodes[0].debit("ana", 90 * CREDIT, "2").await.unwrap();
    world.put(COMPANION, "ana", "vip").await;
    nodes[0].debit("ana", 400 * CREDIT, "3").await.unwrap();
    assert_eq!(nodes[1].balance(world, "ana").await.total, 0);
    nodes[1].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn keys_are_forgotten_after_a_day_and_not_before(world: &World) {
    let node = world.node().await;
    let first = node.debit("ana", CREDIT, "k").await.unwrap();
    node.stop().await;
    days(world, 1);
    let node = world.node().await;
    assert_eq!(node.debit("ana", CREDIT, "k").await.unwrap(), first);
    node.stop().await;
    world.clock.advance(Duration::from_secs(3600 + 1));
    let node = world.node().await;
    eventually("the pruning", Duration::from_secs(10), async || {
        sql("SELECT COUNT(*) FROM idempotency_keys").one::<i64>(&world.db).await.unwrap() == 0
    })
    .await;
    assert_ne!(node.debit("ana", CREDIT, "k").await.unwrap(), first);
    node.stop().await;
}
