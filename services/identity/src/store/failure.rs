//! Logins that failed, by the keyed hash of the address that was tried.
use weft_core::new_id;
use weft_db::{Db, DbError, On, Tx, sql};

use crate::store::PRUNE_ROWS;

/// Adds a failure.
pub async fn failure_insert(on: &impl On, product: &str, address: &str, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO login_failures (product, address, at, id) VALUES ($1, $2, $3, $4)")
        .bind(product)
        .bind(address)
        .bind(now_ms)
        .bind(new_id())
        .run(on)
        .await
        .map(drop)
}

/// When the last but `most - 1` failure after `after_ms` was, in ms since 1970; none if there were fewer than `most`.
pub async fn failure_find(
    on: &impl On,
    product: &str,
    address: &str,
    after_ms: i64,
    most: u32,
) -> Result<Option<i64>, DbError> {
    sql("SELECT at FROM login_failures WHERE product = $1 AND address = $2 AND at > $3 \
         ORDER BY at DESC LIMIT 1 OFFSET $4")
    .bind(product)
    .bind(address)
    .bind(after_ms)
    .bind(i64::from(most.saturating_sub(1)))
    .opt(on)
    .await
}

/// Deletes all failures of an address.
pub async fn failure_delete_all(tx: &Tx, product: &str, address: &str) -> Result<(), DbError> {
    sql("DELETE FROM login_failures WHERE product = $1 AND address = $2")
        .bind(product)
        .bind(address)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes failures at or before `before_ms`.
pub async fn failure_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM login_failures WHERE (product, address, at, id) IN \
         (SELECT product, address, at, id FROM login_failures WHERE at <= $1 ORDER BY at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
