//! Who sells, what they were paid out, and what of that was reversed.
use weft_db::{DbError, On, Tx, record, sql};

use super::sale::MAX_UNFINISHED;

record! {
    /// Who sells.
    #[derive(Clone, Debug)]
    pub struct DeveloperRow {
        /// Id, for idempotency keys.
        pub id: String,
        /// Stripe's id of the account.
        pub account_id: Option<String>,
    }
}

record! {
    /// A payout.
    #[derive(Clone, Debug)]
    pub struct PayoutRow {
        /// Slug of the product.
        pub product: String,
        /// Id; also Stripe's transfer group.
        pub id: String,
        /// To whom.
        pub developer_id: String,
        /// UTC month.
        pub period: String,
        /// ISO 4217, upper case.
        pub currency: String,
        /// In minor units.
        pub amount_minor: i64,
        /// `pending`, `paid`, `failed`.
        pub status: String,
        /// What the next idempotency key ends with.
        pub tries: i64,
        /// Stripe's id of the transfer.
        pub transfer_id: Option<String>,
        /// Reversed, or about to be.
        pub reversed_minor: i64,
    }
}

record! {
    /// A reversal of a part of a payout.
    #[derive(Clone, Debug)]
    pub struct ReversalRow {
        /// Slug of the product.
        pub product: String,
        /// Id.
        pub id: String,
        /// Of which payout.
        pub payout_id: String,
        /// In minor units.
        pub amount_minor: i64,
        /// What the next idempotency key ends with.
        pub tries: i64,
    }
}

/// Makes sure that a developer has a row.
pub async fn developer_ensure(
    on: &impl On,
    product: &str,
    developer_id: &str,
    id: &str,
    now_ms: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO developers (product, developer_id, id, moves, created_at) VALUES ($1, $2, $3, 0, $4) \
         ON CONFLICT (product, developer_id) DO NOTHING")
    .bind(product)
    .bind(developer_id)
    .bind(id)
    .bind(now_ms)
    .run(on)
    .await
    .map(drop)
}

/// Keeps a developer's money from other transactions until the end of this one; answers the number of this movement.
pub async fn developer_lock(tx: &Tx, product: &str, developer_id: &str) -> Result<Option<i64>, DbError> {
    sql("UPDATE developers SET moves = moves + 1 WHERE product = $1 AND developer_id = $2 RETURNING moves")
        .bind(product)
        .bind(developer_id)
        .opt(tx)
        .await
}

/// A developer.
pub async fn developer_find(on: &impl On, product: &str, developer_id: &str) -> Result<Option<DeveloperRow>, DbError> {
    sql("SELECT id, account_id FROM developers WHERE product = $1 AND developer_id = $2")
        .bind(product)
        .bind(developer_id)
        .opt(on)
        .await
}

/// Notes a developer's account at Stripe; the first one stays.
pub async fn developer_set_account(
    on: &impl On,
    product: &str,
    developer_id: &str,
    account_id: &str,
) -> Result<(), DbError> {
    sql("UPDATE developers SET account_id = $3 WHERE product = $1 AND developer_id = $2 AND account_id IS NULL")
        .bind(product)
        .bind(developer_id)
        .bind(account_id)
        .run(on)
        .await
        .map(drop)
}

