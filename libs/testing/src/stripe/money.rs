//! Payment intents, charges, refunds and disputes.
use serde_json::{Value, json};

use super::catalog::merged;
use super::form::Params;
use super::state::{Refusal, State, with_all};

/// What a charge does not have at first, or never in this stub.
const CHARGE_NULLS: [&str; 20] = [
    "application",
    "application_fee",
    "application_fee_amount",
    "destination",
    "dispute",
    "failure_balance_transaction",
    "failure_message",
    "on_behalf_of",
    "order",
    "outcome",
    "payment_method_details",
    "receipt_email",
    "receipt_number",
    "review",
    "shipping",
    "source",
    "source_transfer",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_data",
];

/// What a payment intent does not have at first, or never in this stub.
const INTENT_NULLS: [&str; 18] = [
    "application",
    "application_fee_amount",
    "canceled_at",
    "cancellation_reason",
    "last_payment_error",
    "latest_charge",
    "next_action",
    "on_behalf_of",
    "payment_method",
    "processing",
    "receipt_email",
    "review",
    "setup_future_usage",
    "shipping",
    "source",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_data",
];

/// What is to be paid, by whom, for what.
pub(super) struct Due {
    pub amount: i64,
    pub currency: String,
    pub customer: Value,
    pub metadata: Value,
    pub description: Value,
    pub invoice: Value,
    pub transfer_group: Value,
}

pub(super) fn intent_create(state: &mut State, due: Due) -> String {
    let id = state.id("pi");
    let intent = json!({
        "id": id, "object": "payment_intent", "amount": due.amount, "amount_capturable": 0,
        "amount_details": {"tip": {}}, "amount_received": 0,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": true}, "capture_method": "automatic",
        "client_secret": format!("{id}_secret_stub"), "confirmation_method": "automatic", "created": state.now(),
        "currency": due.currency, "customer": due.customer, "description": due.description, "invoice": due.invoice,
        "livemode": false, "metadata": due.metadata, "payment_method_options": {}, "payment_method_types": ["card"],
        "status": "requires_payment_method", "transfer_group": due.transfer_group,
    });
    state.keep(with_all(intent, &INTENT_NULLS, &Value::Null))
}

/// The money arrives: a charge, and its events. Gives the charge's id.
pub(super) fn intent_succeed(state: &mut State, intent: &str) -> String {
    let charge = charge_create(state, intent, "succeeded");
    let amount = state.get(intent).map(|intent| intent["amount"].clone()).unwrap_or_default();
    state.set(
        intent,
        json!({
            "status": "succeeded", "amount_received": amount, "latest_charge": charge, "payment_method": "pm_card_visa",
            "last_payment_error": null,
        }),
    );
    state.event("charge.succeeded", &charge);
    state.event("payment_intent.succeeded", intent);
    charge
}

/// The card is declined.
pub(super) fn intent_fail(state: &mut State, intent: &str) {
    let charge = charge_create(state, intent, "failed");
    let error = json!({
        "type": "card_error", "code": "card_declined", "decline_code": "generic_decline", "charge": charge,
        "message": "Your card was declined.", "doc_url": "https://stripe.com/docs/error-codes/card-declined",
    });
    state.set(
        intent,
        json!({"status": "requires_payment_method", "latest_charge": charge, "last_payment_error": error}),
    );
    state.event("charge.failed", &charge);
    state.event("payment_intent.payment_failed", intent);
}

fn charge_create(state: &mut State, intent: &str, status: &str) -> String {
    let of = state.get(intent).cloned().unwrap_or_default();
    let (id, paid) = (state.id("ch"), status == "succeeded");
    let failure = if paid { Value::Null } else { "card_declined".into() };
    let charge = json!({
        "id": id, "object": "charge", "amount": of["amount"],
        "amount_captured": if paid { of["amount"].clone() } else { 0.into() }, "amount_refunded": 0,
        "balance_transaction": state.id("txn"),
        "billing_details": {"address": null, "email": null, "name": null, "phone": null, "tax_id": null},
        "calculated_statement_descriptor": "STUB", "captured": paid, "created": state.now(),
        "currency": of["currency"], "customer": of["customer"], "description": of["description"], "disputed": false,
        "failure_code": failure, "fraud_details": {}, "invoice": of["invoice"], "livemode": false,
        "metadata": of["metadata"], "paid": paid, "payment_intent": intent, "payment_method": "pm_card_visa",
        "receipt_url": format!("https://pay.stripe.com/receipts/{id}"), "refunded": false, "status": status,
        "transfer_group": of["transfer_group"],
    });
    state.keep(with_all(charge, &CHARGE_NULLS, &Value::Null))
}

