//! What moved between buyers, developers and the platform, and its sums.
use weft_db::{DbError, On, Tx, record, sql};

use super::sale::SaleRow;
use crate::domain::revenue::{Kind, Split};

/// Most periods that earnings are told for.
const MAX_PERIODS: i64 = 24;
/// Most rows of earnings: every period in every currency.
const MAX_EARNINGS: i64 = 24 * 200;

record! {
    /// A movement.
    #[derive(Clone, Debug)]
    pub struct EventRow {
        /// Id.
        pub id: String,
        /// Number among the developer's; grows with time.
        pub sequence: i64,
        /// Name of its [`Kind`].
        pub kind: String,
        /// Of which sale.
        pub sale_id: String,
        /// What was sold.
        pub item_id: String,
        /// In minor units.
        pub amount_minor: i64,
        /// The developer's.
        pub developer_minor: i64,
        /// The platform's.
        pub platform_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
        /// UTC month.
        pub period: String,
        /// ms since 1970.
        pub created_at: i64,
    }
}

record! {
    /// What a developer earned in a period.
    #[derive(Clone, Debug)]
    pub struct EarningsRow {
        /// UTC month.
        pub period: String,
        /// ISO 4217, upper case.
        pub currency: String,
        /// Earned less taken back.
        pub earned_minor: i64,
        /// Paid out less reversed.
        pub paid_minor: i64,
        /// Sales less full refunds.
        pub sales: i64,
    }
}

/// What is to be added to the sums of a period.
pub struct Earned<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Whose.
    pub developer_id: &'a str,
    /// ISO 4217, upper case.
    pub currency: &'a str,
    /// UTC month.
    pub period: &'a str,
}

/// A movement of a sale that is to be stored.
pub struct NewEvent<'a> {
    /// Id.
    pub id: &'a str,
    /// Number among the developer's; grows with time.
    pub sequence: i64,
    /// Why it moved.
    pub kind: Kind,
    /// What moved.
    pub split: Split,
    /// 1 for a sale, -1 when all of it is gone, 0 for neither.
    pub sales: i64,
    /// UTC month.
    pub period: &'a str,
    /// ms since 1970.
    pub created_at: i64,
}

/// Stores a movement and adds it to the sums. The developer must be locked.
pub async fn event_insert(tx: &Tx, sale: &SaleRow, event: &NewEvent<'_>) -> Result<(), DbError> {
    sql("INSERT INTO revenue_events (product, id, developer_id, kind, sale_id, buyer_id, item_id, amount_minor, \
             developer_minor, platform_minor, currency, period, sales, created_at, sequence) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)")
    .bind(&sale.product)
    .bind(event.id)
    .bind(&sale.developer_id)
    .bind(event.kind.as_str())
    .bind(&sale.id)
    .bind(&sale.buyer_id)
    .bind(&sale.item_id)
    .bind(event.split.amount)
    .bind(event.split.developer)
    .bind(event.split.platform)
    .bind(&sale.currency)
    .bind(event.period)
    .bind(event.sales)
    .bind(event.created_at)
    .bind(event.sequence)
    .run(tx)
    .await?;
    let (product, developer_id, currency) = (&sale.product, &sale.developer_id, &sale.currency);
    let period = event.period;
    earnings_add(tx, &Earned { product, developer_id, currency, period }, event.split.developer, 0, event.sales).await
}

/// Adds to what a period earned, was paid out, and sold.
pub async fn earnings_add(
    tx: &Tx,
    to: &Earned<'_>,
    earned_minor: i64,
    paid_minor: i64,
    sales: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO earnings (product, developer_id, currency, period, earned_minor, paid_minor, sales) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (product, developer_id, currency, period) DO UPDATE SET \
             earned_minor = earnings.earned_minor + excluded.earned_minor, \
             paid_minor = earnings.paid_minor + excluded.paid_minor, sales = earnings.sales + excluded.sales")
    .bind(to.product)
    .bind(to.developer_id)
    .bind(to.currency)
    .bind(to.period)
    .bind(earned_minor)
    .bind(paid_minor)
    .bind(sales)
    .run(tx)
    .await
    .map(drop)
}

/// What a developer earned up to the end of `period`, earned until now, and was paid until now.
pub async fn earnings_sums(on: &impl On, of: &Earned<'_>) -> Result<(i64, i64, i64), DbError> {
    sql("SELECT CAST(COALESCE(SUM(CASE WHEN period <= $4 THEN earned_minor ELSE 0 END), 0) AS BIGINT), \
             CAST(COALESCE(SUM(earned_minor), 0) AS BIGINT), CAST(COALESCE(SUM(paid_minor), 0) AS BIGINT) \
         FROM earnings WHERE product = $1 AND developer_id = $2 AND currency = $3")
    .bind(of.product)
    .bind(of.developer_id)
    .bind(of.currency)
    .bind(of.period)
    .one(on)
    .await
}

