//! Paying a sale back.
use prost::Message;
use weft_core::new_id;
use weft_db::Tx;

use super::book::book_refunded;
use super::{Asked, Revenue};
use crate::domain::idempotency::Key;
use crate::domain::revenue::taken_back;
use crate::error::Error;
use crate::payments::connect::{self, Failure, Refunded};
use crate::store::idempotency::{idempotency_find, idempotency_store};
use crate::store::payout::ReversalRow;
use crate::store::sale::{
    RefundRow, SaleRow, refund_by_key, refund_end, refund_insert, refund_next_try, refund_retry, refund_sums,
    sale_find, sale_lock,
};

impl Revenue {
    /// Pays back `amount_minor` of a sale, or all that is left for 0, once for a key. `answer` makes the answer that is
    /// kept for the key.
    pub async fn refund<A: Message + Default>(
        &self,
        key: &Key,
        sale_id: &str,
        amount_minor: i64,
        answer: impl Fn(&SaleRow) -> A,
    ) -> Result<A, Error> {
        if let Some(kept) = idempotency_find(&self.db, key).await? {
            return decoded(&kept);
        }
        let now_ms = self.now_ms();
        let (refund, asked) =
            self.db.write("refund_begin", async |tx: Tx| begin(&tx, key, sale_id, amount_minor, now_ms).await).await?;
        if refund.status == "pending" {
            self.pay_back(&refund, asked).await?;
        }
        self.db
            .write("refund_answer", async |tx: Tx| {
                let sale = sale_find(&tx, &key.product, sale_id).await?.ok_or(Error::NotFound("sale"))?;
                let answer = answer(&sale);
                if idempotency_store(&tx, key, &answer.encode_to_vec(), now_ms).await? {
                    return Ok(answer);
                }
                let kept = idempotency_find(&tx, key).await?;
                decoded(&kept.unwrap_or_default())
            })
            .await
    }

    /// Does a pending refund at Stripe and books it.
    pub(super) async fn pay_back(&self, refund: &RefundRow, asked: Asked) -> Result<(), Error> {
        let stripe = self.payments.stripe(&refund.product)?;
        let sale = sale_find(&self.db, &refund.product, &refund.sale_id).await?.ok_or(Error::NotFound("sale"))?;
        let intent = sale.payment_intent.ok_or(Error::NotFound("payment"))?;
        if asked.before(refund.tries)
            && let Some(done) = connect::refund_find(stripe, refund, &intent).await?
        {
            return self.paid_back(refund, &done).await;
        }
        let failure = match connect::refund_create(stripe, refund, &intent).await {
            Ok(done) => return self.paid_back(refund, &done).await,
            Err(failure) => failure,
        };
        match &failure {
            Failure::Unavailable(_) => {}
            Failure::Broken(_) => match connect::refund_find(stripe, refund, &intent).await? {
                Some(done) => return self.paid_back(refund, &done).await,
                None => refund_next_try(&self.db, refund).await?,
            },
            Failure::Refused(_) | Failure::Declined { .. } => {
                refund_end(&self.db, refund, "failed", None).await?;
            }
        }
        Err(failure.into())
    }

    async fn paid_back(&self, refund: &RefundRow, done: &Refunded) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let reversals = self.db.write("refund_done", async |tx: Tx| book(&tx, refund, done, now_ms).await).await?;
        self.reverse_all(&reversals).await;
        Ok(())
    }
}

/// The refund of a key, written down if there is none. What others are paying back is not there to be paid back.
async fn begin(tx: &Tx, key: &Key, sale_id: &str, amount_minor: i64, now_ms: i64) -> Result<(RefundRow, Asked), Error> {
    let found = sale_lock(tx, &key.product, sale_id).await?.filter(SaleRow::is_paid);
    let sale = found.ok_or(Error::NotFound("sale"))?;
    let refund = refund_by_key(tx, &key.product, &key.key).await?;
    match &refund {
        Some(refund) if refund.request != key.request => return Err(Error::IdempotencyKeyReused),
        Some(refund) if refund.status != "failed" => return Ok((refund.clone(), Asked::Before)),
        _ => {}
    }
    let (pending, done) = refund_sums(tx, &sale.product, &sale.id).await?;
    let refunded = sale.refunded_minor.max(done).saturating_add(pending);
    let gone = taken_back(sale.amount_minor, refunded, sale.disputed_minor, sale.lost_minor);
    let left = sale.amount_minor - gone;
    let amount_minor = if amount_minor == 0 { left } else { amount_minor };
    if left == 0 {
        return Err(Error::Invalid("nothing of this sale is left to pay back".to_owned()));
    }
    if !(1..=left).contains(&amount_minor) {
        return Err(Error::Invalid(format!("amount_minor must be 1 to {left}, what is left of the sale")));
    }
    if let Some(failed) = refund {
        let refund = RefundRow { status: "pending".to_owned(), amount_minor, ..failed };
        refund_retry(tx, &refund, now_ms).await?;
        return Ok((refund, Asked::Before));
    }
    let refund = RefundRow {
        product: sale.product,
        id: new_id(),
        sale_id: sale.id,
        request: key.request.to_vec(),
        amount_minor,
        status: "pending".to_owned(),
        tries: 0,
    };
    refund_insert(tx, &refund, &key.key, now_ms).await?;
    Ok((refund, Asked::Never))
}

/// Books a refund once. Stripe tells all that was paid back then; what it has not told is at least our own.
async fn book(tx: &Tx, refund: &RefundRow, done: &Refunded, now_ms: i64) -> Result<Vec<ReversalRow>, Error> {
    let mut sale = sale_lock(tx, &refund.product, &refund.sale_id).await?.ok_or(Error::NotFound("sale"))?;
    if !refund_end(tx, refund, "done", Some(&done.id)).await? {
        return Ok(Vec::new());
    }
    let (_, ours) = refund_sums(tx, &refund.product, &refund.sale_id).await?;
    Ok(book_refunded(tx, &mut sale, done.refunded_minor.max(ours), now_ms).await?)
}

fn decoded<A: Message + Default>(kept: &[u8]) -> Result<A, Error> {
    A::decode(kept).map_err(|_| Error::NotFound("answer of this idempotency key"))
}
