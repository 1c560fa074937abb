//! Stripe's events come in: only Stripe's, only ours, each once, none lost.
use std::time::Duration;

use serde_json::{Value, json};
use weft_core::Reason;
use weft_db::sql;
use weft_proto::billing::v1::CreateCheckoutRequest;
use weft_testing::postgres::Postgres;
use weft_testing::stripe::{Signed, Weather};
use weft_testing::{Database, eventually, on_both_databases};

use crate::harness::{Shop, World, post, reason};

on_both_databases! {
    what_stripe_did_not_sign_is_refused_and_leaves_nothing
    what_does_not_fit_what_we_know_has_no_effect
    a_slow_payment_counts_when_its_money_arrives
    a_failed_payment_is_past_due_and_a_deleted_subscription_stays_so
    an_event_that_never_arrived_is_found_within_a_period
    an_event_of_an_older_secret_is_believed_while_it_is_rolled
}

/// Every table that an event may change, row by row.
pub async fn rows(world: &World) -> Vec<String> {
    let mut rows = Vec::new();
    for (table, key) in [
        ("customers", "user_id || COALESCE(customer_id, '')"),
        ("subscriptions", "id || status || plan || CAST(seats AS TEXT) || CAST(period_end AS TEXT) || event_id"),
        ("payments", "id || item || CAST(refunded_minor AS TEXT) || CAST(clawed AS TEXT) || CAST(restored AS TEXT)"),
        ("refunded_charges", "charge_id || CAST(refunded_minor AS TEXT)"),
        ("disputes", "id || CAST(taken AS TEXT) || CAST(returned AS TEXT)"),
        ("stripe_events", "id"),
        (
            "accounts",
            "CASE WHEN subscribed_plan IS NULL THEN '' ELSE user_id || subscribed_plan || subscription_status END",
        ),
        ("wallets", "user_id || CAST(seq AS TEXT)"),
    ] {
        let text = format!("SELECT {key} FROM {table} WHERE product <> '' ORDER BY 1 LIMIT 10000");
        let found: Vec<String> = sql(weft_db::AssertSqlSafe(text)).all(&world.db).await.unwrap();
        // Who has been seen is noted when there is time; it is no effect of an event.
        rows.extend(found.into_iter().filter(|row| !row.is_empty()).map(|row| format!("{table} {row}")));
    }
    rows
}

/// A package's paid session that has not been told yet.
async fn paid(shop: &Shop<'_>, user_id: &str) -> Value {
    let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
    let session = shop.checkout("companion", user_id, wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    events.into_iter().find(|event| event["type"] == "checkout.session.completed").unwrap()
}

async fn what_stripe_did_not_sign_is_refused_and_leaves_nothing(world: &World) {
    let shop = Shop::open(world).await;
    let event = paid(&shop, "ana").await;
    let before = rows(world).await;
    let now = world.clock.now_ms() / 1000;
    let secret = shop.stub.webhook_secret();
    let good = shop.signed(&event);
    let hex = good.header.split_once("v1=").unwrap().1.to_owned();
    let with = |header: String| Signed { header, body: good.body.clone() };
    let body = |body: &str| Signed { header: weft_testing::stripe::sign(secret, body, now), body: body.to_owned() };
    let refused = [
        Signed::wrong_secret(&event, now),
        Signed::altered(secret, &event, now),
        Signed::genuine(secret, &event, now - 301),
        Signed::genuine(secret, &event, now + 301),
        Signed::genuine("", &event, now),
        with(String::new()),
        with(format!("t={now}")),
        with(format!("v1={hex}")),
        with(format!("t={now},v0={hex}")),
        with(format!("t={now},v1=")),
        with(format!("t={now},v1={}", &hex[..62])),
        with(format!("t={now},v1={hex}00")),
        with(format!("t={},v1={hex}", now + 1)),
        with(format!("t={now},t={now},v1={hex}")),
        with(format!("t=0{now},v1={hex}")),
        with(format!("t={now}, v1={}", "0".repeat(64))),
        with(good.header.replace(',', ";")),
        body(""),
        body("null"),
        body("[]"),
        body("{}"),
        body("{\"id\":\"evt_1\""),
        body("{\"id\":\"evt_1\",\"type\":\"invoice.paid\",\"created\":1,\"data\":{}}"),
        body("{\"id\":\"evt_1\",\"type\":\"invoice.paid\",\"created\":1,\"data\":{\"object\":{}}}"),
        body("{\"id\":\"\",\"type\":\"invoice.paid\",\"created\":1,\"data\":{\"object\":{}}}"),
        body(&" ".repeat(1024 * 1024 + 1)),
    ];
    for (number, signed) in refused.iter().enumerate() {
        let got = shop.post("companion", signed).await;
        assert_eq!(got, Err(Reason::InvalidArgument), "{number}: {}", signed.header);
    }
    let mut other = event.clone();
    other["data"]["object"]["metadata"]["product"] = "nobody".into();
    assert_eq!(shop.post("companion", &shop.signed(&other)).await, Err(Reason::InvalidArgument));
    assert_eq!(rows(world).await, before);
    assert_eq!(shop.post("companion", &good).await, Ok("applied".into()));
    assert_eq!(shop.post("adiuva", &good).await, Ok("duplicate".into()));
    shop.node.stop().await;
}

async fn what_does_not_fit_what_we_know_has_no_effect(world: &World) {
    let shop = Shop::open(world).await;
    let event = paid(&shop, "ana").await;
    paid(&shop, "ben").await;
    let before = rows(world).await;
    let customer_of_ben = shop.stub.objects("cus")[1]["id"].clone();
    let changes = [
        ("customer", customer_of_ben),
        ("customer", json!("cus_of_somebody")),
        ("payment_status", json!("unpaid")),
        ("amount_subtotal", json!(98)),
        ("amount_subtotal", json!(100)),
        ("currency", json!("eur")),
        ("currency", json!("idr")),
    ];
    for (number, (field, value)) in changes.into_iter().enumerate() {
        let mut changed = event.clone();
        changed["id"] = format!("evt_changed_{number}").into();
        changed["data"]["object"][field] = value;
        assert_eq!(shop.post("companion", &shop.signed(&changed)).await, Ok("ignored".into()), "{number} {field}");
    }
    for (name, value) in [
        ("user_id", json!("nobody")),
        ("user_id", json!("ben")),
        ("package_id", json!("credits_11")),
        ("package_id", json!("credits_500")),
        ("package_id", Value::Null),
    ] {
        let mut changed = event.clone();
        changed["id"] = format!("evt_marked_{name}_{value}").replace('"', "").into();
        changed["data"]["object"]["metadata"][name] = value;
        assert_eq!(shop.post("companion", &shop.signed(&changed)).await, Ok("ignored".into()), "{name}");
    }
    for kind in ["customer.created", "payment_intent.succeeded", "charge.succeeded", "invoice.created"] {
        let mut changed = event.clone();
        changed["id"] = format!("evt_{kind}").into();
        changed["type"] = kind.into();
        assert_eq!(shop.post("companion", &shop.signed(&changed)).await, Ok("ignored".into()), "{kind}");
    }
    assert_eq!(rows(world).await, before);
    assert_eq!(shop.balance("companion", "ben").await.purchased, 0);
    shop.node.stop().await;
}

async fn a_slow_payment_counts_when_its_money_arrives(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    let events = shop.stub.complete_checkout_unpaid(&session);
    shop.deliver("companion", &events).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 0);
    shop.wait(3600);
    let events = shop.stub.checkout_money_arrives(&session);
    shop.deliver("companion", &events).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 10_000_000);
    shop.node.stop().await;
}

