//! Conversations of products that keep them until they are deleted. What writes a text down wants a [`Keeping`], which no
//! other product has.
use serde::{Deserialize, Serialize};
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::conversation::Keeping;

record! {
    /// A session as it is stored.
    #[derive(Clone, Serialize, Deserialize)]
    pub struct SessionRow {
        /// UUID v7.
        pub id: String,
        /// Whose it is.
        pub account_id: String,
        /// What it is called; empty: nothing was said yet.
        pub title: String,
        /// JSON text; empty: none.
        pub metadata: String,
        /// Messages in it.
        pub message_count: i64,
        /// ms since 1970.
        pub created_at: i64,
        /// ms since 1970; of the latest message, or `created_at`.
        pub updated_at: i64,
    }
}

record! {
    /// A message as it is stored. It has no `Debug`: what users write must not reach a log.
    #[derive(Clone, Serialize, Deserialize)]
    pub struct MessageRow {
        /// The session.
        #[serde(default)]
        pub session_id: String,
        /// Its place in the session, from 1.
        pub position: i64,
        /// UUID v7.
        pub id: String,
        /// `user` or `assistant`.
        pub role: String,
        /// What was said.
        pub content: String,
        /// Agent that said it; empty for the user.
        pub agent: String,
        /// Model that said it; empty for the user.
        pub model: String,
        /// ms since 1970.
        pub created_at: i64,
        /// It was broken off.
        pub incomplete: bool,
    }
}

/// What changes of a session; None: it stays.
pub struct SessionChange {
    /// Title.
    pub title: Option<String>,
    /// Metadata as JSON text.
    pub metadata: Option<String>,
}

/// A place in a list of sessions, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    /// When the session there was changed, in ms since 1970.
    pub updated_at: i64,
    /// Its id.
    pub id: String,
}

/// Waits for others that begin a session of this account, until the end of the transaction.
pub async fn session_owner_lock(tx: &Tx, keeping: &Keeping, account_id: &str) -> Result<(), DbError> {
    sql("INSERT INTO chat_session_owners (product, account_id, changes) VALUES ($1, $2, 1) \
         ON CONFLICT (product, account_id) DO UPDATE SET changes = chat_session_owners.changes + 1")
    .bind(keeping.product())
    .bind(account_id)
    .run(tx)
    .await
    .map(drop)
}

/// How many sessions an account has.
pub async fn session_count(tx: &Tx, keeping: &Keeping, account_id: &str) -> Result<i64, DbError> {
    let counted = sql("SELECT COUNT(*) FROM chat_sessions WHERE product = $1 AND account_id = $2");
    counted.bind(keeping.product()).bind(account_id).one(tx).await
}

