//! Organisations and memberships. Whoever changes one locks the organisation's row first.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::organisation::MemberRole;
use crate::domain::page::Page;

record! {
    /// An organisation under its lock.
    #[derive(Clone, Debug)]
    pub struct OrganisationRow {
        /// UUID v7 text.
        pub id: String,
        /// Whose subscription pays for the seats.
        pub owner_id: String,
    }
}

record! {
    /// An organisation as one of its members sees it.
    #[derive(Clone, Debug)]
    pub struct MineRow {
        /// UUID v7 text.
        pub id: String,
        /// Name.
        pub name: String,
        /// Account of the owner.
        pub owner_id: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// The member's role, see [`MemberRole::stored`].
        pub role: String,
        /// How many members there are.
        pub members: i64,
    }
}

record! {
    /// A member as others see them.
    #[derive(Clone, Debug)]
    pub struct MemberRow {
        /// Account id.
        pub account_id: String,
        /// Address of the account.
        pub email: String,
        /// Name for others to see.
        pub display_name: Option<String>,
        /// As stored.
        pub role: String,
        /// In ms since 1970.
        pub joined_at: i64,
    }
}

/// A new organisation.
pub struct NewOrganisation<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// UUID v7 text.
    pub id: &'a str,
    /// Name.
    pub name: &'a str,
    /// Account of the owner.
    pub owner_id: &'a str,
    /// In ms since 1970.
    pub created_at: i64,
}

/// A new member.
pub struct NewMember<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Of which organisation.
    pub organisation_id: &'a str,
    /// Who.
    pub account_id: &'a str,
    /// What they may do.
    pub role: MemberRole,
    /// In ms since 1970.
    pub joined_at: i64,
}

/// The columns of [`MineRow`] from `organisations o JOIN memberships m`.
macro_rules! mine {
    () => {
        "SELECT o.id, o.name, o.owner_id, o.created_at, m.role, (SELECT COUNT(*) FROM memberships n \
             WHERE n.product = o.product AND n.organisation_id = o.id) AS members \
         FROM memberships m JOIN organisations o ON o.product = m.product AND o.id = m.organisation_id "
    };
}

/// The columns of [`MemberRow`].
macro_rules! member {
    () => {
        "SELECT m.account_id, a.email, a.display_name, m.role, m.joined_at \
         FROM memberships m JOIN accounts a ON a.product = m.product AND a.id = m.account_id "
    };
}

