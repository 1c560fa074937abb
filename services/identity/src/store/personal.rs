//! What there is of one account: to give it out, and to delete it.
use weft_db::{Db, DbError, Tx, record, sql};

/// Most rows in one part of an export; of what there may be more of, the next part has the rest.
pub const PART_ROWS: i64 = 1000;

record! {
    /// The account itself.
    pub struct PersonRow {
        /// As registered.
        pub email: String,
        /// In ms since 1970.
        pub email_verified_at: Option<i64>,
        /// In ms since 1970.
        pub created_at: i64,
        /// In ms since 1970.
        pub signed_in_at: Option<i64>,
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
        /// In ms since 1970.
        pub suspended_at: Option<i64>,
    }
}

/// The account itself.
pub async fn person_find(db: &Db, product: &str, id: &str) -> Result<Option<PersonRow>, DbError> {
    sql("SELECT email, email_verified_at, created_at, signed_in_at, roles, display_name, locale, time_zone, avatar_url, \
         suspended_at FROM accounts WHERE product = $1 AND id = $2")
    .bind(product)
    .bind(id)
    .opt(db)
    .await
}

record! {
    /// A session.
    pub struct PersonSessionRow {
        /// The claim `sid`.
        pub id: String,
        /// In ms since 1970.
        pub created_at: i64,
        /// In ms since 1970.
        pub refreshed_at: i64,
        /// In ms since 1970.
        pub expires_at: i64,
        /// In ms since 1970.
        pub ended_at: Option<i64>,
        /// A network.
        pub client_address: Option<String>,
        /// Its first bytes.
        pub user_agent: Option<String>,
    }
}

/// Sessions that are still kept, before the one with the id `before` (empty: from the newest on), newest first.
pub async fn person_sessions(db: &Db, product: &str, id: &str, before: &str) -> Result<Vec<PersonSessionRow>, DbError> {
    sql("SELECT id, created_at, refreshed_at, expires_at, ended_at, client_address, user_agent FROM sessions \
         WHERE product = $1 AND account_id = $2 AND ($3 = '' OR id < $3) ORDER BY id DESC LIMIT $4")
    .bind(product)
    .bind(id)
    .bind(before)
    .bind(PART_ROWS)
    .all(db)
    .await
}

record! {
    /// A membership.
    pub struct PersonOrganisationRow {
        /// UUID v7 text.
        pub id: String,
        /// Its name.
        pub name: String,
        /// The account's role in it.
        pub role: String,
        /// In ms since 1970.
        pub joined_at: i64,
    }
}

/// Organisations of the account.
pub async fn person_organisations(db: &Db, product: &str, id: &str) -> Result<Vec<PersonOrganisationRow>, DbError> {
    sql("SELECT o.id, o.name, m.role, m.joined_at FROM memberships m \
         JOIN organisations o ON o.product = m.product AND o.id = m.organisation_id \
         WHERE m.product = $1 AND m.account_id = $2 ORDER BY m.joined_at LIMIT $3")
    .bind(product)
    .bind(id)
    .bind(PART_ROWS)
    .all(db)
    .await
}

record! {
    /// Who somebody is at an issuer.
    pub struct PersonIssuerRow {
        /// The claim `iss`.
        pub issuer: String,
        /// The claim `sub`.
        pub subject: String,
        /// In ms since 1970.
        pub created_at: i64,
    }
}

/// Who the account is at issuers.
pub async fn person_issuers(db: &Db, product: &str, id: &str) -> Result<Vec<PersonIssuerRow>, DbError> {
    sql("SELECT issuer, subject, created_at FROM external_identities WHERE product = $1 AND account_id = $2 \
         ORDER BY created_at LIMIT $3")
    .bind(product)
    .bind(id)
    .bind(PART_ROWS)
    .all(db)
    .await
}

record! {
    /// A connection to GitHub.
    pub struct PersonGitHubRow {
        /// Name of the GitHub account.
        pub login: String,
        /// With commas between.
        pub scopes: String,
        /// In ms since 1970.
        pub connected_at: i64,
    }
}

/// The connection to GitHub.
pub async fn person_github(db: &Db, product: &str, id: &str) -> Result<Vec<PersonGitHubRow>, DbError> {
    sql("SELECT login, scopes, connected_at FROM github_connections WHERE product = $1 AND account_id = $2 LIMIT 1")
        .bind(product)
        .bind(id)
        .all(db)
        .await
}

record! {
    /// An entry of the audit log.
    pub struct PersonEventRow {
        /// Its place in the log.
        pub number: i64,
        /// What happened.
        pub kind: String,
        /// In ms since 1970.
        pub at: i64,
        /// In which session.
        pub session_id: Option<String>,
        /// What exactly.
        pub detail: Option<String>,
    }
}

/// Audit entries about the account before the place `before`, newest first.
pub async fn person_events(db: &Db, product: &str, id: &str, before: i64) -> Result<Vec<PersonEventRow>, DbError> {
    sql("SELECT number, kind, at, session_id, detail FROM audit_events \
         WHERE product = $1 AND account_id = $2 AND number < $3 ORDER BY number DESC LIMIT $4")
    .bind(product)
    .bind(id)
    .bind(before)
    .bind(PART_ROWS)
    .all(db)
    .await
}

/// Whether an organisation of the account's has other members. Its organisations stay locked until the transaction ends.
pub async fn person_owns_others(tx: &Tx, product: &str, id: &str) -> Result<bool, DbError> {
    let lock = "UPDATE organisations SET name = name WHERE product = $1 AND owner_id = $2";
    sql(lock).bind(product).bind(id).run(tx).await?;
    let found: i64 = sql("SELECT COUNT(*) FROM organisations o JOIN memberships m \
         ON m.product = o.product AND m.organisation_id = o.id \
         WHERE o.product = $1 AND o.owner_id = $2 AND m.account_id <> $2")
    .bind(product)
    .bind(id)
    .one(tx)
    .await?;
    Ok(found > 0)
}

/// Deletes an account that is locked and in no organisation, with all that hangs on it; invitations to its address (in
/// lower case) too if it has proven that it is its own. What is deleted with the account by a foreign key is not named.
pub async fn person_delete(tx: &Tx, product: &str, id: &str, proven: Option<&str>) -> Result<(), DbError> {
    sql("DELETE FROM sessions WHERE product = $1 AND account_id = $2").bind(product).bind(id).run(tx).await?;
    let sent = "DELETE FROM invitations WHERE product = $1 AND (email_folded = $2 OR accepted_by = $3)";
    sql(sent).bind(product).bind(proven).bind(id).run(tx).await?;
    sql("DELETE FROM accounts WHERE product = $1 AND id = $2").bind(product).bind(id).run(tx).await.map(drop)
}
