//! Events as Stripe sends them, for whoever tries things out without Stripe.
use serde_json::{Value, json};
use weft_core::{Clock, new_id};

use crate::domain::event::HANDLED;
use crate::payments::signature::sign;

/// What an event is about.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Account id.
    pub user_id: &'a str,
    /// What was bought.
    pub item: Item<'a>,
    /// Minor units, for all of it.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: &'a str,
}

/// What is bought.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A package by id.
    Package(&'a str),
    /// A price of a version of a plan.
    Price {
        /// Slug of the plan.
        plan: &'a str,
        /// Version of the plan.
        version: i64,
        /// Id of the price.
        price_id: &'a str,
    },
}

/// Seconds of a period of the subscriptions made here.
const PERIOD_S: i64 = 30 * 24 * 3600;

/// The kinds that [`event`] makes.
pub fn kinds() -> &'static [&'static str] {
    &HANDLED
}

/// An event of this kind: its body, and the `Stripe-Signature` header made with the webhook secret. None: the kind has
/// no effect here. Events about one item of one account are about the same subscription, session and charge.
pub fn event(kind: &str, about: &About<'_>, secret: &str, clock: &Clock) -> Option<(String, String)> {
    if !HANDLED.contains(&kind) {
        return None;
    }
    let now_s = clock.now_ms().div_euclid(1000);
    let object = object(kind, about, now_s);
    let event = json!({
        "id": format!("evt_dev_{}", new_id()), "object": "event", "type": kind, "created": now_s, "livemode": false,
        "data": {"object": object},
    });
    let body = event.to_string();
    let header = sign(secret, body.as_bytes(), now_s);
    Some((body, header))
}

fn object(kind: &str, about: &About<'_>, now_s: i64) -> Value {
    let item = match about.item {
        Item::Package(id) => id,
        Item::Price { price_id, .. } => price_id,
    };
    let id = |prefix: &str| format!("{prefix}_dev_{}_{item}", about.user_id);
    let currency = about.currency.to_lowercase();
    let amount = about.amount_minor;
    let subscription = matches!(about.item, Item::Price { .. }).then(|| id("sub"));
    let common = json!({"created": now_s, "currency": currency, "metadata": marks(about)});
    let own = match kind.split('.').next() {
        Some("checkout") => json!({
            "id": id("cs"), "object": "checkout.session", "amount_subtotal": amount, "amount_total": amount,
            "client_reference_id": about.user_id, "payment_intent": id("pi"), "payment_status": "paid",
            "status": "complete", "subscription": subscription,
        }),
        Some("invoice") => json!({
            "id": format!("in_dev_{}", new_id()), "object": "invoice", "amount_paid": amount, "subtotal": amount,
            "billing_reason": "subscription_cycle", "payment_intent": id("pi"),
            "status": if kind == "invoice.paid" { "paid" } else { "open" },
            "parent": {"subscription_details": {"subscription": id("sub"), "metadata": marks(about)}},
            "lines": {"data": [{"quantity": 1, "period": {"start": now_s, "end": now_s + PERIOD_S}}]},
        }),
        Some("charge") if kind.contains("dispute") => json!({
            "id": id("du"), "object": "dispute", "amount": amount, "charge": id("ch"), "payment_intent": id("pi"),
            "status": if kind.ends_with("reinstated") { "won" } else { "needs_response" },
        }),
        Some("charge") => json!({
            "id": id("ch"), "object": "charge", "amount": amount, "amount_refunded": amount, "payment_intent": id("pi"),
        }),
        _ => json!({
            "id": id("sub"), "object": "subscription", "cancel_at_period_end": false,
            "status": if kind.ends_with(".deleted") { "canceled" } else { "active" },
            "items": {"data": [{
                "id": id("si"), "quantity": 1, "current_period_start": now_s, "current_period_end": now_s + PERIOD_S,
                "price": {"unit_amount": amount, "currency": currency},
            }]},
        }),
    };
    merged(common, own)
}

/// What we write on objects that we make.
fn marks(about: &About<'_>) -> Value {
    let whose = json!({"product": about.product, "user_id": about.user_id});
    let what = match about.item {
        Item::Package(id) => json!({"package_id": id}),
        Item::Price { plan, version, price_id } => {
            json!({"plan": plan, "version": version.to_string(), "price_id": price_id, "seats": "1"})
        }
    };
    merged(whose, what)
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Event, Fact};
    use crate::payments::signature::Header;

    #[test]
    fn every_handled_kind_is_made_signed_and_understood() {
        let clock = Clock::manual(1_790_000_000_000);
        let price = Item::Price { plan: "vip", version: 1, price_id: "vip_monthly" };
        for item in [Item::Package("credits_500"), price] {
            let about = About { product: "companion", user_id: "ana", item, amount_minor: 2999, currency: "USD" };
            for kind in kinds() {
                let (body, header) = event(kind, &about, "whsec", &clock).unwrap();
                let header = Header::parse(&header).unwrap();
                assert!(header.is_from("whsec", body.as_bytes()) && header.is_fresh(clock.now_ms()), "{kind}");
                let event = Event::parse(body.as_bytes()).unwrap();
                assert!(event.is_handled(), "{kind}");
                assert!(!matches!(event.fact(), None | Some(Fact::Other)), "{kind}: {:?}", event.fact());
                assert_eq!(event.marks().user_id.as_deref(), Some("ana"), "{kind}");
            }
        }
        let about = About { product: "p", user_id: "u", item: price, amount_minor: 1, currency: "USD" };
        assert_eq!(event("customer.created", &about, "whsec", &clock), None);
    }
}
