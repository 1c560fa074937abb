//! What the ledger, calls, events, payments and sales add up to.
use weft_db::{Db, DbError, On, Tx, record, sql};
use weft_product::Product;

use crate::store::account::{standing, standing_joins};

/// So many movements are added up at each reading; when more have come, they are brought into `credits_daily`.
const TAIL: i64 = 1_000;
/// So many movements are brought forward in one transaction: some 100 ms.
const ROLL: i64 = 50_000;
/// Most days that an account can have had: more than fifty years.
const MAX_DAYS: i64 = 20_000;
/// Most plans of a product, retired ones included.
const MAX_PLANS: i64 = 1_000;
/// Most currencies of payments.
const MAX_CURRENCIES: i64 = 1_000;

/// Credits spent, by day: (day, micro-credits), newest first. Given back deducted.
///
/// A wallet may have millions of movements and each reading wants the sum of all, so it reads a row a day and the
/// movements since: one statement, which sees both at the same moment.
pub async fn credits_by_day(db: &Db, product: &str, user_id: &str) -> Result<Vec<(i64, i64)>, DbError> {
    while tail(db, product, user_id).await? > TAIL {
        db.write("credits_roll", async |tx: Tx| credits_roll(&tx, product, user_id).await).await?;
    }
    sql("SELECT day, CAST(SUM(spent) AS BIGINT) FROM (\
             SELECT day, spent FROM credits_daily WHERE product = $1 AND user_id = $2 \
             UNION ALL SELECT created_at / 86400000 AS day, -amount AS spent FROM ledger_entries \
             WHERE product = $1 AND user_id = $2 AND kind IN ('usage', 'spend') AND seq > \
             COALESCE((SELECT seq FROM credits_rolled WHERE product = $1 AND user_id = $2), 0)) s \
         GROUP BY day ORDER BY day DESC LIMIT $3")
    .bind(product)
    .bind(user_id)
    .bind(MAX_DAYS)
    .all(db)
    .await
}

/// How many movements of a wallet are not in `credits_daily`.
async fn tail(on: &impl On, product: &str, user_id: &str) -> Result<i64, DbError> {
    sql("SELECT COALESCE((SELECT seq FROM ledger_entries WHERE product = $1 AND user_id = $2 \
             ORDER BY seq DESC LIMIT 1), 0) \
         - COALESCE((SELECT seq FROM credits_rolled WHERE product = $1 AND user_id = $2), 0)")
    .bind(product)
    .bind(user_id)
    .one(on)
    .await
}

/// Brings the next movements into `credits_daily`.
async fn credits_roll(tx: &Tx, product: &str, user_id: &str) -> Result<(), DbError> {
    // Locks the row: two readers at once do it one after the other.
    let from: i64 = sql("INSERT INTO credits_rolled (product, user_id, seq) VALUES ($1, $2, 0) \
         ON CONFLICT (product, user_id) DO UPDATE SET seq = credits_rolled.seq RETURNING seq")
    .bind(product)
    .bind(user_id)
    .one(tx)
    .await?;
    let to: i64 = sql("SELECT COALESCE(MAX(seq), 0) FROM ledger_entries \
         WHERE product = $1 AND user_id = $2 AND seq > $3 AND seq <= $4")
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(from.saturating_add(ROLL))
    .one(tx)
    .await?;
    if to <= from {
        return Ok(());
    }
    sql("INSERT INTO credits_daily (product, user_id, day, spent) \
         SELECT product, user_id, created_at / 86400000, CAST(-SUM(amount) AS BIGINT) FROM ledger_entries \
         WHERE product = $1 AND user_id = $2 AND seq > $3 AND seq <= $4 AND kind IN ('usage', 'spend') \
         GROUP BY product, user_id, created_at / 86400000 \
         ON CONFLICT (product, user_id, day) DO UPDATE SET spent = credits_daily.spent + excluded.spent")
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .run(tx)
    .await?;
    sql("UPDATE credits_rolled SET seq = $3 WHERE product = $1 AND user_id = $2")
        .bind(product)
        .bind(user_id)
        .bind(to)
        .run(tx)
        .await
        .map(drop)
}

record! {
    /// Model calls of a day.
    pub struct CallDayRow {
        pub day: i64,
        pub calls: i64,
        /// In and out.
        pub tokens: i64,
    }
}

/// The model calls of an account by day, from one day to another, both included.
pub async fn calls_by_day(
    on: &impl On,
    product: &str,
    user_id: &str,
    from: i64,
    to: i64,
) -> Result<Vec<CallDayRow>, DbError> {
    sql("SELECT day, CAST(SUM(calls) AS BIGINT) AS calls, \
         CAST(SUM(input_tokens + output_tokens) AS BIGINT) AS tokens FROM usage_daily \
         WHERE product = $1 AND user_id = $2 AND day >= $3 AND day <= $4 GROUP BY day ORDER BY day LIMIT 1000")
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .all(on)
    .await
}

