//! What an administrator has set for one account.
use weft_db::{AssertSqlSafe, DbError, On, Sql, Tx, record, sql};

use super::account::{batch_places, padded};

/// Most overrides that are read at once: of names that the product once declared, for as many accounts as one statement reads.
const MAX_ROWS: i64 = 100_000;

record! {
    /// An override.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OverrideRow {
        /// Whose.
        pub user_id: String,
        /// `limit`, `rate` or `model`.
        pub kind: String,
        /// The limit, `requests_per_minute`, or the role.
        pub name: String,
        /// None: unlimited; always none of a model.
        pub value: Option<i64>,
        /// Alias; always none of a number.
        pub model: Option<String>,
    }
}

/// Stores an override, or what it is now.
pub async fn override_set(tx: &Tx, product: &str, row: &OverrideRow) -> Result<(), DbError> {
    sql("INSERT INTO account_overrides (product, user_id, kind, name, value, model) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (product, user_id, kind, name) DO UPDATE SET value = excluded.value, model = excluded.model")
    .bind(product)
    .bind(&row.user_id)
    .bind(&row.kind)
    .bind(&row.name)
    .bind(row.value)
    .bind(row.model.clone())
    .run(tx)
    .await
    .map(drop)
}

/// Takes back what was set under a name; answers whether anything was.
pub async fn override_clear(tx: &Tx, product: &str, user_id: &str, name: &str) -> Result<bool, DbError> {
    let cleared = sql("DELETE FROM account_overrides WHERE product = $1 AND user_id = $2 AND name = $3")
        .bind(product)
        .bind(user_id)
        .bind(name)
        .run(tx)
        .await?;
    Ok(cleared > 0)
}

/// The overrides of as many accounts as one statement reads.
pub async fn override_list(on: &impl On, product: &str, user_ids: &[String]) -> Result<Vec<OverrideRow>, DbError> {
    let text = format!(
        "SELECT user_id, kind, name, value, model FROM account_overrides \
         WHERE product = $1 AND user_id IN ({}) LIMIT {MAX_ROWS}",
        batch_places(2)
    );
    padded(user_ids).fold(sql(AssertSqlSafe(text)).bind(product), Sql::bind).all(on).await
}

record! {
    /// What an account used of a limit of the day.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct UsedRow {
        /// Who.
        pub user_id: String,
        /// The limit.
        pub name: String,
        /// How much.
        pub used: i64,
    }
}

/// What as many accounts as one statement reads used on a UTC day, days since 1970.
pub async fn used_on(on: &impl On, product: &str, day: i64, user_ids: &[String]) -> Result<Vec<UsedRow>, DbError> {
    let text = format!(
        "SELECT user_id, name, used FROM daily_counters \
         WHERE product = $1 AND day = $2 AND user_id IN ({}) LIMIT {MAX_ROWS}",
        batch_places(3)
    );
    padded(user_ids).fold(sql(AssertSqlSafe(text)).bind(product).bind(day), Sql::bind).all(on).await
}
