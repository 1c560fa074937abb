//! Idempotency keys with their answers.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::idempotency::Key;
use crate::error::Error;

/// Most rows that one statement prunes.
pub const PRUNE_ROWS: u64 = 1000;

record! {
    struct KeyRow { request: Vec<u8>, answer: Vec<u8> }
}

/// The answer that a key was given.
///
/// # Errors
/// [`Error::IdempotencyKeyReused`] if it was given for another request.
pub async fn idempotency_find(on: &impl On, key: &Key) -> Result<Option<Vec<u8>>, Error> {
    let row: Option<KeyRow> = sql("SELECT request, answer FROM idempotency_keys \
         WHERE product = $1 AND user_id = $2 AND method = $3 AND key = $4")
    .bind(&key.product)
    .bind(&key.user_id)
    .bind(key.method)
    .bind(&key.key)
    .opt(on)
    .await?;
    match row {
        Some(row) if row.request != key.request => Err(Error::IdempotencyKeyReused),
        row => Ok(row.map(|row| row.answer)),
    }
}

/// Keeps an answer, in the transaction of its effect. False if the key has one already: then nothing of the
/// transaction may be kept.
pub async fn idempotency_store(tx: &Tx, key: &Key, answer: &[u8], now_ms: i64) -> Result<bool, DbError> {
    let stored = sql("INSERT INTO idempotency_keys (product, user_id, method, key, request, answer, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (product, user_id, method, key) DO NOTHING")
    .bind(&key.product)
    .bind(&key.user_id)
    .bind(key.method)
    .bind(&key.key)
    .bind(&key.request[..])
    .bind(answer)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(stored == 1)
}

/// Forgets keys made before a moment, at most [`PRUNE_ROWS`] of them; answers how many.
pub async fn idempotency_prune(on: &impl On, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM idempotency_keys WHERE (product, user_id, method, key) IN \
         (SELECT product, user_id, method, key FROM idempotency_keys WHERE created_at < $1 LIMIT 1000)")
    .bind(before_ms)
    .run(on)
    .await
}

record! {
    /// A key with its answer.
    pub struct KnownRow {
        product: String,
        user_id: String,
        method: String,
        key: String,
        /// SHA-256 of what was asked.
        pub request: Vec<u8>,
        /// What was answered.
        pub answer: Vec<u8>,
    }
}

impl KnownRow {
    /// Whether it is this key, whatever was asked with it.
    pub fn is(&self, key: &Key) -> bool {
        self.key == key.key && self.method == key.method && self.user_id == key.user_id && self.product == key.product
    }
}

/// PostgreSQL: those of the keys that have an answer.
pub async fn idempotency_known(tx: &Tx, keys: &[&Key]) -> Result<Vec<KnownRow>, DbError> {
    let of = |part: fn(&Key) -> &str| keys.iter().map(|key| part(key).to_owned()).collect::<Vec<String>>();
    sql("SELECT k.product, k.user_id, k.method, k.key, k.request, k.answer FROM idempotency_keys k \
         JOIN unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[]) AS a (product, user_id, method, key) \
         ON k.product = a.product AND k.user_id = a.user_id AND k.method = a.method AND k.key = a.key")
    .bind(of(|key| &key.product))
    .bind(of(|key| &key.user_id))
    .bind(of(|key| key.method))
    .bind(of(|key| &key.key))
    .all(tx)
    .await
}
