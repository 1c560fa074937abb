//! Connections to GitHub, and those that have begun.
use weft_db::keyring::Sealed;
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::store::PRUNE_ROWS;

record! {
    /// A connection.
    #[derive(Clone)]
    pub struct ConnectionRow {
        /// Name of the GitHub account.
        pub login: String,
        /// With commas between.
        pub scopes: String,
        /// In ms since 1970.
        pub connected_at: i64,
        /// Another one with every token.
        pub token_id: String,
        /// Of the data key.
        pub key_id: String,
        /// The token, sealed.
        pub sealed: Vec<u8>,
        /// In ms since 1970; none: it does not expire.
        pub expires_at: Option<i64>,
        /// Renewals that GitHub did not answer.
        pub failures: i64,
        /// When GitHub took it no more, in ms since 1970.
        pub refused_at: Option<i64>,
    }
}

/// The columns of [`ConnectionRow`].
macro_rules! connection_columns {
    () => {
        "login, scopes, connected_at, token_id, key_id, sealed, expires_at, failures, refused_at"
    };
}

record! {
    /// A row whose token is sealed under an older key.
    pub struct OldSealRow {
        /// Slug of the product.
        pub product: String,
        /// Whose.
        pub account_id: String,
        /// Of the data key.
        pub key_id: String,
        /// The token, sealed.
        pub sealed: Vec<u8>,
    }
}

/// A token to store.
pub struct NewToken<'a> {
    /// Another one with every token.
    pub token_id: &'a str,
    /// For this row.
    pub sealed: &'a Sealed,
    /// With commas between.
    pub scopes: &'a str,
    /// In ms since 1970; none: it does not expire.
    pub expires_at: Option<i64>,
}

