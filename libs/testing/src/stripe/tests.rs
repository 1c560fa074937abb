mod payer;
mod webhook;

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::eventually;

/// A fixed time: 2026-01-31T00:00:00Z.
const NOW_MS: i64 = 1_769_817_600_000;

struct Answer {
    status: u16,
    body: Value,
    replayed: bool,
}

impl StripeStub {
    async fn send(
        &self,
        method: &str,
        path: &str,
        form: &[(&str, &str)],
        key: Option<&str>,
    ) -> reqwest::Result<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/v1/{path}", self.url());
        let mut request = self.courier.http.request(method.clone(), url).bearer_auth(self.secret_key());
        request = if method == "POST" { request.form(form) } else { request.query(form) };
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await?;
        let (status, replayed) = (answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed"));
        Ok(Answer { status, body: answer.json().await?, replayed })
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let answer = self.send("POST", path, form, None).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let answer = self.send("GET", path, query, None).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    async fn refused(&self, method: &str, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let answer = self.send(method, path, form, None).await.unwrap();
        (answer.status, answer.body["error"].clone())
    }

    async fn session(&self, mode: &str) -> String {
        let data = if mode == "payment" { "payment_intent_data" } else { "subscription_data" };
        let data = format!("{data}[metadata][user_id]");
        let mut form = vec![
            ("mode", mode),
            ("success_url", "https://x/ok"),
            ("customer_email", "a@b.c"),
            ("client_reference_id", "u1"),
            ("metadata[user_id]", "u1"),
            (&data, "u1"),
            ("line_items[0][quantity]", "2"),
            ("line_items[0][price_data][currency]", "usd"),
            ("line_items[0][price_data][unit_amount]", "500"),
            ("line_items[0][price_data][product_data][name]", "Pro"),
        ];
        if mode == "subscription" {
            form.push(("line_items[0][price_data][recurring][interval]", "month"));
        }
        text(&self.post("checkout/sessions", &form).await["id"])
    }

    /// The id of a charge of 10.00 USD.
    async fn charge(&self) -> String {
        let session = self.session("payment").await;
        let events = self.complete_checkout(&session);
        text(&of_type(&events, "charge.succeeded")["data"]["object"]["id"])
    }

    async fn subscription(&self) -> String {
        let session = self.session("subscription").await;
        let events = self.complete_checkout(&session);
        text(&of_type(&events, "customer.subscription.created")["data"]["object"]["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn of_type<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    events.iter().find(|event| event["type"] == kind).unwrap_or_else(|| panic!("{kind} among {:?}", types(events)))
}

async fn start() -> StripeStub {
    let stub = StripeStub::start().await;
    stub.set_now(NOW_MS);
    stub
}

#[tokio::test]
async fn a_request_without_the_key_or_to_nowhere_is_refused_as_stripe_does() {
    let stub = start().await;
    let url = format!("{}/v1/customers", stub.url());
    let stranger = stub.courier.http.post(url).bearer_auth("sk_other").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    let body: Value = stranger.json().await.unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");

    let (status, error) = stub.refused("GET", "customers/cus_nobody", &[]).await;
    assert_eq!((status, &error["code"]), (404, &json!("resource_missing")));
    let (status, error) = stub.refused("POST", "refunds", &[]).await;
    assert_eq!((status, &error["code"], &error["param"]), (400, &json!("parameter_missing"), &json!("charge")));
    let session = [("mode", "payment"), ("success_url", "https://x"), ("line_items[0][price_data][unit_amount]", "1")];
    let (status, error) = stub.refused("POST", "checkout/sessions", &session).await;
    assert_eq!((status, &error["param"]), (400, &json!("line_items[0][price_data][currency]")));
    assert_eq!(stub.counts()["POST /v1/customers"], 1);
    assert!(stub.events().is_empty());
}

#[tokio::test]
async fn a_key_gives_its_first_answer_again_and_refuses_other_parameters() {
    let stub = start().await;
    let form = [("email", "a@b.c")];
    let first = stub.send("POST", "customers", &form, Some("k")).await.unwrap();
    let second = stub.send("POST", "customers", &form, Some("k")).await.unwrap();
    assert_eq!(first.body, second.body);
    assert_eq!((first.replayed, second.replayed), (false, true));
    let other = stub.send("POST", "customers", &[("email", "x@b.c")], Some("k")).await.unwrap();
    assert_eq!((other.status, &other.body["error"]["type"]), (400, &json!("idempotency_error")));
    assert_eq!(stub.objects("cus").len(), 1);
    assert_eq!(stub.calls()[2].field("email"), Some("x@b.c"));
    assert_eq!(stub.calls()[2].idempotency_key.as_deref(), Some("k"));
}

#[tokio::test]
async fn a_key_is_kept_for_a_500_but_not_for_a_validation_error_or_a_rate_limit() {
    let stub = start().await;
    let invalid = stub.send("POST", "refunds", &[], Some("k1")).await.unwrap();
    assert_eq!(invalid.status, 400);
    let charge = stub.charge().await;
    let valid = stub.send("POST", "refunds", &[("charge", &charge), ("amount", "1")], Some("k1")).await.unwrap();
    assert_eq!(valid.status, 200);

    stub.misbehave_at("/v1/customers", Misbehave::RateLimited(3));
    let limited = stub.send("POST", "customers", &[], Some("k2")).await.unwrap();
    assert_eq!(limited.status, 429);
    assert_eq!(stub.send("POST", "customers", &[], Some("k2")).await.unwrap().status, 200);

    stub.misbehave(Misbehave::ServerError);
    for replayed in [false, true, true] {
        let broken = stub.send("POST", "customers", &[], Some("k3")).await.unwrap();
        assert_eq!((broken.status, broken.replayed), (500, replayed));
    }
    assert_eq!(stub.objects("cus").len(), 1);
}

#[tokio::test]
async fn a_key_in_use_is_refused_until_its_answer_is_there() {
    let stub = start().await;
    stub.misbehave(Misbehave::Slow(Duration::from_secs(1)));
    let slow = stub.send("POST", "customers", &[], Some("k"));
    let racing = async {
        eventually("the slow request arrives", Duration::from_secs(5), async || !stub.calls().is_empty()).await;
        stub.send("POST", "customers", &[], Some("k")).await
    };
    let (slow, racing) = tokio::join!(slow, racing);
    let racing = racing.unwrap();
    assert_eq!((racing.status, &racing.body["error"]["code"]), (409, &json!("idempotency_key_in_use")));
    let later = stub.send("POST", "customers", &[], Some("k")).await.unwrap();
    assert_eq!(later.body, slow.unwrap().body);
    assert_eq!(stub.objects("cus").len(), 1);
}

#[tokio::test]
async fn fifty_racers_with_one_key_have_one_effect() {
    let stub = start().await;
    let charge = stub.charge().await;
    let form = [("charge", charge.as_str()), ("amount", "100")];
    let answers = futures_util::future::join_all((0..50).map(|_| stub.send("POST", "refunds", &form, Some("k")))).await;
    let ids: std::collections::BTreeSet<String> =
        answers.into_iter().map(|answer| text(&answer.unwrap().body["id"])).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(stub.object(&charge).unwrap()["amount_refunded"], 100);
}

#[tokio::test]
async fn a_lost_answer_can_be_had_again_with_its_key() {
    let stub = start().await;
    for order in [Misbehave::CutAfter, Misbehave::Malformed] {
        stub.misbehave(order);
        let key = format!("{order:?}");
        assert!(stub.send("POST", "customers", &[], Some(&key)).await.is_err());
        let made = stub.objects("cus").pop().unwrap();
        assert_eq!(stub.send("POST", "customers", &[], Some(&key)).await.unwrap().body, made);
    }
    assert_eq!(stub.objects("cus").len(), 2);

    stub.misbehave(Misbehave::Hang);
    let hanging = tokio::time::timeout(Duration::from_millis(100), stub.send("POST", "customers", &[], None)).await;
    assert!(hanging.is_err());
    assert_eq!(stub.objects("cus").len(), 2);
}

#[tokio::test]
async fn no_more_is_refunded_than_was_paid() {
    let stub = start().await;
    let charge = stub.charge().await;
    let part = stub.post("refunds", &[("charge", &charge), ("amount", "400")]).await;
    assert_eq!((&part["amount"], &part["status"]), (&json!(400), &json!("succeeded")));
    let (status, error) = stub.refused("POST", "refunds", &[("charge", &charge), ("amount", "601")]).await;
    assert_eq!((status, &error["param"]), (400, &json!("amount")));
    let intent = text(&stub.object(&charge).unwrap()["payment_intent"]);
    let rest = stub.post("refunds", &[("payment_intent", &intent)]).await;
    assert_eq!(rest["amount"], 600);
    let (status, error) = stub.refused("POST", "refunds", &[("charge", &charge)]).await;
    assert_eq!((status, &error["code"]), (400, &json!("charge_already_refunded")));
    let amounts: Vec<Value> = stub
        .events()
        .iter()
        .filter(|event| event["type"] == "charge.refunded")
        .map(|event| event["data"]["object"]["amount_refunded"].clone())
        .collect();
    assert_eq!(amounts, [400, 1000], "each event is a snapshot of its moment");
}

#[tokio::test]
async fn a_transfer_needs_a_ready_account_and_is_never_above_its_charge_nor_a_reversal_above_it() {
    let stub = start().await;
    let charge = stub.charge().await;
    let express = [("type", "express"), ("capabilities[transfers][requested]", "true")];
    let account = text(&stub.post("accounts", &express).await["id"]);
    let transfer = |amount: &'static str| {
        let (charge, account) = (charge.as_str(), account.as_str());
        [("amount", amount), ("currency", "usd"), ("destination", account), ("source_transaction", charge)]
    };
    let (_, error) = stub.refused("POST", "transfers", &transfer("700")).await;
    assert_eq!(error["code"], "insufficient_capabilities_for_transfer");
    let events = stub.finish_onboarding(&account);
    assert_eq!((&events[0]["type"], &events[0]["account"]), (&json!("account.updated"), &json!(account)));
    let sent = text(&stub.post("transfers", &transfer("700")).await["id"]);
    let (status, error) = stub.refused("POST", "transfers", &transfer("301")).await;
    assert_eq!((status, &error["param"]), (400, &json!("amount")));

    let reversals = format!("transfers/{sent}/reversals");
    stub.post(&reversals, &[("amount", "300")]).await;
    assert_eq!(stub.refused("POST", &reversals, &[("amount", "401")]).await.0, 400);
    assert_eq!(stub.post(&reversals, &[]).await["amount"], 400);
    assert_eq!(stub.refused("POST", &reversals, &[("amount", "1")]).await.0, 400);
    let now = stub.get(&format!("transfers/{sent}"), &[]).await;
    assert_eq!((&now["amount_reversed"], &now["reversed"]), (&json!(700), &json!(true)));
    assert_eq!(now["reversals"]["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_dispute_is_opened_and_decided_once() {
    let stub = start().await;
    let charge = stub.charge().await;
    let opened = stub.open_dispute(&charge);
    assert_eq!(types(&opened), ["charge.dispute.created", "charge.dispute.funds_withdrawn"]);
    let dispute = text(&opened[0]["data"]["object"]["id"]);
    assert_eq!(opened[0]["data"]["object"]["charge"], json!(charge));
    let (_, error) = stub.refused("POST", "refunds", &[("charge", &charge)]).await;
    assert_eq!(error["code"], "charge_disputed");
    let closed = stub.close_dispute(&dispute, true);
    assert_eq!(types(&closed), ["charge.dispute.closed", "charge.dispute.funds_reinstated"]);
    assert_eq!(closed[0]["data"]["object"]["status"], "won");
}

#[tokio::test]
async fn events_are_listed_newest_first_in_pages_by_type_and_time() {
    let stub = start().await;
    for second in 0..12 {
        stub.set_now(NOW_MS + second * 1000);
        stub.post("customers", &[]).await;
    }
    let from = (NOW_MS / 1000 + 2).to_string();
    let query = [("types[]", "customer.created"), ("types[]", "invoice.paid"), ("created[gte]", &from)];
    let first = stub.get("events", &query).await;
    let ids =
        |page: &Value| page["data"].as_array().unwrap().iter().map(|event| text(&event["id"])).collect::<Vec<_>>();
    assert_eq!((ids(&first).len(), &first["has_more"]), (10, &json!(false)));
    assert!(ids(&first).is_sorted_by(|newer, older| newer > older));
    let mut found: Vec<String> = Vec::new();
    loop {
        let after = found.last().cloned().unwrap_or_default();
        let page = stub.get("events", &[("limit", "5"), ("starting_after", &after)]).await;
        found.extend(ids(&page));
        if page["has_more"] == false {
            break;
        }
    }
    let mut all: Vec<String> = stub.events().iter().map(|event| text(&event["id"])).collect();
    all.reverse();
    assert_eq!(found, all);
    assert_eq!(stub.get("events", &[("types[]", "invoice.paid")]).await["data"], json!([]));
    assert_eq!(stub.refused("GET", "events", &[("limit", "101")]).await.0, 400);
}
