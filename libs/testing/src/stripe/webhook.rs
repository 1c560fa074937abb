//! Webhooks out: signatures, deliveries, and a bad network between.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hmac::{Hmac, KeyInit as _, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::sync::mpsc;

use super::StripeStub;
use super::server::{Shared, lock};

/// How long one delivery may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long automatic deliveries wait for others to be shuffled with.
const GATHERED_WITHIN: Duration = Duration::from_millis(20);
/// Between two attempts of one delivery.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The `stripe-signature` header for a body: `t=…,v1=…`, HMAC-SHA-256 over `t.body`. `timestamp` in seconds.
pub fn sign(secret: &str, body: &str, timestamp: i64) -> String {
    format!("t={timestamp},v1={}", signature(secret, body, timestamp))
}

/// The hex of the signature alone.
#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
pub fn signature(secret: &str, body: &str, timestamp: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key is good for HMAC");
    mac.update(format!("{timestamp}.{body}").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body and a header, right or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The exact body.
    pub body: String,
    /// The `stripe-signature` header.
    pub header: String,
}

impl Signed {
    /// As Stripe does it. `timestamp` in seconds.
    pub fn genuine(secret: &str, event: &Value, timestamp: i64) -> Signed {
        let body = pretty(event);
        let header = sign(secret, &body, timestamp);
        Signed { body, header }
    }

    /// Signed by somebody who does not know the secret.
    pub fn wrong_secret(event: &Value, timestamp: i64) -> Signed {
        Signed::genuine("whsec_somebody_else", event, timestamp)
    }

    /// Several `v1`, of which the last is right: what Stripe sends while a secret is rolled.
    pub fn several(secret: &str, event: &Value, timestamp: i64) -> Signed {
        let body = pretty(event);
        let (old, new) = (signature("whsec_rolled", &body, timestamp), signature(secret, &body, timestamp));
        let header = format!("t={timestamp},v1={old},v0={old},v1={new}");
        Signed { body, header }
    }

    /// Rightly signed, then altered: one byte more, the same JSON.
    pub fn altered(secret: &str, event: &Value, timestamp: i64) -> Signed {
        let genuine = Signed::genuine(secret, event, timestamp);
        Signed { body: format!("{} ", genuine.body), ..genuine }
    }
}

/// The body of an event, indented as Stripe sends it.
fn pretty(event: &Value) -> String {
    serde_json::to_string_pretty(event).unwrap_or_default()
}

/// What became of one delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event's id.
    pub event: String,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// The body of the answer, or why there was none.
    pub body: String,
}

impl Delivery {
    /// Whether Stripe would take it as delivered.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What the network does to deliveries. The same seed and the same events give the same plan.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Where the randomness begins.
    pub seed: u64,
    /// Every event is sent this many times more.
    pub duplicates: usize,
    /// So many of 100 deliveries never happen.
    pub drop_percent: u64,
    /// Order is lost among this many deliveries next to each other; 0 and 1 keep it.
    pub shuffle: usize,
    /// Each delivery waits up to this long.
    pub delay: Duration,
    /// So many deliveries are under way at once.
    pub senders: usize,
    /// How often a delivery that is not answered with 2xx is tried.
    pub attempts: usize,
}

impl Weather {
    /// In order, once, at once, tried three times.
    pub fn fair() -> Weather {
        Weather { seed: 0, duplicates: 0, drop_percent: 0, shuffle: 0, delay: Duration::ZERO, senders: 1, attempts: 3 }
    }

    /// Duplicates, lost order and small delays, with 8 senders; nothing is lost.
    pub fn rough(seed: u64) -> Weather {
        let delay = Duration::from_millis(5);
        Weather { seed, duplicates: 2, shuffle: 1_000, delay, senders: 8, attempts: 100, ..Weather::fair() }
    }

    /// What is sent, in which order, after which wait.
    pub fn plan(&self, events: &[Value]) -> Vec<(Value, Duration)> {
        let mut dice = Dice(self.seed);
        let copies = events.iter().flat_map(|event| std::iter::repeat_n(event, self.duplicates + 1));
        let mut sent: Vec<&Value> = copies.filter(|_| dice.below(100) >= self.drop_percent).collect();
        for window in sent.chunks_mut(self.shuffle.max(1)) {
            for last in (1..window.len()).rev() {
                window.swap(last, usize::try_from(dice.below(last as u64 + 1)).unwrap_or_default());
            }
        }
        let longest = u64::try_from(self.delay.as_micros()).unwrap_or(u64::MAX);
        sent.into_iter()
            .map(|event| (event.clone(), Duration::from_micros(dice.below(longest.saturating_add(1)))))
            .collect()
    }
}

