//! Users' own keys of providers.
use weft_db::{Db, DbError, On, Tx, record, sql};

record! {
    /// A key as it is stored.
    pub struct KeyRow {
        /// Slug of the product.
        pub product: String,
        /// UUID v7.
        pub id: String,
        /// Whose it is.
        pub account_id: String,
        /// `openai`, …, `compatible`.
        pub provider: String,
        /// Name for its owner.
        pub name: String,
        /// Last four characters.
        pub last_four: String,
        /// Whether it may be used.
        pub active: bool,
        /// Empty: the provider's own.
        pub base_url: String,
        /// The data key.
        pub key_id: String,
        /// The key, sealed.
        pub sealed: Vec<u8>,
        /// ms since 1970.
        pub created_at: i64,
        /// ms since 1970; none: never.
        pub used_at: Option<i64>,
    }
}

record! {
    /// A key as far as sealing it again needs.
    pub struct SealedRow {
        /// Slug of the product.
        pub product: String,
        /// UUID v7.
        pub id: String,
        /// Whose it is.
        pub account_id: String,
        /// The data key.
        pub key_id: String,
        /// The key, sealed.
        pub sealed: Vec<u8>,
    }
}

/// What an account has already: keys, and providers that are different.
pub struct Held {
    /// Keys.
    pub keys: i64,
    /// Providers; servers at different URLs are different.
    pub providers: i64,
    /// Whether the new one's is among them.
    pub is_among: bool,
}

/// Waits for other changes of this account's keys, until the end of the transaction.
pub async fn key_lock(tx: &Tx, product: &str, account_id: &str) -> Result<(), DbError> {
    sql("INSERT INTO provider_key_owners (product, account_id, changes) VALUES ($1, $2, 1) \
         ON CONFLICT (product, account_id) DO UPDATE SET changes = provider_key_owners.changes + 1")
    .bind(product)
    .bind(account_id)
    .run(tx)
    .await
    .map(drop)
}

/// What the account has.
pub async fn key_held(
    tx: &Tx,
    product: &str,
    account_id: &str,
    provider: &str,
    base_url: &str,
) -> Result<Held, DbError> {
    let counted = sql("SELECT COUNT(*), COUNT(DISTINCT provider || ' ' || base_url), \
         CAST(COALESCE(SUM(CASE WHEN provider = $3 AND base_url = $4 THEN 1 ELSE 0 END), 0) AS BIGINT) \
         FROM provider_keys WHERE product = $1 AND account_id = $2");
    let (keys, providers, same): (i64, i64, i64) =
        counted.bind(product).bind(account_id).bind(provider).bind(base_url).one(tx).await?;
    Ok(Held { keys, providers, is_among: same > 0 })
}

/// Adds a key.
pub async fn key_insert(tx: &Tx, row: &KeyRow) -> Result<(), DbError> {
    sql("INSERT INTO provider_keys (product, id, account_id, provider, name, last_four, active, base_url, key_id, \
         sealed, created_at, used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
    .bind(&row.product)
    .bind(&row.id)
    .bind(&row.account_id)
    .bind(&row.provider)
    .bind(&row.name)
    .bind(&row.last_four)
    .bind(row.active)
    .bind(&row.base_url)
    .bind(&row.key_id)
    .bind(&row.sealed)
    .bind(row.created_at)
    .bind(row.used_at)
    .run(tx)
    .await
    .map(drop)
}

/// Keys of an account below an id (empty: from the newest on), newest first.
pub async fn key_list(
    db: &Db,
    product: &str,
    account_id: &str,
    below: &str,
    most: i64,
) -> Result<Vec<KeyRow>, DbError> {
    sql("SELECT product, id, account_id, provider, name, last_four, active, base_url, key_id, sealed, \
         created_at, used_at FROM provider_keys WHERE product = $1 AND account_id = $2 AND ($3 = '' OR id < $3) \
         ORDER BY id DESC LIMIT $4")
    .bind(product)
    .bind(account_id)
    .bind(below)
    .bind(most)
    .all(db)
    .await
}

/// A key of an account.
pub async fn key_get(on: &impl On, product: &str, account_id: &str, id: &str) -> Result<Option<KeyRow>, DbError> {
    sql("SELECT product, id, account_id, provider, name, last_four, active, base_url, key_id, sealed, \
         created_at, used_at FROM provider_keys WHERE product = $1 AND account_id = $2 AND id = $3")
    .bind(product)
    .bind(account_id)
    .bind(id)
    .opt(on)
    .await
}

/// Overwrites what can change of a key.
pub async fn key_update(tx: &Tx, row: &KeyRow) -> Result<(), DbError> {
    sql("UPDATE provider_keys SET name = $4, active = $5, last_four = $6, key_id = $7, sealed = $8 \
         WHERE product = $1 AND account_id = $2 AND id = $3")
    .bind(&row.product)
    .bind(&row.account_id)
    .bind(&row.id)
    .bind(&row.name)
    .bind(row.active)
    .bind(&row.last_four)
    .bind(&row.key_id)
    .bind(&row.sealed)
    .run(tx)
    .await
    .map(drop)
}

/// Deletes a key; whether there was one.
pub async fn key_delete(tx: &Tx, product: &str, account_id: &str, id: &str) -> Result<bool, DbError> {
    let deleted = sql("DELETE FROM provider_keys WHERE product = $1 AND account_id = $2 AND id = $3");
    Ok(deleted.bind(product).bind(account_id).bind(id).run(tx).await? == 1)
}

/// Keys that are sealed under a data key which is not the current one.
pub async fn key_sealed_before(db: &Db, most: i64) -> Result<Vec<SealedRow>, DbError> {
    sql("SELECT product, id, account_id, key_id, sealed FROM provider_keys WHERE key_id IN \
         (SELECT id FROM data_keys WHERE number < (SELECT MAX(number) FROM data_keys)) LIMIT $1")
    .bind(most)
    .all(db)
    .await
}

/// Overwrites a sealed value with the same one under another key, unless it was changed meanwhile.
pub async fn key_reseal(db: &Db, old: &SealedRow, key_id: &str, sealed: &[u8]) -> Result<bool, DbError> {
    let updated = sql("UPDATE provider_keys SET key_id = $4, sealed = $5 \
         WHERE product = $1 AND id = $2 AND key_id = $3 AND sealed = $6");
    let updated = updated.bind(&old.product).bind(&old.id).bind(&old.key_id).bind(key_id).bind(sealed);
    Ok(updated.bind(&old.sealed).run(db).await? == 1)
}

/// Whether a data key is still named by a row.
pub async fn key_names(db: &Db, key_id: &str) -> Result<bool, DbError> {
    let named: Option<i64> = sql("SELECT 1 FROM provider_keys WHERE key_id = $1 LIMIT 1")
        .on_postgres("SELECT CAST(1 AS BIGINT) FROM provider_keys WHERE key_id = $1 LIMIT 1")
        .bind(key_id)
        .opt(db)
        .await?;
    Ok(named.is_some())
}
