//! Money as a client of the edge meets it: four processes, and a Stripe that says who has paid.
use std::time::Duration;

use serde_json::{Value, json};
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::{Client, Persona};
use weft_testing::stripe::StripeStub;
use weft_testing::{postgres, redis};

use crate::{WEFT, adiuva_with};

/// A mesh that sells through a stub of Stripe's.
async fn selling(stripe: &StripeStub, environment: &[(&str, String)]) -> Options {
    let settings = [
        ("STRIPE_API_BASE", stripe.url().to_owned()),
        ("STRIPE_SECRET_KEY", stripe.secret_key().to_owned()),
        ("STRIPE_WEBHOOK_SECRET", stripe.webhook_secret().to_owned()),
    ];
    let all = settings.iter().chain(environment);
    let environment = all.map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Options { environment, ..Options::new(WEFT) }
}

async fn deployed(mut options: Options) -> Mesh {
    options.postgres = Some(postgres::shared().await.database().await);
    options.redis = Some(redis::shared().await.url());
    Mesh::start(options).await
}

async fn tier(person: &Persona) -> Value {
    person.get("/api/v1/auth/me").await.1["tier"].clone()
}

/// Free, then power by a paid checkout, then free again: with the access token of the first day.
async fn from_free_to_power_and_back(mesh: &Mesh, stripe: &StripeStub) {
    let webhook = format!("{}/api/v1/billing/webhook", mesh.edge());
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    assert_eq!(tier(&ana).await, "free");

    let (status, checkout) = ana.post("/api/v1/billing/checkout", &json!({"tier": "power"})).await;
    assert_eq!(status, 200, "{checkout}");
    assert!(checkout["checkout_url"].as_str().unwrap().starts_with("http"), "{checkout}");
    let sessions = stripe.objects("cs_test");
    assert_eq!(sessions.len(), 1);
    let (_, me) = ana.get("/api/v1/auth/me").await;
    assert_eq!(
        (&sessions[0]["metadata"]["product"], &sessions[0]["metadata"]["user_id"]),
        (&json!("adiuva"), &me["id"])
    );
    assert_eq!(tier(&ana).await, "free", "nobody has paid yet");

    for event in stripe.complete_checkout(sessions[0]["id"].as_str().unwrap()) {
        for _twice in 0..2 {
            let delivery = stripe.deliver(&webhook, &event).await;
            let answer: Value = serde_json::from_str(&delivery.body).unwrap();
            assert_eq!((delivery.status, &answer["ok"]), (200, &json!(true)), "{answer}");
        }
    }
    eventually("the new plan", Duration::from_secs(1), || async { tier(&ana).await == "power" }).await;
    let (_, payments) = ana.get("/api/v1/billing/payments").await;
    assert_eq!(payments["payments"].as_array().unwrap().len(), 1, "{payments}");

    let (status, ended) = ana.delete("/api/v1/billing/subscription").await;
    assert_eq!((status, &ended), (200, &json!({"ok": true})));
    assert_eq!(tier(&ana).await, "power", "until the paid period ends");
    let subscription = stripe.objects("sub").remove(0);
    assert_eq!(subscription["cancel_at_period_end"], true);
    for event in stripe.cancel_now(subscription["id"].as_str().unwrap()) {
        assert_eq!(stripe.deliver(&webhook, &event).await.status, 200);
    }
    eventually("the old plan", Duration::from_secs(1), || async { tier(&ana).await == "free" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_and_ended_on_sqlite() {
    let stripe = StripeStub::start().await;
    let mesh = Mesh::start(selling(&stripe, &[]).await).await;
    from_free_to_power_and_back(&mesh, &stripe).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_bought_and_ended_on_postgresql() {
    let stripe = StripeStub::start().await;
    let mesh = deployed(selling(&stripe, &[]).await).await;
    from_free_to_power_and_back(&mesh, &stripe).await;
}

/// 120 a minute on the plan power, and one more: with the exact time to wait.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_after_the_last_of_the_minute_is_told_when_to_come_back() {
    let stripe = StripeStub::start().await;
    let mesh = Mesh::start(selling(&stripe, &[]).await).await;
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    let (mut admitted, mut refused) = (0, None);
    // Free: 20 at once, and one more every three seconds.
    for _ in 0..30 {
        let answer = ana.ask("/api/v1/auth/me").await;
        match answer.status().as_u16() {
            200 => {
                assert_eq!(answer.headers()["ratelimit-limit"], "20");
                admitted += 1;
            }
            429 => {
                refused = Some(answer);
                break;
            }
            other => panic!("{other}"),
        }
    }
    assert!((20..=22).contains(&admitted), "{admitted} were admitted");
    let refused = refused.expect("a refusal");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "rate_limited");
}

/// What no key is configured for says so, and everything else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn without_stripe_only_paying_is_refused() {
    let mesh = Mesh::start(Options::new(WEFT)).await;
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    let (status, refused) = ana.post("/api/v1/billing/checkout", &json!({"tier": "power"})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("payments_not_configured")), "{refused}");
    let (status, refused) = Client::new(mesh.edge(), "adiuva").post("/stripe-webhook", None, &json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("payments_not_configured")), "{refused}");
    let (status, subscription) = ana.get("/api/v1/billing/subscription").await;
    assert_eq!((status, &subscription["tier"], &subscription["status"]), (200, &json!("free"), &json!("none")));
    let (status, balance) = ana.get("/api/v1/users/credits").await;
    assert_eq!((status, &balance["total"]), (200, &json!(0)), "{balance}");
}

