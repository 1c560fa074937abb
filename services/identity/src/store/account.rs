//! Accounts.
use weft_db::{Db, DbError, Tx, record, sql};

use crate::domain::account::{Account, Email};
use crate::domain::token::AccessTimes;

record! {
    /// An account with what proves that somebody owns it.
    pub struct CredentialRow {
        /// UUID v7 text.
        pub id: String,
        /// As registered.
        pub email: String,
        /// PHC string.
        pub password_hash: String,
        /// In ms since 1970.
        pub created_at: i64,
    }
}

record! {
    /// An account as one of its access tokens reaches it.
    pub struct ProfileRow {
        /// As registered.
        pub email: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// When the session of the token was ended.
        pub ended_at: Option<i64>,
        /// The refresh token that came with the access token, as a keyed hash; none if it was pruned.
        pub hash: Option<String>,
        /// When the access token was first seen here.
        pub access_seen_at: Option<i64>,
        /// When the pair was withdrawn.
        pub revoked_at: Option<i64>,
    }
}

/// Adds an account; false if the product has one with this address.
pub async fn account_insert(tx: &Tx, account: &Account, email: &Email, password_hash: &str) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO accounts (product, id, email, email_folded, password_hash, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product, email_folded) DO NOTHING")
    .bind(&account.product)
    .bind(&account.id)
    .bind(&account.email)
    .bind(&email.folded)
    .bind(password_hash)
    .bind(account.created_at)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// The account with this address.
pub async fn account_by_email(db: &Db, product: &str, email: &Email) -> Result<Option<CredentialRow>, DbError> {
    sql("SELECT id, email, password_hash, created_at FROM accounts WHERE product = $1 AND email_folded = $2")
        .bind(product)
        .bind(&email.folded)
        .opt(db)
        .await
}

/// The account behind an access token, with its session and pair: three index look-ups in one statement.
pub async fn account_profile(
    db: &Db,
    product: &str,
    session_id: &str,
    account_id: &str,
    access: AccessTimes,
) -> Result<Option<ProfileRow>, DbError> {
    sql("SELECT a.email, a.created_at, s.ended_at, t.hash, t.access_seen_at, t.revoked_at \
         FROM sessions s \
         JOIN accounts a ON a.product = s.product AND a.id = s.account_id \
         LEFT JOIN refresh_tokens t ON t.product = s.product AND t.session_id = s.id \
             AND t.access_iat = $4 AND t.access_exp = $5 \
         WHERE s.product = $1 AND s.id = $2 AND s.account_id = $3")
    .bind(product)
    .bind(session_id)
    .bind(account_id)
    .bind(access.issued)
    .bind(access.expires)
    .opt(db)
    .await
}