/// Adds a session.
pub async fn session_insert(tx: &Tx, keeping: &Keeping, row: &SessionRow) -> Result<(), DbError> {
    sql("INSERT INTO chat_sessions (product, id, account_id, title, metadata, message_count, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(keeping.product())
    .bind(&row.id)
    .bind(&row.account_id)
    .bind(&row.title)
    .bind(&row.metadata)
    .bind(row.message_count)
    .bind(row.created_at)
    .bind(row.updated_at)
    .run(tx)
    .await
    .map(drop)
}

/// Sessions of an account behind a place, the latest first.
pub async fn session_list(
    db: &Db,
    keeping: &Keeping,
    account_id: &str,
    behind: Option<&SessionPlace>,
    most: i64,
) -> Result<Vec<SessionRow>, DbError> {
    sql("SELECT id, account_id, title, metadata, message_count, created_at, updated_at FROM chat_sessions \
         WHERE product = $1 AND account_id = $2 AND (updated_at, id) < ($3, $4) ORDER BY updated_at DESC, id DESC LIMIT $5")
    .bind(keeping.product())
    .bind(account_id)
    .bind(behind.map_or(i64::MAX, |place| place.updated_at))
    .bind(behind.map_or("", |place| place.id.as_str()))
    .bind(most)
    .all(db)
    .await
}

/// A session of an account.
pub async fn session_get(
    on: &impl On,
    keeping: &Keeping,
    account_id: &str,
    id: &str,
) -> Result<Option<SessionRow>, DbError> {
    sql("SELECT id, account_id, title, metadata, message_count, created_at, updated_at FROM chat_sessions \
         WHERE product = $1 AND account_id = $2 AND id = $3")
    .bind(keeping.product())
    .bind(account_id)
    .bind(id)
    .opt(on)
    .await
}

/// Changes a session and gives it as it is then, if there is one.
pub async fn session_update(
    db: &Db,
    keeping: &Keeping,
    account_id: &str,
    id: &str,
    change: &SessionChange,
) -> Result<Option<SessionRow>, DbError> {
    sql("UPDATE chat_sessions SET title = COALESCE($4, title), metadata = COALESCE($5, metadata) \
         WHERE product = $1 AND account_id = $2 AND id = $3 \
         RETURNING id, account_id, title, metadata, message_count, created_at, updated_at")
    .bind(keeping.product())
    .bind(account_id)
    .bind(id)
    .bind(change.title.clone())
    .bind(change.metadata.clone())
    .opt(db)
    .await
}

/// How many messages a session of an account has, if there is one; nobody else adds one until the end of the transaction.
pub async fn session_lock(tx: &Tx, keeping: &Keeping, account_id: &str, id: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT message_count FROM chat_sessions WHERE product = $1 AND account_id = $2 AND id = $3")
        .on_postgres(
            "SELECT message_count FROM chat_sessions WHERE product = $1 AND account_id = $2 AND id = $3 FOR UPDATE",
        )
        .bind(keeping.product())
        .bind(account_id)
        .bind(id)
        .opt(tx)
        .await
}

/// Says of a session that a message was added at a time; it is called `title` if it has none yet and this is its first.
pub async fn session_touch(tx: &Tx, keeping: &Keeping, message: &MessageRow, title: &str) -> Result<(), DbError> {
    sql("UPDATE chat_sessions SET message_count = $3, \
         updated_at = CASE WHEN updated_at < $4 THEN $4 ELSE updated_at END, \
         title = CASE WHEN title = '' AND message_count = 0 THEN $5 ELSE title END WHERE product = $1 AND id = $2")
    .bind(keeping.product())
    .bind(&message.session_id)
    .bind(message.position)
    .bind(message.created_at)
    .bind(title)
    .run(tx)
    .await
    .map(drop)
}

/// Whether a message is there already.
pub async fn message_exists(tx: &Tx, keeping: &Keeping, message: &MessageRow) -> Result<bool, DbError> {
    let found: Option<i64> =
        sql("SELECT position FROM chat_messages WHERE product = $1 AND session_id = $2 AND id = $3")
            .bind(keeping.product())
            .bind(&message.session_id)
            .bind(&message.id)
            .opt(tx)
            .await?;
    Ok(found.is_some())
}

/// Adds a message.
pub async fn message_insert(tx: &Tx, keeping: &Keeping, row: &MessageRow) -> Result<(), DbError> {
    sql("INSERT INTO chat_messages (product, session_id, position, id, role, content, agent, model, created_at, \
         incomplete) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
    .bind(keeping.product())
    .bind(&row.session_id)
    .bind(row.position)
    .bind(&row.id)
    .bind(&row.role)
    .bind(&row.content)
    .bind(&row.agent)
    .bind(&row.model)
    .bind(row.created_at)
    .bind(row.incomplete)
    .run(tx)
    .await
    .map(drop)
}

/// Messages of a session after a position, in order.
pub async fn message_list(
    db: &Db,
    keeping: &Keeping,
    session_id: &str,
    after: i64,
    most: i64,
) -> Result<Vec<MessageRow>, DbError> {
    sql("SELECT session_id, position, id, role, content, agent, model, created_at, incomplete FROM chat_messages \
         WHERE product = $1 AND session_id = $2 AND position > $3 ORDER BY position LIMIT $4")
    .bind(keeping.product())
    .bind(session_id)
    .bind(after)
    .bind(most)
    .all(db)
    .await
}

/// Messages of a session before a position, the latest first.
pub async fn message_list_before(
    db: &Db,
    keeping: &Keeping,
    session_id: &str,
    before: i64,
    most: i64,
) -> Result<Vec<MessageRow>, DbError> {
    sql("SELECT session_id, position, id, role, content, agent, model, created_at, incomplete FROM chat_messages \
         WHERE product = $1 AND session_id = $2 AND position < $3 ORDER BY position DESC LIMIT $4")
    .bind(keeping.product())
    .bind(session_id)
    .bind(before)
    .bind(most)
    .all(db)
    .await
}
