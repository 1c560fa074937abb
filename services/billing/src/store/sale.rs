//! Sales, what was paid back of them, and their disputes.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::idempotency::Key;
use crate::domain::revenue::DisputeStatus;

/// Most unfinished things that one pass of housekeeping takes up.
pub const MAX_UNFINISHED: i64 = 100;

record! {
    /// A sale.
    #[derive(Clone, Debug)]
    pub struct SaleRow {
        /// Slug of the product.
        pub product: String,
        /// Id; also Stripe's transfer group.
        pub id: String,
        /// Who bought.
        pub buyer_id: String,
        /// Who made it.
        pub developer_id: String,
        /// What.
        pub item_id: String,
        /// The price, in minor units.
        pub amount_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
        /// `pending`, `failed`, `paid`.
        pub status: String,
        /// What the next idempotency key ends with.
        pub tries: i64,
        /// Stripe's id of the payment.
        pub payment_intent: Option<String>,
        /// All that was paid back so far.
        pub refunded_minor: i64,
        /// With the bank.
        pub disputed_minor: i64,
        /// Kept by the bank.
        pub lost_minor: i64,
        /// ms since 1970.
        pub created_at: i64,
    }
}

impl SaleRow {
    /// The money has come.
    pub fn is_paid(&self) -> bool {
        self.status == "paid"
    }
}

record! {
    /// A refund that was asked for.
    #[derive(Clone, Debug)]
    pub struct RefundRow {
        /// Slug of the product.
        pub product: String,
        /// Id.
        pub id: String,
        /// Of which sale.
        pub sale_id: String,
        /// SHA-256 of the request.
        pub request: Vec<u8>,
        /// In minor units.
        pub amount_minor: i64,
        /// `pending`, `done`, `failed`.
        pub status: String,
        /// What the next idempotency key ends with.
        pub tries: i64,
    }
}

record! {
    /// What a caller's key was used for.
    pub struct SaleKeyRow {
        /// SHA-256 of the request.
        pub request: Vec<u8>,
        /// The sale.
        pub sale_id: String,
    }
}

/// What a key was used for before.
pub async fn sale_key_find(on: &impl On, product: &str, request_key: &str) -> Result<Option<SaleKeyRow>, DbError> {
    sql("SELECT request, sale_id FROM sale_keys WHERE product = $1 AND request_key = $2")
        .bind(product)
        .bind(request_key)
        .opt(on)
        .await
}

/// Keeps a key with its sale; false if it is there already.
pub async fn sale_key_insert(tx: &Tx, sale: &SaleRow, key: &Key) -> Result<bool, DbError> {
    let inserted = sql("INSERT INTO sale_keys (product, request_key, request, sale_id) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (product, request_key) DO NOTHING")
    .bind(&sale.product)
    .bind(&key.key)
    .bind(&key.request[..])
    .bind(&sale.id);
    Ok(inserted.run(tx).await? == 1)
}

/// Writes a sale down before anybody is charged; false if there is a live one of the buyer and item.
pub async fn sale_insert(tx: &Tx, sale: &SaleRow) -> Result<bool, DbError> {
    let inserted = sql("INSERT INTO sales (product, id, buyer_id, developer_id, item_id, amount_minor, currency, \
             status, live, tries, refunded_minor, disputed_minor, lost_minor, created_at, touched_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', TRUE, 0, 0, 0, 0, $8, $8) \
         ON CONFLICT (product, buyer_id, item_id) WHERE live DO NOTHING")
    .bind(&sale.product)
    .bind(&sale.id)
    .bind(&sale.buyer_id)
    .bind(&sale.developer_id)
    .bind(&sale.item_id)
    .bind(sale.amount_minor)
    .bind(&sale.currency)
    .bind(sale.created_at)
    .run(tx)
    .await?;
    Ok(inserted == 1)
}

/// The live sale of a buyer and item.
pub async fn sale_live(on: &impl On, product: &str, buyer_id: &str, item_id: &str) -> Result<Option<SaleRow>, DbError> {
    sql("SELECT product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, tries, \
             payment_intent, refunded_minor, disputed_minor, lost_minor, created_at FROM sales \
         WHERE product = $1 AND buyer_id = $2 AND item_id = $3 AND live")
    .bind(product)
    .bind(buyer_id)
    .bind(item_id)
    .opt(on)
    .await
}

/// A sale by its id.
pub async fn sale_find(on: &impl On, product: &str, id: &str) -> Result<Option<SaleRow>, DbError> {
    sql("SELECT product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, tries, \
             payment_intent, refunded_minor, disputed_minor, lost_minor, created_at FROM sales \
         WHERE product = $1 AND id = $2")
    .bind(product)
    .bind(id)
    .opt(on)
    .await
}

/// The same, kept from others until the end of the transaction.
pub async fn sale_lock(tx: &Tx, product: &str, id: &str) -> Result<Option<SaleRow>, DbError> {
    sql("UPDATE sales SET status = status WHERE product = $1 AND id = $2 \
         RETURNING product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, tries, \
             payment_intent, refunded_minor, disputed_minor, lost_minor, created_at")
    .bind(product)
    .bind(id)
    .opt(tx)
    .await
}

