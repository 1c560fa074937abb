//! Changes of subscriptions: nobody gets what is not paid for, and nobody loses what is.
use std::time::Duration;

use serde_json::{Value, json};
use weft_core::Reason;
use weft_proto::billing::v1::account_service_client::AccountServiceClient;
use weft_proto::billing::v1::subscription_service_client::SubscriptionServiceClient;
use weft_proto::billing::v1::{AssignSeatRequest, CheckoutMode, CreateCheckoutRequest, UpdateSubscriptionRequest};
use weft_testing::stripe::Misbehave;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Headers, Shop, World, reason};

/// Micro-credits of a credit.
const CREDIT: i64 = 1_000_000;

on_both_databases! {
    a_first_payment_that_fails_gives_no_plan
    fewer_seats_than_people_seat_the_first
    what_is_undone_before_stripe_has_told_is_undone
    what_gets_dearer_is_paid_at_once_or_not_changed
    what_a_change_credits_takes_no_bonus_away
    a_year_instead_of_a_month_brings_the_bonus_of_what_is_paid
    another_amount_hides_no_unpaid_subscription
    a_refund_with_its_key_is_made_and_answered_once
    a_new_page_to_subscribe_on_closes_the_one_before
    of_two_subscriptions_the_newest_is_kept
    a_comparison_noted_in_the_future_stops_none
}

fn tier(tier: &str) -> CreateCheckoutRequest {
    CreateCheckoutRequest { tier: tier.into(), ..Default::default() }
}

fn price(id: &str) -> CreateCheckoutRequest {
    CreateCheckoutRequest { price_id: id.into(), ..Default::default() }
}

async fn buy(shop: &Shop<'_>, product: &str, user_id: &str, wanted: CreateCheckoutRequest) -> Vec<Value> {
    let session = shop.checkout(product, user_id, wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver(product, &events).await;
    events
}

async fn update(shop: &Shop<'_>, product: &str, user_id: &str, to: UpdateSubscriptionRequest) -> Result<i64, Reason> {
    let mut client = SubscriptionServiceClient::new(shop.node.channel());
    let answer = client.update_subscription(shop.by(product, user_id, to)).await;
    answer.map(|answer| answer.into_inner().seats).map_err(|status| reason(&status))
}

fn to_price(id: &str) -> UpdateSubscriptionRequest {
    UpdateSubscriptionRequest { price_id: id.into(), ..Default::default() }
}

async fn plan(shop: &Shop<'_>, product: &str, user_id: &str) -> String {
    shop.node.get(product, user_id).await.unwrap().plan
}

async fn a_first_payment_that_fails_gives_no_plan(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { mode: CheckoutMode::Elements.into(), ..price("vip_monthly") };
    let subscription = shop.checkout("companion", "ana", wanted).await.unwrap().subscription_id;
    shop.wait(2);
    let mut events = shop.stub.fail_payment(&subscription);
    events.retain(|event| event["type"] == "invoice.payment_failed");
    assert_eq!(shop.deliver("companion", &events).await, ["stale"]);
    assert_eq!(plan(&shop, "companion", "ana").await, "free");
    shop.node.stop().await;
}

async fn fewer_seats_than_people_seat_the_first(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "adiuva", "boss", CreateCheckoutRequest { seats: 3, ..tier("team") }).await;
    let mut accounts = AccountServiceClient::new(shop.node.channel());
    for user_id in ["cid", "ana", "ben"] {
        let (product, payer_id) = ("adiuva".to_owned(), "boss".to_owned());
        let message = AssignSeatRequest { product, payer_id, user_id: user_id.into() };
        accounts.assign_seat(Headers::of_service("identity").around(message)).await.unwrap();
    }
    let seated = async || {
        let mut plans = Vec::new();
        for user_id in ["cid", "ana", "ben"] {
            plans.push(plan(&shop, "adiuva", user_id).await);
        }
        plans
    };
    assert_eq!(seated().await, ["team", "team", "team"]);
    let subscription = shop.subscription_of("boss");
    shop.wait(2);
    shop.deliver("adiuva", &shop.stub.change_quantity(&subscription, 2)).await;
    assert_eq!(seated().await, ["team", "team", "free"]);
    shop.wait(2);
    shop.deliver("adiuva", &shop.stub.cancel_now(&subscription)).await;
    assert_eq!(seated().await, ["free", "free", "free"]);
    for wanted in [tier("team"), CreateCheckoutRequest { seats: 2, ..tier("team") }, tier("power")] {
        assert_eq!(shop.checkout("adiuva", "boss", wanted).await, Err(Reason::FailedPrecondition));
    }
    buy(&shop, "adiuva", "boss", CreateCheckoutRequest { seats: 3, ..tier("team") }).await;
    assert_eq!(seated().await, ["team", "team", "team"]);
    shop.node.stop().await;
}

