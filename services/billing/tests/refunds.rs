//! Money and its credits go back.
use weft_core::Reason;
use weft_proto::billing::v1::CreateCheckoutRequest;
use weft_testing::on_both_databases;
use weft_testing::stripe::Shape;

use crate::harness::{Shop, World};

/// Micro-credits of a credit.
const CREDIT: i64 = 1_000_000;

on_both_databases! {
    a_package_brings_its_credits_once
    a_package_brings_what_it_was_sold_with
    every_package_and_every_plan_grants_its_number
    a_refund_takes_back_in_proportion
    a_refund_before_its_payment_takes_everything_back
    a_dispute_takes_and_a_won_one_gives_back
    an_invoice_goes_back_in_every_version_of_stripes_api
}

async fn a_package_brings_its_credits_once(world: &World) {
    let shop = Shop::open(world).await;
    let events = shop.buy("ana", "credits_500").await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 550 * CREDIT);
    let again = shop.deliver("companion", &events).await;
    assert!(again.iter().all(|outcome| outcome == "duplicate" || outcome == "ignored"), "{again:?}");
    assert_eq!(shop.balance("companion", "ana").await.purchased, 550 * CREDIT);
    let wanted = CreateCheckoutRequest { plan_id: "vip_monthly".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("companion", &events).await;
    let balance = shop.balance("companion", "ana").await;
    assert_eq!((balance.daily, balance.bonus, balance.purchased), (500 * CREDIT, 1000 * CREDIT, 550 * CREDIT));
    shop.node.stop().await;
}

async fn a_package_brings_what_it_was_sold_with(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    weft_db::sql(
        "UPDATE credit_packages SET amount_minor = 199, credits = 5000000, retired = TRUE WHERE id = 'credits_10'",
    )
    .run(&world.db)
    .await
    .unwrap();
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("companion", &events).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 10 * CREDIT);
    shop.node.stop().await;
}

async fn every_package_and_every_plan_grants_its_number(world: &World) {
    let shop = Shop::open(world).await;
    for (package, credits) in
        [("credits_10", 10), ("credits_50", 50), ("credits_100", 100), ("credits_500", 550), ("credits_1000", 1200)]
    {
        shop.buy(package, package).await;
        assert_eq!(shop.balance("companion", package).await.purchased, credits * CREDIT, "{package}");
    }
    for (price, credits) in
        [("premium_monthly", 200), ("premium_yearly", 2500), ("vip_monthly", 1000), ("vip_yearly", 13_000)]
    {
        let wanted = CreateCheckoutRequest { price_id: price.into(), ..Default::default() };
        let session = shop.checkout("companion", price, wanted).await.unwrap().session_id;
        shop.wait(2);
        let events = shop.stub.complete_checkout(&session);
        shop.deliver("companion", &events).await;
        assert_eq!(shop.balance("companion", price).await.bonus, credits * CREDIT, "{price}");
        shop.wait(400 * 24 * 3600);
        let events = shop.stub.renew(&shop.subscription_of(price));
        shop.deliver("companion", &events).await;
        assert_eq!(shop.balance("companion", price).await.bonus, 2 * credits * CREDIT, "{price} again");
    }
    shop.node.stop().await;
}

async fn a_refund_takes_back_in_proportion(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_500").await;
    let payment = shop.payments("companion", "ana").await.remove(0);
    assert_eq!((payment.amount_minor, payment.credits, payment.status.as_str()), (3999, 550 * CREDIT, "paid"));
    assert_eq!(shop.refund(&payment.id, 4000, "r0").await, Err(Reason::InvalidArgument));
    assert_eq!(shop.refund("pay_none", 1, "r0").await, Err(Reason::NotFound));
    assert_eq!(shop.refund(&payment.id, 1, "").await, Err(Reason::InvalidArgument));
    for _ in 0..2 {
        shop.refund(&payment.id, 1333, "r1").await.unwrap();
    }
    assert_eq!(shop.stub.objects("re").len(), 1);
    assert_eq!(shop.balance("companion", "ana").await.purchased, 550 * CREDIT);
    shop.wait(2);
    shop.deliver("companion", &shop.stub.events()).await;
    let third = 550 * CREDIT * 1333 / 3999;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 550 * CREDIT - third);
    assert_eq!(shop.payments("companion", "ana").await[0].status, "partly_refunded");
    shop.refund(&payment.id, 0, "r2").await.unwrap();
    shop.wait(2);
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 0);
    assert_eq!(shop.payments("companion", "ana").await[0].status, "refunded");
    assert_eq!(shop.refund(&payment.id, 0, "r3").await, Err(Reason::FailedPrecondition));
    shop.node.stop().await;
}

async fn a_refund_before_its_payment_takes_everything_back(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { package_id: "credits_100".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let paid = shop.stub.complete_checkout(&session);
    shop.wait(2);
    let refunded = shop.stub.refund(&shop.charge(), None);
    shop.deliver("companion", &refunded).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 0);
    shop.deliver("companion", &paid).await;
    assert_eq!(shop.balance("companion", "ana").await.purchased, 0);
    assert_eq!(shop.payments("companion", "ana").await[0].status, "refunded");
    shop.node.stop().await;
}

async fn a_dispute_takes_and_a_won_one_gives_back(world: &World) {
    let shop = Shop::open(world).await;
    for (user, won, left) in [("ana", true, 100), ("ben", false, 0)] {
        shop.buy(user, "credits_100").await;
        shop.wait(2);
        let opened = shop.stub.open_dispute(&shop.charge());
        shop.deliver("companion", &opened).await;
        assert_eq!(shop.balance("companion", user).await.purchased, 0);
        assert_eq!(shop.payments("companion", user).await[0].status, "disputed");
        shop.wait(2);
        let dispute = shop.stub.objects("du").last().unwrap()["id"].as_str().unwrap().to_owned();
        let closed = shop.stub.close_dispute(&dispute, won);
        shop.deliver("companion", &closed).await;
        assert_eq!(shop.balance("companion", user).await.purchased, left * CREDIT);
        let status = if won { "paid" } else { "disputed" };
        assert_eq!(shop.payments("companion", user).await[0].status, status);
    }
    shop.node.stop().await;
}

async fn an_invoice_goes_back_in_every_version_of_stripes_api(world: &World) {
    let shop = Shop::open(world).await;
    for (user, shape) in [("both", Shape::Both), ("current", Shape::Current), ("legacy", Shape::Legacy)] {
        shop.stub.set_shape(shape);
        let wanted = CreateCheckoutRequest { price_id: "vip_monthly".into(), ..Default::default() };
        let session = shop.checkout("companion", user, wanted).await.unwrap().session_id;
        shop.wait(2);
        let events = shop.stub.complete_checkout(&session);
        shop.deliver("companion", &events).await;
        let subscription = shop.subscription("companion", user).await;
        assert!(subscription.current_period_end > world.clock.now_ms(), "{shape:?}: {subscription:?}");
        assert_eq!(shop.balance("companion", user).await.bonus, 1000 * CREDIT, "{shape:?}");
        shop.wait(2);
        let events = shop.stub.refund(&shop.charge(), None);
        shop.deliver("companion", &events).await;
        assert_eq!(shop.balance("companion", user).await.bonus, 0, "{shape:?}");
        assert_eq!(shop.payments("companion", user).await[0].status, "refunded", "{shape:?}");
    }
    shop.node.stop().await;
}
