//! Connect: accounts of sellers, transfers to them, and their reversals.
use serde_json::{Map, Value, json};

use super::form::Params;
use super::money::positive;
use super::state::{Refusal, State};

/// How long an account link lives.
const LINK_TTL_S: i64 = 300;

pub(super) fn account_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let kind = params.text("type").unwrap_or("none");
    let dashboard = if ["express", "standard"].contains(&kind) { kind } else { "none" };
    let requirements = |due: &[&str]| {
        json!({
            "alternatives": [], "current_deadline": null, "currently_due": due, "disabled_reason": null, "errors": [],
            "eventually_due": due, "past_due": due, "pending_verification": [],
        })
    };
    let id = state.id("acct");
    let account = json!({
        "id": id, "object": "account", "business_profile": null, "business_type": params.json("business_type"),
        "capabilities": capabilities(params, "inactive"), "charges_enabled": false,
        "controller": {
            "fees": {"payer": "application"}, "is_controller": true, "losses": {"payments": "application"},
            "requirement_collection": "stripe", "stripe_dashboard": {"type": dashboard}, "type": "application",
        },
        "country": params.text("country").unwrap_or("US"), "created": state.now(), "default_currency": "usd",
        "details_submitted": false, "email": params.json("email"),
        "external_accounts": {"object": "list", "data": [], "has_more": false,
        "url": format!("/v1/accounts/{id}/external_accounts")},
        "future_requirements": requirements(&[]), "metadata": params.map("metadata"), "payouts_enabled": false,
        "requirements": requirements(&["external_account", "tos_acceptance.date"]),
        "settings": {"branding": {}, "card_payments": {}, "dashboard": {}, "payments": {}, "payouts": null},
        "tos_acceptance": {}, "type": kind,
    });
    state.keep(account.clone());
    Ok(account)
}

/// The capabilities that were asked for, each with this status.
fn capabilities(params: &Params, status: &str) -> Value {
    let asked = params.map("capabilities");
    let asked = asked.as_object().into_iter().flatten().filter(|(_, capability)| capability["requested"] == "true");
    asked.map(|(name, _)| (name.clone(), Value::from(status))).collect::<Map<_, _>>().into()
}

/// The seller has given Stripe everything it wants.
pub(super) fn account_onboard(state: &mut State, id: &str) -> Result<(), Refusal> {
    let mut account = state.referred("account", id)?.clone();
    for (_, status) in account["capabilities"].as_object_mut().into_iter().flatten() {
        *status = "active".into();
    }
    for list in ["currently_due", "eventually_due", "past_due"] {
        account["requirements"][list] = json!([]);
    }
    for done in ["charges_enabled", "payouts_enabled", "details_submitted"] {
        account[done] = true.into();
    }
    state.keep(account);
    let before = json!({"charges_enabled": false, "payouts_enabled": false, "details_submitted": false});
    state.event_with("account.updated", id, before);
    Ok(())
}

pub(super) fn account_link(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let account = params.need("account")?;
    for name in ["type", "refresh_url", "return_url"] {
        params.need(name)?;
    }
    state.referred("account", account)?;
    let url = format!("https://connect.stripe.com/setup/e/{account}/{}", state.id("link"));
    Ok(json!({"object": "account_link", "created": state.now(), "expires_at": state.now() + LINK_TTL_S, "url": url}))
}

pub(super) fn transfer_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let amount = params.need_number("amount")?;
    let currency = params.need("currency")?.to_owned();
    let destination = params.need("destination")?.to_owned();
    positive(amount, "amount")?;
    if state.referred("account", &destination)?["capabilities"]["transfers"] != "active" {
        let message = "Your destination account needs to have at least one of the following capabilities enabled: \
             transfers, crypto_transfers, legacy_payments";
        return Err(Refusal::state(Some("insufficient_capabilities_for_transfer"), message));
    }
    let source = params.json("source_transaction");
    if let Some(charge) = source.as_str() {
        covered(state, charge, amount, &currency)?;
    }
    let id = state.id("tr");
    let transfer = json!({
        "id": id, "object": "transfer", "amount": amount, "amount_reversed": 0, "balance_transaction": state.id("txn"),
        "created": state.now(), "currency": currency, "description": params.json("description"),
        "destination": destination,
        "destination_payment": state.id("py"), "livemode": false, "metadata": params.map("metadata"),
        "reversals": {"object": "list", "data": [], "has_more": false, "url": format!("/v1/transfers/{id}/reversals")},
        "reversed": false, "source_transaction": source, "source_type": "card",
        "transfer_group": params.json("transfer_group"),
    });
    state.keep(transfer.clone());
    state.event("transfer.created", &id);
    Ok(transfer)
}

/// All transfers from one charge together are never above it.
fn covered(state: &State, charge: &str, amount: i64, currency: &str) -> Result<(), Refusal> {
    let of = state.referred("charge", charge)?;
    if of["currency"] != currency {
        let message =
            "The currency of source_transaction's balance transaction must be the same as the transfer currency";
        return Err(Refusal::state(None, message));
    }
    let sent: i64 = state
        .all("tr")
        .filter(|transfer| transfer["source_transaction"] == charge)
        .map(|transfer| transfer["amount"].as_i64().unwrap_or_default())
        .sum();
    let left = of["amount_captured"].as_i64().unwrap_or_default() - sent;
    if amount > left {
        let message = format!(
            "Transfers using this transaction as a source must not exceed the source amount. There is {left} left."
        );
        return Err(Refusal { param: Some("amount".to_owned()), ..Refusal::state(None, &message) });
    }
    Ok(())
}

/// `POST /v1/transfers/{id}/reversals`: an amount, or what is left.
pub(super) fn reversal_create(state: &mut State, transfer: &str, params: &Params) -> Result<Value, Refusal> {
    let of = state.find("transfer", transfer)?.clone();
    let before = of["amount_reversed"].as_i64().unwrap_or_default();
    let left = of["amount"].as_i64().unwrap_or_default() - before;
    let amount = params.number("amount")?.unwrap_or(left);
    if left <= 0 {
        let message = format!("Transfer {transfer} is already fully reversed.");
        return Err(Refusal::state(Some("transfer_already_reversed"), &message));
    }
    positive(amount, "amount")?;
    if amount > left {
        let message = format!("Reversal amount ({amount}) is greater than unreversed amount on transfer ({left})");
        return Err(Refusal { param: Some("amount".to_owned()), ..Refusal::state(None, &message) });
    }
    let reversal = json!({
        "id": state.id("trr"), "object": "transfer_reversal", "amount": amount, "balance_transaction": state.id("txn"),
        "created": state.now(), "currency": of["currency"], "destination_payment_refund": state.id("pyr"),
        "metadata": params.map("metadata"), "source_refund": null, "transfer": transfer,
    });
    state.keep(reversal.clone());
    let mut reversals = of["reversals"].clone();
    if let Some(data) = reversals["data"].as_array_mut() {
        data.insert(0, reversal.clone());
    }
    let fields = json!({"amount_reversed": before + amount, "reversed": amount == left, "reversals": reversals});
    state.set(transfer, fields);
    state.event_with("transfer.reversed", transfer, json!({"amount_reversed": before, "reversed": false}));
    Ok(reversal)
}
