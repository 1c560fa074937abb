//! Money that came in, and what of it went back.
use weft_db::{DbError, On, Tx, record, sql};

/// Most refunds and disputes of one payment.
const MAX_FACTS: i64 = 1000;

record! {
    /// A payment.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PaymentRow {
        /// Made from `source`.
        pub id: String,
        /// Whose.
        pub user_id: String,
        /// `package` or `invoice`.
        pub kind: String,
        /// Id of the package or price.
        pub item: String,
        /// Stripe's id of the session or invoice.
        pub source: String,
        /// Minor units.
        pub amount_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
        /// Micro-credits that it brought.
        pub credits: i64,
        /// Minor units.
        pub refunded_minor: i64,
        /// Minor units that the payer's bank holds or has kept.
        pub disputed_minor: i64,
        /// Micro-credits ever taken back.
        pub clawed: i64,
        /// Micro-credits of these given back.
        pub restored: i64,
        /// ms since 1970.
        pub created_at: i64,
    }
}

/// Columns of [`PaymentRow`].
macro_rules! columns {
    () => {
        "SELECT id, user_id, kind, item, source, amount_minor, currency, credits, refunded_minor, disputed_minor, clawed, \
         restored, created_at FROM payments "
    };
}

/// Stores a payment. False: it is there already.
pub async fn payment_insert(tx: &Tx, product: &str, row: &PaymentRow) -> Result<bool, DbError> {
    let stored =
        sql("INSERT INTO payments (product, id, user_id, kind, item, source, amount_minor, currency, credits, \
         refunded_minor, disputed_minor, clawed, restored, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, 0, $10) ON CONFLICT DO NOTHING")
        .bind(product)
        .bind(&row.id)
        .bind(&row.user_id)
        .bind(&row.kind)
        .bind(&row.item)
        .bind(&row.source)
        .bind(row.amount_minor)
        .bind(&row.currency)
        .bind(row.credits)
        .bind(row.created_at)
        .run(tx)
        .await?;
    Ok(stored == 1)
}

/// A payment by its id.
pub async fn payment_find(on: &impl On, product: &str, id: &str) -> Result<Option<PaymentRow>, DbError> {
    sql(concat!(columns!(), "WHERE product = $1 AND id = $2")).bind(product).bind(id).opt(on).await
}

/// A payment by Stripe's id of its session or invoice.
pub async fn payment_find_by_source(on: &impl On, product: &str, source: &str) -> Result<Option<PaymentRow>, DbError> {
    sql(concat!(columns!(), "WHERE product = $1 AND source = $2")).bind(product).bind(source).opt(on).await
}

/// The account's payments, newest first, after the payment (`created_at`, `id`) of the page before.
pub async fn payment_list(
    on: &impl On,
    product: &str,
    user_id: &str,
    (created_at, id): (i64, &str),
    limit: i64,
) -> Result<Vec<PaymentRow>, DbError> {
    sql(concat!(
        columns!(),
        "WHERE product = $1 AND user_id = $2 AND (created_at < $3 OR (created_at = $3 AND id < $4)) \
         ORDER BY created_at DESC, id DESC LIMIT $5"
    ))
    .bind(product)
    .bind(user_id)
    .bind(created_at)
    .bind(id)
    .bind(limit)
    .all(on)
    .await
}

/// Notes what went back of a payment.
pub async fn payment_settle(tx: &Tx, product: &str, row: &PaymentRow) -> Result<(), DbError> {
    sql("UPDATE payments SET refunded_minor = $3, disputed_minor = $4, clawed = $5, restored = $6 \
         WHERE product = $1 AND id = $2")
    .bind(product)
    .bind(&row.id)
    .bind(row.refunded_minor)
    .bind(row.disputed_minor)
    .bind(row.clawed)
    .bind(row.restored)
    .run(tx)
    .await
    .map(drop)
}

/// Notes that a payment intent or charge has paid a session or invoice. The first word stays.
pub async fn link_put(on: &impl On, product: &str, paid_by: &str, source: &str) -> Result<bool, DbError> {
    let stored = sql("INSERT INTO payment_links (product, paid_by, source) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(product)
        .bind(paid_by)
        .bind(source)
        .run(on)
        .await?;
    Ok(stored == 1)
}

/// The session or invoice that a payment intent or charge has paid.
pub async fn link_find(on: &impl On, product: &str, paid_by: &str) -> Result<Option<String>, DbError> {
    sql("SELECT source FROM payment_links WHERE product = $1 AND paid_by = $2")
        .bind(product)
        .bind(paid_by)
        .opt(on)
        .await
}

/// What has paid a session or invoice, payment intents before charges.
pub async fn link_of_source(on: &impl On, product: &str, source: &str) -> Result<Option<String>, DbError> {
    sql("SELECT paid_by FROM payment_links WHERE product = $1 AND source = $2 ORDER BY paid_by DESC LIMIT 1")
        .bind(product)
        .bind(source)
        .opt(on)
        .await
}

/// A refund's charge as it is stored.
pub struct RefundedCharge<'a> {
    /// Stripe's id.
    pub charge: &'a str,
    /// Empty: none.
    pub payment_intent: &'a str,
    /// Whose.
    pub user_id: &'a str,
    /// ISO 4217, upper case.
    pub currency: &'a str,
    /// All of it together, in minor units.
    pub refunded_minor: i64,
}

