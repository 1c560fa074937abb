//! Sessions. Each function that changes one takes its row lock, so it is the first statement of its transaction.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::client::Client;
use crate::domain::page::Page;
use crate::domain::session::{EndReason, Session};
use crate::store::PRUNE_ROWS;

record! {
    /// A session as its owner sees it.
    pub struct SessionRow {
        /// The claim `sid`.
        pub id: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// When a pair of tokens was last asked for, in ms since 1970.
        pub refreshed_at: i64,
        /// When an access token of it was last found in use for the first time, in ms since 1970.
        pub seen_at: Option<i64>,
        /// Its absolute end, in ms since 1970.
        pub expires_at: i64,
        /// Network of the client that signed in.
        pub client_address: Option<String>,
        /// What that client calls itself.
        pub user_agent: Option<String>,
    }
}

/// Adds a session.
pub async fn session_insert(tx: &Tx, session: &Session, client: &Client) -> Result<(), DbError> {
    sql("INSERT INTO sessions (product, id, account_id, created_at, refreshed_at, expires_at, client_address, user_agent) \
         VALUES ($1, $2, $3, $4, $4, $5, $6, $7)")
    .bind(&session.product)
    .bind(&session.id)
    .bind(&session.account_id)
    .bind(session.created_at)
    .bind(session.expires_at)
    .bind(client.network.clone())
    .bind(client.user_agent.clone())
    .run(tx)
    .await
    .map(drop)
}

/// The sessions of an account that are not over, newest first; one more than the page has, if there are more.
pub async fn session_list(
    db: &Db,
    product: &str,
    account_id: &str,
    now_ms: i64,
    page: &Page,
) -> Result<Vec<SessionRow>, DbError> {
    sql("SELECT s.id, s.created_at, s.refreshed_at, s.expires_at, s.client_address, s.user_agent, \
         (SELECT MAX(t.access_seen_at) FROM refresh_tokens t WHERE t.product = s.product AND t.session_id = s.id) \
             AS seen_at \
         FROM sessions s WHERE s.product = $1 AND s.account_id = $2 AND s.ended_at IS NULL AND s.expires_at > $3 \
         AND ($4 = '' OR s.id < $4) ORDER BY s.id DESC LIMIT $5")
    .bind(product)
    .bind(account_id)
    .bind(now_ms)
    .bind(&page.after)
    .bind(page.size + 1)
    .all(db)
    .await
}

/// Locks every session of an account until the transaction ends, so that nobody refreshes one meanwhile. The caller
/// holds the lock of the account, so that nobody begins one.
pub async fn session_lock_all(tx: &Tx, product: &str, account_id: &str) -> Result<(), DbError> {
    sql("UPDATE sessions SET refreshed_at = refreshed_at WHERE product = $1 AND account_id = $2 AND ended_at IS NULL")
        .bind(product)
        .bind(account_id)
        .run(tx)
        .await
        .map(drop)
}

/// Ends every session of an account, or all but `keep`; says how many. The caller holds the lock of the account.
pub async fn session_end_all(
    tx: &Tx,
    product: &str,
    account_id: &str,
    keep: Option<&str>,
    reason: EndReason,
    now_ms: i64,
) -> Result<u64, DbError> {
    sql("UPDATE sessions SET ended_at = $3, end_reason = $4 WHERE product = $1 AND account_id = $2 \
         AND ended_at IS NULL AND expires_at > $3 AND id <> $5")
    .bind(product)
    .bind(account_id)
    .bind(now_ms)
    .bind(reason.as_str())
    .bind(keep.unwrap_or_default())
    .run(tx)
    .await
}

/// Whether this is a session of the account's that is not over.
pub async fn session_is_open(
    on: &impl On,
    product: &str,
    account_id: &str,
    id: &str,
    now_ms: i64,
) -> Result<bool, DbError> {
    let found: Option<i64> = sql("SELECT created_at FROM sessions WHERE product = $1 AND id = $2 AND account_id = $3 \
         AND ended_at IS NULL AND expires_at > $4")
    .bind(product)
    .bind(id)
    .bind(account_id)
    .bind(now_ms)
    .opt(on)
    .await?;
    Ok(found.is_some())
}

/// Locks the session of a refresh token until the transaction ends; false if there is none. What else the
/// transaction reads, it reads afterwards: only then does it see what the holder of the lock before it has done.
pub async fn session_lock_by_token(tx: &Tx, product: &str, hash: &str, now_ms: i64) -> Result<bool, DbError> {
    let rows = sql("UPDATE sessions SET refreshed_at = $3 WHERE product = $1 \
         AND id = (SELECT session_id FROM refresh_tokens WHERE product = $1 AND hash = $2)")
    .bind(product)
    .bind(hash)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Ends a session; false if there is none that is not over already.
pub async fn session_end(tx: &Tx, product: &str, id: &str, reason: EndReason, now_ms: i64) -> Result<bool, DbError> {
    let rows =
        sql("UPDATE sessions SET ended_at = $3, end_reason = $4 WHERE product = $1 AND id = $2 AND ended_at IS NULL")
            .bind(product)
            .bind(id)
            .bind(now_ms)
            .bind(reason.as_str())
            .run(tx)
            .await?;
    Ok(rows == 1)
}

/// When the last access token of a session expires, in s since 1970.
pub async fn session_last_access(tx: &Tx, product: &str, id: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT MAX(access_exp) FROM refresh_tokens WHERE product = $1 AND session_id = $2")
        .bind(product)
        .bind(id)
        .one(tx)
        .await
}

/// Deletes sessions past their absolute end. Their tokens ended no later, so [`token_prune`] has them already.
///
/// [`token_prune`]: crate::store::token::token_prune
pub async fn session_prune(db: &Db, now_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM sessions WHERE (product, id) IN \
         (SELECT product, id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(now_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