/// Writes a payout down before Stripe is asked for it.
pub async fn payout_insert(tx: &Tx, payout: &PayoutRow, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO payouts (product, id, developer_id, period, currency, amount_minor, status, tries, \
             reversed_minor, created_at, touched_at) VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, 0, $7, $7)")
    .bind(&payout.product)
    .bind(&payout.id)
    .bind(&payout.developer_id)
    .bind(&payout.period)
    .bind(&payout.currency)
    .bind(payout.amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// The payout of a period.
pub async fn payout_of_period(
    on: &impl On,
    product: &str,
    developer_id: &str,
    period: &str,
    currency: &str,
) -> Result<Option<PayoutRow>, DbError> {
    sql("SELECT product, id, developer_id, period, currency, amount_minor, status, tries, transfer_id, \
             reversed_minor FROM payouts \
         WHERE product = $1 AND developer_id = $2 AND period = $3 AND currency = $4")
    .bind(product)
    .bind(developer_id)
    .bind(period)
    .bind(currency)
    .opt(on)
    .await
}

/// A payout by its id.
pub async fn payout_find(on: &impl On, product: &str, id: &str) -> Result<Option<PayoutRow>, DbError> {
    sql("SELECT product, id, developer_id, period, currency, amount_minor, status, tries, transfer_id, \
             reversed_minor FROM payouts WHERE product = $1 AND id = $2")
    .bind(product)
    .bind(id)
    .opt(on)
    .await
}

/// Takes a payout that was refused up again, with what is due now.
pub async fn payout_retry(tx: &Tx, payout: &PayoutRow, amount_minor: i64, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE payouts SET status = 'pending', amount_minor = $3, touched_at = $4 \
         WHERE product = $1 AND id = $2 AND status = 'failed'")
    .bind(&payout.product)
    .bind(&payout.id)
    .bind(amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// Stripe has transferred this much.
pub async fn payout_set_paid(tx: &Tx, payout: &PayoutRow, transfer_id: &str, amount: i64) -> Result<(), DbError> {
    sql("UPDATE payouts SET status = 'paid', transfer_id = $3, amount_minor = $4 WHERE product = $1 AND id = $2")
        .bind(&payout.product)
        .bind(&payout.id)
        .bind(transfer_id)
        .bind(amount)
        .run(tx)
        .await
        .map(drop)
}

/// The try of `payout.tries` has come to `status` (`pending` or `failed`), and the next has another key; false if
/// somebody has gone on meanwhile.
pub async fn payout_next_try(on: &impl On, payout: &PayoutRow, status: &str) -> Result<bool, DbError> {
    let next = sql("UPDATE payouts SET status = $4, tries = tries + 1 \
         WHERE product = $1 AND id = $2 AND tries = $3 AND status = 'pending'")
    .bind(&payout.product)
    .bind(&payout.id)
    .bind(payout.tries)
    .bind(status);
    Ok(next.run(on).await? == 1)
}

/// Paid payouts of which something is left to reverse, newest first.
pub async fn payouts_left(
    tx: &Tx,
    product: &str,
    developer_id: &str,
    currency: &str,
) -> Result<Vec<PayoutRow>, DbError> {
    sql("SELECT product, id, developer_id, period, currency, amount_minor, status, tries, transfer_id, \
             reversed_minor FROM payouts \
         WHERE product = $1 AND developer_id = $2 AND currency = $3 AND status = 'paid' \
             AND reversed_minor < amount_minor ORDER BY period DESC LIMIT $4")
    .bind(product)
    .bind(developer_id)
    .bind(currency)
    .bind(MAX_UNFINISHED)
    .all(tx)
    .await
}

/// Takes up payouts that were last touched before a moment and are not finished.
pub async fn payouts_unfinished(on: &impl On, before_ms: i64, now_ms: i64) -> Result<Vec<PayoutRow>, DbError> {
    sql("UPDATE payouts SET touched_at = $2 WHERE (product, id) IN (SELECT product, id FROM payouts \
             WHERE status = 'pending' AND touched_at < $1 ORDER BY touched_at LIMIT $3) \
         RETURNING product, id, developer_id, period, currency, amount_minor, status, tries, transfer_id, \
             reversed_minor")
    .bind(before_ms)
    .bind(now_ms)
    .bind(MAX_UNFINISHED)
    .all(on)
    .await
}

/// Writes a reversal down before Stripe is asked for it. It is due at once.
pub async fn reversal_insert(tx: &Tx, reversal: &ReversalRow, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE payouts SET reversed_minor = reversed_minor + $3 WHERE product = $1 AND id = $2")
        .bind(&reversal.product)
        .bind(&reversal.payout_id)
        .bind(reversal.amount_minor)
        .run(tx)
        .await?;
    sql("INSERT INTO transfer_reversals (product, id, payout_id, amount_minor, status, tries, created_at, touched_at) \
         VALUES ($1, $2, $3, $4, 'pending', 0, $5, 0)")
    .bind(&reversal.product)
    .bind(&reversal.id)
    .bind(&reversal.payout_id)
    .bind(reversal.amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// A reversal is done.
pub async fn reversal_done(on: &impl On, reversal: &ReversalRow, reversal_id: &str) -> Result<(), DbError> {
    sql("UPDATE transfer_reversals SET status = 'done', reversal_id = $3 \
         WHERE product = $1 AND id = $2 AND status = 'pending'")
    .bind(&reversal.product)
    .bind(&reversal.id)
    .bind(reversal_id)
    .run(on)
    .await
    .map(drop)
}

/// A reversal was refused: the payout has what it would have taken. False if it had ended before.
pub async fn reversal_fail(tx: &Tx, reversal: &ReversalRow) -> Result<bool, DbError> {
    let failed = sql("UPDATE transfer_reversals SET status = 'failed' \
         WHERE product = $1 AND id = $2 AND tries = $3 AND status = 'pending'")
    .bind(&reversal.product)
    .bind(&reversal.id)
    .bind(reversal.tries);
    if failed.run(tx).await? == 0 {
        return Ok(false);
    }
    sql("UPDATE payouts SET reversed_minor = reversed_minor - $3 WHERE product = $1 AND id = $2")
        .bind(&reversal.product)
        .bind(&reversal.payout_id)
        .bind(reversal.amount_minor)
        .run(tx)
        .await?;
    Ok(true)
}

/// The next try of a reversal has another key.
pub async fn reversal_next_try(on: &impl On, reversal: &ReversalRow) -> Result<(), DbError> {
    sql("UPDATE transfer_reversals SET tries = tries + 1 WHERE product = $1 AND id = $2 AND tries = $3")
        .bind(&reversal.product)
        .bind(&reversal.id)
        .bind(reversal.tries)
        .run(on)
        .await
        .map(drop)
}

/// Takes up reversals that were last touched before a moment and are not finished.
pub async fn reversals_unfinished(on: &impl On, before_ms: i64, now_ms: i64) -> Result<Vec<ReversalRow>, DbError> {
    sql("UPDATE transfer_reversals SET touched_at = $2 WHERE (product, id) IN (SELECT product, id \
             FROM transfer_reversals WHERE status = 'pending' AND touched_at < $1 ORDER BY touched_at LIMIT $3) \
         RETURNING product, id, payout_id, amount_minor, tries")
    .bind(before_ms)
    .bind(now_ms)
    .bind(MAX_UNFINISHED)
    .all(on)
    .await
}
