//! Signing keys.
use weft_db::{Db, DbError, record, sql};

record! {
    /// A signing key as it is stored.
    pub struct KeyRow {
        /// Key id, as in the header of tokens.
        pub kid: String,
        /// The Ed25519 seed, sealed.
        pub sealed: Vec<u8>,
    }
}

/// Every key, the one that signs first.
pub async fn key_list(db: &Db) -> Result<Vec<KeyRow>, DbError> {
    sql("SELECT kid, sealed FROM signing_keys ORDER BY number DESC LIMIT 100").all(db).await
}

/// Adds the first key, unless another replica was faster.
pub async fn key_insert_first(db: &Db, key: &KeyRow, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO signing_keys (number, kid, sealed, created_at) VALUES (1, $1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(&key.kid)
        .bind(&key.sealed)
        .bind(now_ms)
        .run(db)
        .await
        .map(drop)
}

/// Whether any row is sealed under this data key.
pub async fn data_key_is_used(db: &Db, id: &str) -> Result<bool, DbError> {
    sql("SELECT EXISTS (SELECT 1 FROM github_connections WHERE key_id = $1) \
         OR EXISTS (SELECT 1 FROM sso_connections WHERE key_id = $1)")
    .bind(id)
    .one(db)
    .await
}
