//! Accounts: which plan counts, subscriptions, seats, overrides.
use std::collections::HashMap;

use weft_db::{AssertSqlSafe, DbError, On, Tx, record, sql};
use weft_product::Product;

use crate::domain::plan::terms;
use crate::error::Error;

pub use crate::domain::plan::CreditTerms;

/// How many accounts one statement reads.
pub const BATCH: usize = 100;

/// `$first, …` for [`BATCH`] ids; see [`padded`].
pub(super) fn batch_places(first: usize) -> String {
    let places: Vec<String> = (first..first + BATCH).map(|place| format!("${place}")).collect();
    places.join(", ")
}

/// At most [`BATCH`] ids as exactly so many, so that the text of the statement is always the same.
pub(super) fn padded(ids: &[String]) -> impl Iterator<Item = &String> {
    ids.iter().chain(ids.last().into_iter().cycle()).take(BATCH)
}

/// The columns of [`StandingRow`]: the rule which plan counts, the only place where it stands.
macro_rules! standing {
    () => {
        "COALESCE(a.user_id, '') AS user_id, \
         COALESCE(g.slug, s.subscribed_plan, p.subscribed_plan, d.slug) AS plan, \
         COALESCE(g.version, s.subscribed_version, p.subscribed_version, d.version) AS version, \
         CASE WHEN g.slug IS NOT NULL THEN 'admin' WHEN s.user_id IS NOT NULL THEN 'subscription' \
         WHEN p.user_id IS NOT NULL THEN 'seat' ELSE 'default' END AS source, \
         CASE WHEN g.slug IS NOT NULL THEN 0 ELSE COALESCE(s.seats, p.seats, 0) END AS seats, \
         CASE WHEN g.slug IS NULL AND s.user_id IS NULL THEN p.user_id END AS payer_id, \
         COALESCE(a.subscription_status, '') AS status, \
         COALESCE(a.created_at, 0) AS created_at, COALESCE(a.active_day, 0) AS active_day \
         FROM plans d "
    };
}

/// What [`standing`] joins to an account `a`: the plan given, its own subscription that counts, the payer's
/// if it has seats and one of them is left for the account: who sat down first sits.
macro_rules! standing_joins {
    () => {
        "LEFT JOIN plans g ON g.product = a.product AND g.slug = a.assigned_plan \
         LEFT JOIN accounts s ON s.product = a.product AND s.user_id = a.user_id \
         AND s.subscription_status IN ('active', 'trialing', 'past_due') \
         LEFT JOIN accounts p ON p.product = a.product AND p.user_id = a.payer_id \
         AND p.subscription_status IN ('active', 'trialing', 'past_due') \
         AND EXISTS (SELECT 1 FROM prices r WHERE r.product = p.product AND r.plan = p.subscribed_plan \
         AND r.version = p.subscribed_version AND r.per_seat) \
         AND p.seats > (SELECT COUNT(*) FROM accounts o WHERE o.product = a.product AND o.payer_id = a.payer_id \
         AND (o.seat_order, o.user_id) < (a.seat_order, a.user_id)) "
    };
}

pub(super) use {standing, standing_joins};

record! {
    /// Which plan counts for an account, and why.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct StandingRow {
        /// Empty for an account without a row.
        pub user_id: String,
        /// Slug of the plan that counts.
        pub plan: String,
        /// Its version: a subscriber's own, else the current one.
        pub version: i64,
        /// `admin`, `subscription`, `seat` or `default`.
        pub source: String,
        /// Seats of the subscription that the plan comes from; 0 without one.
        pub seats: i64,
        /// Whose seat the plan comes from; none if it is the account's own.
        pub payer_id: Option<String>,
        /// Status of the account's own subscription; empty without one.
        pub status: String,
        /// When it first asked for anything, ms since 1970; 0: never.
        pub created_at: i64,
        /// The last UTC day on which it asked, days since 1970; 0: never.
        pub active_day: i64,
    }
}

