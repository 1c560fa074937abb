//! The marketplace's sales: their division, refunds, disputes.
use std::time::Duration;

use serde_json::Value;
use weft_core::Reason;
use weft_proto::billing::v1::revenue_service_client::RevenueServiceClient;
use weft_proto::billing::v1::{ChargeRequest, ListRevenueEventsRequest, Payout, Sale};
use weft_testing::{eventually, on_both_databases};

use crate::harness::market::{
    DAYS_40_S, MONTH, Market, NEXT, PRODUCT, asked, moved, number, parts, period, refund, wanted,
};
use crate::harness::{Node, World, reason};

on_both_databases! {
    a_sale_is_divided_and_paid_out_once
    refunds_in_parts_come_to_the_whole
    the_same_refund_again_pays_back_once
    ten_who_buy_the_same_at_once_pay_once
    an_item_can_be_bought_again_after_a_full_refund
    a_free_item_is_a_sale_without_a_payment
    a_buyer_who_cannot_pay_is_told_why_and_may_try_again
    a_price_may_change_after_a_declined_payment
    what_cannot_be_sold_is_refused
    what_stripe_tells_of_a_sale_comes_to_the_same_in_any_order
    a_dispute_takes_and_a_won_one_gives_back
    a_lost_dispute_keeps_and_what_was_paid_out_comes_back
    movements_are_listed_newest_first_and_each_once
}

async fn a_sale_is_divided_and_paid_out_once(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    assert_eq!(parts(&sale), (350, 150, 0, "paid"));
    assert_eq!(market.charge("plugin", 500).await, Ok(sale));
    assert_eq!(parts(&market.charge("other", 333).await.unwrap()), (233, 100, 0, "paid"));
    assert_eq!((market.count("pi"), market.charged()), (2, 833));
    assert_eq!(market.pay(MONTH).await, Err(Reason::FailedPrecondition));
    market.shop.wait(DAYS_40_S);
    let first = market.pay(MONTH).await.unwrap();
    assert_eq!((first.amount_minor, first.already_paid), (583, false));
    assert!(first.transfer_id.starts_with("tr_"), "{first:?}");
    let again = market.pay(MONTH).await.unwrap();
    assert_eq!(again, Payout { already_paid: true, ..first });
    assert_eq!(market.pay(NEXT).await, Err(Reason::FailedPrecondition));
    assert_eq!(market.pay("2026-08").await.unwrap().amount_minor, 0);
    assert_eq!(market.count("tr"), 1);
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 583, 583, 2)]);
    market.close().await;
}

async fn refunds_in_parts_come_to_the_whole(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 333).await.unwrap();
    let expected =
        [(1, 1, "partly_refunded"), (100, 101, "partly_refunded"), (231, 332, "partly_refunded"), (0, 333, "refunded")];
    for (amount, so_far, status) in expected {
        let back = market.refund(&sale, amount, &format!("part {amount}")).await.unwrap();
        assert_eq!(parts(&back), (233, 100, so_far, status));
        let left: i64 = market.events().await.iter().map(|event| event.developer_minor).sum();
        assert_eq!(left, (333 - so_far) * 70 / 100);
    }
    assert_eq!(market.refund(&sale, 0, "more").await, Err(Reason::InvalidArgument));
    assert_eq!(market.count("re"), 4);
    market.close().await;
}

async fn the_same_refund_again_pays_back_once(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut client, message) = (market.client(), refund(&sale, 200, "key"));
        calls.spawn(async move { client.refund_sale(asked(message)).await.unwrap().into_inner() });
    }
    let answers = calls.join_all().await;
    let first = answers[0].clone();
    assert_eq!(parts(&first), (350, 150, 200, "partly_refunded"));
    assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
    market.refund(&sale, 100, "another").await.unwrap();
    assert_eq!(market.refund(&sale, 200, "key").await, Ok(first));
    assert_eq!(market.refund(&sale, 201, "key").await, Err(Reason::IdempotencyKeyReused));
    assert_eq!(market.refund(&sale, 201, "").await, Err(Reason::InvalidArgument));
    assert_eq!(market.refund(&sale, 201, "too much").await, Err(Reason::InvalidArgument));
    let unknown = Sale { id: "unknown".into(), ..sale };
    assert_eq!(market.refund(&unknown, 1, "unknown").await, Err(Reason::NotFound));
    assert_eq!(market.count("re"), 2);
    market.close().await;
}

