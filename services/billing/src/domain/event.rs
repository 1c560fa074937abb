//! Events of Stripe: what of them is of use, read from wherever each version of its API keeps it.
use serde::Deserialize;
use serde_json::Value;

/// The kinds that have an effect here.
pub const HANDLED: [&str; 14] = [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
];

/// Longest id of Stripe's, in bytes.
const MAX_ID: usize = 255;

/// An event as it is sent.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Unique.
    pub id: String,
    /// When it happened, s since 1970.
    pub created: i64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    data: Data,
}

#[derive(Clone, Debug, Deserialize)]
struct Data {
    object: Value,
}

/// What we wrote on an object when it was made, by which its events are understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Slug of the product.
    pub product: Option<String>,
    /// Whose.
    pub user_id: Option<String>,
    /// Slug of the plan.
    pub plan: Option<String>,
    /// Version of the plan.
    pub version: Option<i64>,
    /// Id of the price.
    pub price_id: Option<String>,
    /// Id of the package.
    pub package_id: Option<String>,
    /// Seats that were asked for.
    pub seats: Option<i64>,
    /// What the package cost and brought when the purchase began; made by [`sold_as`].
    pub sold: Option<String>,
}

/// A package as it was sold, should its price change before it is paid.
pub fn sold_as(package_id: &str, amount_minor: i64, currency: &str, credits: i64) -> String {
    format!("{package_id} {amount_minor} {currency} {credits}")
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A buyer has finished a page of Stripe's.
    Session(Session),
    /// A subscription is as it says.
    Subscription(Subscription),
    /// An invoice is paid, or its payment has failed.
    Invoice(Invoice),
    /// Money went back to the payer.
    Refund(Refund),
    /// The payer's bank takes money, or gives it back.
    Dispute(Dispute),
    /// Nothing of ours.
    Other,
}

/// A finished checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Stripe's id.
    pub id: String,
    /// The subscription it began.
    pub subscription: Option<String>,
    /// What paid it, once.
    pub payment_intent: Option<String>,
    /// The money is there, or none is due.
    pub paid: bool,
    /// Before discounts and taxes, in minor units.
    pub subtotal: i64,
    /// What is paid, in minor units.
    pub total: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// When it began, s since 1970.
    pub created: i64,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Stripe's id.
    pub id: String,
    /// Its one item.
    pub item_id: String,
    /// As Stripe names it.
    pub status: String,
    /// Price of one seat, in minor units; none if the event does not say.
    pub unit_amount: Option<i64>,
    /// ISO 4217, upper case; none if the event does not say.
    pub currency: Option<String>,
    /// At least 1.
    pub seats: i64,
    /// End of the paid period, s since 1970; 0: not said.
    pub period_end: i64,
    /// It ends with the period.
    pub cancel_at_period_end: bool,
    /// It is over for good.
    pub deleted: bool,
    /// When it began, s since 1970.
    pub created: i64,
}

/// An invoice of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Stripe's id.
    pub id: String,
    /// Whose; none for an invoice of something else.
    pub subscription: Option<String>,
    /// It is paid.
    pub paid: bool,
    /// Only for the rest of a period, after a change within it; brings nothing.
    pub is_change: bool,
    /// For whole periods, before discounts and taxes, in minor units.
    pub periods: i64,
    /// What of `periods` is not paid by what was paid before, in minor units: a change that begins a new period at
    /// once pays with the rest of the old one, and with what earlier changes left on the customer's balance.
    pub fresh: i64,
    /// What is paid, in minor units.
    pub total: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// What paid it, where the event still says so: intent and charge.
    pub paid_by: Vec<String>,
    /// End of the period it is for, s since 1970; 0: not said.
    pub period_end: i64,
    /// Seats it is for, at least 1.
    pub seats: i64,
    /// When it was made, s since 1970.
    pub created: i64,
}

/// What of a charge went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Stripe's id of the charge.
    pub charge: String,
    /// What the charge belongs to.
    pub payment_intent: Option<String>,
    /// The invoice, where the event still says so.
    pub invoice: Option<String>,
    /// All of it together, in minor units.
    pub refunded: i64,
    /// ISO 4217, upper case.
    pub currency: String,
}

/// A dispute of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// Stripe's id.
    pub id: String,
    /// Of which charge.
    pub charge: String,
    /// What the charge belongs to.
    pub payment_intent: Option<String>,
    /// Minor units.
    pub amount: i64,
    /// The money was taken from us at some time; a mere inquiry takes none.
    pub taken: bool,
    /// It was given back.
    pub returned: bool,
    /// The bank keeps it.
    pub lost: bool,
}

