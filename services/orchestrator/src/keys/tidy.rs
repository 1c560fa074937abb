//! What time brings to keys: old calls go, and after a rotation every key is sealed again. Every replica does it.
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use weft_core::Clock;
use weft_db::keyring::{KeyringError, Sealed};
use weft_runtime::Shutdown;

use crate::error::Error;
use crate::keys::bound_to;
use crate::store::provider_key::{key_names, key_reseal, key_sealed_before};
use crate::store::provider_key_use::use_prune;
use crate::store::{Database, Ready};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);
/// Calls over a key are kept for this long.
const KEEP_USES_MS: i64 = 90 * 24 * 3_600 * 1_000;
/// Rows that are changed between two looks at the shutdown.
const BATCH: i64 = 200;

/// Looks after everything until the shutdown.
pub async fn run(database: Database, clock: Clock, shutdown: Shutdown) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => {}
        }
        let Ok(ready) = database.ready() else { continue };
        tokio::select! {
            () = shutdown.wait() => return,
            done = tidy(ready, &clock) => if let Err(error) = done {
                tracing::warn!(%error, "keys could not be looked after, trying again");
            }
        }
    }
}

async fn tidy(ready: &Ready, clock: &Clock) -> Result<(), Error> {
    let before = clock.now_ms().saturating_sub(KEEP_USES_MS);
    while use_prune(&ready.db, before, BATCH).await? > 0 {}
    reseal(ready).await?;
    forget(ready).await
}

/// Seals what is under an older data key under the current one.
async fn reseal(Ready { db, keyring }: &Ready) -> Result<(), Error> {
    loop {
        let rows = key_sealed_before(db, BATCH).await?;
        let mut changed = 0;
        for row in &rows {
            let old = Sealed { key_id: row.key_id.clone(), bytes: row.sealed.clone() };
            match keyring.renew(&bound_to(&row.product, &row.account_id, &row.id), &old).await {
                Ok(Some(new)) => changed += u32::from(key_reseal(db, row, &new.key_id, &new.bytes).await?),
                Ok(None) => {}
                // Its owner has to replace it; the others need not wait for that.
                Err(KeyringError::NotOurs) => {
                    tracing::error!(product = row.product, id = row.id, "a provider key cannot be opened");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if changed == 0 {
            return Ok(());
        }
        tracing::info!(changed, "keys sealed again");
    }
}

/// Forgets the data keys that nothing is sealed under any more.
async fn forget(Ready { db, keyring }: &Ready) -> Result<(), Error> {
    let mut unused = Vec::new();
    for id in keyring.replaced().await? {
        if !key_names(db, &id).await? {
            unused.push(id);
        }
    }
    if !unused.is_empty() {
        let forgotten = keyring.forget(&unused).await?;
        tracing::info!(forgotten, "old data keys forgotten");
    }
    Ok(())
}