async fn what_is_undone_before_stripe_has_told_is_undone(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "adiuva", "boss", CreateCheckoutRequest { seats: 3, ..tier("team") }).await;
    for seats in [500, 3] {
        let to = UpdateSubscriptionRequest { seats, ..Default::default() };
        assert_eq!(update(&shop, "adiuva", "boss", to).await, Ok(seats));
    }
    let quantity = || shop.stub.object(&shop.subscription_of("boss")).unwrap()["items"]["data"][0]["quantity"].clone();
    assert_eq!(quantity(), 3);
    let asked = shop.stub.calls().len();
    let to = UpdateSubscriptionRequest { seats: 3, ..Default::default() };
    assert_eq!(update(&shop, "adiuva", "boss", to).await, Ok(3));
    assert!(shop.stub.calls()[asked..].iter().all(|call| call.method == "GET"), "what is so already was asked for");
    shop.wait(2);
    shop.deliver("adiuva", &shop.stub.events()).await;
    assert_eq!(shop.subscription("adiuva", "boss").await.seats, 3);
    shop.node.stop().await;
}

async fn what_gets_dearer_is_paid_at_once_or_not_changed(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "companion", "ana", price("premium_monthly")).await;
    let customer = shop.stub.objects("cus")[0]["id"].as_str().unwrap().to_owned();
    let charges = shop.stub.objects("ch").len();
    shop.wait(2);
    shop.stub.save_payment_method(&customer, "pm_card_chargeDeclined");
    assert_eq!(update(&shop, "companion", "ana", to_price("vip_monthly")).await, Err(Reason::FailedPrecondition));
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(plan(&shop, "companion", "ana").await, "premium");
    shop.stub.save_payment_method(&customer, "pm_card_visa");
    update(&shop, "companion", "ana", to_price("vip_monthly")).await.unwrap();
    assert_eq!(shop.stub.objects("ch").len(), charges + 1, "the difference is not paid");
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(plan(&shop, "companion", "ana").await, "vip");
    assert_eq!(shop.balance("companion", "ana").await.bonus, 200 * CREDIT);
    shop.wait(2);
    update(&shop, "companion", "ana", to_price("premium_monthly")).await.unwrap();
    assert_eq!(shop.stub.objects("ch").len(), charges + 1);
    shop.node.stop().await;
}

/// An invoice as Stripe makes it with the credit of a change on it.
fn credited(events: &mut [Value], reason: &str, minor: i64) {
    for event in events.iter_mut().filter(|event| event["type"] == "invoice.paid") {
        let invoice = &mut event["data"]["object"];
        let mut credit = invoice["lines"]["data"][0].clone();
        credit["amount"] = json!(-minor);
        credit["parent"]["subscription_item_details"]["proration"] = json!(true);
        invoice["lines"]["data"].as_array_mut().unwrap().insert(0, credit);
        let left = invoice["subtotal"].as_i64().unwrap() - minor;
        for name in ["subtotal", "total", "amount_paid", "amount_due"] {
            invoice[name] = json!(left);
        }
        invoice["billing_reason"] = json!(reason);
    }
}

async fn what_a_change_credits_takes_no_bonus_away(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "companion", "ana", price("vip_monthly")).await;
    shop.wait(2);
    update(&shop, "companion", "ana", to_price("premium_monthly")).await.unwrap();
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(shop.balance("companion", "ana").await.bonus, 1000 * CREDIT);
    shop.wait(32 * 24 * 3600);
    let mut events = shop.stub.renew(&shop.subscription_of("ana"));
    credited(&mut events, "subscription_cycle", 900);
    shop.deliver("companion", &events).await;
    assert_eq!(shop.balance("companion", "ana").await.bonus, 1200 * CREDIT);
    shop.node.stop().await;
}

async fn a_year_instead_of_a_month_brings_the_bonus_of_what_is_paid(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "companion", "ana", price("vip_monthly")).await;
    shop.wait(2);
    update(&shop, "companion", "ana", to_price("vip_yearly")).await.unwrap();
    let changed: Vec<Value> = shop.stub.events();
    shop.deliver("companion", &changed).await;
    shop.wait(2);
    let mut events = shop.stub.renew(&shop.subscription_of("ana"));
    events.retain(|event| event["type"] == "invoice.paid");
    let whole = events[0]["data"]["object"]["subtotal"].as_i64().unwrap();
    credited(&mut events, "subscription_update", 2900);
    shop.deliver("companion", &events).await;
    let year = 13_000 * CREDIT;
    let paid = i64::try_from(i128::from(year) * i128::from(whole - 2900) / i128::from(whole)).unwrap();
    assert_eq!(shop.balance("companion", "ana").await.bonus, 1000 * CREDIT + paid);
    shop.node.stop().await;
}

