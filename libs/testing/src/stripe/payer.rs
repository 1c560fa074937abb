//! What payers, sellers and banks do, in one line each. Every method gives the events that it made, in the order they
//! happened; they are also listed by `/v1/events` and sent to the endpoint of [`StripeStub::send_to`].
//!
//! An id that does not exist, or an act that the state of things forbids, ends the test.
use serde_json::Value;

use super::StripeStub;
use super::form::Params;
use super::state::{Refusal, State};
use super::{checkout, connect, money, subscriptions};

impl StripeStub {
    /// The payer pays the page: a subscription (with the metadata of `subscription_data`), its customer, paid invoice
    /// and charge, or a payment intent and its charge; at last `checkout.session.completed`.
    pub fn complete_checkout(&self, session: &str) -> Vec<Value> {
        self.done(|state| checkout::session_complete(state, session, true))
    }

    /// The payer chose a slow way to pay: the session is complete with `payment_status: "unpaid"` (payment mode only).
    pub fn complete_checkout_unpaid(&self, session: &str) -> Vec<Value> {
        self.done(|state| checkout::session_complete(state, session, false))
    }

    /// The money of such a session arrives: `checkout.session.async_payment_succeeded`.
    pub fn checkout_money_arrives(&self, session: &str) -> Vec<Value> {
        self.done(|state| checkout::session_settle(state, session, true))
    }

    /// The money of such a session never comes: `checkout.session.async_payment_failed`.
    pub fn checkout_money_fails(&self, session: &str) -> Vec<Value> {
        self.done(|state| checkout::session_settle(state, session, false))
    }

    /// Nobody pays the page in time: `checkout.session.expired`.
    pub fn expire_checkout(&self, session: &str) -> Vec<Value> {
        self.done(|state| checkout::session_expire(state, session).map(|_| ()))
    }

    /// Pays the open invoice of a subscription that is `incomplete` or `past_due`: it becomes active.
    pub fn pay_subscription(&self, subscription: &str) -> Vec<Value> {
        self.done(|state| subscriptions::subscription_pay(state, subscription))
    }

    /// The next period begins and is paid; one that was to be cancelled at the period's end is deleted.
    pub fn renew(&self, subscription: &str) -> Vec<Value> {
        self.done(|state| subscriptions::subscription_renew(state, subscription, true))
    }

    /// The next period begins and its payment is declined: `past_due`.
    pub fn fail_payment(&self, subscription: &str) -> Vec<Value> {
        self.done(|state| subscriptions::subscription_renew(state, subscription, false))
    }

    /// The payer cancels in the portal, at once: `customer.subscription.deleted`.
    pub fn cancel_now(&self, subscription: &str) -> Vec<Value> {
        self.done(|state| subscriptions::subscription_cancel(state, subscription).map(|_| ()))
    }

    /// The payer cancels in the portal, for the end of the period.
    pub fn cancel_at_period_end(&self, subscription: &str) -> Vec<Value> {
        self.update(subscription, &[("cancel_at_period_end", "true")])
    }

    /// The quantity of the first item changes.
    pub fn change_quantity(&self, subscription: &str, quantity: u32) -> Vec<Value> {
        let item = self.first_item(subscription);
        self.update(subscription, &[("items[0][id]", &item), ("items[0][quantity]", &quantity.to_string())])
    }

    /// The price of the first item changes to another price id.
    pub fn change_price(&self, subscription: &str, price: &str) -> Vec<Value> {
        let item = self.first_item(subscription);
        self.update(subscription, &[("items[0][id]", &item), ("items[0][price]", price)])
    }

    /// The payer saves a payment method for what comes: `pm_card_visa`, or one that is refused
    /// (`pm_card_chargeDeclined`, `pm_card_authenticationRequired`).
    pub fn save_payment_method(&self, customer: &str, method: &str) {
        let settings = serde_json::json!({
            "custom_fields": null, "default_payment_method": method, "footer": null, "rendering_options": null,
        });
        self.with(|state| state.set(customer, serde_json::json!({"invoice_settings": settings})));
    }

    /// Somebody refunds in the dashboard: an amount in minor units, or all that is left.
    pub fn refund(&self, charge: &str, amount: Option<i64>) -> Vec<Value> {
        self.done(|state| money::refund_create(state, charge, amount, &Params::of(&[])).map(|_| ()))
    }

    /// The payer's bank takes the money back: `charge.dispute.created`, `charge.dispute.funds_withdrawn`.
    pub fn open_dispute(&self, charge: &str) -> Vec<Value> {
        self.done(|state| money::dispute_open(state, charge).map(|_| ()))
    }

    /// The bank decides: `charge.dispute.closed`, and `charge.dispute.funds_reinstated` if it was won.
    pub fn close_dispute(&self, dispute: &str, won: bool) -> Vec<Value> {
        self.done(|state| money::dispute_close(state, dispute, won))
    }

    /// The seller gives Stripe what it wants: charges, payouts and the asked capabilities are enabled
    /// (`account.updated`).
    pub fn finish_onboarding(&self, account: &str) -> Vec<Value> {
        self.done(|state| connect::account_onboard(state, account))
    }

    /// Somebody takes all of a transfer back in the dashboard.
    pub fn reverse_transfer(&self, transfer: &str) -> Vec<Value> {
        self.done(|state| connect::reversal_create(state, transfer, &Params::of(&[])).map(|_| ()))
    }

    /// An event about any object as it is now, whether Stripe would make it or not.
    pub fn emit(&self, kind: &str, about: &str) -> Vec<Value> {
        self.done(|state| {
            state.event(kind, about);
            Ok(())
        })
    }

    /// An object by its id, as the API shows it.
    pub fn object(&self, id: &str) -> Option<Value> {
        self.with(|state| state.get(id).map(|object| state.answer(object.clone(), &[])))
    }

    /// All objects whose ids begin with this prefix (`sub`, `ch`, `tr`, …), oldest first.
    pub fn objects(&self, prefix: &str) -> Vec<Value> {
        self.with(|state| state.all(prefix).map(|object| state.answer(object.clone(), &[])).collect())
    }

    /// All events so far, oldest first.
    pub fn events(&self) -> Vec<Value> {
        self.objects("evt")
    }

    fn first_item(&self, subscription: &str) -> String {
        let item = self.with(|state| state.get(subscription).map(|of| of["items"]["data"][0]["id"].clone()));
        item.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn update(&self, subscription: &str, fields: &[(&str, &str)]) -> Vec<Value> {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.done(|state| subscriptions::subscription_update(state, subscription, &Params::of(&fields)).map(|_| ()))
    }

    #[expect(clippy::expect_used, reason = "a test that acts on what is not there is wrong")]
    fn done(&self, work: impl FnOnce(&mut State) -> Result<(), Refusal>) -> Vec<Value> {
        let (done, events) = self.courier.shared.act(work);
        done.map_err(|refusal| refusal.message).expect("what the payer does is possible");
        events
    }
}