/// A small generator (SplitMix64), so that a plan can be had again from its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// Where events go as they are made.
#[derive(Default)]
pub(super) struct Outbox {
    to: Mutex<Option<mpsc::UnboundedSender<Value>>>,
}

impl Outbox {
    pub(super) fn push(&self, events: &[Value]) {
        if let Some(to) = &*lock(&self.to) {
            // The receiver is gone when the stub ends.
            events.iter().for_each(|event| drop(to.send(event.clone())));
        }
    }
}

/// Who carries events to endpoints.
#[derive(Clone)]
pub(super) struct Courier {
    pub http: reqwest::Client,
    pub secret: String,
    pub shared: Arc<Shared>,
}

impl Courier {
    async fn deliver(&self, url: &str, event: &Value) -> Delivery {
        let now = lock(&self.shared.state).now();
        self.post(url, &Signed::genuine(&self.secret, event, now)).await
    }

    async fn deliver_until(&self, url: &str, event: &Value, attempts: usize) -> Delivery {
        let mut delivery = self.deliver(url, event).await;
        for _ in 1..attempts {
            if delivery.ok() {
                break;
            }
            tokio::time::sleep(RETRY_AFTER).await;
            delivery = self.deliver(url, event).await;
        }
        delivery
    }

    async fn deliver_all(&self, url: &str, events: &[Value], weather: &Weather) -> Vec<Delivery> {
        let sent = weather.plan(events).into_iter().map(|(event, wait)| async move {
            tokio::time::sleep(wait).await;
            self.deliver_until(url, &event, weather.attempts).await
        });
        stream::iter(sent).buffer_unordered(weather.senders.max(1)).collect().await
    }

    async fn post(&self, url: &str, signed: &Signed) -> Delivery {
        let event: Value = serde_json::from_str(&signed.body).unwrap_or_default();
        let event = event["id"].as_str().unwrap_or_default().to_owned();
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", &signed.header)
            .timeout(DELIVERY_TIMEOUT)
            .body(signed.body.clone());
        match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                Delivery { event, status, body: answer.text().await.unwrap_or_default() }
            }
            Err(error) => Delivery { event, status: 0, body: error.to_string() },
        }
    }

    /// Sends what is made, as it is made, in batches that the weather can shuffle.
    async fn carry(self, url: String, mut weather: Weather, mut made: mpsc::UnboundedReceiver<Value>) {
        let most = weather.shuffle.max(1);
        let mut batch = Vec::new();
        while made.recv_many(&mut batch, most).await > 0 {
            if most > 1 {
                // What is made within this time can lose its order.
                tokio::time::sleep(GATHERED_WITHIN).await;
                while batch.len() < most
                    && let Ok(event) = made.try_recv()
                {
                    batch.push(event);
                }
            }
            let delivered = self.deliver_all(&url, &batch, &weather).await;
            lock(&self.shared.deliveries).extend(delivered);
            batch.clear();
            weather.seed = weather.seed.wrapping_add(1);
        }
    }
}

impl StripeStub {
    /// POSTs an event to an endpoint, signed with [`StripeStub::webhook_secret`] at the stub's time.
    pub async fn deliver(&self, url: &str, event: &Value) -> Delivery {
        self.courier.deliver(url, event).await
    }

    /// POSTs exactly these bytes with this header.
    pub async fn deliver_signed(&self, url: &str, signed: &Signed) -> Delivery {
        self.courier.post(url, signed).await
    }

    /// Sends events through a bad network, and gives what became of each delivery that was not dropped.
    pub async fn deliver_all(&self, url: &str, events: &[Value], weather: &Weather) -> Vec<Delivery> {
        self.courier.deliver_all(url, events, weather).await
    }

    /// From now on sends every event to this endpoint as it is made, instead of to the one before.
    pub fn send_to(&self, url: &str, weather: Weather) {
        let (to, made) = mpsc::unbounded_channel();
        *lock(&self.courier.shared.outbox.to) = Some(to);
        let carrying = self.courier.clone().carry(url.to_owned(), weather, made);
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with its channel or with the stub; there is nothing to drain"
        )]
        let carrier = tokio::spawn(carrying);
        lock(&self.tasks).push(carrier);
    }

    /// Sends no more by itself; what was made before is still sent.
    pub fn send_nowhere(&self) {
        *lock(&self.courier.shared.outbox.to) = None;
    }

    /// What became of the deliveries of [`StripeStub::send_to`], in the order they ended.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.courier.shared.deliveries).clone()
    }
}