/// The last periods of a developer, newest first.
pub async fn earnings_list(on: &impl On, product: &str, developer_id: &str) -> Result<Vec<EarningsRow>, DbError> {
    sql("SELECT period, currency, earned_minor, paid_minor, sales FROM earnings \
         WHERE product = $1 AND developer_id = $2 AND period IN (SELECT period FROM earnings \
             WHERE product = $1 AND developer_id = $2 GROUP BY period ORDER BY period DESC LIMIT $3) \
         ORDER BY period DESC, currency LIMIT $4")
    .bind(product)
    .bind(developer_id)
    .bind(MAX_PERIODS)
    .bind(MAX_EARNINGS)
    .all(on)
    .await
}

/// What a developer was paid above what is earned, by currency.
pub async fn debts(on: &impl On, product: &str, developer_id: &str) -> Result<Vec<(String, i64)>, DbError> {
    sql("SELECT currency, CAST(SUM(paid_minor - earned_minor) AS BIGINT) FROM earnings \
         WHERE product = $1 AND developer_id = $2 GROUP BY currency \
         HAVING SUM(paid_minor - earned_minor) > 0 ORDER BY currency LIMIT $3")
    .bind(product)
    .bind(developer_id)
    .bind(MAX_EARNINGS)
    .all(on)
    .await
}

/// Movements of a developer before the one with this number, newest first.
pub async fn events_list(
    on: &impl On,
    product: &str,
    developer_id: &str,
    before: i64,
    most: i64,
) -> Result<Vec<EventRow>, DbError> {
    sql(
        "SELECT id, sequence, kind, sale_id, item_id, amount_minor, developer_minor, platform_minor, currency, period, \
             created_at FROM revenue_events \
         WHERE product = $1 AND developer_id = $2 AND sequence < $3 ORDER BY sequence DESC LIMIT $4",
    )
    .bind(product)
    .bind(developer_id)
    .bind(before)
    .bind(most)
    .all(on)
    .await
}

/// What does not agree in a product's books, the first 100 of each kind; empty if all does: the sums of earnings with the
/// movements, what was paid with the payouts less their reversals, and every sale with its movements and its division.
pub async fn revenue_faults(on: &impl On, product: &str) -> Result<Vec<String>, DbError> {
    let mut faults = Vec::new();
    let checks = [
        ("the movements are not what was earned", EARNED_FAULTS),
        ("the payouts less the reversals are not what was paid", PAID_FAULTS),
        ("the reversals are not what was reversed of the payout", REVERSED_FAULTS),
        ("the movements are not what is left of the sale", SALE_FAULTS),
    ];
    for (what, text) in checks {
        let rows: Vec<String> = sql(text).bind(product).all(on).await?;
        faults.extend(rows.into_iter().map(|row| format!("{row}: {what}")));
    }
    Ok(faults)
}

const EARNED_FAULTS: &str = "SELECT developer_id || ' ' || currency || ' ' || period FROM ( \
         SELECT developer_id, currency, period, developer_minor AS earned, sales FROM revenue_events WHERE product = $1 \
         UNION ALL SELECT developer_id, currency, period, -earned_minor, -sales FROM earnings WHERE product = $1) moved \
     GROUP BY developer_id, currency, period HAVING SUM(earned) <> 0 OR SUM(sales) <> 0 LIMIT 100";

const PAID_FAULTS: &str = "SELECT developer_id || ' ' || currency || ' ' || period FROM ( \
         SELECT developer_id, currency, period, amount_minor - reversed_minor AS paid FROM payouts \
             WHERE product = $1 AND status <> 'failed' \
         UNION ALL SELECT developer_id, currency, period, -paid_minor FROM earnings WHERE product = $1) moved \
     GROUP BY developer_id, currency, period HAVING SUM(paid) <> 0 LIMIT 100";

const REVERSED_FAULTS: &str = "SELECT id FROM ( \
         SELECT id, reversed_minor AS reversed FROM payouts WHERE product = $1 \
         UNION ALL SELECT payout_id, -amount_minor FROM transfer_reversals WHERE product = $1 AND status <> 'failed') moved \
     GROUP BY id HAVING SUM(reversed) <> 0 LIMIT 100";

const SALE_FAULTS: &str = "SELECT id FROM (SELECT id, CASE WHEN status <> 'paid' THEN 0 \
             WHEN refunded_minor + disputed_minor + lost_minor > amount_minor THEN 0 \
             ELSE amount_minor - refunded_minor - disputed_minor - lost_minor END AS kept, \
             (SELECT CAST(COALESCE(SUM(amount_minor), 0) AS BIGINT) FROM revenue_events \
                 WHERE product = sales.product AND sale_id = sales.id) AS moved, \
             (SELECT CAST(COALESCE(SUM(developer_minor), 0) AS BIGINT) FROM revenue_events \
                 WHERE product = sales.product AND sale_id = sales.id) AS share \
         FROM sales WHERE product = $1) checked \
     WHERE moved <> kept OR share <> kept * 70 / 100 LIMIT 100";