impl Event {
    /// Reads a body. None: it is no event.
    pub fn parse(body: &[u8]) -> Option<Event> {
        serde_json::from_slice::<Event>(body).ok().filter(Event::is_sound)
    }

    /// Reads an event that Stripe listed. None: it is none.
    pub fn of(value: Value) -> Option<Event> {
        serde_json::from_value::<Event>(value).ok().filter(Event::is_sound)
    }

    fn is_sound(&self) -> bool {
        let sound =
            |text: &str| !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound(&self.id) && sound(&self.kind) && self.created > 0 && self.data.object.is_object()
    }

    /// Whether it has an effect here.
    pub fn is_handled(&self) -> bool {
        HANDLED.contains(&self.kind.as_str())
    }

    /// The customer it is about; none if it does not say.
    pub fn customer(&self) -> Option<String> {
        customer_of_object(&self.data.object)
    }

    /// What we wrote on the object, or on the subscription that an invoice is of.
    pub fn marks(&self) -> Marks {
        Marks::of(&self.data.object)
    }

    /// What it says. None: something that it must say is missing or is no such thing.
    pub fn fact(&self) -> Option<Fact> {
        let object = &self.data.object;
        Some(match self.kind.as_str() {
            "checkout.session.completed" | "checkout.session.async_payment_succeeded" => {
                Fact::Session(session(object)?)
            }
            "invoice.paid" | "invoice.payment_failed" => Fact::Invoice(invoice(object, &self.kind)?),
            "charge.refunded" => Fact::Refund(refund(object)?),
            kind if kind.starts_with("customer.subscription.") && self.is_handled() => {
                Fact::Subscription(subscription(object, kind)?)
            }
            kind if kind.starts_with("charge.dispute.") && self.is_handled() => Fact::Dispute(dispute(object, kind)?),
            _ => Fact::Other,
        })
    }
}

impl Marks {
    /// What we wrote on an object of Stripe's, wherever it is shown.
    pub fn of(object: &Value) -> Marks {
        let places = [
            &object["metadata"],
            &object["parent"]["subscription_details"]["metadata"],
            &object["subscription_details"]["metadata"],
            &object["lines"]["data"][0]["metadata"],
        ];
        let ours = places.into_iter().find(|place| place["product"].is_string()).unwrap_or(&Value::Null);
        let text = |name: &str| ours[name].as_str().map(str::to_owned);
        let number = |name: &str| ours[name].as_str().and_then(|text| text.parse().ok());
        Marks {
            product: text("product"),
            user_id: text("user_id"),
            plan: text("plan"),
            version: number("version"),
            price_id: text("price_id"),
            package_id: text("package_id"),
            seats: number("seats"),
            sold: text("sold"),
        }
    }
}

impl Marks {
    /// The credits of a package that was sold for this much.
    pub fn sold_credits(&self, package_id: &str, amount_minor: i64, currency: &str) -> Option<i64> {
        let credits = self.sold.as_ref()?.rsplit_once(' ')?.1.parse().ok()?;
        let same = sold_as(package_id, amount_minor, currency, credits) == *self.sold.as_ref()?;
        (same && credits > 0).then_some(credits)
    }
}

/// The customer that an object of Stripe's belongs to.
pub fn customer_of_object(object: &Value) -> Option<String> {
    id_of(&object["customer"])
}

fn session(object: &Value) -> Option<Session> {
    let total = amount(&object["amount_total"])?;
    Some(Session {
        id: id_of(&object["id"])?,
        subscription: id_of(&object["subscription"]),
        payment_intent: id_of(&object["payment_intent"]),
        paid: matches!(object["payment_status"].as_str(), Some("paid" | "no_payment_required")),
        subtotal: amount(&object["amount_subtotal"]).unwrap_or(total),
        total,
        currency: currency(object)?,
        created: object["created"].as_i64().unwrap_or_default(),
    })
}

fn subscription(object: &Value, kind: &str) -> Option<Subscription> {
    let item = &object["items"]["data"][0];
    let quantity = item["quantity"].as_i64().or_else(|| object["quantity"].as_i64());
    let end = |of: &Value| of["current_period_end"].as_i64();
    // A subscription that is paused by its seller still bears the status it had.
    let status = if kind.ends_with(".paused") { Some("paused") } else { object["status"].as_str() };
    Some(Subscription {
        id: id_of(&object["id"])?,
        item_id: id_of(&item["id"]).unwrap_or_default(),
        status: status?.to_owned(),
        unit_amount: amount(&item["price"]["unit_amount"]),
        currency: currency(&item["price"]).or_else(|| currency(object)),
        seats: quantity.unwrap_or(1).max(1),
        period_end: end(item).or_else(|| end(object)).unwrap_or_default(),
        cancel_at_period_end: object["cancel_at_period_end"].as_bool().unwrap_or_default(),
        deleted: kind.ends_with(".deleted"),
        created: object["created"].as_i64().unwrap_or_default(),
    })
}

