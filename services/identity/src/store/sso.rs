//! Providers of organisations and their domains. Whoever changes one holds the organisation's lock, an administrator who
//! confirms a domain excepted: that is one statement.
use weft_db::{Db, DbError, On, Tx, record, sql};

/// Connections that are sealed again at a time.
const RESEAL_ROWS: i64 = 100;

record! {
    /// The provider of an organisation.
    #[derive(Clone)]
    pub struct ConnectionRow {
        /// Id of the organisation.
        pub organisation_id: String,
        /// URL of the issuer.
        pub issuer: String,
        /// Our client id there.
        pub client_id: String,
        /// Which data key the client secret is sealed under.
        pub key_id: String,
        /// The client secret, sealed.
        pub sealed: Vec<u8>,
        /// In ms since 1970.
        pub updated_at: i64,
    }
}

record! {
    /// A domain of an organisation.
    #[derive(Clone, Debug)]
    pub struct DomainRow {
        /// In lower case.
        pub domain: String,
        /// Whether it is proven to be the organisation's.
        pub proven: bool,
    }
}

record! {
    /// A connection whose secret is under another key than the present one.
    pub struct ResealRow {
        /// Slug of the product.
        pub product: String,
        /// Id of the organisation.
        pub organisation_id: String,
        /// Which data key.
        pub key_id: String,
        /// The client secret, sealed.
        pub sealed: Vec<u8>,
    }
}

macro_rules! connection_columns {
    () => {
        "c.organisation_id, c.issuer, c.client_id, c.key_id, c.sealed, c.updated_at"
    };
}

/// Writes the provider of an organisation.
pub async fn connection_put(tx: &Tx, product: &str, row: &ConnectionRow) -> Result<(), DbError> {
    sql("INSERT INTO sso_connections (product, organisation_id, issuer, client_id, key_id, sealed, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (product, organisation_id) DO UPDATE SET \
         issuer = excluded.issuer, client_id = excluded.client_id, key_id = excluded.key_id, \
         sealed = excluded.sealed, updated_at = excluded.updated_at")
    .bind(product)
    .bind(&row.organisation_id)
    .bind(&row.issuer)
    .bind(&row.client_id)
    .bind(&row.key_id)
    .bind(&row.sealed)
    .bind(row.updated_at)
    .run(tx)
    .await
    .map(drop)
}

/// The provider of an organisation.
pub async fn connection_find(
    on: &impl On,
    product: &str,
    organisation_id: &str,
) -> Result<Option<ConnectionRow>, DbError> {
    sql(concat!(
        "SELECT ",
        connection_columns!(),
        " FROM sso_connections c WHERE c.product = $1 AND c.organisation_id = $2"
    ))
    .bind(product)
    .bind(organisation_id)
    .opt(on)
    .await
}

/// The provider of the organisation that has proven a domain.
pub async fn connection_of_domain(db: &Db, product: &str, domain: &str) -> Result<Option<ConnectionRow>, DbError> {
    sql(concat!(
        "SELECT ",
        connection_columns!(),
        " FROM sso_proven_domains p JOIN sso_connections c \
         ON c.product = p.product AND c.organisation_id = p.organisation_id WHERE p.product = $1 AND p.domain = $2"
    ))
    .bind(product)
    .bind(domain)
    .opt(db)
    .await
}

/// Whose subscription pays for an organisation.
pub async fn organisation_payer(db: &Db, product: &str, organisation_id: &str) -> Result<Option<String>, DbError> {
    sql("SELECT owner_id FROM organisations WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(organisation_id)
        .opt(db)
        .await
}

/// Deletes the provider of an organisation with its domains; false if there is none.
pub async fn connection_delete(tx: &Tx, product: &str, organisation_id: &str) -> Result<bool, DbError> {
    let rows = sql("DELETE FROM sso_connections WHERE product = $1 AND organisation_id = $2")
        .bind(product)
        .bind(organisation_id)
        .run(tx)
        .await?;
    Ok(rows == 1)
}

/// The domains of an organisation in alphabetical order, at most `most`.
pub async fn domain_list(
    on: &impl On,
    product: &str,
    organisation_id: &str,
    most: i64,
) -> Result<Vec<DomainRow>, DbError> {
    sql("SELECT d.domain, p.domain IS NOT NULL AS proven FROM sso_domains d LEFT JOIN sso_proven_domains p \
         ON p.product = d.product AND p.domain = d.domain AND p.organisation_id = d.organisation_id \
         WHERE d.product = $1 AND d.organisation_id = $2 ORDER BY d.domain LIMIT $3")
    .bind(product)
    .bind(organisation_id)
    .bind(most)
    .all(on)
    .await
}

/// Adds a domain that is not proven. One that is there stays as it is.
pub async fn domain_insert(tx: &Tx, product: &str, organisation_id: &str, domain: &str) -> Result<(), DbError> {
    sql("INSERT INTO sso_domains (product, organisation_id, domain) VALUES ($1, $2, $3) \
         ON CONFLICT (product, organisation_id, domain) DO NOTHING")
    .bind(product)
    .bind(organisation_id)
    .bind(domain)
    .run(tx)
    .await
    .map(drop)
}

/// Deletes a domain; whoever has the right to it may prove it again.
pub async fn domain_delete(tx: &Tx, product: &str, organisation_id: &str, domain: &str) -> Result<(), DbError> {
    sql("DELETE FROM sso_domains WHERE product = $1 AND organisation_id = $2 AND domain = $3")
        .bind(product)
        .bind(organisation_id)
        .bind(domain)
        .run(tx)
        .await
        .map(drop)
}

/// Notes that a domain of the organisation is proven, if the organisation still names it; true if that is new.
pub async fn domain_prove(
    tx: &Tx,
    product: &str,
    organisation_id: &str,
    domain: &str,
    now_ms: i64,
) -> Result<bool, DbError> {
    let rows = sql("INSERT INTO sso_proven_domains (product, domain, organisation_id, proven_at) \
         SELECT product, domain, organisation_id, $4 FROM sso_domains \
         WHERE product = $1 AND organisation_id = $2 AND domain = $3 \
         ON CONFLICT (product, domain) DO NOTHING")
    .bind(product)
    .bind(organisation_id)
    .bind(domain)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Which organisation has proven a domain.
pub async fn domain_owner(on: &impl On, product: &str, domain: &str) -> Result<Option<String>, DbError> {
    sql("SELECT organisation_id FROM sso_proven_domains WHERE product = $1 AND domain = $2")
        .bind(product)
        .bind(domain)
        .opt(on)
        .await
}

/// Some connections whose secret is under another key than `current`.
pub async fn connection_to_reseal(db: &Db, current: &str) -> Result<Vec<ResealRow>, DbError> {
    sql("SELECT product, organisation_id, key_id, sealed FROM sso_connections WHERE key_id <> $1 LIMIT $2")
        .bind(current)
        .bind(RESEAL_ROWS)
        .all(db)
        .await
}

/// Writes a secret that was sealed again; one that was replaced meanwhile stays.
pub async fn connection_reseal(db: &Db, old: &ResealRow, key_id: &str, sealed: &[u8]) -> Result<(), DbError> {
    sql("UPDATE sso_connections SET key_id = $4, sealed = $5 \
         WHERE product = $1 AND organisation_id = $2 AND sealed = $3")
    .bind(&old.product)
    .bind(&old.organisation_id)
    .bind(&old.sealed)
    .bind(key_id)
    .bind(sealed)
    .run(db)
    .await
    .map(drop)
}