/// An administrator's number holds within a second, through a restart and through a new manifest; a new price is for
/// new subscribers.
async fn catalogue_edits(mut mesh: Mesh, stripe: &StripeStub, products: &std::path::Path) {
    let webhook = format!("{}/api/v1/billing/webhook", mesh.edge());
    let admin = Persona::register(mesh.edge(), "adiuva", "admin@example.com").await;
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    let told = mesh.identities[0].run(&["admin", "grant", "admin@example.com", "--product", "adiuva"]).await;
    let client = Client::new(mesh.edge(), "adiuva");
    let sign_in = json!({"email": admin.email, "password": admin.password});
    let (_, tokens) = client.post("/api/v1/auth/login", None, &sign_in).await;
    let admin = tokens["access_token"].as_str().unwrap().to_owned();
    let (status, plans) = client.get("/api/admin/plans", Some(&admin)).await;
    assert_eq!(status, 200, "{told}: {plans}");

    let edit = json!({"requests_per_minute": 21, "limits": {"batch_active": 7}});
    let (status, plan) = client.put("/api/admin/plans/free", Some(&admin), &edit).await;
    assert_eq!((status, &plan["limits"]["batch_active"]), (200, &json!(7)), "{plan}");
    let rate = async || {
        let answer = ana.ask("/api/v1/auth/me").await;
        answer.headers()["ratelimit-limit"].to_str().unwrap().to_owned()
    };
    eventually("the edited rate at the edge", Duration::from_secs(1), || async { rate().await == "21" }).await;

    let buy = async |who: &Persona| {
        let (status, checkout) = who.post("/api/v1/billing/checkout", &json!({"tier": "pro"})).await;
        assert_eq!(status, 200, "{checkout}");
        let session = checkout["session_id"].as_str().unwrap();
        for event in stripe.complete_checkout(session) {
            assert_eq!(stripe.deliver(&webhook, &event).await.status, 200);
        }
        eventually("the plan pro", Duration::from_secs(1), || async { tier(who).await == "pro" }).await;
        stripe.object(session).unwrap()["amount_total"].clone()
    };
    assert_eq!(buy(&ana).await, 1500);

    // A new manifest: another limit for everybody, and another price for who comes now.
    let changes = [("backup_gb = 5,", "backup_gb = 6,"), ("amount_minor = 1500", "amount_minor = 2500")];
    adiuva_with(products, &changes);
    mesh.billing.kill().await;
    mesh.billing.restart().await;
    mesh.until_healthy().await;
    let bo = Persona::register(mesh.edge(), "adiuva", "bo@example.com").await;
    assert_eq!(buy(&bo).await, 2500);
    let (_, plans) = client.get("/api/admin/plans?all_versions=true", Some(&admin)).await;
    let plans = plans["plans"].as_array().unwrap();
    let find = |id: &str, version: i64| {
        let found = plans.iter().find(|plan| plan["id"] == id && plan["version"] == version);
        found.unwrap_or_else(|| panic!("{id} {version} is not in {plans:?}"))
    };
    assert_eq!(find("free", 1)["limits"]["batch_active"], 7, "the edit stays");
    assert_eq!(find("pro", 1)["prices"][0]["amount_minor"], 1500);
    assert_eq!(find("pro", 2)["prices"][0]["amount_minor"], 2500);
    assert_eq!(find("pro", 2)["limits"]["backup_gb"], 6);
    assert_eq!(ana.get("/api/v1/billing/subscription").await.1["plan_version"], 1);
    assert_eq!(bo.get("/api/v1/billing/subscription").await.1["plan_version"], 2);

    let (_, me) = ana.get("/api/v1/auth/me").await;
    let (status, moved) =
        client.post("/api/v1/admin/plans/pro/migrate", Some(&admin), &json!({"user_id": me["id"]})).await;
    assert_eq!((status, &moved), (200, &json!({"migrated": 1})));
    assert_eq!(ana.get("/api/v1/billing/subscription").await.1["plan_version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_the_catalogue_hold_on_sqlite() {
    let (stripe, products) = (StripeStub::start().await, tempfile::tempdir().unwrap());
    adiuva_with(products.path(), &[]);
    let folder = [("WEFT_PRODUCTS_DIR", products.path().display().to_string())];
    let mesh = Mesh::start(selling(&stripe, &folder).await).await;
    catalogue_edits(mesh, &stripe, products.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_the_catalogue_hold_on_postgresql() {
    let (stripe, products) = (StripeStub::start().await, tempfile::tempdir().unwrap());
    adiuva_with(products.path(), &[]);
    let folder = [("WEFT_PRODUCTS_DIR", products.path().display().to_string())];
    let mesh = deployed(selling(&stripe, &folder).await).await;
    catalogue_edits(mesh, &stripe, products.path()).await;
}

/// With nothing but a secret, a developer plays Stripe: `weft dev webhook stripe`.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_tried_out_without_stripe() {
    let mut options = Options::new(WEFT);
    options.environment.push(("STRIPE_WEBHOOK_SECRET".to_owned(), "whsec_try".to_owned()));
    let mesh = Mesh::start(options).await;
    let ana = Persona::register(mesh.edge(), "async-coder", "ana@example.com").await;
    let (_, me) = ana.get("/api/v1/auth/me").await;
    let send = async |kind: &str, item: &str| {
        let user = me["id"].as_str().unwrap();
        let about = ["--product", "async-coder", "--user", user, "--item", item, "--url", mesh.edge()];
        let answer = mesh.billing.run(&[&["dev", "webhook", "stripe", kind], about.as_slice()].concat()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(answer["ok"], true, "{kind}: {answer}");
        answer["outcome"] == "applied"
    };
    // Billing notes an account soon after its first call, and an event about nobody it knows has no effect.
    eventually("the purchase", Duration::from_secs(5), || send("checkout.session.completed", "credits_500")).await;
    assert_eq!(ana.get("/api/v1/wallet/balance").await.1["purchased"], 500);
    assert!(send("customer.subscription.created", "pro_monthly").await);
    eventually("the plan pro", Duration::from_secs(1), || async { tier(&ana).await == "pro" }).await;
    assert_eq!(ana.get("/api/v1/wallet/balance").await.1["daily"], 200);
    assert!(send("charge.refunded", "credits_500").await);
    assert_eq!(ana.get("/api/v1/wallet/balance").await.1["purchased"], 0);
}
