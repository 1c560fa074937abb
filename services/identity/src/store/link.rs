//! Links in mails, by the keyed hash of their token.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::link::LinkKind;
use crate::store::PRUNE_ROWS;

/// A link to store.
pub struct NewLink<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// The token's keyed hash.
    pub hash: &'a str,
    /// What it is good for.
    pub kind: LinkKind,
    /// Whose password or address.
    pub account_id: Option<&'a str>,
    /// Which invitation.
    pub invitation_id: Option<&'a str>,
    /// Keyed hash of the address that it is sent to; none for an invitation.
    pub address: Option<&'a str>,
    /// In ms since 1970.
    pub created_at: i64,
    /// In ms since 1970.
    pub expires_at: i64,
}

record! {
    /// A link that is in force.
    pub struct LinkRow {
        /// Whose password or address.
        pub account_id: Option<String>,
        /// Which invitation.
        pub invitation_id: Option<String>,
        /// Keyed hash of the address that is to be proven.
        pub address: Option<String>,
    }
}

/// Adds a link.
pub async fn link_insert(tx: &Tx, link: &NewLink<'_>) -> Result<(), DbError> {
    sql("INSERT INTO mail_links \
         (product, hash, kind, account_id, invitation_id, address, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(link.product)
    .bind(link.hash)
    .bind(link.kind.as_str())
    .bind(link.account_id)
    .bind(link.invitation_id)
    .bind(link.address)
    .bind(link.created_at)
    .bind(link.expires_at)
    .run(tx)
    .await
    .map(drop)
}

/// The link of a token, if it is in force.
pub async fn link_find(
    on: &impl On,
    product: &str,
    kind: LinkKind,
    hash: &str,
    now_ms: i64,
) -> Result<Option<LinkRow>, DbError> {
    sql("SELECT account_id, invitation_id, address FROM mail_links \
         WHERE product = $1 AND hash = $2 AND kind = $3 AND expires_at > $4")
    .bind(product)
    .bind(hash)
    .bind(kind.as_str())
    .bind(now_ms)
    .opt(on)
    .await
}

/// When the newest mails of a kind to an address (its keyed hash) were handed over, at most `most`, newest first, in ms since 1970; of
/// links made after `after_ms`.
pub async fn link_sent(
    tx: &Tx,
    product: &str,
    kind: LinkKind,
    address: &str,
    after_ms: i64,
    most: i64,
) -> Result<Vec<i64>, DbError> {
    sql("SELECT sent_at FROM mail_links \
         WHERE product = $1 AND address = $2 AND kind = $3 AND created_at > $4 AND sent_at IS NOT NULL \
         ORDER BY created_at DESC LIMIT $5")
    .bind(product)
    .bind(address)
    .bind(kind.as_str())
    .bind(after_ms)
    .bind(most)
    .all(tx)
    .await
}

/// Whether a job waits or is being done.
pub async fn link_has_job(tx: &Tx, product: &str, job_id: &str) -> Result<bool, DbError> {
    let found: Option<i64> =
        sql("SELECT run_at FROM jobs WHERE product = $1 AND id = $2").bind(product).bind(job_id).opt(tx).await?;
    Ok(found.is_some())
}

/// Deletes a job of an account, whose lock the caller holds.
pub async fn link_delete_job(tx: &Tx, product: &str, job_id: &str) -> Result<(), DbError> {
    sql("DELETE FROM jobs WHERE product = $1 AND id = $2").bind(product).bind(job_id).run(tx).await.map(drop)
}

/// Notes that the mail with the token was handed over.
pub async fn link_mark_sent(tx: &Tx, product: &str, hash: &str, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE mail_links SET sent_at = $3 WHERE product = $1 AND hash = $2")
        .bind(product)
        .bind(hash)
        .bind(now_ms)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes every link of a kind of an account, whose lock the caller holds.
pub async fn link_delete_all(tx: &Tx, product: &str, kind: LinkKind, account_id: &str) -> Result<(), DbError> {
    sql("DELETE FROM mail_links WHERE product = $1 AND account_id = $2 AND kind = $3")
        .bind(product)
        .bind(account_id)
        .bind(kind.as_str())
        .run(tx)
        .await
        .map(drop)
}

/// Makes the links of an account, whose lock the caller holds, good for nothing. They stay until their time is over, without
/// the account, because an address is sent so many mails, whoever has it.
pub async fn link_void_all(tx: &Tx, product: &str, account_id: &str) -> Result<(), DbError> {
    sql("UPDATE mail_links SET account_id = NULL WHERE product = $1 AND account_id = $2")
        .bind(product)
        .bind(account_id)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes links that expired at or before `before_ms`.
pub async fn link_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM mail_links WHERE (product, hash) IN \
         (SELECT product, hash FROM mail_links WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