/// The sale that a payment of Stripe's is for; locked as by [`sale_lock`].
pub async fn sale_lock_paid_by(tx: &Tx, product: &str, payment_intent: &str) -> Result<Option<SaleRow>, DbError> {
    sql("UPDATE sales SET status = status WHERE product = $1 AND payment_intent = $2 \
         RETURNING product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, tries, \
             payment_intent, refunded_minor, disputed_minor, lost_minor, created_at")
    .bind(product)
    .bind(payment_intent)
    .opt(tx)
    .await
}

/// Notes the payment that a sale will be charged by, if it has none yet and its try is still the one of `sale.tries`.
pub async fn sale_set_intent(on: &impl On, sale: &SaleRow, payment_intent: &str) -> Result<bool, DbError> {
    let set = sql("UPDATE sales SET payment_intent = $3 \
         WHERE product = $1 AND id = $2 AND tries = $4 AND payment_intent IS NULL AND status <> 'paid'");
    Ok(set.bind(&sale.product).bind(&sale.id).bind(payment_intent).bind(sale.tries).run(on).await? == 1)
}

/// Forgets a payment that can never be charged any more.
pub async fn sale_drop_intent(on: &impl On, sale: &SaleRow) -> Result<(), DbError> {
    sql("UPDATE sales SET payment_intent = NULL, tries = tries + 1 \
         WHERE product = $1 AND id = $2 AND payment_intent IS NOT DISTINCT FROM $3 AND status <> 'paid'")
    .bind(&sale.product)
    .bind(&sale.id)
    .bind(sale.payment_intent.as_ref())
    .run(on)
    .await
    .map(drop)
}

/// Another try has begun.
pub async fn sale_touch(on: &impl On, sale: &SaleRow, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE sales SET status = 'pending', touched_at = $3 WHERE product = $1 AND id = $2 AND status <> 'paid'")
        .bind(&sale.product)
        .bind(&sale.id)
        .bind(now_ms)
        .run(on)
        .await
        .map(drop)
}

/// The try of `sale.tries` has come to `status` (`pending` or `failed`), and the next has another key. Whoever saw an
/// older try changes nothing.
pub async fn sale_next_try(on: &impl On, sale: &SaleRow, status: &str) -> Result<(), DbError> {
    sql("UPDATE sales SET status = $4, tries = tries + 1 \
         WHERE product = $1 AND id = $2 AND tries = $3 AND status <> 'paid'")
    .bind(&sale.product)
    .bind(&sale.id)
    .bind(sale.tries)
    .bind(status)
    .run(on)
    .await
    .map(drop)
}

/// Gives a failed sale without a payment another price; false if it is not like that any more.
pub async fn sale_set_terms(on: &impl On, id: &str, terms: &SaleRow) -> Result<bool, DbError> {
    let set = sql("UPDATE sales SET developer_id = $3, amount_minor = $4, currency = $5 \
         WHERE product = $1 AND id = $2 AND status = 'failed' AND payment_intent IS NULL")
    .bind(&terms.product)
    .bind(id)
    .bind(&terms.developer_id)
    .bind(terms.amount_minor)
    .bind(&terms.currency);
    Ok(set.run(on).await? == 1)
}

/// The money has come.
pub async fn sale_set_paid(tx: &Tx, sale: &SaleRow, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE sales SET status = 'paid', created_at = $3 WHERE product = $1 AND id = $2")
        .bind(&sale.product)
        .bind(&sale.id)
        .bind(now_ms)
        .run(tx)
        .await
        .map(drop)
}

/// Notes what is gone of a paid sale; `live` is false once all of it is.
pub async fn sale_set_taken_back(tx: &Tx, sale: &SaleRow, live: bool) -> Result<(), DbError> {
    sql("UPDATE sales SET refunded_minor = $3, disputed_minor = $4, lost_minor = $5, live = $6 \
         WHERE product = $1 AND id = $2")
    .bind(&sale.product)
    .bind(&sale.id)
    .bind(sale.refunded_minor)
    .bind(sale.disputed_minor)
    .bind(sale.lost_minor)
    .bind(live)
    .run(tx)
    .await
    .map(drop)
}

/// Takes up sales that were last touched before a moment and are not finished.
pub async fn sales_unfinished(on: &impl On, before_ms: i64, now_ms: i64) -> Result<Vec<SaleRow>, DbError> {
    sql("UPDATE sales SET touched_at = $2 WHERE (product, id) IN (SELECT product, id FROM sales \
             WHERE status = 'pending' AND touched_at < $1 ORDER BY touched_at LIMIT $3) \
         RETURNING product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, tries, \
             payment_intent, refunded_minor, disputed_minor, lost_minor, created_at")
    .bind(before_ms)
    .bind(now_ms)
    .bind(MAX_UNFINISHED)
    .all(on)
    .await
}

