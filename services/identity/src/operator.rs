//! What an operator does at the command line, straight in the database: the first administrator has nobody to ask.
//!
//! It works while the service runs, which hears of it as every other process does.
use weft_core::{Clock, new_id};
use weft_db::Tx;

use crate::api::admin::{Actor, change_account};
use crate::connect_to;
use crate::domain::account::Email;
use crate::domain::administration::{RoleChange, UserChange};
use crate::domain::role::Role;
use crate::error::Error;
use crate::store::account::{AccountRow, account_by_email, account_lock};

/// Who did it, in the audit events.
const OPERATOR: &str = "operator";
/// Connections that one command needs.
const CONNECTIONS: u32 = 1;

/// A role to give to somebody or to take.
#[derive(Clone, Copy, Debug)]
pub struct RoleOrder<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Address of the account, in any case.
    pub email: &'a str,
    /// `reviewer`, `support` or `admin`.
    pub role: &'a str,
    /// Whether it is given.
    pub given: bool,
}

/// Whose role it was and what came of it, for the operator to see that it was the right one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleChanged {
    /// Whether anything is different now.
    pub changed: bool,
    /// Account id.
    pub account_id: String,
    /// When the account was created, in ms since 1970.
    pub created_at: i64,
    /// When somebody last signed in, in ms since 1970; none: not since this is written down.
    pub signed_in_at: Option<i64>,
}

/// Gives or takes a role. It counts everywhere within a second: tokens with the
/// old roles are refused, and refreshing gives new ones.
///
/// Errors: a database that cannot be used or is not at this version; an address that nobody has; a role that there is
/// not. Each is one sentence that says what to do.
pub async fn change_role(database_url: &str, clock: &Clock, order: RoleOrder<'_>) -> Result<RoleChanged, Error> {
    let role = Role::parse(order.role)?.ok_or(Error::UserRole)?;
    let email = Email::parse(order.email)?;
    let db = connect_to(database_url, CONNECTIONS).await?;
    db.check_migrated(crate::MIGRATIONS).await?;
    let change = UserChange { roles: Some(RoleChange::One(role, order.given)), suspension: None };
    let request_id = new_id();
    let changed = db
        .write("change role", async |tx: Tx| {
            let found = account_by_email(&tx, order.product, &email).await?;
            let found = found.ok_or_else(|| Error::NoSuchEmail {
                email: order.email.to_owned(),
                product: order.product.to_owned(),
            })?;
            let actor = Actor { id: OPERATOR, session_id: None, request_id: &request_id, now_ms: clock.now_ms() };
            let row = account_lock(&tx, order.product, &found.id).await?.ok_or(Error::NoAccount)?;
            let changed = change_account(&tx, order.product, &row.id, &change, &actor).await?.changed;
            let AccountRow { id: account_id, created_at, signed_in_at, .. } = row;
            Ok::<_, Error>(RoleChanged { changed, account_id, created_at, signed_in_at })
        })
        .await;
    db.close().await;
    changed
}