/// Adds an organisation; its owner becomes a member with [`member_insert`].
pub async fn organisation_insert(tx: &Tx, new: &NewOrganisation<'_>) -> Result<(), DbError> {
    sql("INSERT INTO organisations (product, id, name, owner_id, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(new.product)
        .bind(new.id)
        .bind(new.name)
        .bind(new.owner_id)
        .bind(new.created_at)
        .run(tx)
        .await
        .map(drop)
}

/// How many organisations an account owns.
pub async fn organisation_owned(on: &impl On, product: &str, owner_id: &str) -> Result<i64, DbError> {
    sql("SELECT COUNT(*) FROM organisations WHERE product = $1 AND owner_id = $2")
        .bind(product)
        .bind(owner_id)
        .one(on)
        .await
}

/// Ids of the organisations that an account owns, at most `most`.
pub async fn organisation_ids_owned(
    on: &impl On,
    product: &str,
    owner_id: &str,
    most: i64,
) -> Result<Vec<String>, DbError> {
    sql("SELECT id FROM organisations WHERE product = $1 AND owner_id = $2 ORDER BY id LIMIT $3")
        .bind(product)
        .bind(owner_id)
        .bind(most)
        .all(on)
        .await
}

/// Locks an organisation until the transaction ends.
pub async fn organisation_lock(tx: &Tx, product: &str, id: &str) -> Result<Option<OrganisationRow>, DbError> {
    sql("UPDATE organisations SET name = name WHERE product = $1 AND id = $2 RETURNING id, owner_id")
        .bind(product)
        .bind(id)
        .opt(tx)
        .await
}

/// Renames an organisation that is locked.
pub async fn organisation_rename(tx: &Tx, product: &str, id: &str, name: &str) -> Result<(), DbError> {
    sql("UPDATE organisations SET name = $3 WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .bind(name)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes an organisation that is locked, with its memberships and invitations.
pub async fn organisation_delete(tx: &Tx, product: &str, id: &str) -> Result<(), DbError> {
    sql("DELETE FROM organisations WHERE product = $1 AND id = $2").bind(product).bind(id).run(tx).await.map(drop)
}

/// One organisation as a member sees it; none if the account is no member of it.
pub async fn organisation_find(
    on: &impl On,
    product: &str,
    id: &str,
    account_id: &str,
) -> Result<Option<MineRow>, DbError> {
    sql(concat!(mine!(), "WHERE m.product = $1 AND m.organisation_id = $2 AND m.account_id = $3"))
        .bind(product)
        .bind(id)
        .bind(account_id)
        .opt(on)
        .await
}

/// The organisations of an account, oldest first; one more than the page has, if there are more.
pub async fn organisation_list(db: &Db, product: &str, account_id: &str, page: &Page) -> Result<Vec<MineRow>, DbError> {
    sql(concat!(
        mine!(),
        "WHERE m.product = $1 AND m.account_id = $2 AND ($3 = '' OR m.organisation_id > $3) \
         ORDER BY m.organisation_id LIMIT $4"
    ))
    .bind(product)
    .bind(account_id)
    .bind(&page.after)
    .bind(page.size + 1)
    .all(db)
    .await
}

/// Adds a member to an organisation that is locked; false if they are one. For who joins, use
/// [`crate::api::Identity::join`], which sees to the seat.
pub async fn member_insert(tx: &Tx, new: &NewMember<'_>) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO memberships (product, organisation_id, account_id, role, joined_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (product, organisation_id, account_id) DO NOTHING")
    .bind(new.product)
    .bind(new.organisation_id)
    .bind(new.account_id)
    .bind(new.role.as_str())
    .bind(new.joined_at)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// A member's role; none for who is none.
pub async fn member_role(
    on: &impl On,
    product: &str,
    organisation_id: &str,
    account_id: &str,
) -> Result<Option<MemberRole>, DbError> {
    let role: Option<String> =
        sql("SELECT role FROM memberships WHERE product = $1 AND organisation_id = $2 AND account_id = $3")
            .bind(product)
            .bind(organisation_id)
            .bind(account_id)
            .opt(on)
            .await?;
    Ok(role.map(|role| MemberRole::stored(&role)))
}

/// Whether a member has this address, in lower case.
pub async fn member_has_email(
    on: &impl On,
    product: &str,
    organisation_id: &str,
    email_folded: &str,
) -> Result<bool, DbError> {
    let found: Option<String> = sql("SELECT m.account_id FROM memberships m \
         JOIN accounts a ON a.product = m.product AND a.id = m.account_id \
         WHERE m.product = $1 AND m.organisation_id = $2 AND COALESCE(a.external_email, a.email_folded) = $3 LIMIT 1")
    .bind(product)
    .bind(organisation_id)
    .bind(email_folded)
    .opt(on)
    .await?;
    Ok(found.is_some())
}

/// One member as others see them.
pub async fn member_find(
    on: &impl On,
    product: &str,
    organisation_id: &str,
    account_id: &str,
) -> Result<Option<MemberRow>, DbError> {
    sql(concat!(member!(), "WHERE m.product = $1 AND m.organisation_id = $2 AND m.account_id = $3"))
        .bind(product)
        .bind(organisation_id)
        .bind(account_id)
        .opt(on)
        .await
}

/// Members, longest first, after the one who joined at `after.0` with the id `after.1`; one more than the page has, if
/// there are more.
pub async fn member_list(
    db: &Db,
    product: &str,
    organisation_id: &str,
    after: (i64, &str),
    size: i64,
) -> Result<Vec<MemberRow>, DbError> {
    sql(concat!(
        member!(),
        "WHERE m.product = $1 AND m.organisation_id = $2 AND (m.joined_at, m.account_id) > ($3, $4) \
         ORDER BY m.joined_at, m.account_id LIMIT $5"
    ))
    .bind(product)
    .bind(organisation_id)
    .bind(after.0)
    .bind(after.1)
    .bind(size + 1)
    .all(db)
    .await
}

/// Gives a member of an organisation that is locked another role.
pub async fn member_set_role(
    tx: &Tx,
    product: &str,
    organisation_id: &str,
    account_id: &str,
    role: MemberRole,
) -> Result<(), DbError> {
    sql("UPDATE memberships SET role = $4 WHERE product = $1 AND organisation_id = $2 AND account_id = $3")
        .bind(product)
        .bind(organisation_id)
        .bind(account_id)
        .bind(role.as_str())
        .run(tx)
        .await
        .map(drop)
}

/// Removes a member of an organisation that is locked.
pub async fn member_delete(tx: &Tx, product: &str, organisation_id: &str, account_id: &str) -> Result<(), DbError> {
    sql("DELETE FROM memberships WHERE product = $1 AND organisation_id = $2 AND account_id = $3")
        .bind(product)
        .bind(organisation_id)
        .bind(account_id)
        .run(tx)
        .await
        .map(drop)
}

/// The organisations that an account is a member of, with their owners, by id; at most `most`.
pub async fn member_of(
    on: &impl On,
    product: &str,
    account_id: &str,
    most: i64,
) -> Result<Vec<OrganisationRow>, DbError> {
    sql("SELECT o.id, o.owner_id FROM memberships m \
         JOIN organisations o ON o.product = m.product AND o.id = m.organisation_id \
         WHERE m.product = $1 AND m.account_id = $2 ORDER BY o.id LIMIT $3")
    .bind(product)
    .bind(account_id)
    .bind(most)
    .all(on)
    .await
}
