//! Buying and ending.
use std::time::{Duration, Instant};

use weft_core::Reason;
use weft_proto::billing::v1::subscription_service_client::SubscriptionServiceClient;
use weft_proto::billing::v1::{
    CancelSubscriptionRequest, CheckoutMode, CreateCheckoutRequest, CreatePortalSessionRequest, ListInvoicesRequest,
    UpdateSubscriptionRequest,
};
use weft_testing::on_both_databases;
use weft_testing::stripe::Misbehave;

use crate::harness::{Shop, World, reason};

on_both_databases! {
    a_plan_is_bought_kept_to_its_end_and_lost
    ten_calls_with_one_key_make_one_session
    a_lost_answer_makes_no_second_session
    without_stripe_nothing_is_sold_and_soon_said
    without_a_key_of_stripes_payments_are_not_configured
    what_cannot_be_bought_is_refused_with_a_reason
    elements_get_a_client_secret
    seats_are_bought_changed_and_not_taken_from_under_people
    a_subscriber_sees_portal_invoices_and_payments
}

fn tier(tier: &str) -> CreateCheckoutRequest {
    CreateCheckoutRequest { tier: tier.into(), ..Default::default() }
}

async fn a_plan_is_bought_kept_to_its_end_and_lost(world: &World) {
    let shop = Shop::open(world).await;
    assert_eq!(shop.subscription("adiuva", "ana").await.status, "none");
    let checkout = shop.checkout("adiuva", "ana", tier("power")).await.unwrap();
    assert!(checkout.checkout_url.starts_with("https://checkout.stripe.com/"), "{}", checkout.checkout_url);
    let sessions = shop.stub.objects("cs_test");
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (&sessions[0]["metadata"]["user_id"], &sessions[0]["metadata"]["product"]),
        (&"ana".into(), &"adiuva".into())
    );
    assert_eq!(sessions[0]["client_reference_id"], "ana");
    assert_eq!(sessions[0]["success_url"], "https://app.example.com/billing/success");
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "free");

    shop.wait(2);
    let events = shop.stub.complete_checkout(&checkout.session_id);
    let completed: Vec<_> =
        events.iter().filter(|event| event["type"] == "checkout.session.completed").cloned().collect();
    assert_eq!(shop.deliver("adiuva", &completed).await, ["applied"]);
    assert_eq!(shop.deliver("adiuva", &completed).await, ["duplicate"]);
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "power");
    shop.deliver("adiuva", &events).await;
    let subscription = shop.subscription("adiuva", "ana").await;
    assert_eq!((subscription.tier.as_str(), subscription.status.as_str()), ("power", "active"));
    assert!(subscription.current_period_end > world.clock.now_ms());
    assert_eq!(shop.checkout("adiuva", "ana", tier("pro")).await, Err(Reason::FailedPrecondition));

    let mut client = SubscriptionServiceClient::new(shop.node.channel());
    for _ in 0..2 {
        let request = shop.by("adiuva", "ana", CancelSubscriptionRequest { now: false });
        assert!(client.cancel_subscription(request).await.unwrap().into_inner().ok);
    }
    shop.wait(2);
    shop.deliver("adiuva", &shop.stub.events()).await;
    assert!(shop.subscription("adiuva", "ana").await.cancel_at_period_end);
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "power");
    shop.wait(40 * 24 * 3600);
    let events = shop.stub.renew(&shop.subscription_of("ana"));
    shop.deliver("adiuva", &events).await;
    assert_eq!(shop.node.get("adiuva", "ana").await.unwrap().plan, "free");
    assert_eq!(shop.subscription("adiuva", "ana").await.status, "none");
    shop.node.stop().await;
}

async fn ten_calls_with_one_key_make_one_session(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { idempotency_key: "one".into(), ..tier("power") };
    let calls = (0..10).map(|_| shop.checkout("adiuva", "ana", wanted.clone()));
    let answers = futures_util::future::join_all(calls).await;
    let first = answers[0].clone().unwrap();
    assert!(answers.iter().all(|answer| *answer == Ok(first.clone())), "{answers:?}");
    assert_eq!(shop.stub.objects("cs_test").len(), 1);
    assert_eq!(shop.stub.objects("cus").len(), 1);
    let other = CreateCheckoutRequest { tier: "pro".into(), ..wanted };
    assert_eq!(shop.checkout("adiuva", "ana", other).await, Err(Reason::IdempotencyKeyReused));
    shop.node.stop().await;
}

