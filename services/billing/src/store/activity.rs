//! Events of products.
use weft_db::{DbError, On, Tx, record, sql};

/// Most kinds of events of an account that are told apart; they are few, because services name them.
const MAX_KINDS: i64 = 1000;

/// Adds events to a day, as long as its number stays below `most`. False: it would not.
pub async fn activity_add(
    tx: &Tx,
    product: &str,
    user_id: &str,
    (day, kind): (i64, &str),
    events: i64,
    most: i64,
) -> Result<bool, DbError> {
    let added = sql("INSERT INTO activity_daily (product, user_id, day, kind, events) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (product, user_id, day, kind) DO UPDATE SET events = activity_daily.events + excluded.events \
         WHERE activity_daily.events <= $6")
    .bind(product)
    .bind(user_id)
    .bind(day)
    .bind(kind)
    .bind(events)
    .bind(most.saturating_sub(events))
    .run(tx)
    .await?;
    Ok(added == 1)
}

record! {
    /// Events of a kind.
    pub struct KindRow {
        pub kind: String,
        pub events: i64,
    }
}

/// The events of an account over its life, by kind.
pub async fn activity_by_kind(on: &impl On, product: &str, user_id: &str) -> Result<Vec<KindRow>, DbError> {
    sql("SELECT kind, CAST(SUM(events) AS BIGINT) AS events FROM activity_daily \
         WHERE product = $1 AND user_id = $2 GROUP BY kind ORDER BY kind LIMIT $3")
    .bind(product)
    .bind(user_id)
    .bind(MAX_KINDS)
    .all(on)
    .await
}

/// The events of an account from a day on, by day: (day, events).
pub async fn activity_by_day(
    on: &impl On,
    product: &str,
    user_id: &str,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, i64)>, DbError> {
    sql("SELECT day, CAST(SUM(events) AS BIGINT) FROM activity_daily \
         WHERE product = $1 AND user_id = $2 AND day >= $3 AND day <= $4 GROUP BY day ORDER BY day LIMIT 1000")
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .all(on)
    .await
}
