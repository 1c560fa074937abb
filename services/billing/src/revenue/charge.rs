//! Buying. A sale has one payment of Stripe's, noted before it is confirmed; Stripe charges a payment at most once, so
//! whatever is lost in between, nobody pays twice.
use weft_core::new_id;
use weft_db::{On, Tx};

use super::book::book_paid;
use super::{MAX_STEPS, Revenue};
use crate::domain::idempotency::Key;
use crate::error::Error;
use crate::payments::connect::{self, Failure, IntentStatus};
use crate::store::customer::customer_of;
use crate::store::sale::{
    SaleRow, sale_drop_intent, sale_find, sale_insert, sale_key_find, sale_key_insert, sale_live, sale_lock,
    sale_next_try, sale_set_intent, sale_set_terms, sale_touch,
};

/// A sale as it is asked for; the fields follow their rules.
pub struct Wanted {
    /// So that a late retry gets the same sale, whatever became of it.
    pub key: Key,
    /// Slug of the product.
    pub product: String,
    /// Who buys.
    pub buyer_id: String,
    /// Who made it.
    pub developer_id: String,
    /// What.
    pub item_id: String,
    /// In minor units.
    pub amount_minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
}

/// What a buyer is charged through.
struct Payer {
    customer: String,
    payment_method: String,
}

impl Revenue {
    /// The buyer's sale of the item, charged if it is not yet.
    pub async fn charge(&self, wanted: &Wanted) -> Result<SaleRow, Error> {
        let known = match sale_of_key(&self.db, wanted).await? {
            Some(sale) => Some(sale),
            None => sale_live(&self.db, &wanted.product, &wanted.buyer_id, &wanted.item_id).await?,
        };
        if wanted.amount_minor == 0 || known.is_some_and(|sale| sale.is_paid()) {
            let sale = self.begin(wanted).await?;
            if sale.is_paid() {
                return Ok(sale);
            }
            if wanted.amount_minor == 0 {
                return self.paid(&sale).await;
            }
        }
        let payer = self.payer(&wanted.product, &wanted.buyer_id).await?;
        for _ in 0..MAX_STEPS {
            let sale = self.begin(wanted).await?;
            if sale.is_paid() {
                return Ok(sale);
            }
            let step = match &sale.payment_intent {
                None => self.open(&sale, &payer).await?,
                Some(intent) => self.confirm(&sale, intent, &payer).await?,
            };
            if let Some(paid) = step {
                return Ok(paid);
            }
        }
        Err(Error::Busy)
    }

    /// The sale of the key, else the live one, pending or paid, at the wanted price; written down if there is none. The
    /// key is this sale's from now on.
    async fn begin(&self, wanted: &Wanted) -> Result<SaleRow, Error> {
        let now_ms = self.now_ms();
        let new = new_sale(wanted, now_ms);
        let sale = self.db.write("sale_begin", async |tx: Tx| sale_for(&tx, wanted, &new).await).await?;
        if sale.status == "failed" && !has_terms(&sale, wanted) {
            self.release(&sale).await?;
            if !sale_set_terms(&self.db, &sale.id, &new).await? {
                return Err(Error::Busy);
            }
        }
        if !sale.is_paid() {
            sale_touch(&self.db, &sale, now_ms).await?;
        }
        let sale = sale_find(&self.db, &sale.product, &sale.id).await?.ok_or(Error::Busy)?;
        same_terms(sale, wanted)
    }

    /// Makes sure that a failed sale's payment can never be charged, so that it may have another price.
    async fn release(&self, sale: &SaleRow) -> Result<(), Error> {
        let Some(intent) = &sale.payment_intent else { return Ok(()) };
        let stripe = self.payments.stripe(&sale.product)?;
        match connect::intent_cancel(stripe, intent).await {
            Ok(()) => {}
            Err(Failure::Refused(_)) if connect::intent_status(stripe, intent).await? == IntentStatus::Cancelled => {}
            Err(failure) => return Err(failure.into()),
        }
        Ok(sale_drop_intent(&self.db, sale).await?)
    }

    async fn payer(&self, product: &str, buyer_id: &str) -> Result<Payer, Error> {
        let stripe = self.payments.stripe(product)?;
        let none = || Error::NotNow("the buyer has no saved payment method, let them add one".to_owned());
        let customer = customer_of(&self.db, product, buyer_id).await?.ok_or_else(none)?;
        let payment_method = connect::payment_method(stripe, &customer).await?.ok_or_else(none)?;
        Ok(Payer { customer, payment_method })
    }

    /// Makes the sale's payment, which charges nobody yet.
    async fn open(&self, sale: &SaleRow, payer: &Payer) -> Result<Option<SaleRow>, Error> {
        let stripe = self.payments.stripe(&sale.product)?;
        let intent = connect::intent_create(stripe, sale, &payer.customer).await?;
        // Another call may have noted another one; then this one is never confirmed.
        sale_set_intent(&self.db, sale, &intent).await?;
        Ok(None)
    }

