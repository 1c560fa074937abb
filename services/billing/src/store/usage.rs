//! Model calls, counters of the day and calls that are running.
use weft_db::{DbError, On, Tx, record, sql};
use weft_product::Product;

use crate::store::account::{standing, standing_joins};

/// Most models, or models with roles, that a report lists.
const MAX_GROUPS: i64 = 1000;
/// Most limits of a day that a product has.
const MAX_COUNTERS: i64 = 1000;

record! {
    /// A model call as it is stored.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CallRow {
        /// UUID v7.
        pub id: String,
        pub user_id: String,
        pub session_id: String,
        pub agent_role: String,
        pub model_used: String,
        pub input_tokens: i64,
        pub output_tokens: i64,
        pub total_tokens: i64,
        pub cost_microdollars: i64,
        /// Whether the model was in the price table.
        pub priced: bool,
        /// Micro-credits.
        pub charged: i64,
        /// Whether the provider did not say.
        pub estimated: bool,
        pub latency_ms: i64,
        pub failed: bool,
        /// ms since 1970.
        pub created_at: i64,
    }
}

record! {
    /// Calls, added up.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TotalsRow {
        pub model: String,
        pub agent_role: String,
        pub calls: i64,
        pub input_tokens: i64,
        pub output_tokens: i64,
        pub cost_microdollars: i64,
        /// Accounts with at least one call.
        pub users: i64,
        pub failed: i64,
        pub latency_ms: i64,
    }
}

record! {
    /// A limit of an account, as far as the tables say something about it.
    pub struct LimitRow {
        /// Slug of the plan that counts.
        pub plan: String,
        /// The last UTC day on which the account was noted to be active.
        pub active_day: i64,
        /// The plan has a value.
        stated: bool,
        value: Option<i64>,
        /// An administrator has set one for the account.
        own: bool,
        own_value: Option<i64>,
    }
}

impl LimitRow {
    /// None: unlimited. By the rule of [`Entitled`](crate::domain::entitlement::Entitled): what was set for the
    /// account counts, then what the plan says, and what neither has is 0.
    pub fn limit(&self) -> Option<i64> {
        match (self.own, self.stated) {
            (true, _) => self.own_value,
            (false, true) => self.value,
            (false, false) => Some(0),
        }
    }
}

/// One limit of an account now, in one statement. None: the tables do not have the default plan.
pub async fn limit_now(
    on: &impl On,
    product: &Product,
    user_id: &str,
    name: &str,
) -> Result<Option<LimitRow>, DbError> {
    sql(concat!(
        "SELECT e.plan, e.active_day, v.name IS NOT NULL AS stated, v.value, o.name IS NOT NULL AS own, \
         o.value AS own_value FROM (SELECT d.product, ",
        standing!(),
        "LEFT JOIN accounts a ON a.product = d.product AND a.user_id = $2 ",
        standing_joins!(),
        "WHERE d.product = $1 AND d.slug = $3) e \
         LEFT JOIN plan_values v ON v.product = e.product AND v.plan = e.plan AND v.version = e.version \
         AND v.kind = 'limit' AND v.name = $4 \
         LEFT JOIN account_overrides o ON o.product = e.product AND o.user_id = $2 AND o.kind = 'limit' \
         AND o.name = $4"
    ))
    .bind(&product.slug)
    .bind(user_id)
    .bind(&product.default_plan)
    .bind(name)
    .opt(on)
    .await
}

/// Adds to a counter if it is at most `room` before; answers what it is then. None: there is no room.
///
/// One statement: the row is locked from the comparison to the commit, and of many who bring the first row of a day
/// one does, and the others find it. So exactly the limit is let through, however many ask at once and wherever.
/// The first row is not compared: the caller has seen that `amount` alone fits.
pub async fn counter_add(
    on: &impl On,
    product: &str,
    user_id: &str,
    (day, name): (i64, &str),
    amount: i64,
    room: i64,
) -> Result<Option<i64>, DbError> {
    sql("INSERT INTO daily_counters (product, user_id, day, name, used) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (product, user_id, day, name) DO UPDATE SET used = daily_counters.used + excluded.used \
         WHERE daily_counters.used <= $6 RETURNING used")
    .bind(product)
    .bind(user_id)
    .bind(day)
    .bind(name)
    .bind(amount)
    .bind(room)
    .opt(on)
    .await
}

record! {
    /// A counter of a day.
    pub struct CounterRow {
        /// Of the limit.
        pub name: String,
        pub used: i64,
    }
}

/// The counters of an account on a day; one that has not begun is missing.
pub async fn counters(on: &impl On, product: &str, user_id: &str, day: i64) -> Result<Vec<CounterRow>, DbError> {
    sql("SELECT name, used FROM daily_counters WHERE product = $1 AND user_id = $2 AND day = $3 LIMIT $4")
        .bind(product)
        .bind(user_id)
        .bind(day)
        .bind(MAX_COUNTERS)
        .all(on)
        .await
}

/// A call that is to begin.
pub struct Reservation<'a> {
    pub product: &'a str,
    pub user_id: &'a str,
    pub id: &'a str,
    pub tokens: i64,
    /// ms since 1970.
    pub expires_at: i64,
}

