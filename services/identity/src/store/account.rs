//! Accounts. What changes one takes its row lock before any session's, so two changes of one account never wait for
//! each other crosswise.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::account::{Account, Email};
use crate::domain::page::Page;
use crate::domain::profile::ProfileChange;
use crate::domain::role::Roles;

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
    /// What the moment of signing in found.
    pub struct SignedInRow {
        /// As stored, see [`Roles::stored`].
        pub roles: String,
        /// In ms since 1970.
        pub suspended_at: Option<i64>,
    }
}

record! {
    /// An account as one of its access tokens reaches it.
    pub struct ProfileRow {
        /// As registered.
        pub email: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// As stored.
        pub roles: String,
        /// Name for others to see.
        pub display_name: Option<String>,
        /// BCP 47 tag.
        pub locale: Option<String>,
        /// Name of the IANA database.
        pub time_zone: Option<String>,
        /// URL of a picture.
        pub avatar_url: Option<String>,
        /// When the session of the token was ended.
        pub ended_at: Option<i64>,
        /// When it was shown that mail to the address arrives.
        pub email_verified_at: Option<i64>,
    }
}

record! {
    /// An account as an administrator sees it.
    #[derive(Clone, Debug)]
    pub struct AccountRow {
        /// UUID v7 text.
        pub id: String,
        /// As registered.
        pub email: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// As stored.
        pub roles: String,
        /// In ms since 1970; none if nobody has since this is written down.
        pub signed_in_at: Option<i64>,
        /// In ms since 1970.
        pub suspended_at: Option<i64>,
        /// Why.
        pub suspend_reason: Option<String>,
        /// Name for others to see.
        pub display_name: Option<String>,
    }
}

/// The columns of [`AccountRow`].
macro_rules! account_columns {
    () => {
        "id, email, created_at, roles, signed_in_at, suspended_at, suspend_reason, display_name"
    };
}

/// Which accounts a list shows.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    /// What the address in lower case begins with.
    pub email_prefix: String,
    /// Only those that are suspended, or only those that are not.
    pub suspended: Option<bool>,
}

