//! The inbox of Stripe's events.
use weft_db::{AssertSqlSafe, DbError, On, Tx, sql};

/// Most events that one statement forgets.
const PRUNE_ROWS: i64 = 1000;

/// Takes an event in. False: it is there already.
pub async fn event_insert(
    tx: &Tx,
    product: &str,
    (id, kind, created): (&str, &str, i64),
    now_ms: i64,
) -> Result<bool, DbError> {
    let stored = sql("INSERT INTO stripe_events (product, id, kind, outcome, created, received_at) \
         VALUES ($1, $2, $3, 'applied', $4, $5) ON CONFLICT DO NOTHING")
    .bind(product)
    .bind(id)
    .bind(kind)
    .bind(created)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(stored == 1)
}

/// Notes what became of it.
pub async fn event_outcome(tx: &Tx, product: &str, id: &str, outcome: &str) -> Result<(), DbError> {
    sql("UPDATE stripe_events SET outcome = $3 WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .bind(outcome)
        .run(tx)
        .await
        .map(drop)
}

/// Which of these events, at most 100, are in the inbox.
pub async fn events_known(on: &impl On, ids: &[String]) -> Result<Vec<String>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
    let text = format!("SELECT id FROM stripe_events WHERE id IN ({}) LIMIT {}", places.join(", "), ids.len());
    let statement = sql(AssertSqlSafe(text));
    ids.iter().fold(statement, |statement, id| statement.bind(id)).all(on).await
}

/// Forgets events that were received before a moment, some at a time; answers how many.
pub async fn event_prune(on: &impl On, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM stripe_events WHERE id IN \
         (SELECT id FROM stripe_events WHERE received_at < $1 ORDER BY received_at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS)
    .run(on)
    .await
}

/// Up to when the product's events were compared with Stripe's, s since 1970.
pub async fn synced(on: &impl On, product: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT synced FROM stripe_syncs WHERE product = $1").bind(product).opt(on).await
}

/// Notes up to when.
pub async fn synced_set(on: &impl On, product: &str, at_s: i64) -> Result<(), DbError> {
    sql("INSERT INTO stripe_syncs (product, synced) VALUES ($1, $2) ON CONFLICT (product) DO UPDATE \
         SET synced = excluded.synced")
    .bind(product)
    .bind(at_s)
    .run(on)
    .await
    .map(drop)
}