/// Notes that a connection has begun.
pub async fn github_state_insert(
    db: &Db,
    product: &str,
    hash: &str,
    account_id: &str,
    redirect_uri: &str,
    expires_at: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO github_states (product, hash, account_id, redirect_uri, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(product)
        .bind(hash)
        .bind(account_id)
        .bind(redirect_uri)
        .bind(expires_at)
        .run(db)
        .await
        .map(drop)
}

/// Takes what the account has begun and gives its redirect URI: of many who ask for it, one gets it.
pub async fn github_state_take(
    db: &Db,
    product: &str,
    hash: &str,
    account_id: &str,
    now_ms: i64,
) -> Result<Option<String>, DbError> {
    sql("DELETE FROM github_states WHERE product = $1 AND hash = $2 AND account_id = $3 AND expires_at > $4 \
         RETURNING redirect_uri")
    .bind(product)
    .bind(hash)
    .bind(account_id)
    .bind(now_ms)
    .opt(db)
    .await
}

/// Deletes what was begun and can no longer be finished.
pub async fn github_state_prune(db: &Db, now_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM github_states WHERE (product, hash) IN \
         (SELECT product, hash FROM github_states WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(now_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}

/// The connection of an account.
pub async fn github_find(on: &impl On, product: &str, account_id: &str) -> Result<Option<ConnectionRow>, DbError> {
    sql(concat!("SELECT ", connection_columns!(), " FROM github_connections WHERE product = $1 AND account_id = $2"))
        .bind(product)
        .bind(account_id)
        .opt(on)
        .await
}

/// Connects an account, whose lock the caller holds, in place of what was connected before.
pub async fn github_connect(
    tx: &Tx,
    product: &str,
    account_id: &str,
    login: &str,
    token: &NewToken<'_>,
    now_ms: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO github_connections \
             (product, account_id, login, scopes, connected_at, token_id, key_id, sealed, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (product, account_id) DO UPDATE SET login = $3, scopes = $4, connected_at = $5, token_id = $6, \
         key_id = $7, sealed = $8, expires_at = $9, renewing_until = NULL, failures = 0, refused_at = NULL")
    .bind(product)
    .bind(account_id)
    .bind(login)
    .bind(token.scopes)
    .bind(now_ms)
    .bind(token.token_id)
    .bind(&token.sealed.key_id)
    .bind(&token.sealed.bytes)
    .bind(token.expires_at)
    .run(tx)
    .await
    .map(drop)
}

/// Deletes a connection and gives what it was.
pub async fn github_delete(tx: &Tx, product: &str, account_id: &str) -> Result<Option<ConnectionRow>, DbError> {
    sql(concat!(
        "DELETE FROM github_connections WHERE product = $1 AND account_id = $2 RETURNING ",
        connection_columns!()
    ))
    .bind(product)
    .bind(account_id)
    .opt(tx)
    .await
}

/// Takes it upon oneself to renew a token until `until_ms`; false if somebody else does, or has.
pub async fn github_begin_renewal(
    db: &Db,
    product: &str,
    account_id: &str,
    token_id: &str,
    now_ms: i64,
    until_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE github_connections SET renewing_until = $5 WHERE product = $1 AND account_id = $2 \
         AND token_id = $3 AND refused_at IS NULL AND (renewing_until IS NULL OR renewing_until <= $4)")
    .bind(product)
    .bind(account_id)
    .bind(token_id)
    .bind(now_ms)
    .bind(until_ms)
    .run(db)
    .await?;
    Ok(rows == 1)
}

/// Writes what the token `old` was renewed to; false if the connection is not that one any more.
pub async fn github_renewed(
    db: &Db,
    product: &str,
    account_id: &str,
    old: &str,
    token: &NewToken<'_>,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE github_connections SET token_id = $4, key_id = $5, sealed = $6, expires_at = $7, \
         scopes = CASE WHEN $8 = '' THEN scopes ELSE $8 END, renewing_until = NULL \
         WHERE product = $1 AND account_id = $2 AND token_id = $3")
    .bind(product)
    .bind(account_id)
    .bind(old)
    .bind(token.token_id)
    .bind(&token.sealed.key_id)
    .bind(&token.sealed.bytes)
    .bind(token.expires_at)
    .bind(token.scopes)
    .run(db)
    .await?;
    Ok(rows == 1)
}

/// Notes that a token was not renewed: GitHub refused it at `refused_at`, or did not answer.
pub async fn github_not_renewed(
    db: &Db,
    product: &str,
    account_id: &str,
    token_id: &str,
    refused_at: Option<i64>,
) -> Result<(), DbError> {
    sql("UPDATE github_connections SET renewing_until = NULL, failures = failures + 1, refused_at = $4 \
         WHERE product = $1 AND account_id = $2 AND token_id = $3")
    .bind(product)
    .bind(account_id)
    .bind(token_id)
    .bind(refused_at)
    .run(db)
    .await
    .map(drop)
}

/// Connections that are sealed under another key than `key_id`, after this one.
pub async fn github_sealed_before(db: &Db, key_id: &str, after: (&str, &str)) -> Result<Vec<OldSealRow>, DbError> {
    sql("SELECT product, account_id, key_id, sealed FROM github_connections \
         WHERE key_id <> $1 AND (product, account_id) > ($2, $3) ORDER BY product, account_id LIMIT $4")
    .bind(key_id)
    .bind(after.0)
    .bind(after.1)
    .bind(PRUNE_ROWS as i64)
    .all(db)
    .await
}

/// Writes a token that was sealed again, over the very bytes that were read.
pub async fn github_reseal(db: &Db, old: &OldSealRow, new: &Sealed) -> Result<(), DbError> {
    sql("UPDATE github_connections SET key_id = $3, sealed = $4 \
         WHERE product = $1 AND account_id = $2 AND key_id = $5 AND sealed = $6")
    .bind(&old.product)
    .bind(&old.account_id)
    .bind(&new.key_id)
    .bind(&new.bytes)
    .bind(&old.key_id)
    .bind(&old.sealed)
    .run(db)
    .await
    .map(drop)
}
