//! Stripe on a free port: the API that billing uses, the payers, and webhooks over a bad network.
//!
//! It speaks Stripe's protocol: form fields with brackets, JSON objects that async-stripe's types decode, its errors,
//! idempotency keys, lists, `expand[]`, events that are snapshots. Under `/v1`: customers, products, prices, checkout
//! sessions, subscriptions, billing portal sessions, invoices, invoice payments, payment intents, charges, refunds,
//! disputes, events, accounts, account links, transfers and their reversals.
//!
//! Nobody pays by himself: `complete_checkout`, `renew`, `fail_payment`, `refund`, `open_dispute`, … act for the payer
//! and give the events they made. Webhooks are sent by `deliver` and `deliver_all`, or as they are made by `send_to`.
mod api;
mod calendar;
mod catalog;
mod checkout;
mod connect;
mod form;
mod invoices;
mod money;
mod payer;
mod server;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use weft_core::Clock;

use server::{Shared, lock};
use state::State;
use webhook::Courier;

pub use server::{Call, Misbehave};
pub use state::Shape;
pub use webhook::{Delivery, Signed, Weather, sign, signature};

/// A running stub; it ends with this value.
pub struct StripeStub {
    url: String,
    courier: Courier,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl StripeStub {
    /// Starts on a free port of 127.0.0.1.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its stub")]
    pub async fn start() -> StripeStub {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let secret_key = format!("sk_test_stub{}", address.port());
        let shared = Arc::new(Shared::new(secret_key, State::new(address.port())));
        let router = Router::new().fallback(server::answer).with_state(Arc::clone(&shared));
        let serving = async move {
            // It serves until the test ends; there is nobody to tell about an error.
            let _ended = axum::serve(listener, router).await;
        };
        #[expect(clippy::disallowed_methods, reason = "a stub ends with its test; there is nothing to drain")]
        let server = tokio::spawn(serving);
        // Another part of the process may have installed it already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client for deliveries");
        let courier = Courier { http, secret: format!("whsec_stub{}", address.port()), shared };
        StripeStub { url: format!("http://{address}"), courier, tasks: Mutex::new(vec![server]) }
    }

    /// The base URL without a path: what `STRIPE_API_BASE` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The only key that is let in: `STRIPE_SECRET_KEY`.
    pub fn secret_key(&self) -> &str {
        &self.courier.shared.secret_key
    }

    /// What deliveries are signed with: `STRIPE_WEBHOOK_SECRET`.
    pub fn webhook_secret(&self) -> &str {
        &self.courier.secret
    }

    /// Stops the clock at this time, in ms since 1970. Without it the machine's clock counts.
    pub fn set_now(&self, now_ms: i64) {
        self.set_clock(Clock::manual(now_ms));
    }

    /// Takes the time from this clock.
    pub fn set_clock(&self, clock: Clock) {
        self.with(|state| state.clock = clock);
    }

    /// Which generation of fields is spoken from now on; events made before keep theirs.
    pub fn set_shape(&self, shape: Shape) {
        self.with(|state| state.shape = shape);
    }

    /// Does this wrong to the next request, whatever it is. Orders are carried out one a request, oldest first.
    pub fn misbehave(&self, misbehave: Misbehave) {
        self.misbehave_at("", misbehave);
    }

    /// Does this wrong to the next request whose path begins so (`/v1/refunds`).
    pub fn misbehave_at(&self, path: &str, misbehave: Misbehave) {
        lock(&self.courier.shared.orders).add(path, misbehave);
    }

    /// Behaves again.
    pub fn behave(&self) {
        lock(&self.courier.shared.orders).clear();
    }

    /// Forgets what was answered under which idempotency key, as Stripe does after a day.
    pub fn forget_keys(&self) {
        lock(&self.courier.shared.kept).clear();
    }

    /// The requests so far, oldest first, refused ones too.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.courier.shared.calls).clone()
    }

    /// How many requests each method and path had, such as `POST /v1/refunds`.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in lock(&self.courier.shared.calls).iter() {
            *counts.entry(format!("{} {}", call.method, call.path)).or_default() += 1;
        }
        counts
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.courier.shared.state))
    }
}

impl Drop for StripeStub {
    fn drop(&mut self) {
        lock(&self.tasks).iter().for_each(JoinHandle::abort);
    }
}