/// `POST /v1/payment_intents`; with `confirm=true` it pays at once, unless the card is `pm_card_chargeDeclined` or
/// `pm_card_authenticationRequired`.
pub(super) fn intent_post(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let amount = params.need_number("amount")?;
    let currency = params.need("currency")?.to_owned();
    positive(amount, "amount")?;
    if let Some(customer) = params.text("customer") {
        state.referred("customer", customer)?;
    }
    let due = Due {
        amount,
        currency,
        customer: params.json("customer"),
        metadata: params.map("metadata"),
        description: params.json("description"),
        invoice: Value::Null,
        transfer_group: params.json("transfer_group"),
    };
    let id = intent_create(state, due);
    state.event("payment_intent.created", &id);
    if params.flag("confirm") == Some(true) {
        return intent_confirm(state, &id, params);
    }
    state.find("payment_intent", &id).cloned()
}

pub(super) fn intent_confirm(state: &mut State, id: &str, params: &Params) -> Result<Value, Refusal> {
    let status = state.find("payment_intent", id)?["status"].clone();
    if !["requires_payment_method", "requires_confirmation", "requires_action"].iter().any(|open| status == *open) {
        let message = format!("This PaymentIntent's status is {status}: it could not be confirmed.");
        return Err(Refusal::state(Some("payment_intent_unexpected_state"), &message));
    }
    if params.text("payment_method") == Some("pm_card_chargeDeclined") {
        intent_fail(state, id);
        let declined = Refusal::state(Some("card_declined"), "Your card was declined.");
        return Err(Refusal { status: 402, kind: "card_error", ..declined });
    }
    if params.text("payment_method") == Some("pm_card_authenticationRequired") {
        intent_fail(state, id);
        let message = "Your card was declined. This transaction requires authentication.";
        let wanted = Refusal::state(Some("authentication_required"), message);
        return Err(Refusal { status: 402, kind: "card_error", ..wanted });
    }
    intent_succeed(state, id);
    state.find("payment_intent", id).cloned()
}

/// `POST /v1/payment_intents/{id}/cancel`: it can never be charged any more.
pub(super) fn intent_cancel(state: &mut State, id: &str) -> Result<Value, Refusal> {
    let status = state.find("payment_intent", id)?["status"].clone();
    if status == "succeeded" || status == "canceled" {
        let message = format!("You cannot cancel this PaymentIntent because it has a status of {status}.");
        return Err(Refusal::state(Some("payment_intent_unexpected_state"), &message));
    }
    state.set(id, json!({"status": "canceled", "canceled_at": state.now()}));
    state.event("payment_intent.canceled", id);
    state.find("payment_intent", id).cloned()
}

/// `POST /v1/refunds`, by `charge` or by `payment_intent`.
pub(super) fn refund_post(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let charge = match (params.text("charge"), params.text("payment_intent")) {
        (Some(charge), _) => state.referred("charge", charge)?["id"].clone(),
        (None, Some(intent)) => state.referred("payment_intent", intent)?["latest_charge"].clone(),
        (None, None) => return Err(Refusal::missing("charge")),
    };
    let charge = charge.as_str().unwrap_or_default().to_owned();
    let amount = params.number("amount")?;
    refund_create(state, &charge, amount, params)
}

