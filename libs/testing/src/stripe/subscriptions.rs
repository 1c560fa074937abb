//! Subscriptions: made incomplete, paid, changed, renewed, ended.
use serde_json::{Value, json};

use super::calendar::period_end;
use super::catalog::{self, Line, merged};
use super::form::Params;
use super::invoices::{invoice_create, invoice_fail, invoice_pay};
use super::state::{Refusal, State, with_all};

/// What a subscription does not have at first, or never in this stub.
const NULLS: [&str; 25] = [
    "application",
    "application_fee_percent",
    "billing_cycle_anchor_config",
    "billing_thresholds",
    "cancel_at",
    "canceled_at",
    "customer_account",
    "days_until_due",
    "default_payment_method",
    "default_source",
    "description",
    "ended_at",
    "latest_invoice",
    "next_pending_invoice_item_invoice",
    "on_behalf_of",
    "pause_collection",
    "pending_invoice_item_interval",
    "pending_setup_intent",
    "pending_update",
    "schedule",
    "test_clock",
    "transfer_data",
    "trial_end",
    "trial_settings",
    "trial_start",
];

/// `POST /v1/subscriptions`. Without `payment_behavior=default_incomplete` it wants a `default_payment_method` and is
/// paid at once.
pub(super) fn subscription_post(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let customer = params.need("customer")?.to_owned();
    state.referred("customer", &customer)?;
    let items = params.list("items");
    if items.is_empty() {
        return Err(Refusal::missing("items"));
    }
    let lines = items.iter().map(|item| catalog::line(state, item)).collect::<Result<Vec<Line>, Refusal>>()?;
    if !lines.iter().all(Line::recurring) {
        let message =
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.";
        return Err(Refusal::param("resource_missing", "items[0][price]", message));
    }
    let incomplete = params.text("payment_behavior") == Some("default_incomplete");
    if !incomplete && params.text("default_payment_method").is_none() {
        let message = "This customer has no attached payment source or default payment method.";
        return Err(Refusal::state(Some("resource_missing"), message));
    }
    let id = subscription_create(state, &customer, &lines, params.map("metadata"));
    let invoice = invoice_create(state, &id, "subscription_create", None);
    let free = state.get(&invoice).is_some_and(|invoice| invoice["total"] == 0);
    if free || !incomplete {
        invoice_pay(state, &invoice);
        state.set(&id, json!({"status": "active"}));
    }
    state.event("customer.subscription.created", &id);
    state.find("subscription", &id).cloned()
}

/// A subscription that begins now and waits for its first payment; no event yet.
pub(super) fn subscription_create(state: &mut State, customer: &str, lines: &[Line], metadata: Value) -> String {
    let (id, now) = (state.id("sub"), state.now());
    let recurring = lines.first().map(|line| line.price["recurring"].clone()).unwrap_or_default();
    let (interval, count) = (recurring["interval"].as_str().unwrap_or("month"), recurring["interval_count"].as_i64());
    let end = period_end(now, interval, count.unwrap_or(1), now);
    let items: Vec<Value> = lines.iter().map(|line| item(state, &id, line, (now, end))).collect();
    let subscription = json!({
        "id": id, "object": "subscription",
        "automatic_tax": {"disabled_reason": null, "enabled": false, "liability": null},
        "billing_cycle_anchor": now, "billing_mode": {"flexible": null, "type": "classic"}, "billing_schedules": [],
        "cancel_at_period_end": false, "cancellation_details": {"comment": null, "feedback": null, "reason": null},
        "collection_method": "charge_automatically", "created": now,
        "currency": lines.first().map(|line| line.price["currency"].clone()), "current_period_end": end,
        "current_period_start": now, "customer": customer, "default_tax_rates": [], "discounts": [],
        "invoice_settings": {"account_tax_ids": null, "issuer": {"type": "self"}},
        "items": {"object": "list", "data": items, "has_more": false,
        "url": format!("/v1/subscription_items?subscription={id}")},
        "livemode": false, "metadata": metadata,
        "payment_settings": { "payment_method_options": null, "payment_method_types": null,
        "save_default_payment_method": "off", },
        "quantity": lines.first().map(|line| line.quantity), "start_date": now, "status": "incomplete",
    });
    state.keep(with_all(subscription, &NULLS, &Value::Null))
}

