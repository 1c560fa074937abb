//! API keys.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::token::Access;
use crate::store::revocation::{RevocationRow, revocation_insert_tokens};

/// Most keys of a list; an account has fewer.
const LIST_ROWS: i64 = 100;

record! {
    /// What is known of a key.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ApiKeyRow {
        /// UUID v7 text.
        pub id: String,
        /// What it is for.
        pub name: String,
        /// With spaces between.
        pub scopes: String,
        /// Its last characters.
        pub last_four: String,
        /// Micro-credits; none: as many as the account has.
        pub budget: Option<i64>,
        /// In ms since 1970.
        pub created_at: i64,
        /// In ms since 1970; none: when it is revoked.
        pub expires_at: Option<i64>,
        /// In ms since 1970, whole minutes.
        pub last_used_at: Option<i64>,
    }
}

macro_rules! columns {
    () => {
        "id, name, scopes, last_four, budget, created_at, expires_at, last_used_at"
    };
}

record! {
    /// A key that somebody presents.
    pub struct PresentedRow {
        /// The key.
        pub id: String,
        /// Whose it is.
        pub account_id: String,
    }
}

record! {
    /// The tokens that were given for a key.
    pub struct LastTokenRow {
        /// The greatest `jti` of them.
        pub last_token_id: Option<String>,
        /// When the last of them expires, in s since 1970.
        pub last_token_exp: Option<i64>,
    }
}

/// Adds a key.
pub async fn api_key_insert(
    tx: &Tx,
    product: &str,
    account_id: &str,
    hash: &[u8],
    row: &ApiKeyRow,
) -> Result<(), DbError> {
    sql(
        "INSERT INTO api_keys (product, id, account_id, hash, name, scopes, last_four, budget, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(product)
    .bind(&row.id)
    .bind(account_id)
    .bind(hash)
    .bind(&row.name)
    .bind(&row.scopes)
    .bind(&row.last_four)
    .bind(row.budget)
    .bind(row.created_at)
    .bind(row.expires_at)
    .run(tx)
    .await
    .map(drop)
}

/// How many keys an account has.
pub async fn api_key_count(tx: &Tx, product: &str, account_id: &str) -> Result<i64, DbError> {
    sql("SELECT COUNT(*) FROM api_keys WHERE product = $1 AND account_id = $2")
        .bind(product)
        .bind(account_id)
        .one(tx)
        .await
}

/// The keys of an account, newest first.
pub async fn api_key_list(on: &impl On, product: &str, account_id: &str) -> Result<Vec<ApiKeyRow>, DbError> {
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys WHERE product = $1 AND account_id = $2 ORDER BY id DESC LIMIT $3"
    ))
    .bind(product)
    .bind(account_id)
    .bind(LIST_ROWS)
    .all(on)
    .await
}

/// One key of an account.
pub async fn api_key_find(
    on: &impl On,
    product: &str,
    account_id: &str,
    id: &str,
) -> Result<Option<ApiKeyRow>, DbError> {
    sql(concat!("SELECT ", columns!(), " FROM api_keys WHERE product = $1 AND account_id = $2 AND id = $3"))
        .bind(product)
        .bind(account_id)
        .bind(id)
        .opt(on)
        .await
}

/// Gives a key of an account another name and budget. The caller holds the lock of the account.
pub async fn api_key_update(tx: &Tx, product: &str, account_id: &str, row: &ApiKeyRow) -> Result<(), DbError> {
    sql("UPDATE api_keys SET name = $4, budget = $5 WHERE product = $1 AND account_id = $2 AND id = $3")
        .bind(product)
        .bind(account_id)
        .bind(&row.id)
        .bind(&row.name)
        .bind(row.budget)
        .run(tx)
        .await
        .map(drop)
}

/// Deletes a key of an account; gives the tokens that there may be of it. The caller holds the lock of the account.
pub async fn api_key_delete(
    tx: &Tx,
    product: &str,
    account_id: &str,
    id: &str,
) -> Result<Option<LastTokenRow>, DbError> {
    sql("DELETE FROM api_keys WHERE product = $1 AND account_id = $2 AND id = $3 \
         RETURNING last_token_id, last_token_exp")
    .bind(product)
    .bind(account_id)
    .bind(id)
    .opt(tx)
    .await
}

/// The key with this hash, wherever it stands: one look-up, whoever asks.
pub async fn api_key_by_hash(db: &Db, product: &str, hash: &[u8]) -> Result<Option<PresentedRow>, DbError> {
    sql("SELECT id, account_id FROM api_keys WHERE product = $1 AND hash = $2").bind(product).bind(hash).opt(db).await
}

/// Notes that an access token is given for a key, unless it has ended. The caller holds the lock of the account, so that
/// whoever withdraws its tokens knows of this one.
pub async fn api_key_issue(
    tx: &Tx,
    product: &str,
    id: &str,
    access: &Access,
    used_at: i64,
    now_ms: i64,
) -> Result<Option<ApiKeyRow>, DbError> {
    sql(concat!(
        "UPDATE api_keys SET last_token_id = CASE WHEN last_token_id > $3 THEN last_token_id ELSE $3 END, \
         last_token_exp = CASE WHEN last_token_exp > $4 THEN last_token_exp ELSE $4 END, \
         last_used_at = CASE WHEN last_used_at > $5 THEN last_used_at ELSE $5 END \
         WHERE product = $1 AND id = $2 AND (expires_at IS NULL OR expires_at > $6) RETURNING ",
        columns!()
    ))
    .bind(product)
    .bind(id)
    .bind(&access.id)
    .bind(access.expires)
    .bind(used_at)
    .bind(now_ms)
    .opt(tx)
    .await
}

/// Notes that keys were used, a JSON array of their ids; those of no key are ignored. One statement, and no write where
/// the minute is known already.
pub async fn api_key_mark_used(tx: &Tx, ids: &str, used_at: i64) -> Result<u64, DbError> {
    sql("UPDATE api_keys SET last_used_at = $1 WHERE (last_used_at IS NULL OR last_used_at < $1) \
         AND id IN (SELECT value FROM json_each($2))")
    // In one order, so that two reports of the same keys wait for each other and not crosswise.
    .on_postgres(
        "UPDATE api_keys SET last_used_at = $1 WHERE (last_used_at IS NULL OR last_used_at < $1) \
         AND id IN (SELECT id FROM api_keys WHERE (last_used_at IS NULL OR last_used_at < $1) \
             AND id = ANY(ARRAY(SELECT jsonb_array_elements_text($2::jsonb))) ORDER BY id FOR UPDATE)",
    )
    .bind(used_at)
    .bind(ids)
    .run(tx)
    .await
}

/// Withdraws the access tokens that were given for a key, in favour of others, until `until_ms` at least. The caller
/// holds the lock of the account. The last thing a transaction does.
pub async fn api_key_withdraw(
    tx: &Tx,
    product: &str,
    id: &str,
    until_ms: i64,
) -> Result<Option<RevocationRow>, DbError> {
    let last: Option<LastTokenRow> =
        sql("SELECT last_token_id, last_token_exp FROM api_keys WHERE product = $1 AND id = $2")
            .bind(product)
            .bind(id)
            .opt(tx)
            .await?;
    let Some(LastTokenRow { last_token_id: Some(token_id), last_token_exp: Some(expires) }) = last else {
        return Ok(None);
    };
    revocation_insert_tokens(tx, id, &token_id, false, until_ms.max(expires * 1000)).await.map(Some)
}