/// Which plan counts for an account. None: the tables do not have the default plan.
pub async fn account_standing(
    on: &impl On,
    product: &str,
    user_id: &str,
    default_plan: &str,
) -> Result<Option<StandingRow>, DbError> {
    sql(concat!(
        "SELECT ",
        standing!(),
        "LEFT JOIN accounts a ON a.product = d.product AND a.user_id = $2 ",
        standing_joins!(),
        "WHERE d.product = $1 AND d.slug = $3"
    ))
    .bind(product)
    .bind(user_id)
    .bind(default_plan)
    .opt(on)
    .await
}

/// Which plan counts for each of at most [`BATCH`] accounts. One without a row is left out: the default plan counts.
pub async fn account_standings(
    on: &impl On,
    product: &str,
    user_ids: &[String],
    default_plan: &str,
) -> Result<Vec<StandingRow>, DbError> {
    let text = format!(
        concat!(
            "SELECT ",
            standing!(),
            "JOIN accounts a ON a.product = d.product ",
            standing_joins!(),
            "WHERE d.product = $1 AND d.slug = $2 AND a.user_id IN ({}) LIMIT {}"
        ),
        batch_places(3),
        BATCH
    );
    let query = sql(AssertSqlSafe(text)).bind(product).bind(default_plan);
    padded(user_ids).fold(query, weft_db::Sql::bind).all(on).await
}

record! {
    struct CreditRow { plan: String, name: Option<String>, value: Option<i64> }
}

/// The credits of the plan that counts for an account now: one statement, from the tables. None: the product has no
/// credits.
///
/// # Errors
/// The database.
pub async fn credit_terms(on: &impl On, product: &Product, user_id: &str) -> Result<Option<CreditTerms>, Error> {
    let rows: Vec<CreditRow> = sql(concat!(
        "SELECT e.plan, v.name, v.value FROM (SELECT d.product, ",
        standing!(),
        "LEFT JOIN accounts a ON a.product = d.product AND a.user_id = $2 ",
        standing_joins!(),
        "WHERE d.product = $1 AND d.slug = $3) e \
         LEFT JOIN plan_values v ON v.product = e.product AND v.plan = e.plan AND v.version = e.version \
         AND v.kind = 'credits' LIMIT 100"
    ))
    .bind(&product.slug)
    .bind(user_id)
    .bind(&product.default_plan)
    .all(on)
    .await?;
    let number = |name: &str| rows.iter().find(|row| row.name.as_deref() == Some(name)).and_then(|row| row.value);
    Ok(rows.first().and_then(|row| terms(product, &row.plan, number)))
}

record! {
    struct AskedRow { asked: String, plan: String, name: Option<String>, value: Option<i64> }
}

/// PostgreSQL: the same for many accounts of a product, in one statement. Accounts without credits are left out.
///
/// # Errors
/// The database.
pub async fn credit_terms_of_many(
    on: &impl On,
    product: &Product,
    user_ids: Vec<String>,
) -> Result<HashMap<String, CreditTerms>, Error> {
    let rows: Vec<AskedRow> = sql(concat!(
        "SELECT e.asked, e.plan, v.name, v.value FROM (SELECT d.product, q.asked, ",
        standing!(),
        "CROSS JOIN unnest($2::TEXT[]) AS q (asked) \
         LEFT JOIN accounts a ON a.product = d.product AND a.user_id = q.asked ",
        standing_joins!(),
        "WHERE d.product = $1 AND d.slug = $3) e \
         LEFT JOIN plan_values v ON v.product = e.product AND v.plan = e.plan AND v.version = e.version \
         AND v.kind = 'credits' ORDER BY e.asked LIMIT 100000"
    ))
    .bind(&product.slug)
    .bind(user_ids)
    .bind(&product.default_plan)
    .all(on)
    .await?;
    let of_account = |rows: &[AskedRow]| {
        let number = |name: &str| rows.iter().find(|row| row.name.as_deref() == Some(name)).and_then(|row| row.value);
        Some((rows.first()?.asked.clone(), terms(product, &rows.first()?.plan, number)?))
    };
    Ok(rows.chunk_by(|one, next| one.asked == next.asked).filter_map(of_account).collect())
}