async fn another_amount_hides_no_unpaid_subscription(world: &World) {
    let shop = Shop::open(world).await;
    buy(&shop, "companion", "ana", price("vip_monthly")).await;
    shop.wait(2);
    let mut events = shop.stub.cancel_at_period_end(&shop.subscription_of("ana"));
    for event in &mut events {
        event["data"]["object"]["items"]["data"][0]["price"]["unit_amount"] = json!(1);
    }
    assert_eq!(shop.deliver("companion", &events).await, ["applied"]);
    let subscription = shop.subscription("companion", "ana").await;
    assert_eq!((subscription.price_id.as_str(), subscription.cancel_at_period_end), ("vip_monthly", true));
    shop.wait(2);
    let mut events = shop.stub.emit("customer.subscription.updated", &shop.subscription_of("ana"));
    for event in &mut events {
        event["data"]["object"]["items"]["data"][0]["price"]["unit_amount"] = json!(1);
        event["data"]["object"]["status"] = json!("unpaid");
    }
    assert_eq!(shop.deliver("companion", &events).await, ["applied"]);
    assert_eq!(plan(&shop, "companion", "ana").await, "free");
    shop.node.stop().await;
}

async fn a_refund_with_its_key_is_made_and_answered_once(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_100").await;
    let id = shop.payments("companion", "ana").await[0].id.clone();
    shop.wait(2);
    for _ in 0..3 {
        shop.stub.misbehave_at("/v1/refunds", Misbehave::CutAfter);
    }
    assert_eq!(shop.refund(&id, 0, "k").await, Err(Reason::Unavailable));
    shop.stub.behave();
    shop.stub.forget_keys();
    assert_eq!(shop.refund(&id, 0, "other").await, Err(Reason::FailedPrecondition));
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(shop.payments("companion", "ana").await[0].status, "refunded");
    let answer = shop.refund(&id, 0, "k").await.unwrap();
    assert_eq!(shop.refund(&id, 0, "k").await.unwrap(), answer);
    assert_eq!(shop.refund(&id, 1, "k").await, Err(Reason::IdempotencyKeyReused));
    assert_eq!(shop.stub.objects("re").len(), 1);
    shop.node.stop().await;
}

async fn a_new_page_to_subscribe_on_closes_the_one_before(world: &World) {
    let shop = Shop::open(world).await;
    let package = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
    let sessions = [package, price("vip_monthly"), price("premium_monthly")];
    let mut made = Vec::new();
    for wanted in sessions {
        made.push(shop.checkout("companion", "ana", wanted).await.unwrap().session_id);
    }
    let others = shop.checkout("companion", "ben", price("vip_monthly")).await.unwrap().session_id;
    let status = |id: &str| shop.stub.object(id).unwrap()["status"].as_str().unwrap().to_owned();
    assert_eq!([&made[0], &made[1], &made[2], &others].map(|id| status(id)), ["open", "expired", "open", "open"]);
    let keyed = CreateCheckoutRequest { idempotency_key: "one".into(), ..price("vip_monthly") };
    let calls = (0..5).map(|_| shop.checkout("companion", "ana", keyed.clone()));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(status(&answers[0].clone().unwrap().session_id), "open");
    assert_eq!(status(&made[2]), "expired");
    shop.node.stop().await;
}

async fn of_two_subscriptions_the_newest_is_kept(world: &World) {
    let shop = Shop::open_comparing(world, 15).await;
    let mut made = Vec::new();
    for id in ["premium_monthly", "vip_monthly"] {
        let wanted = CreateCheckoutRequest { mode: CheckoutMode::Elements.into(), ..price(id) };
        made.push(shop.checkout("companion", "ana", wanted).await.unwrap().subscription_id);
        shop.wait(2);
    }
    for subscription in made.iter().rev() {
        shop.stub.pay_subscription(subscription);
    }
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(plan(&shop, "companion", "ana").await, "vip");
    shop.wait(15 * 60 + 1);
    let status = |id: &str| shop.stub.object(id).unwrap()["status"].clone();
    eventually("the end of the older one", Duration::from_secs(20), async || status(&made[0]) == "canceled").await;
    assert_eq!(status(&made[1]), "active");
    shop.node.stop().await;
}

async fn a_comparison_noted_in_the_future_stops_none(world: &World) {
    let shop = Shop::open_comparing(world, 15).await;
    let now_s = world.clock.now_ms() / 1000;
    weft_db::sql("UPDATE stripe_syncs SET synced = $1").bind(now_s + 1_000_000).run(&world.db).await.unwrap();
    let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    shop.stub.complete_checkout(&session);
    shop.wait(60);
    let paid = async || shop.balance("companion", "ana").await.purchased == 10 * CREDIT;
    eventually("the payment", Duration::from_secs(20), paid).await;
    shop.node.stop().await;
}
