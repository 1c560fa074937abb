//! Logins that have begun at a provider, by the keyed hash of their state.
use weft_db::{Db, DbError, record, sql};

use crate::store::PRUNE_ROWS;

record! {
    /// A login that has begun.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LoginStateRow {
        /// Whose provider; empty: the product's own.
        pub organisation_id: String,
        /// The provider's issuer.
        pub issuer: String,
        /// Our client id there.
        pub client_id: String,
        /// Where the provider sends the browser back to.
        pub redirect_uri: String,
    }
}

/// Adds a login.
pub async fn login_state_insert(
    db: &Db,
    product: &str,
    hash: &str,
    row: &LoginStateRow,
    expires_at: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO login_states (product, hash, organisation_id, issuer, client_id, redirect_uri, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(product)
    .bind(hash)
    .bind(&row.organisation_id)
    .bind(&row.issuer)
    .bind(&row.client_id)
    .bind(&row.redirect_uri)
    .bind(expires_at)
    .run(db)
    .await
    .map(drop)
}

/// Takes a login that is in force: of many who ask for it, one gets it.
pub async fn login_state_take(
    db: &Db,
    product: &str,
    hash: &str,
    now_ms: i64,
) -> Result<Option<LoginStateRow>, DbError> {
    sql("DELETE FROM login_states WHERE product = $1 AND hash = $2 AND expires_at > $3 \
         RETURNING organisation_id, issuer, client_id, redirect_uri")
    .bind(product)
    .bind(hash)
    .bind(now_ms)
    .opt(db)
    .await
}

/// Deletes logins that can no longer be finished.
pub async fn login_state_prune(db: &Db, now_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM login_states WHERE (product, hash) IN \
         (SELECT product, hash FROM login_states WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(now_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
