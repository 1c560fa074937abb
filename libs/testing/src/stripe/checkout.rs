//! Checkout sessions and what the payer does with them.
use serde_json::{Value, json};

use super::catalog::{self, Line};
use super::form::Params;
use super::invoices::{invoice_create, invoice_pay};
use super::money::{self, Due};
use super::state::{Refusal, State, with_all};
use super::subscriptions::subscription_create;

/// How long a session stays open.
const SESSION_TTL_S: i64 = 86_400;

/// What a session does not have at first, or never in this stub.
const NULLS: [&str; 27] = [
    "after_expiration",
    "allow_promotion_codes",
    "billing_address_collection",
    "client_secret",
    "collected_information",
    "consent",
    "consent_collection",
    "currency",
    "currency_conversion",
    "customer_account",
    "customer_details",
    "invoice",
    "invoice_creation",
    "locale",
    "origin_context",
    "payment_intent",
    "payment_link",
    "payment_method_configuration_details",
    "permissions",
    "recovered_from",
    "saved_payment_method_options",
    "setup_intent",
    "shipping_address_collection",
    "shipping_cost",
    "submit_type",
    "subscription",
    "wallet_options",
];

pub(super) fn session_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let mode = params.need("mode")?.to_owned();
    if !["payment", "subscription"].contains(&mode.as_str()) {
        let message = format!("the stub knows the modes payment and subscription, not {mode}");
        return Err(Refusal::param("parameter_unknown", "mode", &message));
    }
    params.need("success_url")?;
    if let Some(customer) = params.text("customer") {
        state.referred("customer", customer)?;
        if params.has("customer_email") {
            let message = "You may only specify one of these parameters: customer, customer_email.";
            return Err(Refusal::param("parameter_invalid_empty", "customer_email", message));
        }
    }
    let lines = lines(state, params, mode == "subscription")?;
    let total: i64 = lines.iter().map(Line::amount).sum();
    let id = state.id("cs_test");
    let mut session = facts(state, &id, params, total);
    session["mode"] = mode.as_str().into();
    session["currency"] = lines.first().map(|line| line.price["currency"].clone()).into();
    session["_line_items"] = line_items(state, &id, &lines);
    for hidden in ["subscription_data", "payment_intent_data"] {
        session[format!("_{hidden}")] = params.map(&format!("{hidden}.metadata"));
    }
    session["_transfer_group"] = params.json("payment_intent_data.transfer_group");
    state.keep(session.clone());
    Ok(session)
}

fn lines(state: &mut State, params: &Params, subscribes: bool) -> Result<Vec<Line>, Refusal> {
    let items = params.list("line_items");
    if items.is_empty() {
        return Err(Refusal::missing("line_items"));
    }
    let lines = items.iter().map(|item| catalog::line(state, item)).collect::<Result<Vec<Line>, Refusal>>()?;
    if subscribes && !lines.iter().any(Line::recurring) {
        let message = "You must provide at least one recurring price in `subscription` mode when using prices.";
        return Err(Refusal::invalid(400, message));
    }
    if !subscribes && lines.iter().any(Line::recurring) {
        let message = "You specified `payment` mode but passed a recurring price. Either switch to `subscription` \
             mode or use only one-time prices.";
        return Err(Refusal::invalid(400, message));
    }
    if lines.iter().any(|line| line.price["currency"] != lines[0].price["currency"]) {
        return Err(Refusal::invalid(400, "All line items must have the same currency."));
    }
    Ok(lines)
}

fn facts(state: &State, id: &str, params: &Params, total: i64) -> Value {
    let now = state.now();
    let session = json!({
        "id": id, "object": "checkout.session", "adaptive_pricing": {"enabled": false}, "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null},
        "cancel_url": params.json("cancel_url"), "client_reference_id": params.json("client_reference_id"),
        "created": now, "custom_fields": [],
        "custom_text": { "after_submit": null, "shipping_address": null, "submit": null,
        "terms_of_service_acceptance": null, },
        "customer": params.json("customer"),
        "customer_creation": params.text("customer_creation").unwrap_or("if_required"),
        "customer_email": params.json("customer_email"), "discounts": [], "expires_at": now + SESSION_TTL_S,
        "livemode": false, "metadata": params.map("metadata"), "mode": "payment",
        "payment_method_collection": "always", "payment_method_options": {}, "payment_method_types": ["card"],
        "payment_status": "unpaid", "phone_number_collection": {"enabled": false}, "shipping_options": [],
        "status": "open", "success_url": params.json("success_url"),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}, "ui_mode": "hosted",
        "url": format!("https://checkout.stripe.com/c/pay/{id}"),
    });
    with_all(session, &NULLS, &Value::Null)
}

fn line_items(state: &mut State, session: &str, lines: &[Line]) -> Value {
    let items = lines.iter().map(|line| {
        json!({
            "id": state.id("li"), "object": "item", "amount_discount": 0, "amount_subtotal": line.amount(),
            "amount_tax": 0,
            "amount_total": line.amount(), "currency": line.price["currency"], "description": "Stub",
            "price": line.price,
            "quantity": line.quantity,
        })
    });
    let data: Vec<Value> = items.collect();
    let url = format!("/v1/checkout/sessions/{session}/line_items");
    json!({"object": "list", "data": data, "has_more": false, "url": url})
}

