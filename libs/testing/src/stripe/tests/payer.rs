//! Checkout and the life of a subscription.
use super::*;

#[tokio::test]
async fn a_paid_checkout_makes_a_subscription_and_its_events() {
    let stub = start().await;
    let session = stub.session("subscription").await;
    assert_eq!(stub.object(&session).unwrap()["payment_status"], "unpaid");
    let events = stub.complete_checkout(&session);
    for kind in ["customer.subscription.created", "invoice.paid", "charge.succeeded"] {
        of_type(&events, kind);
    }
    assert_eq!(types(&events).last(), Some(&"checkout.session.completed"));
    let completed = &events.last().unwrap()["data"]["object"];
    assert_eq!((&completed["status"], &completed["payment_status"]), (&json!("complete"), &json!("paid")));
    assert_eq!((&completed["client_reference_id"], &completed["metadata"]["user_id"]), (&json!("u1"), &json!("u1")));
    assert!(completed.get("line_items").is_none(), "only shown when asked for");

    let path = format!("subscriptions/{}", text(&completed["subscription"]));
    let subscription = stub.get(&path, &[("expand[]", "latest_invoice.payments"), ("expand[]", "customer")]).await;
    let (item, invoice) = (&subscription["items"]["data"][0], &subscription["latest_invoice"]);
    assert_eq!((&subscription["status"], &item["quantity"]), (&json!("active"), &json!(2)));
    assert_eq!(subscription["metadata"]["user_id"], "u1");
    assert_eq!(subscription["customer"]["email"], "a@b.c");
    let day_s = 86_400;
    assert_eq!(item["current_period_end"], NOW_MS / 1000 + 28 * day_s, "from 31 January to 28 February");
    assert_eq!((&invoice["status"], &invoice["amount_paid"]), (&json!("paid"), &json!(1000)));
    assert_eq!(invoice["parent"]["subscription_details"]["subscription"], subscription["id"]);
    let intent = text(&invoice["payments"]["data"][0]["payment"]["payment_intent"]);
    let asked = [("payment[type]", "payment_intent"), ("payment[payment_intent]", intent.as_str())];
    assert_eq!(stub.get("invoice_payments", &asked).await["data"][0]["invoice"], invoice["id"]);
}

#[tokio::test]
async fn a_slow_payment_completes_the_session_first_and_is_paid_later() {
    let stub = start().await;
    let session = stub.session("payment").await;
    let events = stub.complete_checkout_unpaid(&session);
    assert_eq!(types(&events), ["checkout.session.completed"]);
    assert_eq!(events[0]["data"]["object"]["payment_status"], "unpaid");
    let events = stub.checkout_money_arrives(&session);
    assert_eq!(
        types(&events),
        ["charge.succeeded", "payment_intent.succeeded", "checkout.session.async_payment_succeeded"]
    );
    assert_eq!(events[0]["data"]["object"]["metadata"]["user_id"], "u1");

    let other = stub.session("payment").await;
    stub.post(&format!("checkout/sessions/{other}/expire"), &[]).await;
    assert_eq!(stub.refused("POST", &format!("checkout/sessions/{other}/expire"), &[]).await.0, 400);
    assert_eq!(types(&stub.events()).last(), Some(&"checkout.session.expired"));
}

