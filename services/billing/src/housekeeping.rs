//! What time brings. Every replica does it; its effects happen once.
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use weft_core::Clock;
use weft_db::Db;
use weft_product::Products;
use weft_runtime::Shutdown;

use crate::domain::day::day_of;
use crate::error::Error;
use crate::ledger::{Act, Ledger, Op};
use crate::store::hold::hold_overdue;
use crate::store::idempotency::{PRUNE_ROWS, idempotency_prune};
use crate::store::wallet::wallet_used_before;

/// How often holds are looked after.
const EVERY: Duration = Duration::from_secs(1);
/// Old keys are looked for every so many times.
const PRUNE_EVERY: u64 = 60;
/// Idempotency keys are kept for this long: a day is promised, and clocks differ.
const KEEP_KEYS_MS: i64 = 25 * 3600 * 1000;
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
            if let Err(error) = self.tidy(tick, &mut refreshed).await {
                tracing::warn!(%error, "housekeeping failed, trying again in {EVERY:?}");
            }
        }
    }

    async fn tidy(&self, tick: u64, refreshed: &mut i64) -> Result<(), Error> {
        self.end_overdue_holds().await?;
        let today = day_of(self.clock.now_ms());
        if *refreshed < today {
            self.refresh_used_wallets(today).await?;
            *refreshed = today;
        }
        if tick.is_multiple_of(PRUNE_EVERY) {
            let before_ms = self.clock.now_ms() - KEEP_KEYS_MS;
            while !self.shutdown.is_triggered() && idempotency_prune(&self.db, before_ms).await? >= PRUNE_ROWS {}
        }
        Ok(())
    }

    /// Nobody has ended them in time: each is charged what its call had delivered.
    async fn end_overdue_holds(&self) -> Result<(), Error> {
        loop {
            let overdue = hold_overdue(&self.db, self.clock.now_ms(), AT_ONCE).await?;
            let more = overdue.len() as u64 >= AT_ONCE.unsigned_abs();
            let ops = overdue.into_iter().map(|row| (row.product, row.user_id, Act::Expire { hold_id: row.id }));
            self.submit(ops).await?;
            if !more || self.shutdown.is_triggered() {
                return Ok(());
            }
        }
    }

    /// Wallets that have used of an earlier day's bucket; the others have what they would be given. What is used
    /// before its turn comes is refreshed by the use.
    async fn refresh_used_wallets(&self, today: i64) -> Result<(), Error> {
        for product in self.products.iter() {
            let mut after = String::new();
            loop {
                let used = wallet_used_before(&self.db, &product.slug, today, &after, AT_ONCE).await?;
                let Some(last) = used.last() else { break };
                after.clone_from(last);
                let ops = used.into_iter().map(|user_id| (product.slug.clone(), user_id, Act::Touch));
                self.submit(ops).await?;
                if self.shutdown.is_triggered() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn submit(&self, ops: impl Iterator<Item = (String, String, Act)>) -> Result<(), Error> {
        let submit = |(product, user_id, act)| {
            self.ledger.submit(Op { product, user_id, key: None, reference: String::new(), act })
        };
        let done = join_all(ops.map(submit)).await;
        done.into_iter().collect::<Result<Vec<_>, Error>>().map(drop)
    }
}
