//! Forgetting what no longer matters. Every replica does it; doing it twice changes nothing.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use weft_db::{Db, DbError};
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::domain::session::GRACE_MS;
use crate::store::PRUNE_ROWS;
use crate::store::audit::audit_prune;
use crate::store::revocation::revocation_prune;
use crate::store::session::session_prune;
use crate::store::token::{token_forget_sealed, token_prune};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Sealed pairs outlive their ten seconds by this much, because the clocks of replicas differ.
const CLOCKS_DIFFER_MS: i64 = 2_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Tidies up until the shutdown.
pub async fn run(identity: Arc<Identity>, audit_days: u32, shutdown: Shutdown) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = tidy(&identity.db, identity.clock.now_ms(), audit_days).await {
            tracing::warn!(%error, "tidying up failed, trying again in {EVERY:?}");
        }
    }
}

async fn tidy(db: &Db, now_ms: i64, audit_days: u32) -> Result<(), DbError> {
    token_forget_sealed(db, now_ms - GRACE_MS - CLOCKS_DIFFER_MS).await?;
    revocation_prune(db, now_ms).await?;
    while token_prune(db, now_ms).await? >= PRUNE_ROWS {}
    while session_prune(db, now_ms).await? >= PRUNE_ROWS {}
    while audit_prune(db, now_ms - i64::from(audit_days) * DAY_MS).await? >= PRUNE_ROWS {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use weft_db::{DbOptions, Tx, sql};

    use super::*;
    use crate::domain::session::Session;
    use crate::domain::token::AccessTimes;
    use crate::store::revocation::revocation_insert;
    use crate::store::session::session_insert;
    use crate::store::token::{Exchange, NewToken, token_consume, token_insert};

    const DAYS: u32 = 30;

    /// A session that ends at 5 days with a token that was exchanged at once and ends at 2 days.
    async fn database(folder: &std::path::Path) -> Db {
        let url = format!("sqlite://{}", folder.join("identity.db").display());
        let db = Db::connect(&DbOptions { url, schema: "identity", max_connections: 2 }).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        sql("INSERT INTO accounts VALUES ('p', 'a', 'a@b.c', 'a@b.c', '', 0)").run(&db).await.unwrap();
        sql("INSERT INTO audit_events VALUES ('e', 'p', 'register', 'a', NULL, 'r', 0)").run(&db).await.unwrap();
        db.write("set up", async |tx: Tx| {
            let (product, id, account_id) = ("p".to_owned(), "s".to_owned(), "a".to_owned());
            let session = Session { product, id, account_id, created_at: 0, expires_at: 5 * DAY_MS, ended_at: None };
            session_insert(&tx, &session).await?;
            let access = AccessTimes { issued: 0, expires: 600 };
            let token =
                NewToken { product: "p", hash: "h", session_id: "s", issued_at: 0, expires_at: 2 * DAY_MS, access };
            token_insert(&tx, &token).await?;
            token_consume(&tx, "p", "h", &Exchange { successor: "n", sealed: b"sealed", at: 0 }).await?;
            revocation_insert(&tx, "s", 600_000).await
        })
        .await
        .unwrap();
        db
    }

    /// Rows of: sealed pairs, ended sessions, tokens, sessions, audit events.
    async fn left(db: &Db, now_ms: i64) -> [i64; 5] {
        tidy(db, now_ms, DAYS).await.unwrap();
        [
            sql("SELECT COUNT(*) FROM refresh_tokens WHERE sealed IS NOT NULL").one(db).await.unwrap(),
            sql("SELECT COUNT(*) FROM revocations").one(db).await.unwrap(),
            sql("SELECT COUNT(*) FROM refresh_tokens").one(db).await.unwrap(),
            sql("SELECT COUNT(*) FROM sessions").one(db).await.unwrap(),
            sql("SELECT COUNT(*) FROM audit_events").one(db).await.unwrap(),
        ]
    }

    #[tokio::test]
    async fn everything_is_kept_for_as_long_as_it_matters() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        assert_eq!(left(&db, GRACE_MS).await, [1, 1, 1, 1, 1]);
        assert_eq!(left(&db, GRACE_MS + CLOCKS_DIFFER_MS).await, [0, 1, 1, 1, 1]);
        assert_eq!(left(&db, 599_999).await, [0, 1, 1, 1, 1]);
        assert_eq!(left(&db, 600_000).await, [0, 0, 1, 1, 1]);
        assert_eq!(left(&db, 2 * DAY_MS).await, [0, 0, 0, 1, 1]);
        assert_eq!(left(&db, 5 * DAY_MS).await, [0, 0, 0, 0, 1]);
        assert_eq!(left(&db, i64::from(DAYS) * DAY_MS).await, [0, 0, 0, 0, 0]);
    }
}
