//! What comes late: retries after Stripe has forgotten its keys, events in another order, holds that nobody can end.
use std::time::Duration;

use weft_core::Reason;
use weft_db::sql;
use weft_proto::billing::v1::{ChargeRequest, CreateCheckoutRequest, HoldState, SpendCreditsRequest};
use weft_testing::stripe::Misbehave;
use weft_testing::{eventually, on_both_databases};

use crate::harness::market::{DAYS_40_S, MONTH, Market, asked, wanted};
use crate::harness::{CREDIT, Shop, World, reason};

on_both_databases! {
    nothing_is_paid_twice_after_stripe_forgot_its_keys
    an_order_is_charged_once_however_late_it_is_asked_again
    a_refund_and_an_invoice_come_to_the_same_in_either_order
    holds_that_cannot_be_ended_keep_nobody_waiting
    a_hold_that_ended_long_ago_is_forgotten
}

/// Longer than Stripe keeps a key.
const DAY_S: u64 = 25 * 3600;
const PATIENCE: Duration = Duration::from_secs(30);

async fn nothing_is_paid_twice_after_stripe_forgot_its_keys(world: &World) {
    let market = Market::ready(world).await;
    let stub = &market.shop.stub;
    let cut = |path: &str| (0..3).for_each(|_| stub.misbehave_at(path, Misbehave::CutAfter));
    let forget = || {
        stub.behave();
        stub.forget_keys();
        market.shop.wait(DAY_S);
    };
    let sale = market.charge("plugin", 1000).await.unwrap();
    cut("/v1/refunds");
    assert_eq!(market.refund(&sale, 300, "part").await, Err(Reason::Unavailable));
    forget();
    let back = market.refund(&sale, 300, "part").await.unwrap();
    assert_eq!(back.refunded_minor, 300);
    assert_eq!(stub.objects("ch").last().unwrap()["amount_refunded"], 300);
    market.shop.wait(DAYS_40_S);
    cut("/v1/transfers");
    assert_eq!(market.pay(MONTH).await.map(|_| ()), Err(Reason::Unavailable));
    forget();
    // Nobody asks again: housekeeping finds it.
    let paid = "SELECT COUNT(*) FROM payouts WHERE status = 'paid'";
    eventually("the payout", PATIENCE, async || sql(paid).one::<i64>(&world.db).await.unwrap() == 1).await;
    assert_eq!(market.count("tr"), 1);
    assert_eq!(market.pay(MONTH).await.unwrap().amount_minor, 490);
    let transfer = stub.objects("tr")[0]["id"].as_str().unwrap().to_owned();
    cut(&format!("/v1/transfers/{transfer}/reversals"));
    market.refund(&sale, 0, "rest").await.unwrap();
    forget();
    let done = "SELECT COUNT(*) FROM transfer_reversals WHERE status = 'done'";
    eventually("the reversal", PATIENCE, async || sql(done).one::<i64>(&world.db).await.unwrap() == 1).await;
    assert_eq!(stub.object(&transfer).unwrap()["amount_reversed"], 490);
    market.close().await;
}

async fn an_order_is_charged_once_however_late_it_is_asked_again(world: &World) {
    let market = Market::ready(world).await;
    let order = ChargeRequest { idempotency_key: "order 1".into(), ..wanted("ben", "plugin", 500) };
    let charge = async |order: &ChargeRequest| {
        let answer = market.client().charge(asked(order.clone())).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    };
    let sale = charge(&order).await.unwrap();
    let other = ChargeRequest { idempotency_key: "order 2".into(), ..order.clone() };
    assert_eq!(charge(&other).await, Ok(sale.clone()), "there is one sale of a buyer and item");
    let back = market.refund(&sale, 0, "all").await.unwrap();
    market.shop.stub.forget_keys();
    market.shop.wait(DAYS_40_S);
    for late in [&order, &other] {
        assert_eq!(charge(late).await, Ok(back.clone()));
    }
    assert_eq!(market.charged(), 500);
    let dearer = ChargeRequest { amount_minor: 600, ..order.clone() };
    assert_eq!(charge(&dearer).await, Err(Reason::IdempotencyKeyReused));
    let second = charge(&ChargeRequest { idempotency_key: "order 3".into(), ..order.clone() }).await.unwrap();
    assert_ne!(second.id, sale.id);
    assert_eq!(charge(&order).await, Ok(back), "the first order is still the first sale");
    let refused = ChargeRequest { idempotency_key: "order 4".into(), amount_minor: 600, ..order };
    assert_eq!(charge(&refused).await, Err(Reason::InvalidArgument));
    market.refund(&second, 0, "all of it").await.unwrap();
    assert_eq!(charge(&refused).await.unwrap().amount_minor, 600, "what was refused did not use the key up");
    assert_eq!(market.charged(), 1600);
    market.close().await;
}