fn invoice(object: &Value, kind: &str) -> Option<Invoice> {
    let lines = object["lines"]["data"].as_array().map_or(&[][..], Vec::as_slice);
    let line = lines.iter().find(|line| !is_proration(line)).or(lines.first()).unwrap_or(&Value::Null);
    let details = &object["parent"]["subscription_details"];
    let total = amount(&object["amount_paid"]).or_else(|| amount(&object["total"]))?;
    let paid_by =
        [&object["payment_intent"], &object["charge"], &object["payments"]["data"][0]["payment"]["payment_intent"]];
    let change = object["billing_reason"] == "subscription_update";
    let is_change = match lines {
        [] => change,
        lines => lines.iter().all(is_proration),
    };
    let sum = |of_rest: bool| {
        let lines = lines.iter().filter(|line| is_proration(line) == of_rest);
        lines.filter_map(|line| line["amount"].as_i64()).fold(0, i64::saturating_add)
    };
    let periods = if lines.is_empty() { amount(&object["subtotal"]).unwrap_or(total) } else { sum(false) };
    let at = |name: &str| object[name].as_i64().unwrap_or_default();
    let from_balance = at("ending_balance").saturating_sub(at("starting_balance")).max(0);
    let used = if change { sum(true).min(0).saturating_sub(from_balance) } else { 0 };
    Some(Invoice {
        id: id_of(&object["id"])?,
        subscription: id_of(&details["subscription"]).or_else(|| id_of(&object["subscription"])),
        paid: kind == "invoice.paid" && object["status"].as_str().is_none_or(|status| status == "paid"),
        is_change,
        periods,
        fresh: periods.saturating_add(used).max(0),
        total,
        currency: currency(object)?,
        paid_by: paid_by.into_iter().filter_map(id_of).collect(),
        period_end: line["period"]["end"].as_i64().unwrap_or_default(),
        seats: line["quantity"].as_i64().unwrap_or(1).max(1),
        created: object["created"].as_i64().unwrap_or_default(),
    })
}

/// Whether a line is for the rest of a period that was paid for otherwise before.
fn is_proration(line: &Value) -> bool {
    line["proration"] == true || line["parent"]["subscription_item_details"]["proration"] == true
}

fn refund(object: &Value) -> Option<Refund> {
    Some(Refund {
        charge: id_of(&object["id"])?,
        payment_intent: id_of(&object["payment_intent"]),
        invoice: id_of(&object["invoice"]),
        refunded: amount(&object["amount_refunded"])?,
        currency: currency(object)?,
    })
}

fn dispute(object: &Value, kind: &str) -> Option<Dispute> {
    let status = object["status"].as_str()?;
    let returned = status == "won" || kind.ends_with(".funds_reinstated");
    let asks_only = status.starts_with("warning_") || status == "prevented";
    Some(Dispute {
        id: id_of(&object["id"])?,
        charge: id_of(&object["charge"])?,
        payment_intent: id_of(&object["payment_intent"]),
        amount: amount(&object["amount"])?,
        taken: returned || !asks_only || kind.ends_with(".funds_withdrawn"),
        returned,
        lost: status == "lost",
    })
}

/// The id of an object that is named or stands there itself.
fn id_of(value: &Value) -> Option<String> {
    let id = value.as_str().or_else(|| value["id"].as_str())?;
    let sound = !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| id.to_owned())
}

fn amount(value: &Value) -> Option<i64> {
    value.as_i64().filter(|amount| *amount >= 0)
}

