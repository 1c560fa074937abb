//! Seats of subscriptions.
use weft_db::{DbError, On, Tx, record, sql};

/// Most seats of a subscription.
pub const MAX_SEATS: i64 = 10_000;

record! {
    /// A subscription that counts and that has seats.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SeatedRow {
        /// Slug of the plan.
        pub plan: String,
        /// Seats paid for.
        pub seats: i64,
    }
}

/// The payer's subscription if it counts and its plan is paid per seat. Its row is locked to the end of the
/// transaction: seats are given by one at a time.
pub async fn seated_lock(tx: &Tx, product: &str, payer_id: &str) -> Result<Option<SeatedRow>, DbError> {
    sql("UPDATE accounts SET seats = seats WHERE product = $1 AND user_id = $2 \
         AND subscription_status IN ('active', 'trialing', 'past_due') AND EXISTS ( \
             SELECT 1 FROM prices r WHERE r.product = accounts.product AND r.plan = accounts.subscribed_plan \
             AND r.version = accounts.subscribed_version AND r.per_seat) \
         RETURNING subscribed_plan AS plan, seats")
    .bind(product)
    .bind(payer_id)
    .opt(tx)
    .await
}

/// Whose seat a person has.
pub async fn seat_payer(on: &impl On, product: &str, user_id: &str) -> Result<Option<String>, DbError> {
    let row: Option<Option<String>> = sql("SELECT payer_id FROM accounts WHERE product = $1 AND user_id = $2")
        .bind(product)
        .bind(user_id)
        .opt(on)
        .await?;
    Ok(row.flatten())
}

/// How many sit.
pub async fn seats_taken(on: &impl On, product: &str, payer_id: &str) -> Result<i64, DbError> {
    sql("SELECT COUNT(*) FROM accounts WHERE product = $1 AND payer_id = $2").bind(product).bind(payer_id).one(on).await
}

/// Gives a seat to a person who has none, after everybody who sits. False: they have one.
pub async fn seat_assign(tx: &Tx, product: &str, payer_id: &str, user_id: &str) -> Result<bool, DbError> {
    let assigned = sql("INSERT INTO accounts (product, user_id, payer_id, seat_order) VALUES ($1, $2, $3, \
         (SELECT COALESCE(MAX(o.seat_order), 0) + 1 FROM accounts o WHERE o.product = $1 AND o.payer_id = $3)) \
         ON CONFLICT (product, user_id) DO UPDATE SET payer_id = excluded.payer_id, seat_order = excluded.seat_order \
         WHERE accounts.payer_id IS NULL")
    .bind(product)
    .bind(user_id)
    .bind(payer_id)
    .run(tx)
    .await?;
    Ok(assigned > 0)
}

/// Takes a seat back from who has it.
pub async fn seat_release(on: &impl On, product: &str, payer_id: &str, user_id: &str) -> Result<(), DbError> {
    sql("UPDATE accounts SET payer_id = NULL WHERE product = $1 AND user_id = $2 AND payer_id = $3")
        .bind(product)
        .bind(user_id)
        .bind(payer_id)
        .run(on)
        .await
        .map(drop)
}

/// Who sits, by id.
pub async fn seat_list(on: &impl On, product: &str, payer_id: &str) -> Result<Vec<String>, DbError> {
    sql("SELECT user_id FROM accounts WHERE product = $1 AND payer_id = $2 ORDER BY user_id LIMIT $3")
        .bind(product)
        .bind(payer_id)
        .bind(MAX_SEATS)
        .all(on)
        .await
}

/// Seats paid for by a subscription that counts and that has them; 0 without one.
pub async fn seats_total(on: &impl On, product: &str, payer_id: &str) -> Result<i64, DbError> {
    let seats: Option<i64> = sql("SELECT a.seats FROM accounts a WHERE a.product = $1 AND a.user_id = $2 \
         AND a.subscription_status IN ('active', 'trialing', 'past_due') AND EXISTS ( \
             SELECT 1 FROM prices r WHERE r.product = a.product AND r.plan = a.subscribed_plan \
             AND r.version = a.subscribed_version AND r.per_seat)")
    .bind(product)
    .bind(payer_id)
    .opt(on)
    .await?;
    Ok(seats.unwrap_or(0))
}