async fn ten_who_buy_the_same_at_once_pay_once(world: &World) {
    let market = Market::ready(world).await;
    let other = market.shop.another().await;
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..10 {
        let node: &Node = if nth % 2 == 0 { &market.shop.node } else { &other };
        let mut client = RevenueServiceClient::new(node.channel());
        calls.spawn(async move { client.charge(asked(wanted("ben", "plugin", 500))).await.unwrap().into_inner() });
    }
    let sales = calls.join_all().await;
    assert!(sales.iter().all(|sale| *sale == sales[0]), "{sales:?}");
    assert_eq!((market.count("pi"), market.count("ch"), market.charged()), (1, 1, 500));
    assert_eq!(moved(&market.events().await), vec![("sale", 500, 350, 150)]);
    other.stop().await;
    market.close().await;
}

async fn an_item_can_be_bought_again_after_a_full_refund(world: &World) {
    let market = Market::ready(world).await;
    let first = market.charge("plugin", 500).await.unwrap();
    market.refund(&first, 499, "most").await.unwrap();
    assert_eq!(market.charge("plugin", 500).await.unwrap().id, first.id);
    market.refund(&first, 1, "rest").await.unwrap();
    let second = market.charge("plugin", 700).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(market.charged(), 1200);
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 490, 0, 1)]);
    market.close().await;
}

async fn a_free_item_is_a_sale_without_a_payment(world: &World) {
    let market = Market::open(world).await;
    let sale = market.charge("plugin", 0).await.unwrap();
    assert_eq!(parts(&sale), (0, 0, 0, "paid"));
    assert_eq!(market.charge("plugin", 0).await, Ok(sale.clone()));
    assert_eq!(market.refund(&sale, 0, "key").await, Err(Reason::InvalidArgument));
    // Stripe's events may be compared meanwhile; nothing is made.
    let asked: Vec<String> = market.shop.stub.counts().into_keys().filter(|of| of != "GET /v1/events").collect();
    assert_eq!(asked, Vec::<String>::new());
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 0, 0, 1)]);
    market.close().await;
}

async fn a_buyer_who_cannot_pay_is_told_why_and_may_try_again(world: &World) {
    let market = Market::open(world).await;
    let told = async || {
        let answer = market.client().charge(asked(wanted("ben", "plugin", 500))).await;
        let status = answer.unwrap_err();
        assert_eq!(reason(&status), Reason::FailedPrecondition);
        status.message().to_owned()
    };
    assert!(told().await.contains("no saved payment method"));
    let customer = market.buyer("ben", "pm_card_chargeDeclined").await;
    assert!(told().await.contains("declined"));
    assert!(told().await.contains("declined"));
    market.shop.stub.save_payment_method(&customer, "pm_card_authenticationRequired");
    assert!(told().await.contains("bank wants the buyer"));
    assert_eq!((market.charged(), market.events().await.len()), (0, 0));
    market.shop.stub.save_payment_method(&customer, "pm_card_visa");
    assert_eq!(parts(&market.charge("plugin", 500).await.unwrap()), (350, 150, 0, "paid"));
    assert_eq!((market.count("pi"), market.charged()), (1, 500));
    market.close().await;
}

async fn a_price_may_change_after_a_declined_payment(world: &World) {
    let market = Market::open(world).await;
    let customer = market.buyer("ben", "pm_card_chargeDeclined").await;
    assert_eq!(market.charge("plugin", 500).await, Err(Reason::FailedPrecondition));
    market.shop.stub.save_payment_method(&customer, "pm_card_visa");
    assert_eq!(market.charge("plugin", 600).await.unwrap().amount_minor, 600);
    assert_eq!(market.charged(), 600);
    let intents = market.shop.stub.objects("pi");
    assert_eq!(intents.iter().filter(|intent| intent["status"] == "canceled").count(), 1);
    assert_eq!(market.charge("plugin", 500).await, Err(Reason::InvalidArgument));
    market.close().await;
}

