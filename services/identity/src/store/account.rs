//! Accounts.
use weft_db::{Db, DbError, Tx, record, sql};

use crate::domain::account::{Account, Email};

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

/// The account behind an access token, with its session: two index look-ups in one statement.
pub async fn account_profile(
    db: &Db,
    product: &str,
    session_id: &str,
    account_id: &str,
) -> Result<Option<ProfileRow>, DbError> {
    sql("SELECT a.email, a.created_at, s.ended_at FROM sessions s \
         JOIN accounts a ON a.product = s.product AND a.id = s.account_id \
         WHERE s.product = $1 AND s.id = $2 AND s.account_id = $3")
    .bind(product)
    .bind(session_id)
    .bind(account_id)
    .opt(db)
    .await
}