async fn a_failed_payment_is_past_due_and_a_deleted_subscription_stays_so(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { tier: "power".into(), ..Default::default() };
    let session = shop.checkout("adiuva", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let mut all = shop.stub.complete_checkout(&session);
    shop.deliver("adiuva", &all).await;
    let subscription = shop.subscription_of("ana");
    shop.wait(40 * 24 * 3600);
    let failed = shop.stub.fail_payment(&subscription);
    shop.deliver("adiuva", &failed).await;
    let seen = shop.subscription("adiuva", "ana").await;
    assert_eq!((seen.status.as_str(), seen.tier.as_str()), ("past_due", "power"));
    shop.wait(2);
    let gone = shop.stub.cancel_now(&subscription);
    shop.deliver("adiuva", &gone).await;
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "free");
    all.extend(failed);
    for (number, event) in all.iter_mut().enumerate() {
        event["id"] = format!("evt_late_{number}").into();
    }
    let late = shop.deliver("adiuva", &all).await;
    assert!(late.iter().all(|outcome| outcome != "applied"), "{late:?}");
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "free");
    shop.node.stop().await;
}

async fn an_event_that_never_arrived_is_found_within_a_period(world: &World) {
    let shop = Shop::open_comparing(world, 15).await;
    let mut made = Vec::new();
    for number in 0..10 {
        made.push(paid(&shop, &format!("user {number}")).await);
    }
    let weather = Weather { seed: 3, drop_percent: 30, ..Weather::fair() };
    let sent: Vec<Value> = weather.plan(&made).into_iter().map(|(event, _)| event).collect();
    assert!(sent.len() < made.len(), "nothing was lost");
    shop.deliver("companion", &sent).await;
    let paid_ones = async || {
        let mut paid = 0;
        for number in 0..10 {
            paid += shop.balance("companion", &format!("user {number}")).await.purchased;
        }
        paid
    };
    shop.wait(15 * 60 + 1);
    eventually("every payment", Duration::from_secs(20), async || paid_ones().await == 100_000_000).await;

    // A subscription whose last events nobody ever listed.
    let wanted = CreateCheckoutRequest { plan_id: "vip_monthly".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("companion", &events).await;
    shop.stub.cancel_now(&shop.subscription_of("ana"));
    shop.wait(40 * 24 * 3600);
    let gone = async || shop.node.get("companion", "ana").await.unwrap().plan == "free";
    eventually("the end of the subscription", Duration::from_secs(20), gone).await;
    shop.node.stop().await;
}

async fn an_event_of_an_older_secret_is_believed_while_it_is_rolled(world: &World) {
    let shop = Shop::open(world).await;
    let event = paid(&shop, "ana").await;
    let signed = Signed::several(shop.stub.webhook_secret(), &event, world.clock.now_ms() / 1000);
    assert_eq!(shop.post("companion", &signed).await, Ok("applied".into()));
    shop.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_meets_no_database_is_not_taken_and_applies_when_it_comes_again() {
    let own = Postgres::start().await;
    let world = World::on(Database::on(&own).await).await;
    let shop = Shop::open(&world).await;
    let event = paid(&shop, "ana").await;
    let signed = shop.signed(&event);
    own.pause().await;
    let refused = post(&shop.node, "companion", &signed).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Unavailable);
    own.resume().await;
    let taken = async || shop.post("companion", &signed).await == Ok("applied".into());
    eventually("the event to be taken", Duration::from_secs(20), taken).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 10_000_000);
    shop.node.stop().await;
}
