//! Sessions. Each function that changes one takes its row lock, so it is the first statement of its transaction.
use weft_db::{Db, DbError, Tx, sql};

use crate::domain::session::{EndReason, Session};
use crate::store::PRUNE_ROWS;

/// Adds a session.
pub async fn session_insert(tx: &Tx, session: &Session) -> Result<(), DbError> {
    sql("INSERT INTO sessions (product, id, account_id, created_at, refreshed_at, expires_at) VALUES ($1, $2, $3, $4, $4, $5)")
        .bind(&session.product)
        .bind(&session.id)
        .bind(&session.account_id)
        .bind(session.created_at)
        .bind(session.expires_at)
        .run(tx)
        .await
        .map(drop)
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