fn item(state: &mut State, subscription: &str, line: &Line, (start, end): (i64, i64)) -> Value {
    json!({
        "id": state.id("si"), "object": "subscription_item", "billing_thresholds": null, "created": state.now(),
        "current_period_end": end, "current_period_start": start, "discounts": [], "metadata": {},
        "plan": catalog::plan(&line.price), "price": line.price, "quantity": line.quantity,
        "subscription": subscription,
        "tax_rates": [],
    })
}

/// `POST /v1/subscriptions/{id}`: items, metadata, `cancel_at_period_end`. Prorations are only invoiced with
/// `proration_behavior=always_invoice`; with `payment_behavior=error_if_incomplete` a declined card changes nothing.
pub(super) fn subscription_update(state: &mut State, id: &str, params: &Params) -> Result<Value, Refusal> {
    let old = living(state, id)?;
    let mut new = old.clone();
    for change in params.list("items") {
        change_item(state, &mut new, &change)?;
    }
    new["quantity"] = new["items"]["data"][0]["quantity"].clone();
    new["metadata"] = merged(&old["metadata"], &params.map("metadata"));
    if let Some(ends) = params.flag("cancel_at_period_end") {
        let at = |value: &Value| if ends { value.clone() } else { Value::Null };
        new["cancel_at"] = at(&old["current_period_end"]);
        new["canceled_at"] = at(&state.now().into());
        new["cancellation_details"]["reason"] = at(&"cancellation_requested".into());
        new["cancel_at_period_end"] = ends.into();
    }
    let more = prorated(state, &old, &new);
    let pays_now = more > 0 && params.text("proration_behavior") == Some("always_invoice");
    if pays_now && params.text("payment_behavior") == Some("error_if_incomplete") && is_declined(state, &old) {
        let declined = Refusal::state(Some("card_declined"), "Your card was declined.");
        return Err(Refusal { status: 402, kind: "card_error", ..declined });
    }
    state.keep(new.clone());
    if pays_now {
        let invoice = invoice_create(state, id, "subscription_update", Some(more));
        invoice_pay(state, &invoice);
    }
    changed(state, &old);
    state.find("subscription", id).cloned()
}

/// Whether the customer has saved a card for invoices that is declined.
fn is_declined(state: &State, subscription: &Value) -> bool {
    let customer = subscription["customer"].as_str().and_then(|id| state.get(id));
    customer.is_some_and(|of| of["invoice_settings"]["default_payment_method"] == "pm_card_chargeDeclined")
}

fn change_item(state: &mut State, subscription: &mut Value, change: &Params) -> Result<(), Refusal> {
    let id = subscription["id"].as_str().unwrap_or_default().to_owned();
    let period = (
        subscription["current_period_start"].as_i64().unwrap_or_default(),
        subscription["current_period_end"].as_i64().unwrap_or_default(),
    );
    let priced = change.has("price") || change.has("price_data");
    let line = if priced { Some(catalog::line(state, change)?) } else { None };
    let Some(items) = subscription["items"]["data"].as_array_mut() else { return Ok(()) };
    let Some(named) = change.text("id") else {
        let line = line.ok_or_else(|| Refusal::missing(&change.name("price")))?;
        items.push(item(state, &id, &line, period));
        return Ok(());
    };
    let at = items.iter().position(|item| item["id"] == named);
    let at = at.ok_or_else(|| Refusal::no_such("subscription_item", named, 400))?;
    if change.flag("deleted") == Some(true) {
        items.remove(at);
        return Ok(());
    }
    if let Some(line) = line {
        items[at]["plan"] = catalog::plan(&line.price);
        items[at]["price"] = line.price;
    }
    if let Some(quantity) = change.number("quantity")? {
        items[at]["quantity"] = quantity.into();
    }
    Ok(())
}

