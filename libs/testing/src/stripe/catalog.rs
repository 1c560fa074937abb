//! Customers, products, prices, and the lines that name them.
use serde_json::{Value, json};

use super::form::Params;
use super::state::{Refusal, State};

/// A price and how often it is taken.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub price: Value,
    pub quantity: i64,
}

impl Line {
    pub(super) fn amount(&self) -> i64 {
        self.price["unit_amount"].as_i64().unwrap_or_default().saturating_mul(self.quantity)
    }

    pub(super) fn recurring(&self) -> bool {
        !self.price["recurring"].is_null()
    }
}

pub(super) fn customer_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let id = state.id("cus");
    let customer = json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": state.now(), "currency": null,
        "default_source": null, "delinquent": false, "description": params.json("description"), "discount": null,
        "email": params.json("email"), "invoice_prefix": "STUB", "livemode": false, "metadata": params.map("metadata"),
        "invoice_settings": {"custom_fields": null, "default_payment_method": null, "footer": null,
        "rendering_options": null},
        "name": params.json("name"), "next_invoice_sequence": 1, "phone": params.json("phone"), "preferred_locales": [],
        "shipping": null, "tax_exempt": "none", "test_clock": null,
    });
    state.keep(customer.clone());
    state.event("customer.created", &id);
    Ok(customer)
}

/// Forgets who it is, and ends its subscriptions at once.
pub(super) fn customer_delete(state: &mut State, id: &str) -> Result<Value, Refusal> {
    if state.find("customer", id)?["deleted"] == true {
        return Err(Refusal::no_such("customer", id, 404));
    }
    let of_customer = state.all("sub").filter(|subscription| subscription["customer"] == id);
    let living = of_customer.filter(|subscription| subscription["status"] != "canceled");
    let living: Vec<String> =
        living.filter_map(|subscription| subscription["id"].as_str().map(str::to_owned)).collect();
    for subscription in living {
        super::subscriptions::subscription_cancel(state, &subscription)?;
    }
    state.set(id, json!({"deleted": true, "email": null, "name": null, "phone": null, "metadata": {}}));
    state.event("customer.deleted", id);
    Ok(json!({"id": id, "object": "customer", "deleted": true}))
}

pub(super) fn product_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let name = params.need("name")?.to_owned();
    let id = params.text("id").map_or_else(|| state.id("prod"), str::to_owned);
    let product = json!({
        "id": id, "object": "product", "active": true, "attributes": [], "created": state.now(), "default_price": null,
        "description": params.json("description"), "images": [], "livemode": false, "marketing_features": [],
        "metadata": params.map("metadata"), "name": name, "package_dimensions": null, "shippable": null,
        "statement_descriptor": null, "tax_code": null, "type": "service", "unit_label": null, "updated": state.now(),
        "url": null,
    });
    state.keep(product.clone());
    Ok(product)
}

/// A price, from `POST /v1/prices` or from `price_data`.
pub(super) fn price_create(state: &mut State, params: &Params) -> Result<Value, Refusal> {
    let currency = params.need("currency")?.to_owned();
    let unit_amount = params.need_number("unit_amount")?;
    if unit_amount < 0 {
        let message = "Invalid non-negative integer";
        return Err(Refusal::param("parameter_invalid_integer", &params.name("unit_amount"), message));
    }
    let recurring = recurring(params)?;
    let product = match params.text("product") {
        Some(id) => state.referred("product", id)?["id"].clone(),
        None if params.has("product_data") => product_create(state, &params.part("product_data"))?["id"].clone(),
        None => return Err(Refusal::missing(&params.name("product"))),
    };
    let kind = if recurring.is_null() { "one_time" } else { "recurring" };
    let price = json!({
        "id": state.id("price"), "object": "price", "active": true, "billing_scheme": "per_unit",
        "created": state.now(),
        "currency": currency, "custom_unit_amount": null, "livemode": false, "lookup_key": params.json("lookup_key"),
        "metadata": params.map("metadata"), "nickname": params.json("nickname"), "product": product,
        "recurring": recurring,
        "tax_behavior": "unspecified", "tiers_mode": null, "transform_quantity": null, "type": kind,
        "unit_amount": unit_amount, "unit_amount_decimal": unit_amount.to_string(),
    });
    state.keep(price.clone());
    Ok(price)
}

fn recurring(params: &Params) -> Result<Value, Refusal> {
    if !params.has("recurring") {
        return Ok(Value::Null);
    }
    let interval = params.need("recurring.interval")?;
    if !["day", "week", "month", "year"].contains(&interval) {
        let message = "Invalid recurring[interval]: must be one of day, month, week, or year";
        return Err(Refusal::param("parameter_unknown", &params.name("recurring.interval"), message));
    }
    let count = params.number("recurring.interval_count")?.unwrap_or(1);
    Ok(json!({
        "interval": interval, "interval_count": count, "meter": null, "trial_period_days": null,
        "usage_type": "licensed",
    }))
}

/// The line that an item of a session or of a subscription describes.
pub(super) fn line(state: &mut State, params: &Params) -> Result<Line, Refusal> {
    let price = match params.text("price") {
        Some(id) => state.referred("price", id)?.clone(),
        None if params.has("price_data") => price_create(state, &params.part("price_data"))?,
        None => return Err(Refusal::missing(&params.name("price"))),
    };
    let quantity = params.number("quantity")?.unwrap_or(1);
    if quantity < 0 {
        let message = "Invalid non-negative integer";
        return Err(Refusal::param("parameter_invalid_integer", &params.name("quantity"), message));
    }
    Ok(Line { price, quantity })
}

/// The old name of a recurring price, which subscription items still carry.
pub(super) fn plan(price: &Value) -> Value {
    let recurring = &price["recurring"];
    json!({
        "id": price["id"], "object": "plan", "active": true, "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"], "billing_scheme": "per_unit", "created": price["created"],
        "currency": price["currency"], "interval": recurring["interval"], "interval_count": recurring["interval_count"],
        "livemode": false, "metadata": price["metadata"], "meter": null, "nickname": price["nickname"],
        "product": price["product"], "tiers_mode": null, "transform_usage": null, "trial_period_days": null,
        "usage_type": "licensed",
    })
}

/// What metadata becomes: named keys are set, empty ones unset, the others stay.
pub(super) fn merged(old: &Value, new: &Value) -> Value {
    let mut all = old.as_object().cloned().unwrap_or_default();
    for (key, value) in new.as_object().into_iter().flatten() {
        match value.as_str() {
            Some("") | None => all.remove(key),
            Some(_) => all.insert(key.clone(), value.clone()),
        };
    }
    all.into()
}