/// Adds an account; false if the product has one with this address.
pub async fn account_insert(tx: &Tx, account: &Account, email: &Email, password_hash: &str) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO accounts (product, id, email, email_folded, password_hash, created_at, signed_in_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (product, email_folded) DO NOTHING")
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
pub async fn account_by_email(on: &impl On, product: &str, email: &Email) -> Result<Option<CredentialRow>, DbError> {
    sql("SELECT id, email, password_hash, created_at FROM accounts WHERE product = $1 AND email_folded = $2")
        .bind(product)
        .bind(&email.folded)
        .opt(on)
        .await
}

record! {
    /// Where an account is.
    pub struct PlaceRow {
        /// Slug of the product.
        pub product: String,
        /// UUID v7 text.
        pub id: String,
    }
}

/// Accounts with this address in lower case or this id, in all products or in one.
pub async fn account_places(
    on: &impl On,
    product: Option<&str>,
    folded: &str,
    id: &str,
) -> Result<Vec<PlaceRow>, DbError> {
    sql("SELECT product, id FROM accounts WHERE ($1 IS NULL OR product = $1) AND (email_folded = $2 OR id = $3) \
         ORDER BY product LIMIT 100")
    .bind(product)
    .bind(folded)
    .bind(id)
    .all(on)
    .await
}

/// Notes a login and locks the account until the transaction ends; none if its password is not `password_hash` any
/// more, so that nobody begins a session with a password that was changed while it was being checked.
pub async fn account_sign_in(
    tx: &Tx,
    product: &str,
    id: &str,
    password_hash: &str,
    now_ms: i64,
) -> Result<Option<SignedInRow>, DbError> {
    sql("UPDATE accounts SET signed_in_at = $4 WHERE product = $1 AND id = $2 AND password_hash = $3 \
         RETURNING roles, suspended_at")
    .bind(product)
    .bind(id)
    .bind(password_hash)
    .bind(now_ms)
    .opt(tx)
    .await
}

/// The account behind an access token with what proves that somebody owns it; none if the session is over.
pub async fn account_credential(
    db: &Db,
    product: &str,
    session_id: &str,
    account_id: &str,
) -> Result<Option<CredentialRow>, DbError> {
    sql("SELECT a.id, a.email, a.password_hash, a.created_at \
         FROM sessions s JOIN accounts a ON a.product = s.product AND a.id = s.account_id \
         WHERE s.product = $1 AND s.id = $2 AND s.account_id = $3 AND s.ended_at IS NULL")
    .bind(product)
    .bind(session_id)
    .bind(account_id)
    .opt(db)
    .await
}

/// Writes another password hash and locks the account until the transaction ends; false if `from` is given and is not
/// the present one.
pub async fn account_set_password(
    tx: &Tx,
    product: &str,
    id: &str,
    from: Option<&str>,
    to: &str,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE accounts SET password_hash = $4, hash_shape = NULL WHERE product = $1 AND id = $2 \
         AND ($3 IS NULL OR password_hash = $3)")
    .bind(product)
    .bind(id)
    .bind(from)
    .bind(to)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// The account behind an access token, with its session: two index look-ups in one statement.
pub async fn account_profile(
    on: &impl On,
    product: &str,
    session_id: &str,
    account_id: &str,
) -> Result<Option<ProfileRow>, DbError> {
    sql("SELECT a.email, a.created_at, a.roles, a.display_name, a.locale, a.time_zone, a.avatar_url, s.ended_at, \
         a.email_verified_at \
         FROM sessions s JOIN accounts a ON a.product = s.product AND a.id = s.account_id \
         WHERE s.product = $1 AND s.id = $2 AND s.account_id = $3")
    .bind(product)
    .bind(session_id)
    .bind(account_id)
    .opt(on)
    .await
}

/// Changes what is named; an empty text becomes none.
pub async fn account_set_profile(tx: &Tx, product: &str, id: &str, change: &ProfileChange) -> Result<(), DbError> {
    sql("UPDATE accounts SET display_name = CASE WHEN $3 IS NULL THEN display_name ELSE NULLIF($3, '') END, \
         locale = CASE WHEN $4 IS NULL THEN locale ELSE NULLIF($4, '') END, \
         time_zone = CASE WHEN $5 IS NULL THEN time_zone ELSE NULLIF($5, '') END, \
         avatar_url = CASE WHEN $6 IS NULL THEN avatar_url ELSE NULLIF($6, '') END \
         WHERE product = $1 AND id = $2")
    .bind(product)
    .bind(id)
    .bind(change.display_name.clone())
    .bind(change.locale.clone())
    .bind(change.time_zone.clone())
    .bind(change.avatar_url.clone())
    .run(tx)
    .await
    .map(drop)
}

/// One account of the product.
pub async fn account_find(db: &Db, product: &str, id: &str) -> Result<Option<AccountRow>, DbError> {
    sql(concat!("SELECT ", account_columns!(), " FROM accounts WHERE product = $1 AND id = $2"))
        .bind(product)
        .bind(id)
        .opt(db)
        .await
}

/// Locks an account until the transaction ends.
pub async fn account_lock(tx: &Tx, product: &str, id: &str) -> Result<Option<AccountRow>, DbError> {
    sql(concat!("UPDATE accounts SET roles = roles WHERE product = $1 AND id = $2 RETURNING ", account_columns!()))
        .bind(product)
        .bind(id)
        .opt(tx)
        .await
}

/// Accounts of a product, newest first; one more than the page has, if there are more.
pub async fn account_list(
    db: &Db,
    product: &str,
    filter: &AccountFilter,
    page: &Page,
) -> Result<Vec<AccountRow>, DbError> {
    sql(concat!(
        "SELECT ",
        account_columns!(),
        " FROM accounts WHERE product = $1 AND ($2 = '' OR id < $2) \
         AND ($3 = '' OR substr(COALESCE(external_email, email_folded), 1, CAST(length($3) AS INTEGER)) = $3) \
         AND ($4 IS NULL OR (suspended_at IS NOT NULL) = $4) ORDER BY id DESC LIMIT $5 OFFSET $6"
    ))
    .bind(product)
    .bind(&page.after)
    .bind(&filter.email_prefix)
    .bind(filter.suspended)
    .bind(page.size + 1)
    .bind(page.offset)
    .all(db)
    .await
}

/// Notes that mail to the address of an account reaches its owner.
pub async fn account_set_verified(tx: &Tx, product: &str, id: &str, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE accounts SET email_verified_at = $3 WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .bind(now_ms)
        .run(tx)
        .await
        .map(drop)
}

/// Whether it was shown that mail to the address of an account reaches its owner.
pub async fn account_is_verified(on: &impl On, product: &str, id: &str) -> Result<bool, DbError> {
    let found: Option<Option<i64>> = sql("SELECT email_verified_at FROM accounts WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .opt(on)
        .await?;
    Ok(found.flatten().is_some())
}

/// Writes the roles of an account that is locked.
pub async fn account_set_roles(tx: &Tx, product: &str, id: &str, roles: &Roles) -> Result<(), DbError> {
    sql("UPDATE accounts SET roles = $3 WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .bind(roles.to_stored())
        .run(tx)
        .await
        .map(drop)
}

/// Suspends an account that is locked, or restores it with none.
pub async fn account_set_suspended(
    tx: &Tx,
    product: &str,
    id: &str,
    since_ms: Option<i64>,
    reason: Option<&str>,
) -> Result<(), DbError> {
    sql("UPDATE accounts SET suspended_at = $3, suspend_reason = $4 WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .bind(since_ms)
        .bind(reason)
        .run(tx)
        .await
        .map(drop)
}
