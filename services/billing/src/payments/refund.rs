//! Paying a payment back, once for a key.
use weft_core::new_id;
use weft_db::Tx;

use super::apply::Books;
use super::connect::{self, Failure};
use crate::domain::idempotency::Key;
use crate::error::Error;
use crate::store::payment::{PaymentRow, link_of_source, payment_find};
use crate::store::refund::{
    PaymentRefundRow, payment_lock, refund_by_key, refund_end, refund_insert, refund_next_try, refund_retry,
    refund_sums,
};
use crate::store::sale::RefundRow;

impl Books {
    /// Pays back `amount_minor` of a payment, or all that is left for 0; answers the payment as it is known then. Its
    /// credits go when Stripe tells of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotNow`] and [`Error::Invalid`] for what cannot be paid back,
    /// [`Error::IdempotencyKeyReused`], what Stripe says, the database.
    pub async fn refund_payment(&self, key: &Key, payment_id: &str, amount_minor: i64) -> Result<PaymentRow, Error> {
        let now_ms = self.clock.now_ms();
        let begin = async |tx: Tx| begin(&tx, key, payment_id, amount_minor, now_ms).await;
        let (refund, asked_before) = self.db.write("refund_begin", begin).await?;
        if refund.status == "pending" {
            self.pay_back(&key.product, &refund, asked_before).await?;
        }
        payment_find(&self.db, &key.product, payment_id).await?.ok_or(Error::NotFound("payment"))
    }

    /// Does a pending refund at Stripe. One that may have been asked for before is looked up first.
    ///
    /// # Errors
    /// As [`Books::refund_payment`].
    pub async fn pay_back(&self, product: &str, refund: &PaymentRefundRow, asked_before: bool) -> Result<(), Error> {
        let stripe = self.payments.stripe(product)?;
        let paid = payment_find(&self.db, product, &refund.payment_id).await?.ok_or(Error::NotFound("payment"))?;
        let Some(intent) = self.intent_of(product, &paid).await? else {
            refund_end(&self.db, product, &refund.id, "failed").await?;
            return Err(Error::NotNow("nothing was charged for the payment".to_owned()));
        };
        let asked = RefundRow {
            product: product.to_owned(),
            id: refund.id.clone(),
            sale_id: refund.payment_id.clone(),
            request: refund.request.clone(),
            amount_minor: refund.amount_minor,
            status: refund.status.clone(),
            tries: refund.tries,
        };
        if (asked_before || refund.tries > 0) && connect::refund_find(stripe, &asked, &intent).await?.is_some() {
            return Ok(refund_end(&self.db, product, &refund.id, "done").await?);
        }
        let failure = match connect::refund_create(stripe, &asked, &intent).await {
            Ok(_) => return Ok(refund_end(&self.db, product, &refund.id, "done").await?),
            Err(failure) => failure,
        };
        match &failure {
            Failure::Unavailable(_) => {}
            Failure::Broken(_) => match connect::refund_find(stripe, &asked, &intent).await? {
                Some(_) => return Ok(refund_end(&self.db, product, &refund.id, "done").await?),
                None => refund_next_try(&self.db, product, &refund.id, refund.tries).await?,
            },
            Failure::Refused(_) | Failure::Declined { .. } => {
                refund_end(&self.db, product, &refund.id, "failed").await?;
            }
        }
        Err(failure.into())
    }

    /// The payment intent that a payment was charged by, if it was.
    async fn intent_of(&self, product: &str, paid: &PaymentRow) -> Result<Option<String>, Error> {
        let stripe = self.payments.stripe(product)?;
        match link_of_source(&self.db, product, &paid.source).await? {
            Some(intent) if intent.starts_with("pi_") => Ok(Some(intent)),
            Some(charge) => Ok(stripe.charge_get(&charge).await?["payment_intent"].as_str().map(str::to_owned)),
            None => stripe.intent_of_invoice(&paid.source).await,
        }
    }
}

/// The refund of a key, written down if there is none, and whether Stripe may have been asked for it already. What
/// others are paying back is not there to be paid back.
async fn begin(
    tx: &Tx,
    key: &Key,
    payment_id: &str,
    amount_minor: i64,
    now_ms: i64,
) -> Result<(PaymentRefundRow, bool), Error> {
    let by = (key.user_id.as_str(), key.key.as_str());
    let paid = payment_lock(tx, &key.product, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    let known = refund_by_key(tx, &key.product, by).await?;
    match &known {
        Some(refund) if refund.request != key.request => return Err(Error::IdempotencyKeyReused),
        Some(refund) if refund.status != "failed" => return Ok((refund.clone(), true)),
        _ => {}
    }
    let (pending, done) = refund_sums(tx, &key.product, &paid.id).await?;
    let gone = paid.refunded_minor.max(done).saturating_add(pending).saturating_add(paid.disputed_minor);
    let left = paid.amount_minor.saturating_sub(gone);
    if left <= 0 {
        return Err(Error::NotNow("nothing of the payment is left to pay back".to_owned()));
    }
    let amount_minor = if amount_minor == 0 { left } else { amount_minor };
    if !(1..=left).contains(&amount_minor) {
        return Err(Error::Invalid(format!("amount_minor must be 1 to {left}, what is left of the payment")));
    }
    if let Some(failed) = known {
        refund_retry(tx, &key.product, &failed.id, amount_minor).await?;
        return Ok((PaymentRefundRow { status: "pending".to_owned(), amount_minor, ..failed }, true));
    }
    let refund = PaymentRefundRow {
        id: new_id(),
        payment_id: paid.id,
        request: key.request.to_vec(),
        amount_minor,
        status: "pending".to_owned(),
        tries: 0,
    };
    refund_insert(tx, &key.product, &refund, by, now_ms).await?;
    Ok((refund, false))
}
