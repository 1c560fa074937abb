//! Invoices of subscriptions: made open, then paid or failed.
use serde_json::{Value, json};

use super::money::{self, Due};
use super::state::{State, with_all};

/// What is 0 at first.
const ZEROS: [&str; 8] = [
    "amount_overpaid",
    "amount_paid",
    "amount_shipping",
    "attempt_count",
    "ending_balance",
    "post_payment_credit_notes_amount",
    "pre_payment_credit_notes_amount",
    "starting_balance",
];

/// What is an empty list.
const EMPTY: [&str; 6] = [
    "customer_tax_ids",
    "default_tax_rates",
    "discounts",
    "total_discount_amounts",
    "total_pretax_credit_amounts",
    "total_taxes",
];

/// What an invoice does not have at first, or never in this stub.
const NULLS: [&str; 23] = [
    "application",
    "billing_reason",
    "charge",
    "custom_fields",
    "customer_address",
    "customer_phone",
    "customer_shipping",
    "default_payment_method",
    "default_source",
    "description",
    "due_date",
    "footer",
    "from_invoice",
    "last_finalization_error",
    "latest_revision",
    "next_payment_attempt",
    "on_behalf_of",
    "receipt_number",
    "rendering",
    "shipping_cost",
    "shipping_details",
    "statement_descriptor",
    "test_clock",
];

/// An invoice for everything a subscription has, or for one other amount.
pub(super) fn invoice_create(state: &mut State, subscription: &str, reason: &str, amount: Option<i64>) -> String {
    let of = state.get(subscription).cloned().unwrap_or_default();
    let id = state.id("in");
    let lines: Vec<Value> = match amount {
        Some(amount) => vec![invoice_line(state, &id, &of, &of["items"]["data"][0], Some(amount))],
        None => {
            let items = of["items"]["data"].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| invoice_line(state, &id, &of, item, None)).collect()
        }
    };
    let total = lines.iter().map(|line| line["amount"].as_i64().unwrap_or_default()).sum();
    let intent = if total > 0 { intent_for(state, &id, &of, total).into() } else { Value::Null };
    let mut invoice = facts(state, &id, &of, total);
    invoice["billing_reason"] = reason.into();
    invoice["lines"] =
        json!({"object": "list", "data": lines, "has_more": false, "url": format!("/v1/invoices/{id}/lines")});
    let secret =
        intent.as_str().map(|id| json!({"client_secret": format!("{id}_secret_stub"), "type": "payment_intent"}));
    invoice["_confirmation_secret"] = secret.into();
    invoice["_payments"] = payments(state, &id, &of, &intent, total);
    invoice["payment_intent"] = intent;
    state.keep(invoice);
    state.set(subscription, json!({"latest_invoice": id}));
    state.event("invoice.created", &id);
    state.event("invoice.finalized", &id);
    id
}

fn intent_for(state: &mut State, invoice: &str, subscription: &Value, amount: i64) -> String {
    let due = Due {
        amount,
        currency: subscription["currency"].as_str().unwrap_or_default().to_owned(),
        customer: subscription["customer"].clone(),
        // Stripe copies no metadata from a subscription to the payment of its invoice.
        metadata: json!({}),
        description: "Subscription update".into(),
        invoice: invoice.into(),
        transfer_group: Value::Null,
    };
    money::intent_create(state, due)
}

fn facts(state: &State, id: &str, of: &Value, total: i64) -> Value {
    let customer = of["customer"].as_str().and_then(|id| state.get(id)).cloned().unwrap_or_default();
    let (start, end) = (of["current_period_start"].clone(), of["current_period_end"].clone());
    let now = state.now();
    let subscription = json!({"metadata": of["metadata"], "subscription": of["id"]});
    let invoice = json!({
        "id": id, "object": "invoice", "account_country": "US", "account_name": "Stub",
        "amount_due": total,  "amount_remaining": total,
        "attempted": false, "auto_advance": true,
        "automatic_tax": {"enabled": false, "liability": null, "status": null},
        "collection_method": "charge_automatically", "created": now, "currency": of["currency"],
        "customer": of["customer"], "customer_email": customer["email"], "customer_name": customer["name"],
        "customer_tax_exempt": "none",
        "effective_at": now,
        "hosted_invoice_url": format!("https://invoice.stripe.com/i/{id}"),
        "invoice_pdf": format!("https://pay.stripe.com/invoice/{id}/pdf"), "issuer": {"type": "self"},
        "livemode": false, "metadata": {}, "number": format!("STUB-{id}"), "paid": false,
        "parent": {"quote_details": null, "subscription_details": subscription, "type": "subscription_details"},
        "payment_settings": {"default_mandate": null, "payment_method_options": null, "payment_method_types": null},
        "period_end": end, "period_start": start,  "status": "open",
        "status_transitions": {"finalized_at": now, "marked_uncollectible_at": null, "paid_at": null,
        "voided_at": null},
        "subscription": of["id"], "subscription_details": {"metadata": of["metadata"]}, "subtotal": total,
        "subtotal_excluding_tax": total, "total": total,  "total_excluding_tax": total,  "webhooks_delivered_at": now,
    });
    let invoice = with_all(with_all(invoice, &NULLS, &Value::Null), &ZEROS, &0.into());
    with_all(invoice, &EMPTY, &json!([]))
}

