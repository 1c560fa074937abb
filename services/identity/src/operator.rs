//! What an operator does at the command line, straight in the database: the first administrator has nobody to ask.
//!
//! It works while the service runs, which hears of it as every other process does.
use secrecy::SecretString;
use weft_core::{Clock, new_id};
use weft_db::Tx;

use crate::api::admin::{Actor, change_account};
use crate::api::audit::hex;
use crate::audit;
use crate::connect_to;
use crate::domain::account::Email;
use crate::domain::administration::{RoleChange, UserChange};
use crate::domain::role::Role;
use crate::domain::token::SecretKeys;
use crate::error::Error;
use crate::keys;
use crate::store::account::{AccountRow, account_lock, account_places};

/// Who did it, in the audit events.
pub const OPERATOR: &str = "operator";
/// Connections that one command needs.
pub const CONNECTIONS: u32 = 1;

/// A role to give to somebody or to take.
#[derive(Clone, Copy, Debug)]
pub struct RoleOrder<'a> {
    /// Slug of the product; none: that of the only account there is.
    pub product: Option<&'a str>,
    /// Address of the account, in any case, or its id. Who signs in at an issuer only is found by id.
    pub account: &'a str,
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
    /// Slug of the product.
    pub product: String,
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
/// Errors: a database that cannot be used or is not at this version; an account that there is not, or in several
/// products; a role that there is not. Each is one sentence that says what to do.
pub async fn change_role(database_url: &str, clock: &Clock, order: RoleOrder<'_>) -> Result<RoleChanged, Error> {
    let role = Role::parse(order.role)?.ok_or(Error::UserRole)?;
    // An id has no @.
    let folded = if order.account.contains('@') { Email::parse(order.account)?.folded } else { String::new() };
    let db = connect_to(database_url, CONNECTIONS).await?;
    db.check_migrated(crate::MIGRATIONS).await?;
    let change = UserChange { roles: Some(RoleChange::One(role, order.given)), suspension: None };
    let request_id = new_id();
    let changed = db
        .write("change role", async |tx: Tx| {
            let found = account_places(&tx, order.product, &folded, order.account).await?;
            let place = match found.as_slice() {
                [place] => place,
                [] => {
                    let of = order.product.map(|slug| format!(" in {slug}")).unwrap_or_default();
                    return Err(Error::NoSuchAccount(format!("{}{of}", order.account)));
                }
                several => {
                    let slugs: Vec<&str> = several.iter().map(|place| place.product.as_str()).collect();
                    return Err(Error::SeveralProducts(slugs.join(", ")));
                }
            };
            let actor = Actor { id: OPERATOR, session_id: None, request_id: &request_id, now_ms: clock.now_ms() };
            let row = account_lock(&tx, &place.product, &place.id).await?.ok_or(Error::NoAccount)?;
            let changed = change_account(&tx, &place.product, &row.id, &change, &actor).await?.changed;
            let AccountRow { id: account_id, created_at, signed_in_at, .. } = row;
            Ok::<_, Error>(RoleChanged {
                changed,
                product: place.product.clone(),
                account_id,
                created_at,
                signed_in_at,
            })
        })
        .await;
    db.close().await;
    changed
}

/// What the look at a product's audit log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Whether every entry is as it was written and none is missing.
    pub ok: bool,
    /// Entries that were read.
    pub events: i64,
    /// Places of entries, each with `edited`, `missing` or `moved`; place 0 is the log's own note of how far it goes.
    pub faults: Vec<(i64, &'static str)>,
    /// Place of the last entry.
    pub last_number: i64,
    /// Its hash in hex.
    pub last_hash: String,
}

/// Looks at the whole audit log of a product.
///
/// Errors: a database that cannot be used or is not at this version; [`Error::WrongSecret`].
pub async fn verify_audit(database_url: &str, secret: &SecretString, product: &str) -> Result<AuditReport, Error> {
    let db = connect_to(database_url, CONNECTIONS).await?;
    db.check_migrated(crate::MIGRATIONS).await?;
    let secrets = SecretKeys::derive(secret);
    // With another secret every log would look as if somebody had changed it.
    keys::load(&db, &secrets).await?;
    let report = audit::look(&db, &secrets, product).await?;
    db.close().await;
    Ok(AuditReport {
        ok: report.is_ok(),
        events: report.events,
        faults: report.faults.iter().map(|fault| (fault.number, fault.kind.as_str())).collect(),
        last_number: report.last_number,
        last_hash: hex(&report.last_hash),
    })
}