#[tokio::test]
async fn a_subscription_is_renewed_falls_behind_recovers_and_ends() {
    let stub = start().await;
    let subscription = stub.subscription().await;
    let first_end = stub.object(&subscription).unwrap()["current_period_end"].clone();
    let renewed = stub.renew(&subscription);
    let updated = of_type(&renewed, "customer.subscription.updated");
    assert_eq!(updated["data"]["previous_attributes"]["current_period_end"], first_end);
    assert_eq!(updated["data"]["object"]["items"]["data"][0]["current_period_start"], first_end);
    assert_eq!(of_type(&renewed, "invoice.paid")["data"]["object"]["billing_reason"], "subscription_cycle");

    let failed = stub.fail_payment(&subscription);
    of_type(&failed, "invoice.payment_failed");
    assert_eq!(of_type(&failed, "customer.subscription.updated")["data"]["object"]["status"], "past_due");
    of_type(&stub.pay_subscription(&subscription), "invoice.paid");
    assert_eq!(stub.object(&subscription).unwrap()["status"], "active");

    let changed = stub.change_quantity(&subscription, 7);
    assert_eq!(changed[0]["data"]["object"]["items"]["data"][0]["quantity"], 7);
    let customer = text(&stub.object(&subscription).unwrap()["customer"]);
    assert_eq!(stub.get("subscriptions", &[("customer", &customer)]).await["data"].as_array().unwrap().len(), 1);
    stub.cancel_at_period_end(&subscription);
    assert_eq!(types(&stub.renew(&subscription)), ["customer.subscription.deleted"]);
    assert_eq!(stub.get("subscriptions", &[("customer", &customer)]).await["data"], json!([]));
    let all = stub.get("subscriptions", &[("customer", &customer), ("status", "all")]).await;
    assert_eq!(all["data"][0]["status"], "canceled");
    assert_eq!(stub.refused("DELETE", &format!("subscriptions/{subscription}"), &[]).await.0, 404);
}

#[tokio::test]
async fn an_incomplete_subscription_waits_for_its_client_secret_and_takes_another_price() {
    let stub = start().await;
    let customer = text(&stub.post("customers", &[]).await["id"]);
    let product = text(&stub.post("products", &[("name", "Pro")]).await["id"]);
    let price = |amount: &'static str| {
        let recurring = ("recurring[interval]", "month");
        [
            ("product", product.clone()),
            ("currency", "usd".to_owned()),
            ("unit_amount", amount.to_owned()),
            (recurring.0, recurring.1.to_owned()),
        ]
    };
    let mut prices = Vec::new();
    for amount in ["1000", "3000"] {
        let form = price(amount);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        prices.push(text(&stub.post("prices", &form).await["id"]));
    }
    let form = [
        ("customer", customer.as_str()),
        ("items[0][price]", &prices[0]),
        ("payment_behavior", "default_incomplete"),
        ("expand[]", "latest_invoice.confirmation_secret"),
        ("expand[]", "latest_invoice.payment_intent"),
    ];
    let made = stub.post("subscriptions", &form).await;
    assert_eq!(made["status"], "incomplete");
    let secret = &made["latest_invoice"]["confirmation_secret"]["client_secret"];
    assert_eq!(secret, &made["latest_invoice"]["payment_intent"]["client_secret"]);
    let id = text(&made["id"]);
    stub.pay_subscription(&id);

    let item = text(&made["items"]["data"][0]["id"]);
    let form = [
        ("items[0][id]", item.as_str()),
        ("items[0][price]", &prices[1]),
        ("proration_behavior", "always_invoice"),
        ("metadata[plan]", "max"),
    ];
    let changed = stub.post(&format!("subscriptions/{id}"), &form).await;
    assert_eq!((&changed["status"], &changed["metadata"]["plan"]), (&json!("active"), &json!("max")));
    assert_eq!(changed["items"]["data"][0]["price"]["unit_amount"], 3000);
    let invoices = stub.get("invoices", &[("subscription", &id)]).await;
    assert_eq!(invoices["data"][0]["amount_paid"], 2000, "the whole period is left");

    stub.set_shape(Shape::Current);
    let (status, _) =
        stub.refused("GET", &format!("subscriptions/{id}"), &[("expand[]", "latest_invoice.payment_intent")]).await;
    assert_eq!(status, 400);
    let deleted = stub.send("DELETE", &format!("subscriptions/{id}"), &[], None).await.unwrap();
    assert!(deleted.body.get("current_period_end").is_none());
    stub.set_shape(Shape::Legacy);
    let old = stub.emit("invoice.paid", &text(&invoices["data"][0]["id"])).remove(0);
    assert_eq!((old["data"]["object"].get("parent"), &old["data"]["object"]["subscription"]), (None, &json!(id)));
}