async fn a_lost_answer_makes_no_second_session(world: &World) {
    let shop = Shop::open(world).await;
    for wrong in [Misbehave::CutAfter, Misbehave::Malformed, Misbehave::RateLimited(1), Misbehave::ServerError] {
        let before = shop.stub.objects("cs_test").len();
        shop.stub.misbehave_at("/v1/checkout", wrong);
        shop.checkout("adiuva", "ana", tier("power")).await.unwrap();
        assert_eq!(shop.stub.objects("cs_test").len(), before + 1, "{wrong:?}");
    }
    shop.stub.misbehave_at("/v1/customers", Misbehave::CutAfter);
    shop.checkout("adiuva", "ben", tier("power")).await.unwrap();
    assert_eq!(shop.stub.objects("cus").len(), 2);
    let calls = shop.stub.calls();
    let posts = calls.iter().filter(|call| call.method == "POST");
    assert!(posts.into_iter().all(|call| call.idempotency_key.is_some()), "a POST without a key");
    shop.node.stop().await;
}

async fn without_stripe_nothing_is_sold_and_soon_said(world: &World) {
    let mut config = world.config.clone();
    config.stripe.stripe_secret_key = Some("sk_test_x".into());
    // Nobody listens on the port of a socket that is closed again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.stripe.stripe_api_base = Some(format!("http://{closed}"));
    let shop = Shop::open(world).await;
    let node = world.node_of(config).await;
    let mut client = SubscriptionServiceClient::new(node.channel());
    let asked = Instant::now();
    let refused = client.create_checkout(shop.by("adiuva", "ana", tier("power"))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Unavailable);
    assert!(!refused.message().contains("127.0.0.1"), "{}", refused.message());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    node.stop().await;
    shop.node.stop().await;
}

async fn without_a_key_of_stripes_payments_are_not_configured(world: &World) {
    let shop = Shop::open(world).await;
    let node = world.node().await;
    let mut client = SubscriptionServiceClient::new(node.channel());
    let refused = client.create_checkout(shop.by("adiuva", "ana", tier("power"))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PaymentsNotConfigured);
    let event = shop.signed(&serde_json::json!({"id": "evt_1"}));
    let refused = crate::harness::post(&node, "adiuva", &event).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PaymentsNotConfigured);
    node.stop().await;
    shop.node.stop().await;
}

async fn what_cannot_be_bought_is_refused_with_a_reason(world: &World) {
    let shop = Shop::open(world).await;
    let base = CreateCheckoutRequest::default;
    let cases = [
        ("adiuva", base(), Reason::InvalidArgument),
        ("adiuva", CreateCheckoutRequest { price_id: "x".into(), ..tier("power") }, Reason::InvalidArgument),
        ("adiuva", tier("nobody"), Reason::NotFound),
        ("adiuva", tier("free"), Reason::InvalidArgument),
        ("companion", CreateCheckoutRequest { package_id: "credits_7".into(), ..base() }, Reason::NotFound),
        ("companion", CreateCheckoutRequest { price_id: "x_monthly".into(), ..base() }, Reason::NotFound),
        ("companion", CreateCheckoutRequest { plan_id: "x_monthly".into(), ..base() }, Reason::NotFound),
        ("adiuva", CreateCheckoutRequest { seats: 2, ..tier("power") }, Reason::InvalidArgument),
        ("adiuva", CreateCheckoutRequest { seats: -1, ..tier("team") }, Reason::InvalidArgument),
        ("adiuva", CreateCheckoutRequest { seats: 10_001, ..tier("team") }, Reason::InvalidArgument),
        ("adiuva", CreateCheckoutRequest { interval: "week".into(), ..tier("power") }, Reason::InvalidArgument),
        (
            "adiuva",
            CreateCheckoutRequest { success_url: "https://evil.example.com/".into(), ..tier("power") },
            Reason::InvalidArgument,
        ),
        (
            "adiuva",
            CreateCheckoutRequest { cancel_url: "//evil.example.com/".into(), ..tier("power") },
            Reason::InvalidArgument,
        ),
    ];
    for (product, wanted, expected) in cases {
        let got = shop.checkout(product, "ana", wanted.clone()).await;
        assert_eq!(got, Err(expected), "{wanted:?}");
    }
    assert_eq!(shop.stub.counts().get("POST /v1/checkout/sessions"), None);
    shop.node.stop().await;
}

