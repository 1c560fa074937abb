//! Forgetting what no longer matters. Every replica does it; doing it twice changes nothing.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use weft_db::Db;
use weft_db::keyring::Keyring;
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::api::sign_in::FAILURES_WITHIN_MS;
use crate::audit;
use crate::domain::session::GRACE_MS;
use crate::domain::token::SecretKeys;
use crate::error::Error;
use crate::github::tokens;
use crate::sign_on;
use crate::store::PRUNE_ROWS;
use crate::store::failure::failure_prune;
use crate::store::github::github_state_prune;
use crate::store::import::shape_prune;
use crate::store::invitation::invitation_prune;
use crate::store::key::data_key_is_used;
use crate::store::link::link_prune;
use crate::store::login_state::login_state_prune;
use crate::store::revocation::revocation_prune;
use crate::store::session::session_prune;
use crate::store::token::{token_forget_sealed, token_prune};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Sealed pairs outlive their ten seconds by this much, because the clocks of replicas differ.
const CLOCKS_DIFFER_MS: i64 = 10_000;
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
        let now_ms = identity.clock.now_ms();
        let tidied = tidy(&identity.db, now_ms, &shutdown).await;
        let kept_ms = i64::from(audit_days) * DAY_MS;
        if let Err(error) = tidied.and(tend_logs(&identity.db, &identity.secrets, now_ms, kept_ms, &shutdown).await) {
            tracing::warn!(%error, "tidying up failed, trying again in {EVERY:?}");
        }
        if let Err(error) = sign_on::reseal(&identity.db, &identity.sign_on.keyring).await {
            tracing::warn!(%error, "client secrets could not be sealed again, trying again in {EVERY:?}");
        }
        if let Err(error) = tend_keys(&identity.db, &identity.sign_on.keyring, &shutdown).await {
            tracing::warn!(%error, "GitHub tokens could not be sealed again, trying again in {EVERY:?}");
        }
    }
}

async fn tidy(db: &Db, now_ms: i64, shutdown: &Shutdown) -> Result<(), Error> {
    let unsealed_ms = now_ms - GRACE_MS - CLOCKS_DIFFER_MS;
    to_the_end(shutdown, || token_forget_sealed(db, unsealed_ms)).await?;
    to_the_end(shutdown, || revocation_prune(db, now_ms)).await?;
    to_the_end(shutdown, || failure_prune(db, now_ms - FAILURES_WITHIN_MS)).await?;
    to_the_end(shutdown, || token_prune(db, now_ms)).await?;
    to_the_end(shutdown, || login_state_prune(db, now_ms)).await?;
    to_the_end(shutdown, || github_state_prune(db, now_ms)).await?;
    to_the_end(shutdown, || link_prune(db, now_ms)).await?;
    to_the_end(shutdown, || invitation_prune(db, now_ms)).await?;
    to_the_end(shutdown, || shape_prune(db, now_ms - DAY_MS)).await?;
    to_the_end(shutdown, || session_prune(db, now_ms)).await
}

/// Seals GitHub tokens again that are under an old key, and forgets the keys that nothing is sealed under.
async fn tend_keys(db: &Db, keyring: &Keyring, shutdown: &Shutdown) -> Result<(), Error> {
    tokens::reseal(db, keyring, shutdown).await?;
    let mut unused = Vec::new();
    for id in keyring.replaced().await? {
        if !data_key_is_used(db, &id).await? {
            unused.push(id);
        }
    }
    keyring.forget(&unused).await?;
    Ok(())
}

/// Takes care of the audit logs: entries are kept for `kept_ms`.
async fn tend_logs(db: &Db, secrets: &SecretKeys, now_ms: i64, kept_ms: i64, shutdown: &Shutdown) -> Result<(), Error> {
    while !shutdown.is_triggered() && audit::place(db, now_ms, kept_ms).await? {}
    audit::seal(db, secrets, shutdown).await?;
    to_the_end(shutdown, || audit::prune(db, secrets, now_ms - kept_ms)).await
}

