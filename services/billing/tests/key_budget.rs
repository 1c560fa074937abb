//! What API keys may spend.
use std::time::Duration;

use futures_util::future::join_all;
use weft_core::Reason;
use weft_db::{AssertSqlSafe, sql};
use weft_proto::billing::v1::{Hold, HoldState, KeySpending};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{COMPANION, CREDIT, World};

on_both_databases! {
    sixty_four_reserves_at_once_on_three_nodes_never_exceed_a_keys_budget
    what_ends_is_given_back_once
    the_holds_of_a_node_that_is_gone_are_given_back_by_another
    a_budget_that_was_lowered_stops_the_key_and_a_raise_lets_it_go_on
    a_key_without_a_budget_is_counted_and_calls_without_a_key_are_not
    keys_are_told_apart_and_so_are_accounts
    what_the_wallet_refuses_is_not_counted
    nonsense_is_refused
    the_ledgers_proof_recounts_what_keys_have_spent
}

const KEY: &str = "0190-key";

fn spending(key_id: &str, spent: i64, held: i64) -> KeySpending {
    KeySpending { key_id: key_id.to_owned(), spent, held }
}

async fn sixty_four_reserves_at_once_on_three_nodes_never_exceed_a_keys_budget(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let budget = Some(5 * CREDIT);
    let reserves = (0..64).map(|n| {
        let node = &nodes[n % 3];
        async move { node.reserve_for("ana", CREDIT / 10, &format!("call {n}"), (KEY, budget)).await }
    });
    let held: Vec<Result<Hold, Reason>> = join_all(reserves).await;
    let refused: Vec<Reason> = held.iter().filter_map(|held| held.as_ref().err().copied()).collect();
    assert_eq!(refused, [Reason::RateLimited; 14], "it is only held: most of it will come back");
    assert_eq!(nodes[0].key_spending("ana", &[KEY]).await, [spending(KEY, 0, 5 * CREDIT)]);
    // While they end, half of what they hold comes free, and is asked for by others at once.
    let settles = held.iter().flatten().enumerate().map(|(n, hold)| nodes[(n + 1) % 3].settle(hold, CREDIT / 20));
    let more = (0..64).map(|n| {
        let node = &nodes[n % 3];
        async move { node.reserve_for("ana", CREDIT / 10, &format!("more {n}"), (KEY, budget)).await }
    });
    let (settled, more) = tokio::join!(join_all(settles), join_all(more));
    settled.into_iter().for_each(|settled| assert_eq!(settled.unwrap().charged, CREDIT / 20));
    let more = more.into_iter().filter(Result::is_ok).count();
    let held = i64::try_from(more).unwrap() * CREDIT / 10;
    assert_eq!(nodes[1].key_spending("ana", &[KEY]).await, [spending(KEY, 5 * CREDIT / 2, held)]);
    assert!(held <= 5 * CREDIT / 2, "{held}");
    nodes[2].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn what_ends_is_given_back_once(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let reserve = async |key: &str| nodes[0].reserve_for("ana", CREDIT, key, (KEY, Some(3 * CREDIT))).await;
    let (settled, voided, left) =
        (reserve("1").await.unwrap(), reserve("2").await.unwrap(), reserve("3").await.unwrap());
    assert_eq!(reserve("1").await.unwrap(), settled, "the same call again");
    assert_eq!(reserve("4").await, Err(Reason::RateLimited));
    join_all((0..8).map(|n| nodes[n % 2].settle(&settled, CREDIT / 4))).await;
    join_all((0..8).map(|n| nodes[n % 2].void(&voided))).await;
    nodes[1].progress(&left, CREDIT / 2).await.unwrap();
    assert_eq!(nodes[1].key_spending("ana", &[KEY]).await, [spending(KEY, CREDIT / 4, CREDIT)]);
    world.clock.advance(Duration::from_millis(60_000));
    eventually("the end of the last hold", Duration::from_secs(10), async || {
        nodes[0].key_spending("ana", &[KEY]).await == [spending(KEY, CREDIT * 3 / 4, 0)]
    })
    .await;
    assert_eq!(nodes[1].settle(&left, CREDIT).await, Err(Reason::FailedPrecondition));
    let capped = reserve("5").await.unwrap();
    assert!(nodes[1].settle(&capped, 9 * CREDIT).await.unwrap().capped);
    assert_eq!(nodes[1].key_spending("ana", &[KEY]).await, [spending(KEY, CREDIT * 7 / 4, 0)]);
    nodes[0].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn the_holds_of_a_node_that_is_gone_are_given_back_by_another(world: &World) {
    let gone = world.node().await;
    for number in 0..5 {
        gone.reserve_for("ana", CREDIT, &number.to_string(), (KEY, Some(5 * CREDIT))).await.unwrap();
    }
    gone.stop().await;
    let node = world.node().await;
    let reserve = async |key: &str| node.reserve_for("ana", CREDIT, key, (KEY, Some(5 * CREDIT))).await;
    assert_eq!(reserve("too early").await, Err(Reason::RateLimited));
    world.clock.advance(Duration::from_millis(60_000));
    eventually("the end of the holds", Duration::from_secs(10), async || {
        node.key_spending("ana", &[KEY]).await == [spending(KEY, 0, 0)]
    })
    .await;
    assert_eq!(reserve("again").await.unwrap().state(), HoldState::Open);
    node.verified(world).await;
    node.stop().await;
}

async fn a_budget_that_was_lowered_stops_the_key_and_a_raise_lets_it_go_on(world: &World) {
    let node = world.node().await;
    let hold = node.reserve_for("ana", 4 * CREDIT, "1", (KEY, Some(4 * CREDIT))).await.unwrap();
    let settled = node.settle(&hold, 3 * CREDIT).await.unwrap();
    assert_eq!(settled.charged, 3 * CREDIT);
    assert_eq!(node.reserve_for("ana", 1, "2", (KEY, Some(2 * CREDIT))).await, Err(Reason::KeyBudgetExceeded));
    assert_eq!(node.reserve_for("ana", 1, "3", (KEY, Some(0))).await, Err(Reason::KeyBudgetExceeded));
    node.reserve_for("ana", 0, "4", (KEY, Some(0))).await.expect("nothing always fits");
    node.reserve_for("ana", 2 * CREDIT, "5", (KEY, Some(5 * CREDIT))).await.unwrap();
    assert_eq!(node.reserve_for("ana", 1, "6", (KEY, Some(5 * CREDIT))).await, Err(Reason::RateLimited));
    node.stop().await;
}

async fn a_key_without_a_budget_is_counted_and_calls_without_a_key_are_not(world: &World) {
    let node = world.node().await;
    let hold = node.reserve_for("ana", 4 * CREDIT, "1", (KEY, None)).await.unwrap();
    node.settle(&hold, CREDIT).await.unwrap();
    let other = node.reserve("ana", 2 * CREDIT, "2").await.unwrap();
    node.settle(&other, CREDIT).await.unwrap();
    assert_eq!(node.key_spending("ana", &[KEY, "another"]).await, [spending(KEY, CREDIT, 0)]);
    assert_eq!(node.balance(world, "ana").await.total, 8 * CREDIT);
    let rows: i64 = sql("SELECT COUNT(*) FROM key_spending").one(&world.db).await.unwrap();
    assert_eq!(rows, 1);
    node.verified(world).await;
    node.stop().await;
}

async fn keys_are_told_apart_and_so_are_accounts(world: &World) {
    let node = world.node().await;
    for (user, key) in [("ana", "a"), ("ana", "b"), ("ben", "a")] {
        node.reserve_for(user, CREDIT, &format!("{user} {key}"), (key, Some(CREDIT))).await.unwrap();
        let more = node.reserve_for(user, 1, &format!("{user} {key} more"), (key, Some(CREDIT))).await;
        assert_eq!(more, Err(Reason::RateLimited));
    }
    let mut both = node.key_spending("ana", &["a", "b", "c"]).await;
    both.sort_by(|one, other| one.key_id.cmp(&other.key_id));
    assert_eq!(both, [spending("a", 0, CREDIT), spending("b", 0, CREDIT)]);
    assert_eq!(node.key_spending("ben", &["a", "b"]).await, [spending("a", 0, CREDIT)]);
    assert_eq!(node.key_spending("ben", &[]).await, []);
    node.stop().await;
}

async fn what_the_wallet_refuses_is_not_counted(world: &World) {
    let node = world.node().await;
    let budget = (KEY, Some(100 * CREDIT));
    assert_eq!(node.reserve_for("ana", 11 * CREDIT, "1", budget).await, Err(Reason::InsufficientCredits));
    assert_eq!(node.key_spending("ana", &[KEY]).await, []);
    node.reserve_for("ana", 10 * CREDIT, "1", budget).await.unwrap();
    assert_eq!(node.key_spending("ana", &[KEY]).await, [spending(KEY, 0, 10 * CREDIT)]);
    node.stop().await;
}

async fn nonsense_is_refused(world: &World) {
    let node = world.node().await;
    let long = "k".repeat(65);
    for budget in [("", None), (long.as_str(), None), ("a\0b", None), (KEY, Some(-1))] {
        assert_eq!(node.reserve_for("ana", 1, "k", budget).await, Err(Reason::InvalidArgument), "{budget:?}");
    }
    let most: Vec<&str> = [KEY; 101].into();
    assert_eq!(node.try_key_spending("ana", &most).await, Err(Reason::InvalidArgument));
    assert_eq!(node.try_key_spending("", &[KEY]).await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn the_ledgers_proof_recounts_what_keys_have_spent(world: &World) {
    let node = world.node().await;
    let hold = node.reserve_for("ana", CREDIT, "1", (KEY, None)).await.unwrap();
    node.settle(&hold, CREDIT).await.unwrap();
    node.reserve_for("ana", CREDIT, "2", (KEY, None)).await.unwrap();
    node.verified(world).await;
    let recount = "SELECT CAST(SUM(charged) AS BIGINT) FROM holds WHERE product = $1 AND key_id = $2";
    let charged: i64 = sql(recount).bind(COMPANION).bind(KEY).one(&world.db).await.unwrap();
    assert_eq!(node.key_spending("ana", &[KEY]).await, [spending(KEY, charged, CREDIT)]);
    for (change, back) in [("spent = spent - 1", "spent = spent + 1"), ("held = held + 1", "held = held - 1")] {
        let update = async |change: &str| {
            sql(AssertSqlSafe(format!("UPDATE key_spending SET {change}"))).run(&world.db).await.unwrap();
        };
        update(change).await;
        let report = node.verify(world).await;
        assert!(!report.ok && report.faults[0].user_id == "ana", "{report:?}");
        assert!(report.faults[0].problem.contains(KEY), "{report:?}");
        update(back).await;
        node.verified(world).await;
    }
    node.stop().await;
}
