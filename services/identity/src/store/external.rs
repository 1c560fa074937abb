//! Accounts and sessions of external issuers.
use weft_db::{DbError, Tx, record, sql};

use crate::domain::account::{Account, Email};
use crate::domain::external::{ExternalIdentity, ExternalToken};
use crate::domain::session::Session;

record! {
    /// The account of an external identity, under its lock.
    pub struct ExternalRow {
        /// UUID v7 text.
        pub id: String,
        /// As shown.
        pub email: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// As stored.
        pub roles: String,
        /// In ms since 1970.
        pub suspended_at: Option<i64>,
    }
}

record! {
    /// Our session for a session at the issuer.
    pub struct ExternalSessionRow {
        /// UUID v7 text.
        pub id: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// In ms since 1970.
        pub expires_at: i64,
        /// In ms since 1970.
        pub ended_at: Option<i64>,
    }
}

/// Says whose account an identity is; false if somebody has said so before. Of several at once the others wait for the
/// first to commit. The account may be written after this, in the same transaction.
pub async fn external_insert(
    tx: &Tx,
    product: &str,
    identity: &ExternalIdentity,
    account_id: &str,
    now_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO external_identities (product, issuer, subject, account_id, created_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (product, issuer, subject) DO NOTHING")
    .bind(product)
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .bind(account_id)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Whose account an identity is.
pub async fn external_find(tx: &Tx, product: &str, identity: &ExternalIdentity) -> Result<Option<String>, DbError> {
    sql("SELECT account_id FROM external_identities WHERE product = $1 AND issuer = $2 AND subject = $3")
        .bind(product)
        .bind(&identity.issuer)
        .bind(&identity.subject)
        .opt(tx)
        .await
}

/// Adds the account of an identity. It has no password, and its place among the addresses is one that none can be.
pub async fn external_account_insert(
    tx: &Tx,
    account: &Account,
    email: Option<&Email>,
    verified_at: Option<i64>,
) -> Result<(), DbError> {
    sql("INSERT INTO accounts (product, id, email, email_folded, password_hash, created_at, signed_in_at, external_email, \
         email_verified_at) VALUES ($1, $2, $3, $4, '', $5, $5, $6, $7)")
    .bind(&account.product)
    .bind(&account.id)
    .bind(&account.email)
    .bind(format!("\u{1}{}", account.id))
    .bind(account.created_at)
    .bind(email.map_or("", |email| &email.folded))
    .bind(verified_at)
    .run(tx)
    .await
    .map(drop)
}

/// Notes a login, locks the account until the transaction ends, and shows the address that the issuer tells now, unless
/// the account has registered its own here. An address that was proven stays so for as long as it is the same.
pub async fn external_sign_in(
    tx: &Tx,
    product: &str,
    account_id: &str,
    email: Option<&Email>,
    verified: bool,
    now_ms: i64,
) -> Result<Option<ExternalRow>, DbError> {
    sql("UPDATE accounts SET signed_in_at = $3, \
         email = CASE WHEN external_email IS NULL THEN email ELSE $4 END, \
         email_verified_at = CASE WHEN external_email IS NULL OR \
             (external_email = $5 AND email_verified_at IS NOT NULL) THEN email_verified_at \
             WHEN $6 THEN $3 ELSE NULL END, \
         external_email = CASE WHEN external_email IS NULL THEN NULL ELSE $5 END \
         WHERE product = $1 AND id = $2 RETURNING id, email, created_at, roles, suspended_at")
    .bind(product)
    .bind(account_id)
    .bind(now_ms)
    .bind(email.map_or("", |email| &email.shown))
    .bind(email.map_or("", |email| &email.folded))
    .bind(verified)
    .opt(tx)
    .await
}

/// The account that has registered this address here and shown that mail to it arrives.
pub async fn account_by_verified_email(tx: &Tx, product: &str, email: &Email) -> Result<Option<String>, DbError> {
    sql("SELECT id FROM accounts WHERE product = $1 AND email_folded = $2 AND email_verified_at IS NOT NULL")
        .bind(product)
        .bind(&email.folded)
        .opt(tx)
        .await
}

/// Our session for a session at the issuer, if there is one. The caller holds the lock of the account.
pub async fn external_session_find(
    tx: &Tx,
    product: &str,
    identity: &ExternalIdentity,
    issuer_session: &str,
) -> Result<Option<ExternalSessionRow>, DbError> {
    sql("SELECT s.id, s.created_at, s.expires_at, s.ended_at FROM external_sessions e \
         JOIN sessions s ON s.product = e.product AND s.id = e.session_id \
         WHERE e.product = $1 AND e.issuer = $2 AND e.subject = $3 AND e.issuer_session = $4")
    .bind(product)
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .bind(issuer_session)
    .opt(tx)
    .await
}

/// Writes down which session is ours for a session at the issuer, from now on.
pub async fn external_session_set(
    tx: &Tx,
    identity: &ExternalIdentity,
    token: &ExternalToken,
    session: &Session,
) -> Result<(), DbError> {
    sql("INSERT INTO external_sessions (product, issuer, subject, issuer_session, session_id) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (product, issuer, subject, issuer_session) DO UPDATE SET session_id = excluded.session_id")
    .bind(&session.product)
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .bind(&token.session)
    .bind(&session.id)
    .run(tx)
    .await
    .map(drop)
}

/// Locks a session that is not over, notes that tokens were asked for and until when the issuer's word counts that its
/// account is an administrator; false if it is over.
pub async fn external_session_touch(
    tx: &Tx,
    product: &str,
    session_id: &str,
    admin_until: Option<i64>,
    now_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE sessions SET refreshed_at = $3, admin_until = $4 WHERE product = $1 AND id = $2 \
         AND ended_at IS NULL AND expires_at > $3")
    .bind(product)
    .bind(session_id)
    .bind(now_ms)
    .bind(admin_until)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Whether the issuer's word still counts that the account of a session is an administrator.
pub async fn external_session_is_admin(tx: &Tx, product: &str, session_id: &str, now_ms: i64) -> Result<bool, DbError> {
    let until: Option<i64> =
        sql("SELECT admin_until FROM sessions WHERE product = $1 AND id = $2 AND admin_until > $3")
            .bind(product)
            .bind(session_id)
            .bind(now_ms)
            .opt(tx)
            .await?;
    Ok(until.is_some())
}