/// What the rest of the period costs more than before, in minor units.
fn prorated(state: &State, old: &Value, new: &Value) -> i64 {
    let sum = |subscription: &Value| -> i64 {
        let items = subscription["items"]["data"].as_array().into_iter().flatten();
        let one = |item: &Value| {
            item["price"]["unit_amount"].as_i64().unwrap_or_default() * item["quantity"].as_i64().unwrap_or_default()
        };
        items.map(one).sum()
    };
    let start = old["current_period_start"].as_i64().unwrap_or_default();
    let end = old["current_period_end"].as_i64().unwrap_or_default();
    let left = i128::from((end - state.now()).clamp(0, end - start));
    let whole = i128::from((end - start).max(1));
    i64::try_from(i128::from(sum(new) - sum(old)) * left / whole).unwrap_or_default()
}

/// `customer.subscription.updated`, with the old values of the fields that differ.
fn changed(state: &mut State, old: &Value) {
    let id = old["id"].as_str().unwrap_or_default();
    let new = state.get(id).cloned().unwrap_or_default();
    let differs = |(name, value): &(&String, &Value)| new[name.as_str()] != **value;
    let before = old.as_object().into_iter().flatten().filter(differs);
    let before: serde_json::Map<String, Value> = before.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !before.is_empty() {
        state.event_with("customer.subscription.updated", id, before.into());
    }
}

/// Ends it now, by the API or by the payer.
pub(super) fn subscription_cancel(state: &mut State, id: &str) -> Result<Value, Refusal> {
    let old = living(state, id)?;
    let now = state.now();
    let mut details = old["cancellation_details"].clone();
    details["reason"] = "cancellation_requested".into();
    let canceled_at = if old["canceled_at"].is_null() { now.into() } else { old["canceled_at"].clone() };
    let fields =
        json!({"status": "canceled", "canceled_at": canceled_at, "ended_at": now, "cancellation_details": details});
    state.set(id, fields);
    state.event("customer.subscription.deleted", id);
    state.find("subscription", id).cloned()
}

fn living(state: &State, id: &str) -> Result<Value, Refusal> {
    let subscription = state.find("subscription", id)?;
    if ["canceled", "incomplete_expired"].iter().any(|ended| subscription["status"] == *ended) {
        return Err(Refusal::no_such("subscription", id, 404));
    }
    Ok(subscription.clone())
}

/// The first payment arrives (the payer confirmed the client secret), or a late one.
pub(super) fn subscription_pay(state: &mut State, id: &str) -> Result<(), Refusal> {
    let old = living(state, id)?;
    let invoice = old["latest_invoice"].as_str().unwrap_or_default().to_owned();
    invoice_pay(state, &invoice);
    state.set(id, json!({"status": "active"}));
    changed(state, &old);
    Ok(())
}

/// The period ends: the next one begins and is paid or not, or the subscription ends as it was told to.
pub(super) fn subscription_renew(state: &mut State, id: &str, paid: bool) -> Result<(), Refusal> {
    let old = living(state, id)?;
    if old["cancel_at_period_end"] == true {
        return subscription_cancel(state, id).map(|_| ());
    }
    let start = old["current_period_end"].as_i64().unwrap_or_default();
    let anchor = old["billing_cycle_anchor"].as_i64().unwrap_or_default();
    let mut items = old["items"].clone();
    let recurring = items["data"][0]["price"]["recurring"].clone();
    let (interval, count) = (recurring["interval"].as_str().unwrap_or("month"), recurring["interval_count"].as_i64());
    let end = period_end(start, interval, count.unwrap_or(1), anchor);
    for item in items["data"].as_array_mut().into_iter().flatten() {
        item["current_period_start"] = start.into();
        item["current_period_end"] = end.into();
    }
    state.set(id, json!({"current_period_start": start, "current_period_end": end, "items": items}));
    let invoice = invoice_create(state, id, "subscription_cycle", None);
    if paid {
        invoice_pay(state, &invoice);
    } else {
        invoice_fail(state, &invoice);
        state.set(id, json!({"status": "past_due"}));
    }
    changed(state, &old);
    Ok(())
}