/// Stores where a dispute is, unless it is further already.
pub async fn dispute_upsert(
    tx: &Tx,
    sale: &SaleRow,
    id: &str,
    amount_minor: i64,
    status: DisputeStatus,
) -> Result<(), DbError> {
    sql("INSERT INTO sale_disputes (product, id, sale_id, amount_minor, status, rank) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (product, id) DO UPDATE SET status = excluded.status, rank = excluded.rank, \
             amount_minor = excluded.amount_minor WHERE excluded.rank > sale_disputes.rank")
    .bind(&sale.product)
    .bind(id)
    .bind(&sale.id)
    .bind(amount_minor)
    .bind(status.as_str())
    .bind(status.rank())
    .run(tx)
    .await
    .map(drop)
}

/// What banks have, and what they kept, of a sale.
pub async fn dispute_sums(tx: &Tx, sale: &SaleRow) -> Result<(i64, i64), DbError> {
    sql("SELECT CAST(COALESCE(SUM(CASE WHEN status = 'open' THEN amount_minor ELSE 0 END), 0) AS BIGINT), \
             CAST(COALESCE(SUM(CASE WHEN status = 'lost' THEN amount_minor ELSE 0 END), 0) AS BIGINT) \
         FROM sale_disputes WHERE product = $1 AND sale_id = $2")
    .bind(&sale.product)
    .bind(&sale.id)
    .one(tx)
    .await
}

/// Writes a refund down before Stripe is asked for it.
pub async fn refund_insert(tx: &Tx, refund: &RefundRow, request_key: &str, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO sale_refunds (product, id, sale_id, request_key, request, amount_minor, status, tries, \
             created_at, touched_at) VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)")
    .bind(&refund.product)
    .bind(&refund.id)
    .bind(&refund.sale_id)
    .bind(request_key)
    .bind(&refund.request)
    .bind(refund.amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// The refund that a key was used for.
pub async fn refund_by_key(on: &impl On, product: &str, request_key: &str) -> Result<Option<RefundRow>, DbError> {
    sql("SELECT product, id, sale_id, request, amount_minor, status, tries FROM sale_refunds \
         WHERE product = $1 AND request_key = $2")
    .bind(product)
    .bind(request_key)
    .opt(on)
    .await
}

/// The sums of a sale's refunds that are under way and of those that are done.
pub async fn refund_sums(on: &impl On, product: &str, sale_id: &str) -> Result<(i64, i64), DbError> {
    sql("SELECT CAST(COALESCE(SUM(CASE WHEN status = 'pending' THEN amount_minor ELSE 0 END), 0) AS BIGINT), \
             CAST(COALESCE(SUM(CASE WHEN status = 'done' THEN amount_minor ELSE 0 END), 0) AS BIGINT) \
         FROM sale_refunds WHERE product = $1 AND sale_id = $2")
    .bind(product)
    .bind(sale_id)
    .one(on)
    .await
}

/// What became of a refund; false if somebody has noted it before. A refusal that is noted is not the last word:
/// should Stripe have done it for another call, `done` wins.
pub async fn refund_end(
    on: &impl On,
    refund: &RefundRow,
    status: &str,
    refund_id: Option<&str>,
) -> Result<bool, DbError> {
    let ended =
        sql("UPDATE sale_refunds SET status = $3, refund_id = $4, tries = tries + 1 WHERE product = $1 AND id = $2 \
         AND (status = 'pending' OR (status = 'failed' AND $3 = 'done'))")
        .bind(&refund.product)
        .bind(&refund.id)
        .bind(status)
        .bind(refund_id);
    Ok(ended.run(on).await? == 1)
}

/// Takes a refund that was refused up again.
pub async fn refund_retry(tx: &Tx, refund: &RefundRow, now_ms: i64) -> Result<(), DbError> {
    sql("UPDATE sale_refunds SET status = 'pending', amount_minor = $3, touched_at = $4 \
         WHERE product = $1 AND id = $2 AND status = 'failed'")
    .bind(&refund.product)
    .bind(&refund.id)
    .bind(refund.amount_minor)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// The next try of a refund has another key.
pub async fn refund_next_try(on: &impl On, refund: &RefundRow) -> Result<(), DbError> {
    sql("UPDATE sale_refunds SET tries = tries + 1 WHERE product = $1 AND id = $2 AND tries = $3")
        .bind(&refund.product)
        .bind(&refund.id)
        .bind(refund.tries)
        .run(on)
        .await
        .map(drop)
}

/// Takes up refunds that were last touched before a moment and are not finished.
pub async fn refunds_unfinished(on: &impl On, before_ms: i64, now_ms: i64) -> Result<Vec<RefundRow>, DbError> {
    sql("UPDATE sale_refunds SET touched_at = $2 WHERE (product, id) IN (SELECT product, id FROM sale_refunds \
             WHERE status = 'pending' AND touched_at < $1 ORDER BY touched_at LIMIT $3) \
         RETURNING product, id, sale_id, request, amount_minor, status, tries")
    .bind(before_ms)
    .bind(now_ms)
    .bind(MAX_UNFINISHED)
    .all(on)
    .await
}