fn currency(object: &Value) -> Option<String> {
    let currency = object["currency"].as_str()?;
    let sound = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_alphabetic());
    sound.then(|| currency.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fact(kind: &str, object: Value) -> Option<Fact> {
        Event::of(json!({"id": "evt_1", "type": kind, "created": 1, "data": {"object": object}}))?.fact()
    }

    #[test]
    fn a_subscription_is_read_from_either_generation_of_fields() {
        let item = json!({"id": "si_1", "quantity": 3, "price": {"unit_amount": 999, "currency": "usd"}});
        let mut older = json!({"id": "sub_1", "status": "active", "items": {"data": [item]}, "current_period_end": 77});
        let read = fact("customer.subscription.updated", older.clone()).unwrap();
        let Fact::Subscription(of) = read.clone() else { panic!("{read:?}") };
        assert_eq!((of.period_end, of.seats, of.unit_amount, of.currency.as_deref()), (77, 3, Some(999), Some("USD")));
        older["current_period_end"].take();
        older["items"]["data"][0]["current_period_end"] = 77.into();
        assert_eq!(fact("customer.subscription.updated", older), Some(read));
    }

    #[test]
    fn an_invoice_is_read_from_either_generation_of_fields() {
        let older =
            json!({"id": "in_1", "currency": "usd", "amount_paid": 5, "status": "paid", "subscription": "sub_1"});
        let mut newer = older.clone();
        newer["subscription"].take();
        newer["parent"] = json!({"subscription_details": {"subscription": {"id": "sub_1"}}});
        let read = fact("invoice.paid", older);
        assert!(matches!(&read, Some(Fact::Invoice(of)) if of.subscription.as_deref() == Some("sub_1")), "{read:?}");
        assert_eq!(fact("invoice.paid", newer), read);
    }

    #[test]
    fn what_is_only_a_change_is_no_period() {
        let invoice = |reason: &str, lines: &[(i64, bool)], balance: i64| {
            let line = |(amount, proration): &(i64, bool)| json!({"amount": amount, "proration": proration});
            let lines = json!({"data": lines.iter().map(line).collect::<Vec<_>>()});
            let object = json!({
                "id": "in_1", "currency": "usd", "amount_paid": 5, "billing_reason": reason, "lines": lines,
                "starting_balance": -balance, "ending_balance": 0,
            });
            match fact("invoice.paid", object) {
                Some(Fact::Invoice(of)) => (of.is_change, of.periods, of.fresh),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(invoice("subscription_cycle", &[(999, false)], 0), (false, 999, 999));
        assert_eq!(invoice("subscription_cycle", &[(-900, true), (999, false)], 50), (false, 999, 999));
        assert!(invoice("subscription_update", &[(5, true)], 0).0);
        assert!(invoice("manual", &[(5, true)], 0).0);
        assert_eq!(invoice("subscription_update", &[(-900, true), (9999, false)], 0), (false, 9999, 9099));
        assert_eq!(invoice("subscription_update", &[(-900, true), (9999, false)], 9099), (false, 9999, 0));
        assert_eq!(invoice("subscription_update", &[(-9999, true), (999, false)], 0), (false, 999, 0));
    }

    #[test]
    fn an_inquiry_takes_no_money() {
        let taken = |kind: &str, status: &str| {
            let object = json!({"id": "du_1", "charge": "ch_1", "amount": 5, "status": status});
            match fact(kind, object) {
                Some(Fact::Dispute(of)) => (of.taken, of.returned),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(taken("charge.dispute.created", "warning_needs_response"), (false, false));
        assert_eq!(taken("charge.dispute.created", "needs_response"), (true, false));
        assert_eq!(taken("charge.dispute.closed", "lost"), (true, false));
        assert_eq!(taken("charge.dispute.closed", "won"), (true, true));
        assert_eq!(taken("charge.dispute.closed", "warning_closed"), (false, false));
        assert_eq!(taken("charge.dispute.funds_reinstated", "under_review"), (true, true));
    }

    #[test]
    fn what_is_not_complete_is_no_fact() {
        for (kind, object) in [
            ("checkout.session.completed", json!({"id": "cs_1", "currency": "usd"})),
            ("checkout.session.completed", json!({"id": "cs_1", "amount_total": -1, "currency": "usd"})),
            ("checkout.session.completed", json!({"id": "cs_1", "amount_total": 1, "currency": "u$"})),
            ("invoice.paid", json!({"amount_paid": 1, "currency": "usd"})),
            ("customer.subscription.created", json!({"id": "sub_1"})),
            ("charge.refunded", json!({"id": "ch 1", "amount_refunded": 1, "currency": "usd"})),
            ("charge.dispute.created", json!({"id": "du_1", "amount": 1, "status": "lost"})),
        ] {
            assert_eq!(fact(kind, object.clone()), None, "{kind} {object}");
        }
        assert!(Event::parse(b"[").is_none());
    }

    #[test]
    fn a_package_is_remembered_as_it_was_sold() {
        let marks = Marks { sold: Some(sold_as("credits_10", 99, "USD", 10)), ..Marks::default() };
        assert_eq!(marks.sold_credits("credits_10", 99, "USD"), Some(10));
        for (id, amount, currency) in [("credits_50", 99, "USD"), ("credits_10", 98, "USD"), ("credits_10", 99, "EUR")]
        {
            assert_eq!(marks.sold_credits(id, amount, currency), None);
        }
        assert_eq!(Marks::default().sold_credits("credits_10", 99, "USD"), None);
    }
}
