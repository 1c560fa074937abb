//! Accounts that were made elsewhere, and what their password hashes cost.
use weft_db::{Db, DbError, On, Tx, sql};

use crate::domain::account::{Account, Email};
use crate::store::PRUNE_ROWS;

/// An account to add with the hash it brings along.
pub struct ImportedAccount<'a> {
    /// The account.
    pub account: &'a Account,
    /// Its address.
    pub email: &'a Email,
    /// Text of a hash that can be checked.
    pub password_hash: &'a str,
    /// What stands in for a hash of that cost; none if it is one of ours.
    pub shape: Option<&'a str>,
    /// When the address was proven, in ms since 1970.
    pub email_verified_at: Option<i64>,
}

/// Adds an account that nobody has signed in to; false if the product has one with this address.
pub async fn import_insert(tx: &Tx, row: &ImportedAccount<'_>) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO accounts \
             (product, id, email, email_folded, password_hash, hash_shape, created_at, email_verified_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (product, email_folded) DO NOTHING")
    .bind(&row.account.product)
    .bind(&row.account.id)
    .bind(&row.email.shown)
    .bind(&row.email.folded)
    .bind(row.password_hash)
    .bind(row.shape)
    .bind(row.account.created_at)
    .bind(row.email_verified_at)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Which of these addresses (a JSON list, in lower case) the product has.
pub async fn import_existing(db: &Db, product: &str, folded: &str) -> Result<Vec<String>, DbError> {
    sql("SELECT email_folded FROM accounts WHERE product = $1 AND email_folded IN (SELECT value FROM json_each($2)) \
         LIMIT 1000")
    .on_postgres(
        "SELECT email_folded FROM accounts WHERE product = $1 \
         AND email_folded IN (SELECT jsonb_array_elements_text($2::jsonb)) LIMIT 1000",
    )
    .bind(product)
    .bind(folded)
    .all(db)
    .await
}

/// Notes that accounts have hashes of such a cost.
pub async fn shape_insert(tx: &Tx, product: &str, shape: &str, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO hash_shapes (product, shape, imported_at) VALUES ($1, $2, $3) \
         ON CONFLICT (product, shape) DO UPDATE SET imported_at = excluded.imported_at")
    .bind(product)
    .bind(shape)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// What stands in for hashes that are not of our own cost; at most `most`.
pub async fn shape_list(on: &impl On, product: &str, most: i64) -> Result<Vec<String>, DbError> {
    sql("SELECT shape FROM hash_shapes WHERE product = $1 ORDER BY shape LIMIT $2")
        .bind(product)
        .bind(most)
        .all(on)
        .await
}

/// Deletes those that no account has any more and that were not imported after `before_ms`.
pub async fn shape_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM hash_shapes WHERE (product, shape) IN (SELECT s.product, s.shape FROM hash_shapes s \
             WHERE s.imported_at <= $1 AND NOT EXISTS (SELECT 1 FROM accounts a \
                 WHERE a.product = s.product AND a.hash_shape = s.shape) ORDER BY s.imported_at LIMIT $2) \
         AND imported_at <= $1")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
