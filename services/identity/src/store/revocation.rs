//! Sessions and single access tokens that are to be refused before they expire.
use weft_db::{Db, DbError, Tx, record, sql};

use crate::store::PRUNE_ROWS;

record! {
    /// One ended session or withdrawn access token.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RevocationRow {
        /// Where it stands in the list, from 1.
        pub position: i64,
        /// The claim `sid` or `jti`.
        pub ended_id: String,
        /// When the last access token of this id expires, in ms since 1970.
        pub expires_at: i64,
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

/// At most `limit` entries after a position whose tokens have not expired, oldest first.
pub async fn revocation_list(db: &Db, after: i64, now_ms: i64, limit: i64) -> Result<Vec<RevocationRow>, DbError> {
    sql("SELECT position, ended_id, expires_at FROM revocations WHERE position > $1 AND expires_at > $2 ORDER BY position LIMIT $3")
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