pub(super) fn session_expire(state: &mut State, id: &str) -> Result<Value, Refusal> {
    open(state, id)?;
    state.set(id, json!({"status": "expired", "url": null}));
    state.event("checkout.session.expired", id);
    state.find("checkout.session", id).cloned()
}

fn open(state: &State, id: &str) -> Result<Value, Refusal> {
    let session = state.find("checkout.session", id)?;
    if session["status"] == "open" {
        return Ok(session.clone());
    }
    let message = format!(
        "Only Checkout Sessions with a status in [\"open\"] can be expired or paid. This one is {}.",
        session["status"]
    );
    Err(Refusal::state(None, &message))
}

/// The payer fills in the page: the money is there at once, or (in payment mode) comes later.
pub(super) fn session_complete(state: &mut State, id: &str, paid: bool) -> Result<(), Refusal> {
    let session = open(state, id)?;
    let customer = customer_of(state, &session)?;
    let email = customer.as_str().and_then(|id| state.get(id)).map(|customer| customer["email"].clone());
    let email = email.filter(|email| !email.is_null()).unwrap_or_else(|| "payer@example.com".into());
    let details = json!({
        "address": null, "business_name": null, "email": email, "individual_name": null, "name": "Payer", "phone": null,
        "tax_exempt": "none", "tax_ids": [],
    });
    state.set(id, json!({"status": "complete", "url": null, "customer": customer, "customer_details": details}));
    if session["mode"] == "subscription" {
        subscribe(state, &session, customer.as_str().unwrap_or_default());
    } else {
        pay(state, &session, &customer, paid);
    }
    state.event("checkout.session.completed", id);
    Ok(())
}

/// The session's customer; a subscription makes one, a payment only if it was asked to.
fn customer_of(state: &mut State, session: &Value) -> Result<Value, Refusal> {
    let wanted = session["mode"] == "subscription" || session["customer_creation"] == "always";
    if !session["customer"].is_null() || !wanted {
        return Ok(session["customer"].clone());
    }
    let email = session["customer_email"].as_str().unwrap_or("payer@example.com");
    let customer = Params::of(&[("email".to_owned(), email.to_owned())]);
    Ok(catalog::customer_create(state, &customer)?["id"].clone())
}

fn subscribe(state: &mut State, session: &Value, customer: &str) {
    let items = session["_line_items"]["data"].as_array().into_iter().flatten();
    let lines =
        items.map(|item| Line { price: item["price"].clone(), quantity: item["quantity"].as_i64().unwrap_or(1) });
    let lines: Vec<Line> = lines.filter(Line::recurring).collect();
    let subscription = subscription_create(state, customer, &lines, session["_subscription_data"].clone());
    let invoice = invoice_create(state, &subscription, "subscription_create", None);
    invoice_pay(state, &invoice);
    state.set(&subscription, json!({"status": "active", "default_payment_method": "pm_card_visa"}));
    state.event("customer.subscription.created", &subscription);
    let fields = json!({"subscription": subscription, "invoice": invoice, "payment_status": "paid"});
    state.set(session["id"].as_str().unwrap_or_default(), fields);
}

fn pay(state: &mut State, session: &Value, customer: &Value, paid: bool) {
    let due = Due {
        amount: session["amount_total"].as_i64().unwrap_or_default(),
        currency: session["currency"].as_str().unwrap_or_default().to_owned(),
        customer: customer.clone(),
        metadata: session["_payment_intent_data"].clone(),
        description: Value::Null,
        invoice: Value::Null,
        transfer_group: session["_transfer_group"].clone(),
    };
    let id = session["id"].as_str().unwrap_or_default();
    if due.amount == 0 {
        state.set(id, json!({"payment_status": "no_payment_required"}));
        return;
    }
    let intent = money::intent_create(state, due);
    if paid {
        money::intent_succeed(state, &intent);
    } else {
        state.set(&intent, json!({"status": "processing"}));
    }
    let status = if paid { "paid" } else { "unpaid" };
    state.set(id, json!({"payment_intent": intent, "payment_status": status}));
}

/// The money of a session that was completed unpaid comes, or does not.
pub(super) fn session_settle(state: &mut State, id: &str, paid: bool) -> Result<(), Refusal> {
    let session = state.find("checkout.session", id)?.clone();
    let waits = session["status"] == "complete" && session["payment_status"] == "unpaid";
    let Some(intent) = session["payment_intent"].as_str().filter(|_| waits) else {
        return Err(Refusal::state(None, &format!("session {id} does not wait for money")));
    };
    if paid {
        money::intent_succeed(state, intent);
        state.set(id, json!({"payment_status": "paid"}));
        state.event("checkout.session.async_payment_succeeded", id);
    } else {
        money::intent_fail(state, intent);
        state.event("checkout.session.async_payment_failed", id);
    }
    Ok(())
}
