//! Sessions and single access tokens that are to be refused before they expire.
use weft_db::{Db, DbError, Tx, record, sql};

use crate::store::PRUNE_ROWS;

record! {
    /// One ended session or withdrawn access token.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RevocationRow {
        /// Where it stands in the list, from 1.
        pub position: i64,
        /// The claim `sid` or `jti`; or `sub`, or the id of an API key, with a last token.
        pub ended_id: String,
        /// When the last access token of this id expires, in ms since 1970.
        pub expires_at: i64,
        /// Whether the reason is that the account is suspended.
        pub suspended: bool,
        /// Of an account or an API key: the greatest `jti` that is withdrawn.
        pub last_token_id: Option<String>,
    }
}

record! {
    struct NewestRow {
        id: Option<String>,
        expires: Option<i64>,
    }
}

/// Adds a session or a token to the list. The last thing a transaction does: from here to its commit every other
/// transaction that adds one waits, which is what makes positions visible in their order.
pub async fn revocation_insert(tx: &Tx, ended_id: &str, expires_at: i64) -> Result<(), DbError> {
    let position: i64 =
        sql("UPDATE revocation_position SET position = position + 1 WHERE id = 1 RETURNING position").one(tx).await?;
    sql("INSERT INTO revocations (position, ended_id, expires_at) VALUES ($1, $2, $3)")
        .bind(position)
        .bind(ended_id)
        .bind(expires_at)
        .run(tx)
        .await
        .map(drop)
}

/// Takes `count` positions and gives the one before the first. What [`revocation_insert`] says holds here too.
async fn take_positions(tx: &Tx, count: i64) -> Result<i64, DbError> {
    let last: i64 = sql("UPDATE revocation_position SET position = position + $1 WHERE id = 1 RETURNING position")
        .bind(count)
        .one(tx)
        .await?;
    Ok(last - count)
}

/// Adds every session of an account that was ended at `ended_at`. Entries stay until `until_ms` at least.
pub async fn revocation_insert_sessions(
    tx: &Tx,
    product: &str,
    account_id: &str,
    ended_at: i64,
    until_ms: i64,
) -> Result<Vec<RevocationRow>, DbError> {
    let count: i64 = sql("SELECT COUNT(*) FROM sessions WHERE product = $1 AND account_id = $2 AND ended_at = $3")
        .bind(product)
        .bind(account_id)
        .bind(ended_at)
        .one(tx)
        .await?;
    let before = take_positions(tx, count).await?;
    sql("INSERT INTO revocations (position, ended_id, expires_at) \
         SELECT $5 + ROW_NUMBER() OVER (ORDER BY s.id), s.id, CASE WHEN MAX(t.access_exp) * 1000 > $4 \
             THEN MAX(t.access_exp) * 1000 ELSE $4 END \
         FROM sessions s JOIN refresh_tokens t ON t.product = s.product AND t.session_id = s.id \
         WHERE s.product = $1 AND s.account_id = $2 AND s.ended_at = $3 GROUP BY s.id \
         RETURNING position, ended_id, expires_at, suspended, last_token_id")
    .bind(product)
    .bind(account_id)
    .bind(ended_at)
    .bind(until_ms)
    .bind(before)
    .all(tx)
    .await
}

/// Withdraws every access token of an account that had not expired at `since_s`, in s since 1970: one entry, however many
/// they are; none if there are none. The caller holds the locks of the account and of its sessions, so that none is issued
/// meanwhile. The bound is the greatest id that was issued, whichever replica's clock it came from.
pub async fn revocation_insert_account(
    tx: &Tx,
    product: &str,
    account_id: &str,
    suspended: bool,
    since_s: i64,
    until_ms: i64,
) -> Result<Option<RevocationRow>, DbError> {
    let newest: NewestRow = sql("SELECT MAX(g.id) AS id, MAX(g.expires) AS expires FROM ( \
         SELECT t.access_id AS id, t.access_exp AS expires FROM refresh_tokens t \
             JOIN sessions s ON s.product = t.product AND s.id = t.session_id \
             WHERE s.product = $1 AND s.account_id = $2 AND s.ended_at IS NULL AND t.access_exp > $3 \
         UNION ALL SELECT last_token_id, last_token_exp FROM api_keys \
             WHERE product = $1 AND account_id = $2 AND last_token_exp > $3) g")
    .bind(product)
    .bind(account_id)
    .bind(since_s)
    .one(tx)
    .await?;
    let (Some(last_token_id), Some(expires)) = (newest.id, newest.expires) else { return Ok(None) };
    revocation_insert_tokens(tx, account_id, &last_token_id, suspended, until_ms.max(expires * 1000)).await.map(Some)
}

/// Withdraws the access tokens of an account, or of an API key, up to the one with the greatest id that was issued. What
/// [`revocation_insert`] says holds here too.
pub async fn revocation_insert_tokens(
    tx: &Tx,
    id: &str,
    last_token_id: &str,
    suspended: bool,
    expires_at: i64,
) -> Result<RevocationRow, DbError> {
    let before = take_positions(tx, 1).await?;
    sql("INSERT INTO revocations (position, ended_id, expires_at, suspended, last_token_id) VALUES ($1, $2, $3, $4, $5) \
         RETURNING position, ended_id, expires_at, suspended, last_token_id")
    .bind(before + 1)
    .bind(id)
    .bind(expires_at)
    .bind(suspended)
    .bind(last_token_id)
    .one(tx)
    .await
}

/// Ends the sessions of an account's API keys. The caller holds the lock of the account. Entries stay until `until_ms` at
/// least. What [`revocation_insert`] says holds here too.
pub async fn revocation_insert_keys(
    tx: &Tx,
    product: &str,
    account_id: &str,
    since_s: i64,
    until_ms: i64,
) -> Result<Vec<RevocationRow>, DbError> {
    let count: i64 =
        sql("SELECT COUNT(*) FROM api_keys WHERE product = $1 AND account_id = $2 AND last_token_exp > $3")
            .bind(product)
            .bind(account_id)
            .bind(since_s)
            .one(tx)
            .await?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let before = take_positions(tx, count).await?;
    sql("INSERT INTO revocations (position, ended_id, expires_at) \
         SELECT $5 + ROW_NUMBER() OVER (ORDER BY id), 'key:' || id, \
             CASE WHEN last_token_exp * 1000 > $4 THEN last_token_exp * 1000 ELSE $4 END \
         FROM api_keys WHERE product = $1 AND account_id = $2 AND last_token_exp > $3 \
         RETURNING position, ended_id, expires_at, suspended, last_token_id")
    .bind(product)
    .bind(account_id)
    .bind(since_s)
    .bind(until_ms)
    .bind(before)
    .all(tx)
    .await
}

/// At most `limit` entries after a position whose tokens have not expired, oldest first.
pub async fn revocation_list(db: &Db, after: i64, now_ms: i64, limit: i64) -> Result<Vec<RevocationRow>, DbError> {
    sql("SELECT position, ended_id, expires_at, suspended, last_token_id FROM revocations \
         WHERE position > $1 AND expires_at > $2 ORDER BY position LIMIT $3")
    .bind(after)
    .bind(now_ms)
    .bind(limit)
    .all(db)
    .await
}

/// The last position given out; 0 before the first.
pub async fn revocation_last(db: &Db) -> Result<i64, DbError> {
    sql("SELECT position FROM revocation_position WHERE id = 1").one(db).await
}

/// Deletes what no longer matters.
pub async fn revocation_prune(db: &Db, now_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM revocations WHERE position IN \
         (SELECT position FROM revocations WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(now_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