async fn elements_get_a_client_secret(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest {
        plan_id: "vip_monthly".into(),
        mode: CheckoutMode::Elements.into(),
        ..Default::default()
    };
    let checkout = shop.checkout("companion", "ana", wanted).await.unwrap();
    assert!(checkout.client_secret.contains("_secret_"), "{checkout:?}");
    assert_eq!(checkout.payment_intent.unwrap().client_secret, checkout.client_secret);
    assert_eq!(checkout.subscription_id, shop.subscription_of("ana"));
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(shop.subscription("companion", "ana").await.status, "incomplete");
    assert_eq!(shop.node.get("companion", "ana").await.unwrap().plan, "free");
    shop.wait(2);
    let events = shop.stub.pay_subscription(&checkout.subscription_id);
    shop.deliver("companion", &events).await;
    assert_eq!(shop.node.get("companion", "ana").await.unwrap().plan, "vip");
    assert_eq!(shop.balance("companion", "ana").await.bonus, 1_000_000_000);
    shop.node.stop().await;
}

async fn seats_are_bought_changed_and_not_taken_from_under_people(world: &World) {
    let shop = Shop::open(world).await;
    let wanted = CreateCheckoutRequest { seats: 3, ..tier("team") };
    let session = shop.checkout("adiuva", "boss", wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("adiuva", &events).await;
    assert_eq!(shop.subscription("adiuva", "boss").await.seats, 3);
    for user in ["ana", "ben"] {
        weft_db::sql("INSERT INTO accounts (product, user_id, payer_id) VALUES ('adiuva', $1, 'boss')")
            .bind(user)
            .run(&world.db)
            .await
            .unwrap();
    }
    let mut client = SubscriptionServiceClient::new(shop.node.channel());
    let mut seats = async |seats| {
        let change = UpdateSubscriptionRequest { seats, ..Default::default() };
        client.update_subscription(shop.by("adiuva", "boss", change)).await.map_err(|status| reason(&status))
    };
    assert_eq!(seats(1).await.unwrap_err(), Reason::FailedPrecondition);
    assert_eq!(seats(2).await.unwrap().into_inner().seats, 2);
    shop.wait(2);
    shop.deliver("adiuva", &shop.stub.events()).await;
    assert_eq!(shop.subscription("adiuva", "boss").await.seats, 2);
    let change = UpdateSubscriptionRequest { plan_id: "power".into(), ..Default::default() };
    let refused = client.update_subscription(shop.by("adiuva", "boss", change)).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::FailedPrecondition);
    shop.node.stop().await;
}

async fn a_subscriber_sees_portal_invoices_and_payments(world: &World) {
    let shop = Shop::open(world).await;
    let mut client = SubscriptionServiceClient::new(shop.node.channel());
    let portal = shop.by("companion", "ana", CreatePortalSessionRequest::default());
    assert_eq!(reason(&client.create_portal_session(portal).await.unwrap_err()), Reason::NotFound);
    let wanted = CreateCheckoutRequest { plan_id: "premium_monthly".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("companion", &events).await;
    let portal = shop.by("companion", "ana", CreatePortalSessionRequest::default());
    let portal = client.create_portal_session(portal).await.unwrap().into_inner();
    assert!(portal.portal_url.starts_with("https://billing.stripe.com/"), "{}", portal.portal_url);
    let invoices = client.list_invoices(shop.by("companion", "ana", ListInvoicesRequest::default())).await;
    let invoices = invoices.unwrap().into_inner().invoices;
    assert_eq!(invoices.len(), 1);
    assert_eq!(
        (invoices[0].amount_paid, invoices[0].currency.as_str(), invoices[0].status.as_str()),
        (999, "USD", "paid")
    );
    let others = client.list_invoices(shop.by("companion", "ben", ListInvoicesRequest::default())).await;
    assert_eq!(others.unwrap().into_inner().invoices.len(), 0);
    let payments = shop.payments("companion", "ana").await;
    assert_eq!(payments.len(), 1);
    assert_eq!((payments[0].kind.as_str(), payments[0].item.as_str()), ("invoice", "premium_monthly"));
    assert_eq!(payments[0].credits, 200_000_000);
    assert_eq!(shop.payments("companion", "ben").await, []);

    shop.wait(2);
    let change = UpdateSubscriptionRequest { plan_id: "vip".into(), ..Default::default() };
    let changed = client.update_subscription(shop.by("companion", "ana", change)).await.unwrap().into_inner();
    assert_eq!((changed.price_id.as_str(), changed.tier.as_str()), ("vip_monthly", "premium"));
    shop.deliver("companion", &shop.stub.events()).await;
    assert_eq!(shop.subscription("companion", "ana").await.tier, "vip");
    shop.node.stop().await;
}