    /// Charges the sale's payment.
    async fn confirm(&self, sale: &SaleRow, intent: &str, payer: &Payer) -> Result<Option<SaleRow>, Error> {
        let stripe = self.payments.stripe(&sale.product)?;
        let failure = match connect::intent_confirm(stripe, sale, intent, &payer.payment_method).await {
            Ok(status) => return self.settle(sale, status).await,
            Err(failure) => failure,
        };
        match &failure {
            Failure::Unavailable(_) => return Err(failure.into()),
            Failure::Declined { bank_wants_buyer } => {
                sale_next_try(&self.db, sale, "failed").await?;
                return Err(declined(*bank_wants_buyer));
            }
            Failure::Broken(_) | Failure::Refused(_) => {}
        }
        // It may have been charged all the same: by this call, or by one before it.
        let status = connect::intent_status(stripe, intent).await?;
        if !status.is_open() {
            return self.settle(sale, status).await;
        }
        sale_next_try(&self.db, sale, "pending").await?;
        match failure {
            // Another call of this try used another payment method.
            Failure::Refused(error) if connect::is_idempotency_mismatch(&error) => Ok(None),
            failure => Err(failure.into()),
        }
    }

    /// What a payment's status means for its sale; none: it needs another payment.
    pub(super) async fn settle(&self, sale: &SaleRow, status: IntentStatus) -> Result<Option<SaleRow>, Error> {
        match status {
            IntentStatus::Succeeded => Ok(Some(self.paid(sale).await?)),
            IntentStatus::Processing => {
                Err(Error::NotNow("the bank is still at work on this payment, ask again later".to_owned()))
            }
            IntentStatus::Cancelled => {
                sale_drop_intent(&self.db, sale).await?;
                Ok(None)
            }
            IntentStatus::Open | IntentStatus::WantsBuyer => {
                sale_next_try(&self.db, sale, "failed").await?;
                Err(declined(status == IntentStatus::WantsBuyer))
            }
        }
    }

    /// Books a sale whose money has come.
    async fn paid(&self, sale: &SaleRow) -> Result<SaleRow, Error> {
        let now_ms = self.now_ms();
        self.db
            .write("sale_paid", async |tx: Tx| {
                let mut sale = sale_lock(&tx, &sale.product, &sale.id).await?.ok_or(Error::NotFound("sale"))?;
                book_paid(&tx, &mut sale, now_ms).await?;
                Ok(sale)
            })
            .await
    }
}

/// The sale that a key was used for before.
async fn sale_of_key(on: &impl On, wanted: &Wanted) -> Result<Option<SaleRow>, Error> {
    let Some(known) = sale_key_find(on, &wanted.product, &wanted.key.key).await? else { return Ok(None) };
    if known.request != wanted.key.request {
        return Err(Error::IdempotencyKeyReused);
    }
    Ok(sale_find(on, &wanted.product, &known.sale_id).await?)
}

/// The sale of the key, else the live one, else `new`, with the key noted.
async fn sale_for(tx: &Tx, wanted: &Wanted, new: &SaleRow) -> Result<SaleRow, Error> {
    if let Some(sale) = sale_of_key(tx, wanted).await? {
        return Ok(sale);
    }
    sale_insert(tx, new).await?;
    // It may just have been paid back in full.
    let sale = sale_live(tx, &new.product, &new.buyer_id, &new.item_id).await?.ok_or(Error::Busy)?;
    // What is refused is not kept. Only a failed sale takes other terms.
    let sale = if sale.status == "failed" { sale } else { same_terms(sale, wanted)? };
    if sale_key_insert(tx, &sale, &wanted.key).await? {
        return Ok(sale);
    }
    // Another call with the key was faster.
    sale_of_key(tx, wanted).await?.filter(|of| of.id == sale.id).ok_or(Error::Busy)
}

fn new_sale(wanted: &Wanted, now_ms: i64) -> SaleRow {
    SaleRow {
        product: wanted.product.clone(),
        id: new_id(),
        buyer_id: wanted.buyer_id.clone(),
        developer_id: wanted.developer_id.clone(),
        item_id: wanted.item_id.clone(),
        amount_minor: wanted.amount_minor,
        currency: wanted.currency.clone(),
        status: "pending".to_owned(),
        tries: 0,
        payment_intent: None,
        refunded_minor: 0,
        disputed_minor: 0,
        lost_minor: 0,
        created_at: now_ms,
    }
}

fn has_terms(sale: &SaleRow, wanted: &Wanted) -> bool {
    sale.amount_minor == wanted.amount_minor
        && sale.currency == wanted.currency
        && sale.developer_id == wanted.developer_id
}

fn same_terms(sale: SaleRow, wanted: &Wanted) -> Result<SaleRow, Error> {
    if has_terms(&sale, wanted) {
        return Ok(sale);
    }
    Err(Error::Invalid(format!(
        "the buyer's sale of this item is for {} {} of another price or developer, ask for that",
        sale.amount_minor, sale.currency
    )))
}

fn declined(bank_wants_buyer: bool) -> Error {
    Error::NotNow(
        if bank_wants_buyer {
            "the buyer's bank wants the buyer to confirm this payment, let them pay in person"
        } else {
            "the buyer's payment method was declined, let them choose another one"
        }
        .to_owned(),
    )
}