/// Notes how much of a charge went back; only ever more. False: nothing new.
pub async fn refund_put(tx: &Tx, product: &str, refund: &RefundedCharge<'_>) -> Result<bool, DbError> {
    let changed =
        sql("INSERT INTO refunded_charges (product, charge_id, payment_intent, user_id, currency, refunded_minor) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product, charge_id) DO UPDATE \
         SET refunded_minor = excluded.refunded_minor \
         WHERE refunded_charges.refunded_minor < excluded.refunded_minor \
         AND refunded_charges.user_id = excluded.user_id AND refunded_charges.currency = excluded.currency")
        .bind(product)
        .bind(refund.charge)
        .bind(refund.payment_intent)
        .bind(refund.user_id)
        .bind(refund.currency)
        .bind(refund.refunded_minor)
        .run(tx)
        .await?;
    Ok(changed == 1)
}

/// A dispute as it is stored.
pub struct DisputedCharge<'a> {
    /// Stripe's id.
    pub id: &'a str,
    /// Of which charge.
    pub charge: &'a str,
    /// Empty: none.
    pub payment_intent: &'a str,
    /// Whose.
    pub user_id: &'a str,
    /// Minor units.
    pub amount_minor: i64,
    /// The money was taken.
    pub taken: bool,
    /// It came back.
    pub returned: bool,
}

/// Notes how far a dispute has gone; it never goes back. False: nothing new.
pub async fn dispute_put(tx: &Tx, product: &str, dispute: &DisputedCharge<'_>) -> Result<bool, DbError> {
    let changed =
        sql("INSERT INTO disputes (product, id, charge_id, payment_intent, user_id, amount_minor, taken, returned) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (product, id) DO UPDATE SET \
         amount_minor = CASE WHEN disputes.amount_minor < excluded.amount_minor THEN excluded.amount_minor \
         ELSE disputes.amount_minor END, \
         taken = disputes.taken OR excluded.taken, returned = disputes.returned OR excluded.returned \
         WHERE disputes.user_id = excluded.user_id AND (disputes.amount_minor < excluded.amount_minor \
         OR (excluded.taken AND NOT disputes.taken) OR (excluded.returned AND NOT disputes.returned))")
        .bind(product)
        .bind(dispute.id)
        .bind(dispute.charge)
        .bind(dispute.payment_intent)
        .bind(dispute.user_id)
        .bind(dispute.amount_minor)
        .bind(dispute.taken)
        .bind(dispute.returned)
        .run(tx)
        .await?;
    Ok(changed == 1)
}

/// What of a session or invoice went back to this account in this currency, in minor units.
pub async fn refunded_of(
    on: &impl On,
    product: &str,
    source: &str,
    (user_id, currency): (&str, &str),
) -> Result<i64, DbError> {
    sql("SELECT CAST(COALESCE(SUM(r.refunded_minor), 0) AS BIGINT) FROM refunded_charges r \
         WHERE r.product = $1 AND r.user_id = $3 AND r.currency = $4 AND EXISTS (SELECT 1 FROM payment_links l \
         WHERE l.product = $1 AND l.source = $2 AND l.paid_by IN (r.payment_intent, r.charge_id))")
    .bind(product)
    .bind(source)
    .bind(user_id)
    .bind(currency)
    .one(on)
    .await
}

/// The disputes of a session or invoice that took money from us: amount in minor units, and whether it came back.
pub async fn disputes_of(
    on: &impl On,
    product: &str,
    source: &str,
    user_id: &str,
) -> Result<Vec<(i64, bool)>, DbError> {
    sql("SELECT d.amount_minor, d.returned FROM disputes d \
         WHERE d.product = $1 AND d.user_id = $3 AND d.taken AND EXISTS (SELECT 1 FROM payment_links l \
         WHERE l.product = $1 AND l.source = $2 AND l.paid_by IN (d.payment_intent, d.charge_id)) \
         ORDER BY d.id LIMIT $4")
    .bind(product)
    .bind(source)
    .bind(user_id)
    .bind(MAX_FACTS)
    .all(on)
    .await
}

/// Payment intents that went back, or are disputed, and of which nobody knows what they have paid, after `after`.
pub async fn unlinked_intents(on: &impl On, product: &str, after: &str, limit: i64) -> Result<Vec<String>, DbError> {
    sql("SELECT f.payment_intent FROM (SELECT product, payment_intent FROM refunded_charges \
         UNION SELECT product, payment_intent FROM disputes) f \
         WHERE f.product = $1 AND f.payment_intent > $3 AND NOT EXISTS (SELECT 1 FROM payment_links l \
         WHERE l.product = f.product AND l.paid_by = f.payment_intent) ORDER BY f.payment_intent LIMIT $2")
    .bind(product)
    .bind(limit)
    .bind(after)
    .all(on)
    .await
}

record! {
    /// What a package costs and brings, on sale or not.
    #[derive(Clone, Debug)]
    pub struct SoldPackage {
        /// Micro-credits.
        pub credits: i64,
        /// Minor units.
        pub amount_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
    }
}

/// A package that is or once was on sale: who has paid for it gets it.
pub async fn package_sold(on: &impl On, product: &str, id: &str) -> Result<Option<SoldPackage>, DbError> {
    sql("SELECT credits, amount_minor, currency FROM credit_packages WHERE product = $1 AND id = $2")
        .bind(product)
        .bind(id)
        .opt(on)
        .await
}