/// A subscription that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Slug of the plan.
    pub plan: String,
    /// Version of the plan; it has to be one that there is.
    pub version: i64,
    /// Seats paid for; 1 for a price that is not per seat.
    pub seats: i64,
    /// As the payment provider names it; it counts while it is `active`, `trialing` or `past_due`.
    pub status: String,
}

/// Remembers the subscription of an account or organisation, or that it has none.
pub async fn account_set_subscribed(
    tx: &Tx,
    product: &str,
    owner: &str,
    subscribed: Option<Subscribed>,
) -> Result<(), DbError> {
    let (plan, version, seats, status) = match subscribed {
        Some(of) => (Some(of.plan), Some(of.version), of.seats, of.status),
        None => (None, None, 0, String::new()),
    };
    sql("INSERT INTO accounts (product, user_id, subscribed_plan, subscribed_version, seats, subscription_status) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product, user_id) DO UPDATE SET \
         subscribed_plan = excluded.subscribed_plan, subscribed_version = excluded.subscribed_version, \
         seats = excluded.seats, subscription_status = excluded.subscription_status")
    .bind(product)
    .bind(owner)
    .bind(plan)
    .bind(version)
    .bind(seats)
    .bind(status)
    .run(tx)
    .await
    .map(drop)
}

/// Notes that an account is there and was active on a UTC day, days since 1970.
pub async fn account_note_active(tx: &Tx, product: &str, user_id: &str, now_ms: i64, day: i64) -> Result<(), DbError> {
    sql("INSERT INTO accounts (product, user_id, created_at, active_day) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (product, user_id) DO UPDATE SET active_day = excluded.active_day, \
         created_at = CASE WHEN accounts.created_at = 0 THEN excluded.created_at ELSE accounts.created_at END \
         WHERE accounts.active_day < excluded.active_day")
    .bind(product)
    .bind(user_id)
    .bind(now_ms)
    .bind(day)
    .run(tx)
    .await
    .map(drop)
}

/// Gives an account a plan, or takes it back.
pub async fn account_assign_plan(tx: &Tx, product: &str, user_id: &str, plan: Option<&str>) -> Result<(), DbError> {
    sql("INSERT INTO accounts (product, user_id, assigned_plan) VALUES ($1, $2, $3) \
         ON CONFLICT (product, user_id) DO UPDATE SET assigned_plan = excluded.assigned_plan")
    .bind(product)
    .bind(user_id)
    .bind(plan)
    .run(tx)
    .await
    .map(drop)
}

/// The subscription of an account or organisation, whether it counts or not.
pub async fn account_subscription(on: &impl On, product: &str, owner: &str) -> Result<Option<Subscribed>, DbError> {
    let row: Option<(String, i64, i64, String)> =
        sql("SELECT subscribed_plan, subscribed_version, seats, subscription_status FROM accounts \
         WHERE product = $1 AND user_id = $2 AND subscribed_plan IS NOT NULL")
        .bind(product)
        .bind(owner)
        .opt(on)
        .await?;
    Ok(row.map(|(plan, version, seats, status)| Subscribed { plan, version, seats, status }))
}

/// Subscribers of a plan who are on another version than `version`, after `after`, by id.
pub async fn subscribers_of_older(
    on: &impl On,
    product: &str,
    plan: &str,
    version: i64,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    sql("SELECT user_id FROM accounts WHERE product = $1 AND subscribed_plan = $2 AND subscribed_version <> $3 \
         AND user_id > $4 ORDER BY user_id LIMIT $5")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(after)
    .bind(limit)
    .all(on)
    .await
}

/// Moves a subscriber of a plan to another version of it. False: it is not subscribed to the plan, or is there already.
pub async fn account_move_subscribed(
    tx: &Tx,
    product: &str,
    owner: &str,
    plan: &str,
    version: i64,
) -> Result<bool, DbError> {
    let moved = sql("UPDATE accounts SET subscribed_version = $4 WHERE product = $1 AND user_id = $2 \
         AND subscribed_plan = $3 AND subscribed_version <> $4")
    .bind(product)
    .bind(owner)
    .bind(plan)
    .bind(version)
    .run(tx)
    .await?;
    Ok(moved > 0)
}