/// Gives back an amount, or what is left.
pub(super) fn refund_create(
    state: &mut State,
    charge: &str,
    amount: Option<i64>,
    params: &Params,
) -> Result<Value, Refusal> {
    let of = state.referred("charge", charge)?.clone();
    let before = of["amount_refunded"].as_i64().unwrap_or_default();
    let left = of["amount_captured"].as_i64().unwrap_or_default() - before;
    if left <= 0 {
        let message = format!("Charge {charge} has already been refunded.");
        return Err(Refusal::state(Some("charge_already_refunded"), &message));
    }
    if of["disputed"] == true {
        let message = format!("Charge {charge} has been charged back; cannot issue a refund.");
        return Err(Refusal::state(Some("charge_disputed"), &message));
    }
    let amount = amount.unwrap_or(left);
    positive(amount, "amount")?;
    if amount > left {
        let message = format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
        return Err(Refusal { param: Some("amount".to_owned()), ..Refusal::state(None, &message) });
    }
    let id = state.id("re");
    let refund = json!({
        "id": id, "object": "refund", "amount": amount, "balance_transaction": state.id("txn"), "charge": charge,
        "created": state.now(), "currency": of["currency"], "destination_details": {"card": {"type": "refund"},
        "type": "card"},
        "metadata": params.map("metadata"), "payment_intent": of["payment_intent"], "reason": params.json("reason"),
        "receipt_number": null, "source_transfer_reversal": null, "status": "succeeded", "transfer_reversal": null,
    });
    state.keep(refund);
    state.set(charge, json!({"amount_refunded": before + amount, "refunded": amount == left}));
    state.event("refund.created", &id);
    state.event_with("charge.refunded", charge, json!({"amount_refunded": before, "refunded": false}));
    state.find("refund", &id).cloned()
}

/// Takes the amount of a charge back until the bank has decided.
pub(super) fn dispute_open(state: &mut State, charge: &str) -> Result<String, Refusal> {
    let of = state.referred("charge", charge)?.clone();
    if of["disputed"] == true {
        return Err(Refusal::state(None, &format!("charge {charge} is disputed already")));
    }
    let id = state.id("du");
    let amount = of["amount"].as_i64().unwrap_or_default() - of["amount_refunded"].as_i64().unwrap_or_default();
    let dispute = json!({
        "id": id, "object": "dispute", "amount": amount, "balance_transactions": [], "charge": charge,
        "created": state.now(), "currency": of["currency"], "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": state.now() + 7 * 86_400, "enhanced_eligibility": {}, "has_evidence": false, "past_due": false,
            "submission_count": 0,
        },
        "is_charge_refundable": false, "livemode": false, "metadata": {}, "payment_intent": of["payment_intent"],
        "payment_method_details": {"card": {"brand": "visa", "case_type": "chargeback", "network_reason_code": "10"},
        "type": "card"},
        "reason": "fraudulent", "status": "needs_response",
    });
    state.keep(dispute);
    state.set(charge, json!({"disputed": true, "dispute": id}));
    state.event("charge.dispute.created", &id);
    state.event("charge.dispute.funds_withdrawn", &id);
    Ok(id)
}

pub(super) fn dispute_close(state: &mut State, dispute: &str, won: bool) -> Result<(), Refusal> {
    let of = state.referred("dispute", dispute)?;
    if of["status"] != "needs_response" {
        return Err(Refusal::state(None, &format!("dispute {dispute} is closed already")));
    }
    let status = if won { "won" } else { "lost" };
    state.set(dispute, json!({"status": status}));
    state.event("charge.dispute.closed", dispute);
    if won {
        state.event("charge.dispute.funds_reinstated", dispute);
    }
    Ok(())
}

/// `POST /v1/…/{id}` of an object whose metadata may be changed.
pub(super) fn metadata_post(state: &mut State, what: &str, id: &str, params: &Params) -> Result<Value, Refusal> {
    let metadata = merged(&state.find(what, id)?["metadata"], &params.map("metadata"));
    state.set(id, json!({"metadata": metadata}));
    for name in ["email", "name", "description", "phone"] {
        if let Some(text) = params.given(name) {
            state.set(id, json!({name: text}));
        }
    }
    state.find(what, id).cloned()
}

pub(super) fn positive(amount: i64, param: &str) -> Result<(), Refusal> {
    if amount > 0 {
        return Ok(());
    }
    Err(Refusal::param("parameter_invalid_integer", param, "This value must be greater than or equal to 1."))
}
