//! What there is of one account: to give it out, and to delete it.
use weft_db::{Db, DbError, On, Tx, record, sql};

/// Rows that one statement deletes, so that it never holds a writer for long, and that one part of an export has.
pub const PART_ROWS: i64 = 1000;

record! {
    /// A movement of credits.
    pub struct EntryRow {
        /// From 1.
        pub seq: i64,
        /// Which bucket.
        pub bucket: String,
        /// What it was.
        pub kind: String,
        /// Micro-credits.
        pub amount: i64,
        /// Micro-credits.
        pub balance_after: i64,
        /// What it was for.
        pub reference: String,
        /// ms since 1970.
        pub created_at: i64,
    }
}

/// Movements after a number, oldest first.
pub async fn personal_entries(db: &Db, product: &str, user_id: &str, after: i64) -> Result<Vec<EntryRow>, DbError> {
    sql("SELECT seq, bucket, kind, amount, balance_after, reference, created_at FROM ledger_entries \
         WHERE product = $1 AND user_id = $2 AND seq > $3 ORDER BY seq LIMIT $4")
    .bind(product)
    .bind(user_id)
    .bind(after)
    .bind(PART_ROWS)
    .all(db)
    .await
}

record! {
    /// What was used on a UTC day.
    pub struct UsedRow {
        /// Days since 1970.
        pub day: i64,
        /// Name of the model.
        pub model: String,
        /// Which agent.
        pub agent_role: String,
        /// How often.
        pub calls: i64,
        /// Tokens.
        pub input_tokens: i64,
        /// Tokens.
        pub output_tokens: i64,
    }
}

/// The latest usage, newest first; `skip` rows are left out.
pub async fn personal_usage(db: &Db, product: &str, user_id: &str, skip: i64) -> Result<Vec<UsedRow>, DbError> {
    sql("SELECT day, model, agent_role, calls, input_tokens, output_tokens FROM usage_daily \
         WHERE product = $1 AND user_id = $2 ORDER BY day DESC, model, agent_role LIMIT $3 OFFSET $4")
    .bind(product)
    .bind(user_id)
    .bind(PART_ROWS)
    .bind(skip)
    .all(db)
    .await
}

/// Deletes some of the account's model calls; says how many.
pub async fn personal_delete_calls(on: &impl On, product: &str, user_id: &str) -> Result<u64, DbError> {
    sql("DELETE FROM usage_logs WHERE (product, id) IN \
         (SELECT product, id FROM usage_logs WHERE product = $1 AND user_id = $2 LIMIT $3)")
    .bind(product)
    .bind(user_id)
    .bind(PART_ROWS)
    .run(on)
    .await
}

/// Deletes what is left of the account, except ledger and payments, and frees the seats that others have of it.
pub async fn personal_delete(tx: &Tx, product: &str, user_id: &str) -> Result<(), DbError> {
    for text in [
        "DELETE FROM usage_daily WHERE product = $1 AND user_id = $2",
        "DELETE FROM daily_counters WHERE product = $1 AND user_id = $2",
        "DELETE FROM usage_reservations WHERE product = $1 AND user_id = $2",
        "DELETE FROM activity_daily WHERE product = $1 AND user_id = $2",
        "DELETE FROM credits_daily WHERE product = $1 AND user_id = $2",
        "DELETE FROM credits_rolled WHERE product = $1 AND user_id = $2",
        "DELETE FROM account_overrides WHERE product = $1 AND user_id = $2",
        "DELETE FROM idempotency_keys WHERE product = $1 AND user_id = $2",
        "DELETE FROM customers WHERE product = $1 AND user_id = $2",
        "UPDATE accounts SET payer_id = NULL WHERE product = $1 AND payer_id = $2",
        "DELETE FROM accounts WHERE product = $1 AND user_id = $2",
    ] {
        sql(text).bind(product).bind(user_id).run(tx).await?;
    }
    Ok(())
}
