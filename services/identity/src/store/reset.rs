//! Tokens of links to a new password, by their keyed hash.
use weft_db::{Db, DbError, On, Tx, sql};

use crate::store::PRUNE_ROWS;

/// A token to store.
pub struct NewReset<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// The token's keyed hash.
    pub hash: &'a str,
    /// Whose password.
    pub account_id: &'a str,
    /// In ms since 1970.
    pub created_at: i64,
    /// In ms since 1970.
    pub expires_at: i64,
}

/// Adds a token.
pub async fn reset_insert(tx: &Tx, reset: &NewReset<'_>) -> Result<(), DbError> {
    sql("INSERT INTO password_resets (product, hash, account_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(reset.product)
        .bind(reset.hash)
        .bind(reset.account_id)
        .bind(reset.created_at)
        .bind(reset.expires_at)
        .run(tx)
        .await
        .map(drop)
}

/// Whose password a token sets, if it is in force.
pub async fn reset_find(on: &impl On, product: &str, hash: &str, now_ms: i64) -> Result<Option<String>, DbError> {
    sql("SELECT account_id FROM password_resets WHERE product = $1 AND hash = $2 AND expires_at > $3")
        .bind(product)
        .bind(hash)
        .bind(now_ms)
        .opt(on)
        .await
}

/// When the newest mails to an account were handed over, at most `most`, newest first, in ms since 1970; of links made
/// after `after_ms`.
pub async fn reset_sent(
    tx: &Tx,
    product: &str,
    account_id: &str,
    after_ms: i64,
    most: i64,
) -> Result<Vec<i64>, DbError> {
    sql("SELECT sent_at FROM password_resets \
         WHERE product = $1 AND account_id = $2 AND created_at > $3 AND sent_at IS NOT NULL \
         ORDER BY created_at DESC LIMIT $4")
    .bind(product)
    .bind(account_id)
    .bind(after_ms)
    .bind(most)
    .all(tx)
    .await
}

/// Whether a job waits or is being done.
pub async fn reset_has_job(tx: &Tx, product: &str, job_id: &str) -> Result<bool, DbError> {
    let found: Option<i64> =
        sql("SELECT run_at FROM jobs WHERE product = $1 AND id = $2").bind(product).bind(job_id).opt(tx).await?;
    Ok(found.is_some())
}

/// Deletes the job of an account, whose lock the caller holds.
pub async fn reset_delete_job(tx: &Tx, product: &str, job_id: &str) -> Result<(), DbError> {
    sql("DELETE FROM jobs WHERE product = $1 AND id = $2").bind(product).bind(job_id).run(tx).await.map(drop)
}

/// Notes that the mail with the token was handed over.
pub async fn reset_mark_sent(tx: &Tx, product: &str, hash: &str, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE password_resets SET sent_at = $3 WHERE product = $1 AND hash = $2")
        .bind(product)
        .bind(hash)
        .bind(now_ms)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes every token of an account, whose lock the caller holds.
pub async fn reset_delete_all(tx: &Tx, product: &str, account_id: &str) -> Result<(), DbError> {
    sql("DELETE FROM password_resets WHERE product = $1 AND account_id = $2")
        .bind(product)
        .bind(account_id)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes tokens that expired at or before `before_ms`.
pub async fn reset_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM password_resets WHERE (product, hash) IN \
         (SELECT product, hash FROM password_resets WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