async fn what_cannot_be_sold_is_refused(world: &World) {
    let market = Market::ready(world).await;
    let good = wanted("ben", "plugin", 500);
    let wrong = [
        (Reason::NotFound, ChargeRequest { product: "nothing".into(), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { buyer_id: String::new(), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { buyer_id: "ben\0".into(), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { developer_id: String::new(), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { item_id: "x".repeat(201), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { amount_minor: -1, ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { amount_minor: 1_000_000_001, ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { currency: "usd".into(), ..good.clone() }),
        (Reason::InvalidArgument, ChargeRequest { idempotency_key: String::new(), ..good.clone() }),
    ];
    for (expected, message) in wrong {
        let status = market.client().charge(asked(message.clone())).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{message:?}");
    }
    assert_eq!(market.charged(), 0);
    let node = world.node().await;
    let mut unconfigured = RevenueServiceClient::new(node.channel());
    let status = unconfigured.charge(asked(good)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PaymentsNotConfigured);
    node.stop().await;
    market.close().await;
}

async fn what_stripe_tells_of_a_sale_comes_to_the_same_in_any_order(world: &World) {
    let market = Market::ready(world).await;
    market.charge("plugin", 500).await.unwrap();
    let charge = market.shop.charge();
    let mut events = market.shop.stub.refund(&charge, Some(33));
    events.extend(market.shop.stub.refund(&charge, Some(100)));
    events.retain(|event| event["type"] == "charge.refunded");
    events.reverse();
    market.deliver(&events).await;
    market.deliver(&events).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    assert_eq!(parts(&sale), (350, 150, 133, "partly_refunded"));
    // Our own refund comes on top of what was paid back elsewhere, and its event adds nothing.
    let back = market.refund(&sale, 100, "ours").await.unwrap();
    assert_eq!(back.refunded_minor, 233);
    let ours: Vec<Value> = market.shop.stub.events();
    let ours: Vec<Value> = ours.into_iter().filter(|event| event["type"] == "charge.refunded").collect();
    market.deliver(&ours).await;
    assert_eq!(market.charge("plugin", 500).await.unwrap().refunded_minor, 233);
    let earned: i64 = market.events().await.iter().map(|event| event.developer_minor).sum();
    assert_eq!(earned, 267 * 70 / 100);
    market.close().await;
}

async fn a_dispute_takes_and_a_won_one_gives_back(world: &World) {
    let market = Market::ready(world).await;
    for (item, late) in [("in order", false), ("closed first", true)] {
        market.charge(item, 500).await.unwrap();
        let opened = market.shop.stub.open_dispute(&market.shop.charge());
        let dispute = opened[0]["data"]["object"]["id"].as_str().unwrap();
        if !late {
            market.deliver(&opened).await;
            assert_eq!(market.charge(item, 500).await.unwrap().status, "disputed");
        }
        let closed = market.shop.stub.close_dispute(dispute, true);
        market.deliver(&closed).await;
        market.deliver(&opened).await;
        assert_eq!(parts(&market.charge(item, 500).await.unwrap()), (350, 150, 0, "paid"), "{item}");
    }
    let events = market.events().await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["sale", "dispute_won", "dispute", "sale"]);
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 700, 0, 2)]);
    market.close().await;
}

async fn a_lost_dispute_keeps_and_what_was_paid_out_comes_back(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    market.shop.wait(DAYS_40_S);
    market.pay(MONTH).await.unwrap();
    let opened = market.shop.stub.open_dispute(&market.shop.charge());
    let dispute = opened[0]["data"]["object"]["id"].as_str().unwrap();
    let closed = market.shop.stub.close_dispute(dispute, false);
    market.deliver(&closed).await;
    market.deliver(&opened).await;
    let reversed = async || number(&market.shop.stub.objects("tr")[0]["amount_reversed"]) == 350;
    eventually("the transfer's reversal", Duration::from_secs(20), reversed).await;
    assert_eq!(moved(&market.events().await), vec![("dispute", -500, -350, -150), ("sale", 500, 350, 150)]);
    assert_eq!(market.refund(&sale, 0, "key").await, Err(Reason::InvalidArgument));
    assert_ne!(market.charge("plugin", 500).await.unwrap().id, sale.id);
    market.close().await;
}

async fn movements_are_listed_newest_first_and_each_once(world: &World) {
    let market = Market::open(world).await;
    for nth in 0..7 {
        market.charge(&format!("item {nth}"), 0).await.unwrap();
    }
    let mut message = ListRevenueEventsRequest {
        product: PRODUCT.into(),
        developer_id: "dora".into(),
        page_size: 3,
        ..ListRevenueEventsRequest::default()
    };
    let mut items = Vec::new();
    loop {
        let page = market.client().list_revenue_events(asked(message.clone())).await.unwrap().into_inner();
        assert!(page.events.len() <= 3);
        items.extend(page.events.into_iter().map(|event| event.item_id));
        if page.next_page_token.is_empty() {
            break;
        }
        message.page_token = page.next_page_token;
    }
    assert_eq!(items, ["item 6", "item 5", "item 4", "item 3", "item 2", "item 1", "item 0"]);
    message.developer_id = "somebody else".into();
    let status = market.client().list_revenue_events(asked(message)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidArgument);
    market.close().await;
}