record! {
    /// How many accounts of a product got how far. An account is one that has asked for something; the payer of
    /// others' seats that never does is none.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FunnelRow {
        pub known: i64,
        /// Asked for something in the last days.
        pub active: i64,
        /// Had at least one model call.
        pub used: i64,
        /// Paid for something, whether or not it was refunded.
        pub paid: i64,
        /// Have a subscription of their own that counts.
        pub subscribed: i64,
    }
}

/// The funnel of a product; active since the day `since`. Model calls are looked for one account at a time by the
/// key, which is shorter than to read them all.
pub async fn funnel(on: &impl On, product: &str, since: i64) -> Result<FunnelRow, DbError> {
    sql("SELECT COUNT(*) AS known, \
         CAST(COALESCE(SUM(CASE WHEN a.active_day >= $2 THEN 1 ELSE 0 END), 0) AS BIGINT) AS active, \
         CAST(COALESCE(SUM(CASE WHEN EXISTS (SELECT 1 FROM usage_daily u \
             WHERE u.product = a.product AND u.user_id = a.user_id) THEN 1 ELSE 0 END), 0) AS BIGINT) AS used, \
         (SELECT COUNT(*) FROM accounts b JOIN (\
             SELECT user_id FROM payments WHERE product = $1 AND amount_minor > 0 \
             UNION SELECT buyer_id AS user_id FROM revenue_events \
             WHERE product = $1 AND kind = 'sale' AND amount_minor > 0) p ON p.user_id = b.user_id \
             WHERE b.product = $1 AND b.created_at > 0) AS paid, \
         CAST(COALESCE(SUM(CASE WHEN a.subscription_status IN ('active', 'trialing', 'past_due') \
             THEN 1 ELSE 0 END), 0) AS BIGINT) AS subscribed \
         FROM accounts a WHERE a.product = $1 AND a.created_at > 0")
    .bind(product)
    .bind(since)
    .one(on)
    .await
}

/// How many accounts are on which plan, by the rule which plan counts: (slug, accounts).
pub async fn accounts_by_plan(on: &impl On, product: &Product) -> Result<Vec<(String, i64)>, DbError> {
    sql(concat!(
        "SELECT e.plan, COUNT(*) FROM (SELECT ",
        standing!(),
        "JOIN accounts a ON a.product = d.product AND a.created_at > 0 ",
        standing_joins!(),
        "WHERE d.product = $1 AND d.slug = $2) e GROUP BY e.plan ORDER BY e.plan LIMIT $3"
    ))
    .bind(&product.slug)
    .bind(&product.default_plan)
    .bind(MAX_PLANS)
    .all(on)
    .await
}

record! {
    /// Money in one currency, in minor units.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RevenueRow {
        /// ISO 4217, upper case.
        pub currency: String,
        pub subscriptions: i64,
        pub packages: i64,
        /// The platform's share of sales.
        pub marketplace: i64,
    }
}

/// The money of a product since a moment, by currency: payments made since then less what went back of them, to
/// payers or their banks, and the platform's part of what moved in the marketplace since then.
pub async fn revenue(on: &impl On, product: &str, since_ms: i64) -> Result<Vec<RevenueRow>, DbError> {
    sql("SELECT currency, CAST(SUM(subscriptions) AS BIGINT) AS subscriptions, \
         CAST(SUM(packages) AS BIGINT) AS packages, CAST(SUM(marketplace) AS BIGINT) AS marketplace FROM (\
             SELECT UPPER(currency) AS currency, CASE WHEN kind = 'invoice' THEN kept ELSE 0 END AS subscriptions, \
             CASE WHEN kind = 'package' THEN kept ELSE 0 END AS packages, 0 AS marketplace FROM (\
                 SELECT currency, kind, CASE WHEN refunded_minor + disputed_minor >= amount_minor THEN 0 \
                 ELSE amount_minor - refunded_minor - disputed_minor END AS kept \
                 FROM payments WHERE product = $1 AND created_at >= $2) k \
             UNION ALL SELECT UPPER(currency), 0, 0, platform_minor FROM revenue_events \
             WHERE product = $1 AND created_at >= $2) r \
         GROUP BY currency ORDER BY currency LIMIT $3")
    .bind(product)
    .bind(since_ms)
    .bind(MAX_CURRENCIES)
    .all(on)
    .await
}
