//! Refunds that an administrator asked for, written down before Stripe is asked.
use weft_db::{DbError, On, Tx, record, sql};

use super::payment::PaymentRow;

record! {
    /// A refund that was asked for.
    #[derive(Clone, Debug)]
    pub struct PaymentRefundRow {
        /// Id.
        pub id: String,
        /// Of which payment.
        pub payment_id: String,
        /// SHA-256 of the request.
        pub request: Vec<u8>,
        /// Minor units.
        pub amount_minor: i64,
        /// `pending`, `done`, `failed`.
        pub status: String,
        /// What the next idempotency key ends with.
        pub tries: i64,
    }
}

/// A payment, kept from others until the end of the transaction.
pub async fn payment_lock(tx: &Tx, product: &str, id: &str) -> Result<Option<PaymentRow>, DbError> {
    sql("UPDATE payments SET kind = kind WHERE product = $1 AND id = $2 RETURNING id, user_id, kind, item, source, \
         amount_minor, currency, credits, refunded_minor, disputed_minor, clawed, restored, created_at")
    .bind(product)
    .bind(id)
    .opt(tx)
    .await
}

/// Writes a refund down.
pub async fn refund_insert(
    tx: &Tx,
    product: &str,
    refund: &PaymentRefundRow,
    (admin_id, request_key): (&str, &str),
    now_ms: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO payment_refunds (product, id, payment_id, admin_id, request_key, request, amount_minor, status, \
         tries, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', 0, $8)")
    .bind(product)
    .bind(&refund.id)
    .bind(&refund.payment_id)
    .bind(admin_id)
    .bind(request_key)
    .bind(&refund.request)
    .bind(refund.amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// The refund that an administrator's key was used for.
pub async fn refund_by_key(
    on: &impl On,
    product: &str,
    (admin_id, request_key): (&str, &str),
) -> Result<Option<PaymentRefundRow>, DbError> {
    sql("SELECT id, payment_id, request, amount_minor, status, tries FROM payment_refunds \
         WHERE product = $1 AND admin_id = $2 AND request_key = $3")
    .bind(product)
    .bind(admin_id)
    .bind(request_key)
    .opt(on)
    .await
}

/// The sums of a payment's refunds that are under way and of those that are done, in minor units.
pub async fn refund_sums(on: &impl On, product: &str, payment_id: &str) -> Result<(i64, i64), DbError> {
    sql("SELECT CAST(COALESCE(SUM(CASE WHEN status = 'pending' THEN amount_minor ELSE 0 END), 0) AS BIGINT), \
         CAST(COALESCE(SUM(CASE WHEN status = 'done' THEN amount_minor ELSE 0 END), 0) AS BIGINT) \
         FROM payment_refunds WHERE product = $1 AND payment_id = $2")
    .bind(product)
    .bind(payment_id)
    .one(on)
    .await
}

/// What became of a refund. Should Stripe have done for another call what it refused before, `done` wins.
pub async fn refund_end(on: &impl On, product: &str, id: &str, status: &str) -> Result<(), DbError> {
    sql("UPDATE payment_refunds SET status = $3, tries = tries + 1 WHERE product = $1 AND id = $2 \
         AND (status = 'pending' OR (status = 'failed' AND $3 = 'done'))")
    .bind(product)
    .bind(id)
    .bind(status)
    .run(on)
    .await
    .map(drop)
}

/// Takes a refund that was refused up again.
pub async fn refund_retry(tx: &Tx, product: &str, id: &str, amount_minor: i64) -> Result<(), DbError> {
    sql("UPDATE payment_refunds SET status = 'pending', amount_minor = $3 \
         WHERE product = $1 AND id = $2 AND status = 'failed'")
    .bind(product)
    .bind(id)
    .bind(amount_minor)
    .run(tx)
    .await
    .map(drop)
}

/// The next try of a refund has another key.
pub async fn refund_next_try(on: &impl On, product: &str, id: &str, tries: i64) -> Result<(), DbError> {
    sql("UPDATE payment_refunds SET tries = tries + 1 WHERE product = $1 AND id = $2 AND tries = $3")
        .bind(product)
        .bind(id)
        .bind(tries)
        .run(on)
        .await
        .map(drop)
}

/// Refunds that were asked for before a moment and are not finished, oldest first.
pub async fn refunds_pending(
    on: &impl On,
    product: &str,
    before_ms: i64,
    limit: i64,
) -> Result<Vec<PaymentRefundRow>, DbError> {
    sql("SELECT id, payment_id, request, amount_minor, status, tries FROM payment_refunds \
         WHERE product = $1 AND status = 'pending' AND created_at < $2 ORDER BY created_at, id LIMIT $3")
    .bind(product)
    .bind(before_ms)
    .bind(limit)
    .all(on)
    .await
}