async fn a_refund_and_an_invoice_come_to_the_same_in_either_order(world: &World) {
    let shop = Shop::open(world).await;
    let mut told = Vec::new();
    for (user, is_refund_first) in [("ana", true), ("ben", false)] {
        shop.buy(user, "credits_100").await;
        let charge = shop.charge();
        shop.wait(2);
        let all = shop.balance("companion", user).await.total;
        let spend = SpendCreditsRequest { amount: all, idempotency_key: "k".into(), ..Default::default() };
        shop.node.wallets().spend_credits(shop.by("companion", user, spend)).await.unwrap();
        let plan = CreateCheckoutRequest { price_id: "premium_monthly".into(), ..Default::default() };
        let session = shop.checkout("companion", user, plan).await.unwrap().session_id;
        shop.wait(2);
        let (paid, refund) = (shop.stub.complete_checkout(&session), shop.stub.refund(&charge, None));
        let [first, second] = if is_refund_first { [&refund, &paid] } else { [&paid, &refund] };
        shop.deliver("companion", first).await;
        shop.deliver("companion", second).await;
        let balance = shop.balance("companion", user).await;
        told.push((balance.bonus, balance.purchased, balance.debt));
    }
    // 200 of the invoice less 100 that were spent and then refunded.
    assert_eq!(told, [(100 * CREDIT, 0, 0); 2]);
    shop.node.stop().await;
}

async fn holds_that_cannot_be_ended_keep_nobody_waiting(world: &World) {
    // More than are looked after at once: of a product that is gone, and of a wallet that is not there.
    for (number, product) in (0..450).map(|number| (number, if number % 2 == 0 { "gone" } else { "companion" })) {
        sql("INSERT INTO holds (product, user_id, id, state, daily, bonus, purchased, day, charged, progress, reported, \
             capped, ttl_ms, created_at, expires_at, reference) \
             VALUES ($1, 'nobody', $2, 'open', 0, 0, 0, 1, 0, 0, 0, FALSE, 1000, 1, 2, '')")
        .bind(product)
        .bind(format!("hold {number}"))
        .run(&world.db)
        .await
        .unwrap();
    }
    let node = world.node().await;
    let hold = node.reserve("ana", CREDIT, "k").await.unwrap();
    world.clock.advance(Duration::from_hours(2));
    let state = async || {
        let state = sql("SELECT state FROM holds WHERE id = $1").bind(&hold.id);
        state.one::<String>(&world.db).await.unwrap()
    };
    eventually("the end of the hold", PATIENCE, async || state().await == "expired").await;
    // The new day is not kept from anybody either.
    node.debit("ana", CREDIT, "s").await.unwrap();
    world.clock.advance(Duration::from_hours(24));
    let stale = "SELECT COUNT(*) FROM wallets WHERE user_id = 'ana' AND daily <> daily_granted";
    eventually("the new day", PATIENCE, async || sql(stale).one::<i64>(&world.db).await.unwrap() == 0).await;
    let left = "SELECT COUNT(*) FROM holds WHERE state = 'open'";
    assert_eq!(sql(left).one::<i64>(&world.db).await.unwrap(), 450);
    node.stop().await;
}

async fn a_hold_that_ended_long_ago_is_forgotten(world: &World) {
    let node = world.node().await;
    let old = node.reserve("ana", CREDIT, "old").await.unwrap();
    node.settle(&old, 1).await.unwrap();
    world.clock.advance(Duration::from_hours(29 * 24));
    let young = node.reserve("ana", CREDIT, "young").await.unwrap();
    node.settle(&young, 1).await.unwrap();
    assert_eq!(node.settle(&old, 1).await.unwrap().state(), HoldState::Settled, "a month is not over");
    node.stop().await;
    world.clock.advance(Duration::from_hours(2 * 24));
    let node = world.node().await;
    eventually("the end of the old hold", PATIENCE, async || node.settle(&old, 1).await == Err(Reason::NotFound)).await;
    assert_eq!(node.settle(&young, 1).await.unwrap().charged, 1);
    node.verified(world).await;
    node.stop().await;
}
