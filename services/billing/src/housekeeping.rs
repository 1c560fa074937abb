//! What time brings. Every replica does it; its effects happen once.
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use weft_core::Clock;
use weft_db::Db;
use weft_product::Products;
use weft_runtime::Shutdown;

use crate::domain::day::{DAY_MS, day_of};
use crate::error::Error;
use crate::ledger::{Act, Ledger, Op};
use crate::store::hold::{PRUNE_HOLDS, hold_overdue, hold_prune};
use crate::store::idempotency::{PRUNE_ROWS, idempotency_prune};
use crate::store::wallet::wallet_used_before;

/// How often holds are looked after.
const EVERY: Duration = Duration::from_secs(1);
/// Old keys and holds are looked for every so many times.
const PRUNE_EVERY: u64 = 60;
/// Idempotency keys are kept for this long: a day is promised, and clocks differ.
const KEEP_KEYS_MS: i64 = 25 * 3600 * 1000;
/// Holds that have ended are kept for this long after their time: what a call has cost can be asked for a month.
const KEEP_HOLDS_MS: i64 = 30 * DAY_MS;
/// How many holds, and how many wallets, are handed to the ledger at once.
const AT_ONCE: i64 = 200;

/// What is looked after.
pub struct Housekeeping {
    /// Holds, wallets, keys.
    pub db: Db,
    /// Which products there are.
    pub products: Arc<Products>,
    /// The time.
    pub clock: Clock,
    /// Where credits move.
    pub ledger: Ledger,
    /// When to end.
    pub shutdown: Shutdown,
}

impl Housekeeping {
    /// Looks after it until the shutdown.
    pub async fn run(self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refreshed = 0;
        for tick in 0_u64.. {
            tokio::select! {
                () = self.shutdown.wait() => return,
                _ = ticks.tick() => {}
            }
            self.tidy(tick, &mut refreshed).await;
        }
    }

    /// One step's trouble is not the others'.
    async fn tidy(&self, tick: u64, refreshed: &mut i64) {
        let today = day_of(self.clock.now_ms());
        let is_new_day = *refreshed < today;
        let mut is_done = true;
        for product in self.products.iter() {
            noted("overdue holds", &product.slug, self.end_overdue_holds(&product.slug).await);
            if is_new_day {
                is_done &= noted("the new day", &product.slug, self.refresh_used_wallets(&product.slug, today).await);
            }
        }
        if is_done {
            *refreshed = today;
        }
        if tick.is_multiple_of(PRUNE_EVERY) {
            noted("old keys", "", self.prune_keys().await);
            noted("old holds", "", self.prune_holds().await);
        }
    }

    /// Nobody has ended them in time: each is charged what its call had delivered. Each is tried once a pass, so that
    /// those that cannot be ended keep nobody waiting.
    async fn end_overdue_holds(&self, product: &str) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let (mut since_ms, mut id) = (i64::MIN, String::new());
        while !self.shutdown.is_triggered() {
            let overdue = hold_overdue(&self.db, product, now_ms, (since_ms, &id), AT_ONCE).await?;
            let Some(last) = overdue.last() else { break };
            (since_ms, id) = (last.expires_at, last.id.clone());
            self.submit(product, overdue.into_iter().map(|row| (row.user_id, Act::Expire { hold_id: row.id }))).await;
        }
        Ok(())
    }

    /// Wallets that have used of an earlier day's bucket; the others have what they would be given. What is used
    /// before its turn comes is refreshed by the use, and so is what cannot be refreshed here.
    async fn refresh_used_wallets(&self, product: &str, today: i64) -> Result<(), Error> {
        let mut after = String::new();
        while !self.shutdown.is_triggered() {
            let used = wallet_used_before(&self.db, product, today, &after, AT_ONCE).await?;
            let Some(last) = used.last() else { break };
            after.clone_from(last);
            self.submit(product, used.into_iter().map(|user_id| (user_id, Act::Touch))).await;
        }
        Ok(())
    }

    async fn prune_keys(&self) -> Result<(), Error> {
        let before_ms = self.clock.now_ms() - KEEP_KEYS_MS;
        while !self.shutdown.is_triggered() && idempotency_prune(&self.db, before_ms).await? >= PRUNE_ROWS {}
        Ok(())
    }

    async fn prune_holds(&self) -> Result<(), Error> {
        let before_ms = self.clock.now_ms() - KEEP_HOLDS_MS;
        while !self.shutdown.is_triggered() && hold_prune(&self.db, before_ms).await? >= PRUNE_HOLDS {}
        Ok(())
    }

    /// Hands operations to the ledger; one that fails is told of and is nobody else's trouble.
    async fn submit(&self, product: &str, ops: impl Iterator<Item = (String, Act)>) {
        let submit = async |(user_id, act): (String, Act)| {
            let (product, reference) = (product.to_owned(), String::new());
            let op = Op { product, user_id, key: None, reference, act };
            if let Err(error) = self.ledger.submit(op.clone()).await {
                tracing::warn!(%error, product = op.product, user_id = op.user_id, act = ?op.act, "housekeeping failed");
            }
        };
        join_all(ops.map(submit)).await;
    }
}

/// Tells what went wrong with a step; true if nothing did.
fn noted(step: &'static str, product: &str, outcome: Result<(), Error>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(%error, step, product, "housekeeping failed, trying again in {EVERY:?}");
    }
    outcome.is_ok()
}