/// Notes a call as running if those that run already use less than `room`; answers how much they use. None: they
/// use as much or more. The caller has locked the day's counter, so that nobody begins another one meanwhile.
pub async fn reservation_begin(
    tx: &Tx,
    reservation: &Reservation<'_>,
    room: i64,
    now_ms: i64,
) -> Result<Option<i64>, DbError> {
    sql("INSERT INTO usage_reservations (product, user_id, id, tokens, expires_at, running) \
         SELECT $1, $2, $3, $4, $5, r.running FROM (\
             SELECT CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS running FROM usage_reservations \
             WHERE product = $1 AND user_id = $2 AND expires_at > $6) r \
         WHERE r.running < $7 RETURNING running")
    .bind(reservation.product)
    .bind(reservation.user_id)
    .bind(reservation.id)
    .bind(reservation.tokens)
    .bind(reservation.expires_at)
    .bind(now_ms)
    .bind(room)
    .opt(tx)
    .await
}

/// Ends a running call; one that is not there has ended or expired. Calls of the account that nobody ended in time go
/// with it: they count for nothing any more.
pub async fn reservation_end(tx: &Tx, product: &str, user_id: &str, id: &str, now_ms: i64) -> Result<(), DbError> {
    sql("DELETE FROM usage_reservations WHERE product = $1 AND user_id = $2 AND (id = $3 OR expires_at <= $4)")
        .bind(product)
        .bind(user_id)
        .bind(id)
        .bind(now_ms)
        .run(tx)
        .await
        .map(drop)
}

/// The columns of [`TotalsRow`] that are sums.
macro_rules! sums {
    () => {
        "CAST(COALESCE(SUM(calls), 0) AS BIGINT) AS calls, \
         CAST(COALESCE(SUM(input_tokens), 0) AS BIGINT) AS input_tokens, \
         CAST(COALESCE(SUM(output_tokens), 0) AS BIGINT) AS output_tokens, \
         CAST(COALESCE(SUM(cost_microdollars), 0) AS BIGINT) AS cost_microdollars, \
         COUNT(DISTINCT user_id) AS users, CAST(COALESCE(SUM(failed), 0) AS BIGINT) AS failed, \
         CAST(COALESCE(SUM(latency_ms), 0) AS BIGINT) AS latency_ms "
    };
}

/// The usage of a product from one day to another, both included.
pub async fn product_totals(on: &impl On, product: &str, from: i64, to: i64) -> Result<TotalsRow, DbError> {
    sql(concat!(
        "SELECT '' AS model, '' AS agent_role, ",
        sums!(),
        "FROM usage_daily WHERE product = $1 AND day >= $2 AND day <= $3"
    ))
    .bind(product)
    .bind(from)
    .bind(to)
    .one(on)
    .await
}

/// The same by model.
pub async fn product_by_model(on: &impl On, product: &str, from: i64, to: i64) -> Result<Vec<TotalsRow>, DbError> {
    sql(concat!(
        "SELECT model, '' AS agent_role, ",
        sums!(),
        "FROM usage_daily WHERE product = $1 AND day >= $2 AND day <= $3 GROUP BY model ORDER BY model LIMIT $4"
    ))
    .bind(product)
    .bind(from)
    .bind(to)
    .bind(MAX_GROUPS)
    .all(on)
    .await
}

/// The usage of an account from one day to another, both included.
pub async fn account_totals(
    on: &impl On,
    product: &str,
    user_id: &str,
    from: i64,
    to: i64,
) -> Result<TotalsRow, DbError> {
    sql(concat!(
        "SELECT '' AS model, '' AS agent_role, ",
        sums!(),
        "FROM usage_daily WHERE product = $1 AND user_id = $2 AND day >= $3 AND day <= $4"
    ))
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .one(on)
    .await
}

/// The same by model and role.
pub async fn account_groups(
    on: &impl On,
    product: &str,
    user_id: &str,
    from: i64,
    to: i64,
) -> Result<Vec<TotalsRow>, DbError> {
    sql(concat!(
        "SELECT model, agent_role, ",
        sums!(),
        "FROM usage_daily WHERE product = $1 AND user_id = $2 AND day >= $3 AND day <= $4 \
         GROUP BY model, agent_role ORDER BY model, agent_role LIMIT $5"
    ))
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .bind(MAX_GROUPS)
    .all(on)
    .await
}

/// Calls of an account that come before one (its time and id), newest first.
pub async fn calls_before(
    on: &impl On,
    product: &str,
    user_id: &str,
    (created_at, id): (i64, &str),
    most: i64,
) -> Result<Vec<CallRow>, DbError> {
    sql("SELECT id, user_id, session_id, agent_role, model_used, input_tokens, output_tokens, total_tokens, \
         cost_microdollars, priced, charged, estimated, latency_ms, failed, created_at FROM usage_logs \
         WHERE product = $1 AND user_id = $2 AND (created_at, id) < ($3, $4) \
         ORDER BY created_at DESC, id DESC LIMIT $5")
    .bind(product)
    .bind(user_id)
    .bind(created_at)
    .bind(id)
    .bind(most)
    .all(on)
    .await
}