/// Prunes until nothing is left, or until the shutdown, which waits for one statement at most.
async fn to_the_end<E, F: Future<Output = Result<u64, E>>>(
    shutdown: &Shutdown,
    mut prune: impl FnMut() -> F,
) -> Result<(), Error>
where
    Error: From<E>,
{
    while !shutdown.is_triggered() && prune().await? >= PRUNE_ROWS {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use weft_db::{AssertSqlSafe, DbError, DbOptions, Tx, sql};

    use super::*;
    use crate::domain::client::Client;
    use crate::domain::session::Session;
    use crate::domain::token::Access;
    use crate::store::failure::failure_insert;
    use crate::store::revocation::revocation_insert;
    use crate::store::session::session_insert;
    use crate::store::token::{Exchange, NewToken, token_consume, token_insert};

    const DAYS: u32 = 30;

    /// A session that ends at 5 days with a token that was exchanged at once and ends at 2 days.
    async fn database(folder: &std::path::Path) -> Db {
        let url = format!("sqlite://{}", folder.join("identity.db").display());
        let db = Db::connect(&DbOptions { url, schema: "identity", max_connections: 2 }).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        sql("INSERT INTO accounts (product, id, email, email_folded, password_hash, created_at) \
             VALUES ('p', 'a', 'a@b.c', 'a@b.c', '', 0)")
        .run(&db)
        .await
        .unwrap();
        sql("INSERT INTO audit_events (id, product, kind, account_id, request_id, at) \
             VALUES ('e', 'p', 'register', 'a', 'r', 0)")
        .run(&db)
        .await
        .unwrap();
        db.write("set up", async |tx: Tx| {
            let (product, id, account_id) = ("p".to_owned(), "s".to_owned(), "a".to_owned());
            let session = Session { product, id, account_id, created_at: 0, expires_at: 5 * DAY_MS, ended_at: None };
            session_insert(&tx, &session, &Client::default()).await?;
            let access = Access { id: "j".to_owned(), issued: 0, expires: 600 };
            let token = NewToken {
                product: "p",
                hash: "h",
                session_id: "s",
                issued_at: 0,
                expires_at: 2 * DAY_MS,
                access: &access,
            };
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
        let shutdown = Shutdown::new();
        tidy(db, now_ms, &shutdown).await.unwrap();
        let secrets = SecretKeys::derive(&"a secret".into());
        audit::begin(db, &secrets, &[]).await.unwrap();
        tend_logs(db, &secrets, now_ms, i64::from(DAYS) * DAY_MS, &shutdown).await.unwrap();
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

    #[tokio::test]
    async fn a_failed_login_is_forgotten_when_it_no_longer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        failure_insert(&db, "p", "address", 0).await.unwrap();
        let failures = async || sql("SELECT COUNT(*) FROM login_failures").one::<i64>(&db).await.unwrap();
        left(&db, FAILURES_WITHIN_MS - 1).await;
        assert_eq!(failures().await, 1);
        left(&db, FAILURES_WITHIN_MS).await;
        assert_eq!(failures().await, 0);
    }

    /// As many rows as two statements delete and one over, of each kind that was once deleted in one.
    async fn many(db: &Db) {
        let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2001)";
        for text in [
            "INSERT INTO refresh_tokens (product, hash, session_id, issued_at, expires_at, access_id, access_exp, \
             consumed_at, sealed) SELECT 'p', 'many' || n, 's', 0, 1000000, 'many' || n, 600, 0, 'sealed' FROM n",
            "INSERT INTO revocations (position, ended_id, expires_at) SELECT 1000 + n, 'many' || n, 0 FROM n",
        ] {
            let text = text.replace("INSERT", &format!("{rows} INSERT"));
            sql(AssertSqlSafe(text)).run(db).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_statement_changes_a_bounded_number_of_rows_and_tidying_goes_on_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        many(&db).await;
        assert_eq!(token_forget_sealed(&db, 1).await.unwrap(), PRUNE_ROWS);
        assert_eq!(revocation_prune(&db, 1).await.unwrap(), PRUNE_ROWS);
        assert_eq!(left(&db, GRACE_MS + CLOCKS_DIFFER_MS).await, [0, 1, 2002, 1, 1]);
    }

    #[tokio::test]
    async fn tidying_stops_at_the_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(folder.path()).await;
        let shutdown = Shutdown::new();
        let mut statements = 0;
        let prune = || {
            statements += 1;
            shutdown.trigger();
            std::future::ready(Ok::<_, DbError>(PRUNE_ROWS))
        };
        to_the_end(&shutdown, prune).await.unwrap();
        assert_eq!(statements, 1);
        tidy(&db, 100 * DAY_MS, &shutdown).await.unwrap();
        let sessions: i64 = sql("SELECT COUNT(*) FROM sessions").one(&db).await.unwrap();
        assert_eq!(sessions, 1);
    }
}
