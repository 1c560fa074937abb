//! Conversations that end: their owner deletes them or takes them along, or their time is over. Nothing is written down
//! here, so a product needs no right to keep any.
use weft_db::{Db, DbError, Tx, record, sql};

use crate::store::conversation::{MessageRow, SessionRow};

record! {
    /// A session that is to go.
    pub struct OverRow {
        /// Slug of the product.
        pub product: String,
        /// Its id.
        pub id: String,
        /// Messages in it.
        pub message_count: i64,
    }
}

/// Sessions in which nothing was ever said and that were begun before this time (ms since 1970).
pub async fn session_empty_before(db: &Db, before: i64, most: i64) -> Result<Vec<OverRow>, DbError> {
    sql("SELECT product, id, message_count FROM chat_sessions WHERE message_count = 0 AND updated_at < $1 \
         ORDER BY updated_at LIMIT $2")
    .bind(before)
    .bind(most)
    .all(db)
    .await
}

/// Sessions in which nothing was said since this time (ms since 1970).
pub async fn session_silent_before(db: &Db, before: i64, most: i64) -> Result<Vec<OverRow>, DbError> {
    sql("SELECT product, id, message_count FROM chat_sessions WHERE updated_at < $1 ORDER BY updated_at LIMIT $2")
        .bind(before)
        .bind(most)
        .all(db)
        .await
}

/// Sessions of an account, any of them.
pub async fn session_any(db: &Db, product: &str, account_id: &str, most: i64) -> Result<Vec<OverRow>, DbError> {
    sql("SELECT product, id, message_count FROM chat_sessions WHERE product = $1 AND account_id = $2 LIMIT $3")
        .bind(product)
        .bind(account_id)
        .bind(most)
        .all(db)
        .await
}

/// Deletes a session of an account with its messages; whether there was one.
pub async fn session_delete(tx: &Tx, product: &str, account_id: &str, id: &str) -> Result<bool, DbError> {
    let deleted = sql("DELETE FROM chat_sessions WHERE product = $1 AND account_id = $2 AND id = $3");
    let deleted = deleted.bind(product).bind(account_id).bind(id).run(tx).await? == 1;
    if deleted {
        messages_delete(tx, product, id).await?;
    }
    Ok(deleted)
}

/// Deletes a session with its messages, unless something was said since this time (ms since 1970); whether it did.
pub async fn session_delete_silent(tx: &Tx, product: &str, id: &str, before: i64) -> Result<bool, DbError> {
    let deleted = sql("DELETE FROM chat_sessions WHERE product = $1 AND id = $2 AND updated_at < $3");
    let deleted = deleted.bind(product).bind(id).bind(before).run(tx).await? == 1;
    if deleted {
        messages_delete(tx, product, id).await?;
    }
    Ok(deleted)
}

/// After the session's own row, for which whoever adds a message waits.
async fn messages_delete(tx: &Tx, product: &str, session_id: &str) -> Result<(), DbError> {
    let deleted = sql("DELETE FROM chat_messages WHERE product = $1 AND session_id = $2");
    deleted.bind(product).bind(session_id).run(tx).await.map(drop)
}

/// Forgets that an account had sessions.
pub async fn session_owner_delete(db: &Db, product: &str, account_id: &str) -> Result<(), DbError> {
    let deleted = sql("DELETE FROM chat_session_owners WHERE product = $1 AND account_id = $2");
    deleted.bind(product).bind(account_id).run(db).await.map(drop)
}

/// Sessions of an account after an id, by id.
pub async fn session_export(
    db: &Db,
    product: &str,
    account_id: &str,
    after: &str,
    most: i64,
) -> Result<Vec<SessionRow>, DbError> {
    sql("SELECT id, account_id, title, metadata, message_count, created_at, updated_at FROM chat_sessions \
         WHERE product = $1 AND account_id = $2 AND id > $3 ORDER BY id LIMIT $4")
    .bind(product)
    .bind(account_id)
    .bind(after)
    .bind(most)
    .all(db)
    .await
}

/// What was said in the sessions of an account, after a session and a position in it, by both.
pub async fn message_export(
    db: &Db,
    product: &str,
    account_id: &str,
    after: (&str, i64),
    most: i64,
) -> Result<Vec<MessageRow>, DbError> {
    sql("SELECT m.session_id, m.position, m.id, m.role, m.content, m.agent, m.model, m.created_at, m.incomplete \
         FROM chat_sessions s JOIN chat_messages m ON m.product = s.product AND m.session_id = s.id \
         WHERE s.product = $1 AND s.account_id = $2 AND s.id >= $3 AND (s.id > $3 OR m.position > $4) \
         ORDER BY s.id, m.position LIMIT $5")
    .bind(product)
    .bind(account_id)
    .bind(after.0)
    .bind(after.1)
    .bind(most)
    .all(db)
    .await
}
