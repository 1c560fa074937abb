//! Subscriptions as Stripe last told of them.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::subscription::Evidence;

/// Most subscriptions of one account that are looked at; a second one is a rarity.
const MAX_OF_ACCOUNT: i64 = 100;

record! {
    /// A subscription.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SubscriptionRow {
        /// Stripe's.
        pub id: String,
        /// Whose.
        pub user_id: String,
        /// Stripe's id of its one item; empty: not told yet.
        pub item_id: String,
        /// Slug of the plan.
        pub plan: String,
        /// Version of the plan.
        pub plan_version: i64,
        /// Id of the price.
        pub price_id: String,
        /// As Stripe names it.
        pub status: String,
        /// Seats paid for.
        pub seats: i64,
        /// ms since 1970.
        pub period_end: i64,
        /// It ends with the period.
        pub cancel_at_period_end: bool,
        /// ms since 1970.
        pub created_at: i64,
    }
}

/// Stores what an event says of a subscription, unless what is known is better evidence. False: it is.
pub async fn subscription_put(
    tx: &Tx,
    product: &str,
    row: &SubscriptionRow,
    evidence: &Evidence,
) -> Result<bool, DbError> {
    let changed =
        sql("INSERT INTO subscriptions (product, id, user_id, item_id, plan, plan_version, price_id, status, \
         seats, period_end, cancel_at_period_end, created_at, evidence, event_created, event_rank, event_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         ON CONFLICT (product, id) DO UPDATE SET item_id = excluded.item_id, plan = excluded.plan, \
         plan_version = excluded.plan_version, price_id = excluded.price_id, status = excluded.status, \
         seats = excluded.seats, period_end = excluded.period_end, \
         cancel_at_period_end = excluded.cancel_at_period_end, created_at = excluded.created_at, \
         evidence = excluded.evidence, event_created = excluded.event_created, event_rank = excluded.event_rank, \
         event_id = excluded.event_id \
         WHERE subscriptions.user_id = excluded.user_id AND \
         (subscriptions.evidence, subscriptions.event_created, subscriptions.event_rank, subscriptions.event_id) \
         < (excluded.evidence, excluded.event_created, excluded.event_rank, excluded.event_id)")
        .on_postgres(
            "INSERT INTO subscriptions (product, id, user_id, item_id, plan, plan_version, price_id, status, \
         seats, period_end, cancel_at_period_end, created_at, evidence, event_created, event_rank, event_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         ON CONFLICT (product, id) DO UPDATE SET item_id = excluded.item_id, plan = excluded.plan, \
         plan_version = excluded.plan_version, price_id = excluded.price_id, status = excluded.status, \
         seats = excluded.seats, period_end = excluded.period_end, \
         cancel_at_period_end = excluded.cancel_at_period_end, created_at = excluded.created_at, \
         evidence = excluded.evidence, event_created = excluded.event_created, event_rank = excluded.event_rank, \
         event_id = excluded.event_id \
         WHERE subscriptions.user_id = excluded.user_id AND \
         (subscriptions.evidence, subscriptions.event_created, subscriptions.event_rank, subscriptions.event_id \
         COLLATE \"C\") < (excluded.evidence, excluded.event_created, excluded.event_rank, excluded.event_id)",
        )
        .bind(product)
        .bind(&row.id)
        .bind(&row.user_id)
        .bind(&row.item_id)
        .bind(&row.plan)
        .bind(row.plan_version)
        .bind(&row.price_id)
        .bind(&row.status)
        .bind(row.seats)
        .bind(row.period_end)
        .bind(row.cancel_at_period_end)
        .bind(row.created_at)
        .bind(evidence.source)
        .bind(evidence.created)
        .bind(evidence.rank)
        .bind(&evidence.event_id)
        .run(tx)
        .await?;
    Ok(changed == 1)
}

/// The account's subscriptions, the one that counts first: what gives a plan, then what is still alive, then what is
/// newest.
pub async fn subscription_list(on: &impl On, product: &str, user_id: &str) -> Result<Vec<SubscriptionRow>, DbError> {
    sql("SELECT id, user_id, item_id, plan, plan_version, price_id, status, seats, period_end, cancel_at_period_end, \
         created_at FROM subscriptions WHERE product = $1 AND user_id = $2 \
         ORDER BY CASE WHEN status IN ('active', 'trialing', 'past_due') THEN 0 \
         WHEN status IN ('unpaid', 'paused') THEN 1 ELSE 2 END, created_at DESC, id LIMIT $3")
    .bind(product)
    .bind(user_id)
    .bind(MAX_OF_ACCOUNT)
    .all(on)
    .await
}

/// Living subscriptions whose period ended before a moment, by id after `after`.
pub async fn subscription_list_overdue(
    on: &impl On,
    product: &str,
    before_ms: i64,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    sql("SELECT id FROM subscriptions WHERE product = $1 AND period_end < $2 AND id > $3 AND evidence < 2 \
         AND status IN ('active', 'trialing', 'past_due', 'unpaid', 'paused') ORDER BY id LIMIT $4")
    .bind(product)
    .bind(before_ms)
    .bind(after)
    .bind(limit)
    .all(on)
    .await
}

/// Subscriptions that give a plan beside a newer one of the same account.
pub async fn subscription_list_doubled(on: &impl On, product: &str, limit: i64) -> Result<Vec<String>, DbError> {
    sql("SELECT s.id FROM subscriptions s WHERE s.product = $1 AND s.status IN ('active', 'trialing', 'past_due') \
         AND EXISTS (SELECT 1 FROM subscriptions n WHERE n.product = s.product AND n.user_id = s.user_id \
         AND n.status IN ('active', 'trialing', 'past_due') \
         AND (n.created_at > s.created_at OR (n.created_at = s.created_at AND n.id < s.id))) ORDER BY s.id LIMIT $2")
    .bind(product)
    .bind(limit)
    .all(on)
    .await
}

/// The name of a plan, for people.
pub async fn plan_name(on: &impl On, product: &str, plan: &str) -> Result<Option<String>, DbError> {
    sql("SELECT name FROM plans WHERE product = $1 AND slug = $2").bind(product).bind(plan).opt(on).await
}
