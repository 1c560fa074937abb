//! Calls over users' own keys.
use weft_db::{Db, DbError, Tx, record, sql};

record! {
    /// A call as it is stored.
    #[derive(Clone)]
    pub struct UseRow {
        /// Slug of the product.
        pub product: String,
        /// UUID v7.
        pub id: String,
        /// Over which key.
        pub provider_key_id: String,
        /// Whose it was.
        pub account_id: String,
        /// Model that was asked.
        pub model: String,
        /// Tokens read.
        pub prompt_tokens: i64,
        /// Tokens written.
        pub completion_tokens: i64,
        /// `ok`, or a word for what was wrong.
        pub outcome: String,
        /// ms since 1970.
        pub created_at: i64,
    }
}

/// Adds a call, and when its key was used last.
pub async fn use_insert(tx: &Tx, row: &UseRow) -> Result<(), DbError> {
    sql("INSERT INTO provider_key_uses (product, id, provider_key_id, account_id, model, prompt_tokens, \
         completion_tokens, outcome, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (product, id) DO NOTHING")
    .bind(&row.product)
    .bind(&row.id)
    .bind(&row.provider_key_id)
    .bind(&row.account_id)
    .bind(&row.model)
    .bind(row.prompt_tokens)
    .bind(row.completion_tokens)
    .bind(&row.outcome)
    .bind(row.created_at)
    .run(tx)
    .await?;
    sql("UPDATE provider_keys SET used_at = $3 WHERE product = $1 AND id = $2 AND COALESCE(used_at, 0) < $3")
        .bind(&row.product)
        .bind(&row.provider_key_id)
        .bind(row.created_at)
        .run(tx)
        .await
        .map(drop)
}

/// Calls over a key of an account below an id (empty: from the newest on), newest first.
pub async fn use_list(
    db: &Db,
    product: &str,
    account_id: &str,
    provider_key_id: &str,
    below: &str,
    most: i64,
) -> Result<Vec<UseRow>, DbError> {
    sql(
        "SELECT product, id, provider_key_id, account_id, model, prompt_tokens, completion_tokens, outcome, created_at \
         FROM provider_key_uses WHERE product = $1 AND account_id = $2 AND provider_key_id = $3 \
         AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5",
    )
    .bind(product)
    .bind(account_id)
    .bind(provider_key_id)
    .bind(below)
    .bind(most)
    .all(db)
    .await
}

/// Deletes up to `most` calls that are older than `before` (ms since 1970), and says how many.
pub async fn use_prune(db: &Db, before: i64, most: i64) -> Result<u64, DbError> {
    sql("DELETE FROM provider_key_uses WHERE (product, id) IN \
         (SELECT product, id FROM provider_key_uses WHERE created_at < $1 ORDER BY created_at LIMIT $2)")
    .bind(before)
    .bind(most)
    .run(db)
    .await
}
