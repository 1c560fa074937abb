//! Invitations. Whoever changes one holds the lock of its organisation.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::page::Page;
use crate::store::PRUNE_ROWS;

record! {
    /// An invitation as owner and admins see it.
    #[derive(Clone, Debug)]
    pub struct InvitationRow {
        /// UUID v7 text.
        pub id: String,
        /// As it was written.
        pub email: String,
        /// As stored.
        pub role: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// In ms since 1970.
        pub expires_at: i64,
    }
}

record! {
    /// What somebody is invited to.
    #[derive(Clone, Debug)]
    pub struct InvitedRow {
        /// UUID v7 text.
        pub id: String,
        /// Of which organisation.
        pub organisation_id: String,
        /// Its name.
        pub organisation: String,
        /// The invited address as it was written.
        pub email: String,
        /// The same in lower case.
        pub email_folded: String,
        /// As stored.
        pub role: String,
        /// In ms since 1970.
        pub expires_at: i64,
        /// When it was accepted, withdrawn or replaced.
        pub ended_at: Option<i64>,
        /// Who accepted it.
        pub accepted_by: Option<String>,
    }
}

/// A new invitation.
pub struct NewInvitation<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// UUID v7 text.
    pub id: &'a str,
    /// To which organisation.
    pub organisation_id: &'a str,
    /// Account of who invites.
    pub invited_by: &'a str,
    /// As it was written.
    pub email: &'a str,
    /// In lower case.
    pub email_folded: &'a str,
    /// Role after joining.
    pub role: &'a str,
    /// In ms since 1970.
    pub created_at: i64,
    /// In ms since 1970.
    pub expires_at: i64,
}

/// Adds an invitation, after [`invitation_end_for`].
pub async fn invitation_insert(tx: &Tx, new: &NewInvitation<'_>) -> Result<(), DbError> {
    sql("INSERT INTO invitations \
             (product, id, organisation_id, email, email_folded, role, created_at, expires_at, invited_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(new.product)
    .bind(new.id)
    .bind(new.organisation_id)
    .bind(new.email)
    .bind(new.email_folded)
    .bind(new.role)
    .bind(new.created_at)
    .bind(new.expires_at)
    .bind(new.invited_by)
    .run(tx)
    .await
    .map(drop)
}

/// Ends the invitation of an address that is open, also if it has expired.
pub async fn invitation_end_for(
    tx: &Tx,
    product: &str,
    organisation_id: &str,
    email_folded: &str,
    now_ms: i64,
) -> Result<(), DbError> {
    sql("UPDATE invitations SET ended_at = $4 \
         WHERE product = $1 AND organisation_id = $2 AND email_folded = $3 AND ended_at IS NULL")
    .bind(product)
    .bind(organisation_id)
    .bind(email_folded)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// Withdraws what somebody who runs the organisation no more invited to it: they could have invited themselves.
pub async fn invitation_end_by(
    tx: &Tx,
    product: &str,
    organisation_id: &str,
    invited_by: &str,
    now_ms: i64,
) -> Result<(), DbError> {
    sql("UPDATE invitations SET ended_at = $4 \
         WHERE product = $1 AND organisation_id = $2 AND invited_by = $3 AND ended_at IS NULL")
    .bind(product)
    .bind(organisation_id)
    .bind(invited_by)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// Withdraws an open invitation; false if there is none.
pub async fn invitation_revoke(
    tx: &Tx,
    product: &str,
    organisation_id: &str,
    id: &str,
    now_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE invitations SET ended_at = $4 \
         WHERE product = $1 AND organisation_id = $2 AND id = $3 AND ended_at IS NULL AND expires_at > $4")
    .bind(product)
    .bind(organisation_id)
    .bind(id)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Notes who accepted an open invitation; false if it is not open any more.
pub async fn invitation_accept(
    tx: &Tx,
    product: &str,
    id: &str,
    account_id: &str,
    now_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE invitations SET ended_at = $4, accepted_by = $3 \
         WHERE product = $1 AND id = $2 AND ended_at IS NULL AND expires_at > $4")
    .bind(product)
    .bind(id)
    .bind(account_id)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// How many invitations of an organisation are open.
pub async fn invitation_count(on: &impl On, product: &str, organisation_id: &str, now_ms: i64) -> Result<i64, DbError> {
    sql("SELECT COUNT(*) FROM invitations \
         WHERE product = $1 AND organisation_id = $2 AND ended_at IS NULL AND expires_at > $3")
    .bind(product)
    .bind(organisation_id)
    .bind(now_ms)
    .one(on)
    .await
}

/// When the last but `most - 1` invitation of an address after `after_ms` was made, in ms since 1970; none if there were
/// fewer than `most`.
pub async fn invitation_made(
    on: &impl On,
    product: &str,
    organisation_id: &str,
    email_folded: &str,
    after_ms: i64,
    most: i64,
) -> Result<Option<i64>, DbError> {
    sql("SELECT created_at FROM invitations \
         WHERE product = $1 AND organisation_id = $2 AND email_folded = $3 AND created_at > $4 \
         ORDER BY created_at DESC LIMIT 1 OFFSET $5")
    .bind(product)
    .bind(organisation_id)
    .bind(email_folded)
    .bind(after_ms)
    .bind(most - 1)
    .opt(on)
    .await
}

/// An invitation, open or not, with the name of its organisation.
pub async fn invitation_find(on: &impl On, product: &str, id: &str) -> Result<Option<InvitedRow>, DbError> {
    sql("SELECT i.id, i.organisation_id, o.name AS organisation, i.email, i.email_folded, i.role, i.expires_at, \
         i.ended_at, i.accepted_by \
         FROM invitations i JOIN organisations o ON o.product = i.product AND o.id = i.organisation_id \
         WHERE i.product = $1 AND i.id = $2")
    .bind(product)
    .bind(id)
    .opt(on)
    .await
}

/// Open invitations of an organisation, newest first; one more than the page has, if there are more.
pub async fn invitation_list(
    db: &Db,
    product: &str,
    organisation_id: &str,
    now_ms: i64,
    page: &Page,
) -> Result<Vec<InvitationRow>, DbError> {
    sql("SELECT id, email, role, created_at, expires_at FROM invitations \
         WHERE product = $1 AND organisation_id = $2 AND ended_at IS NULL AND expires_at > $3 \
         AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5")
    .bind(product)
    .bind(organisation_id)
    .bind(now_ms)
    .bind(&page.after)
    .bind(page.size + 1)
    .all(db)
    .await
}

/// Deletes invitations that expired at or before `before_ms`.
pub async fn invitation_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM invitations WHERE (product, id) IN \
         (SELECT product, id FROM invitations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
