//! Credits from the first call to the last refund: what an account has is exact to the micro-credit.
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use weft_billing::dev::{self, About, Item};
use weft_core::Reason;
use weft_db::sql;
use weft_proto::billing::v1::{CreateCheckoutRequest, Hold};
use weft_testing::stripe::{Signed, Weather};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{COMPANION, CREDIT, Shop, World};

on_both_databases! {
    holds_a_package_and_a_subscription_add_up_to_the_micro_credit
    a_refund_of_spent_credits_is_a_debt_that_the_next_purchase_pays
    five_percent_of_many_events_are_lost_for_ever_and_nothing_is
    every_kind_of_event_that_is_made_for_trying_out_is_taken
}

async fn holds_a_package_and_a_subscription_add_up_to_the_micro_credit(world: &World) {
    let shop = Shop::open(world).await;
    let others = [shop.another().await, shop.another().await];
    let nodes = [&shop.node, &others[0], &others[1]];
    let reserves = (0..150).map(|n| {
        let node = nodes[n % 3];
        async move { node.reserve("ana", CREDIT / 10, &format!("call {n}")).await }
    });
    let held: Vec<Result<Hold, Reason>> = join_all(reserves).await;
    let refused: Vec<Reason> = held.iter().filter_map(|held| held.as_ref().err().copied()).collect();
    assert_eq!(refused, vec![Reason::InsufficientCredits; 50]);
    let settles = held.iter().flatten().enumerate().map(|(n, hold)| nodes[(n + 1) % 3].settle(hold, CREDIT / 10));
    for settled in join_all(settles).await {
        assert_eq!(settled.unwrap().charged, CREDIT / 10);
    }
    let balance = shop.balance(COMPANION, "ana").await;
    assert_eq!((balance.total, balance.held), (0, 0));

    let bought = shop.buy("ana", "credits_500").await;
    assert_eq!(shop.balance(COMPANION, "ana").await.total, 550 * CREDIT);
    let again = shop.deliver(COMPANION, &bought).await;
    assert!(again.iter().all(|outcome| outcome == "duplicate" || outcome == "ignored"), "{again:?}");
    assert_eq!(shop.balance(COMPANION, "ana").await.total, 550 * CREDIT);

    let wanted = CreateCheckoutRequest { price_id: "vip_monthly".into(), ..Default::default() };
    let session = shop.checkout(COMPANION, "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    assert!(events.iter().any(|event| event["type"] == "invoice.paid"));
    shop.deliver(COMPANION, &events).await;
    let balance = shop.balance(COMPANION, "ana").await;
    // Of the day's 500, the 10 that were used before the raise are gone.
    assert_eq!((balance.daily, balance.bonus, balance.purchased), (490 * CREDIT, 1000 * CREDIT, 550 * CREDIT));
    assert_eq!(balance.total, 2040 * CREDIT);

    let left = others[1].debit("ana", 50_000, "the last").await.unwrap().balance.unwrap();
    assert_eq!((left.total, left.daily), (2_039_950_000, 489_950_000));
    assert_eq!((left.bonus, left.purchased), (1000 * CREDIT, 550 * CREDIT));
    shop.node.verified(world).await;
    for node in others {
        node.stop().await;
    }
    shop.node.stop().await;
}

async fn a_refund_of_spent_credits_is_a_debt_that_the_next_purchase_pays(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_100").await;
    shop.node.debit("ana", 70 * CREDIT, "60 of the package").await.unwrap();
    let charge = shop.charge();
    shop.wait(2);
    shop.deliver(COMPANION, &shop.stub.refund(&charge, None)).await;
    let balance = shop.balance(COMPANION, "ana").await;
    assert_eq!((balance.daily, balance.purchased, balance.debt), (0, 0, 60 * CREDIT));
    assert_eq!(shop.node.debit("ana", 1, "more").await, Err(Reason::InsufficientCredits));
    shop.buy("ana", "credits_50").await;
    let balance = shop.balance(COMPANION, "ana").await;
    assert_eq!((balance.purchased, balance.debt), (0, 10 * CREDIT));
    shop.buy("ana", "credits_50").await;
    let balance = shop.balance(COMPANION, "ana").await;
    assert_eq!((balance.total, balance.purchased, balance.debt), (40 * CREDIT, 40 * CREDIT, 0));
    let repaid: i64 = sql("SELECT CAST(SUM(amount) AS BIGINT) FROM ledger_entries \
         WHERE product = 'companion' AND user_id = 'ana' AND kind = 'debt_repaid' AND bucket = 'purchased'")
    .one(&world.db)
    .await
    .unwrap();
    assert_eq!(repaid, -60 * CREDIT);
    shop.node.verified(world).await;
    shop.node.stop().await;
}

async fn five_percent_of_many_events_are_lost_for_ever_and_nothing_is(world: &World) {
    const BUYERS: i64 = 60;
    let shop = Shop::open_comparing(world, 15).await;
    let mut made: Vec<Value> = Vec::new();
    for number in 0..BUYERS {
        let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
        let session = shop.checkout(COMPANION, &format!("buyer {number}"), wanted).await.unwrap().session_id;
        shop.wait(1);
        made.extend(shop.stub.complete_checkout(&session));
    }
    made.retain(|event| event["type"] == "checkout.session.completed");
    let weather = Weather { seed: 5, drop_percent: 5, shuffle: 1000, ..Weather::fair() };
    let sent: Vec<Value> = weather.plan(&made).into_iter().map(|(event, _)| event).collect();
    let lost = made.len() - sent.len();
    assert!(lost > 0, "nothing was lost");
    shop.deliver(COMPANION, &sent).await;
    let paid = async || -> i64 {
        sql("SELECT COUNT(*) FROM payments WHERE product = 'companion' AND kind = 'package'")
            .one(&world.db)
            .await
            .unwrap()
    };
    assert_eq!(paid().await, BUYERS - i64::try_from(lost).unwrap());
    shop.wait(15 * 60);
    eventually("every payment", Duration::from_secs(30), async || paid().await == BUYERS).await;
    let again = shop.deliver(COMPANION, &made).await;
    assert!(again.iter().all(|outcome| outcome == "duplicate"), "{again:?}");
    for number in 0..BUYERS {
        let balance = shop.balance(COMPANION, &format!("buyer {number}")).await;
        assert_eq!(balance.purchased, 10 * CREDIT, "buyer {number}");
    }
    shop.node.verified(world).await;
    shop.node.stop().await;
}

async fn every_kind_of_event_that_is_made_for_trying_out_is_taken(world: &World) {
    let shop = Shop::open(world).await;
    let price = Item::Price { plan: "vip", version: 1, price_id: "vip_monthly" };
    let mut effective = BTreeSet::new();
    for (user_id, item, amount_minor) in [("ana", Item::Package("credits_500"), 3999), ("ben", price, 2999)] {
        world.put(COMPANION, user_id, "free").await;
        let about = About { product: COMPANION, user_id, item, amount_minor, currency: "USD" };
        for kind in dev::kinds() {
            let (body, header) = dev::event(kind, &about, shop.stub.webhook_secret(), &world.clock).unwrap();
            let signed = Signed { header, body };
            let outcome = shop.post(COMPANION, &signed).await.unwrap_or_else(|why| panic!("{kind}: {why:?}"));
            if outcome != "ignored" {
                assert_eq!(shop.post(COMPANION, &signed).await, Ok("duplicate".into()), "{kind}");
                effective.insert(*kind);
            }
            shop.wait(2);
        }
    }
    let without: Vec<_> = dev::kinds().iter().filter(|kind| !effective.contains(*kind)).collect();
    assert!(without.is_empty(), "{without:?} fit neither a package nor a plan");
    shop.node.verified(world).await;
    shop.node.stop().await;
}
