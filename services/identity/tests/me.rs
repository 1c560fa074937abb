//! The signed-in account, and billing behind it.
use std::time::Duration;

use tokio::time::Instant;
use weft_core::Reason;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{World, token_id};

on_both_databases! {
    without_billing_nobody_is_told_a_tier
    only_the_first_sight_of_a_token_is_written_down
}

async fn without_billing_nobody_is_told_a_tier(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    assert!(node.me(&tokens).await.is_ok());
    world.billing.go_away();
    world.pass(2);
    let asked = Instant::now();
    assert_eq!(node.me(&tokens).await, Err(Reason::Unavailable));
    assert!(asked.elapsed() < Duration::from_secs(3), "it must not hang");
    assert!(node.refresh(&tokens).await.is_ok(), "what needs no billing goes on");
    world.billing.come_back();
    eventually("the account again", Duration::from_secs(10), async || node.me(&tokens).await.is_ok()).await;
}

async fn only_the_first_sight_of_a_token_is_written_down(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    let first_seen = world.clock.now_ms();
    node.me(&tokens).await.unwrap();
    world.is_used(&tokens).await;
    world.pass(1);
    let gateway = world.service("gateway");
    node.report_use(&gateway, vec![token_id(&tokens)]).await.unwrap();
    let seen: Vec<i64> = world.column("SELECT access_seen_at FROM refresh_tokens").await;
    assert_eq!(seen, [first_seen]);
}