fn invoice_line(state: &mut State, invoice: &str, of: &Value, item: &Value, amount: Option<i64>) -> Value {
    let (price, proration) = (&item["price"], amount.is_some());
    let quantity = item["quantity"].as_i64().unwrap_or(1);
    let full = price["unit_amount"].as_i64().unwrap_or_default().saturating_mul(quantity);
    let amount = amount.unwrap_or(full);
    let details = json!({
        "invoice_item": null, "proration": proration, "proration_details": {"credited_items": null},
        "subscription": of["id"], "subscription_item": item["id"],
    });
    let details = json!({
        "invoice_item_details": null, "subscription_item_details": details, "type": "subscription_item_details",
    });
    json!({
        "id": state.id("il"), "object": "line_item", "amount": amount, "currency": of["currency"],
        "description": "1 × Stub",
        "discount_amounts": [], "discountable": true, "discounts": [], "invoice": invoice, "livemode": false,
        "metadata": of["metadata"], "parent": details,
        "period": {"end": item["current_period_end"], "start": item["current_period_start"]},
        "plan": item["plan"], "pretax_credit_amounts": [], "price": price,
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]}, "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity, "subscription": of["id"], "subscription_item": item["id"], "subtotal": amount,
        "taxes": [],
    })
}

/// The payments of an invoice, which is how it names its payment intent since basil.
fn payments(state: &mut State, invoice: &str, of: &Value, intent: &Value, total: i64) -> Value {
    let data = intent.as_str().map(|intent| {
        json!({
            "id": state.id("inpay"), "object": "invoice_payment", "amount_paid": null, "amount_requested": total,
            "created": state.now(), "currency": of["currency"], "invoice": invoice, "is_default": true,
            "livemode": false,
            "payment": {"payment_intent": intent, "type": "payment_intent"}, "status": "open",
            "status_transitions": {"canceled_at": null, "paid_at": null},
        })
    });
    if let Some(payment) = &data {
        state.keep(payment.clone());
    }
    let data: Vec<Value> = data.into_iter().collect();
    json!({"object": "list", "data": data, "has_more": false, "url": "/v1/invoice_payments"})
}

/// The payment of an open invoice arrives.
pub(super) fn invoice_pay(state: &mut State, id: &str) {
    let invoice = state.get(id).cloned().unwrap_or_default();
    if invoice["status"] != "open" {
        return;
    }
    let charge = invoice["payment_intent"].as_str().map(|intent| money::intent_succeed(state, intent));
    let now = state.now();
    let mut transitions = invoice["status_transitions"].clone();
    transitions["paid_at"] = now.into();
    let mut payments = invoice["_payments"].clone();
    for payment in payments["data"].as_array_mut().into_iter().flatten() {
        let transitions = json!({"canceled_at": null, "paid_at": now});
        let fields = json!({"status": "paid", "amount_paid": invoice["total"], "status_transitions": transitions});
        state.set(payment["id"].as_str().unwrap_or_default(), fields.clone());
        for (name, value) in fields.as_object().into_iter().flatten() {
            payment[name] = value.clone();
        }
    }
    let attempts = invoice["attempt_count"].as_i64().unwrap_or_default() + 1;
    state.set(
        id,
        json!({
            "status": "paid", "paid": true, "amount_paid": invoice["total"], "amount_remaining": 0, "attempted": true,
            "attempt_count": attempts, "charge": charge, "status_transitions": transitions, "_payments": payments,
        }),
    );
    state.event("invoice.paid", id);
    state.event("invoice.payment_succeeded", id);
}

/// The payment of an open invoice is declined.
pub(super) fn invoice_fail(state: &mut State, id: &str) {
    let invoice = state.get(id).cloned().unwrap_or_default();
    if let Some(intent) = invoice["payment_intent"].as_str() {
        money::intent_fail(state, intent);
    }
    let attempts = invoice["attempt_count"].as_i64().unwrap_or_default() + 1;
    let next = state.now() + 3 * 86_400;
    state.set(id, json!({"attempted": true, "attempt_count": attempts, "next_payment_attempt": next}));
    state.event("invoice.payment_failed", id);
}
