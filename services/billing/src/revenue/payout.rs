//! Paying developers, and taking back what they were paid too much.
use weft_core::new_id;
use weft_db::Tx;

use super::book::claw_back;
use super::{Asked, Revenue};
use crate::domain::revenue::due;
use crate::error::Error;
use crate::payments::connect::{self, Failure, Transfer};
use crate::store::payout::{
    PayoutRow, ReversalRow, developer_find, developer_lock, payout_find, payout_insert, payout_next_try,
    payout_of_period, payout_retry, payout_set_paid, reversal_done, reversal_fail, reversal_next_try,
};
use crate::store::revenue::{Earned, earnings_add, earnings_sums};

/// What asking for a payout came to.
pub enum Paid {
    /// This call transferred it.
    Now(PayoutRow),
    /// An earlier call did.
    Before(PayoutRow),
    /// There is nothing to transfer.
    Nothing,
}

impl Revenue {
    /// Transfers what a period earned and was not yet paid. The period is over.
    pub async fn pay_developer(&self, of: &Earned<'_>) -> Result<Paid, Error> {
        if let Some(paid) = self.begun(of).await? {
            return Ok(paid);
        }
        let (until, earned, paid) = earnings_sums(&self.db, of).await?;
        if due(until, earned, paid) == 0 {
            // Another call may have begun it since, and taken what was due.
            return Ok(self.begun(of).await?.unwrap_or(Paid::Nothing));
        }
        self.payable_account(of.product, of.developer_id).await?;
        let now_ms = self.now_ms();
        match self.db.write("payout_begin", async |tx: Tx| begin(&tx, of, now_ms).await).await? {
            Some((payout, _)) if payout.status == "paid" => Ok(Paid::Before(payout)),
            Some((payout, asked)) => self.transfer(&payout, asked).await,
            None => Ok(Paid::Nothing),
        }
    }

    /// What an earlier call has begun, finished if it was not.
    async fn begun(&self, of: &Earned<'_>) -> Result<Option<Paid>, Error> {
        match payout_of_period(&self.db, of.product, of.developer_id, of.period, of.currency).await? {
            Some(payout) if payout.status == "paid" => Ok(Some(Paid::Before(payout))),
            Some(payout) if payout.status == "pending" => Ok(Some(self.transfer(&payout, Asked::Before).await?)),
            _ => Ok(None),
        }
    }

    /// The account that a developer is paid out to.
    async fn payable_account(&self, product: &str, developer_id: &str) -> Result<String, Error> {
        let not_yet =
            || Error::NotNow("the developer has no account that is paid out to, let them complete it".to_owned());
        let stripe = self.payments.stripe(product)?;
        let developer = developer_find(&self.db, product, developer_id).await?;
        let account_id = developer.and_then(|developer| developer.account_id).ok_or_else(not_yet)?;
        let account = connect::account_find(stripe, &account_id).await?;
        if account.payouts_enabled { Ok(account_id) } else { Err(not_yet()) }
    }

    /// Does the transfer of a pending payout.
    pub(super) async fn transfer(&self, payout: &PayoutRow, asked: Asked) -> Result<Paid, Error> {
        let stripe = self.payments.stripe(&payout.product)?;
        let developer = developer_find(&self.db, &payout.product, &payout.developer_id).await?;
        let account_id = developer.and_then(|developer| developer.account_id).ok_or(Error::NotFound("account"))?;
        if asked.before(payout.tries)
            && let Some(transfer) = connect::transfer_find(stripe, payout).await?
        {
            return self.transferred(payout, transfer).await;
        }
        let failure = match connect::transfer_create(stripe, payout, &account_id).await {
            Ok(transfer) => return self.transferred(payout, transfer).await,
            Err(failure) => failure,
        };
        match &failure {
            Failure::Unavailable(_) => Err(failure.into()),
            Failure::Broken(_) => {
                if let Some(transfer) = connect::transfer_find(stripe, payout).await? {
                    return self.transferred(payout, transfer).await;
                }
                payout_next_try(&self.db, payout, "pending").await?;
                Err(failure.into())
            }
            Failure::Refused(_) | Failure::Declined { .. } => {
                self.db.write("payout_refused", async |tx: Tx| refused(&tx, payout).await).await?;
                Err(failure.into())
            }
        }
    }

    /// Books a transfer; reversals that have become possible follow.
    async fn transferred(&self, payout: &PayoutRow, transfer: Transfer) -> Result<Paid, Error> {
        let now_ms = self.now_ms();
        let (done, first, reversals) = self
            .db
            .write("payout_paid", async |tx: Tx| {
                developer_lock(&tx, &payout.product, &payout.developer_id).await?;
                let is = payout_find(&tx, &payout.product, &payout.id).await?.ok_or(Error::NotFound("payout"))?;
                if is.status == "paid" {
                    return Ok((is, false, Vec::new()));
                }
                let counted = if is.status == "pending" { is.amount_minor } else { 0 };
                earnings_add(&tx, &earned(&is), 0, transfer.amount - counted, 0).await?;
                payout_set_paid(&tx, &is, &transfer.id, transfer.amount).await?;
                let reversals = claw_back(&tx, &is.product, &is.developer_id, &is.currency, now_ms).await?;
                let id = Some(transfer.id.clone());
                let paid =
                    PayoutRow { status: "paid".to_owned(), transfer_id: id, amount_minor: transfer.amount, ..is };
                Ok::<_, Error>((paid, true, reversals))
            })
            .await?;
        self.reverse_all(&reversals).await;
        Ok(if first { Paid::Now(done) } else { Paid::Before(done) })
    }

    /// Does reversals as far as Stripe lets it; what is left housekeeping does.
    pub(super) async fn reverse_all(&self, reversals: &[ReversalRow]) {
        for reversal in reversals {
            if let Err(error) = self.reverse(reversal, Asked::Never).await {
                tracing::warn!(%error, reversal = reversal.id, "a transfer is not reversed yet");
            }
        }
    }

    /// Does a pending reversal.
    pub(super) async fn reverse(&self, reversal: &ReversalRow, asked: Asked) -> Result<(), Error> {
        let stripe = self.payments.stripe(&reversal.product)?;
        let payout = payout_find(&self.db, &reversal.product, &reversal.payout_id).await?;
        let transfer = payout.and_then(|payout| payout.transfer_id).ok_or(Error::NotFound("transfer"))?;
        if asked.before(reversal.tries)
            && let Some(id) = connect::reversal_find(stripe, reversal, &transfer).await?
        {
            return Ok(reversal_done(&self.db, reversal, &id).await?);
        }
        let failure = match connect::reversal_create(stripe, reversal, &transfer).await {
            Ok(id) => return Ok(reversal_done(&self.db, reversal, &id).await?),
            Err(failure) => failure,
        };
        match &failure {
            Failure::Unavailable(_) => {}
            Failure::Broken(_) => match connect::reversal_find(stripe, reversal, &transfer).await? {
                Some(id) => return Ok(reversal_done(&self.db, reversal, &id).await?),
                None => reversal_next_try(&self.db, reversal).await?,
            },
            // It stays the developer's debt.
            Failure::Refused(_) | Failure::Declined { .. } => {
                self.db.write("reversal_refused", async |tx: Tx| reversal_refused(&tx, reversal).await).await?;
            }
        }
        Err(failure.into())
    }
}

/// Writes a payout down; the one that is there if somebody was faster; none if nothing is due.
async fn begin(tx: &Tx, of: &Earned<'_>, now_ms: i64) -> Result<Option<(PayoutRow, Asked)>, Error> {
    developer_lock(tx, of.product, of.developer_id).await?;
    let found = payout_of_period(tx, of.product, of.developer_id, of.period, of.currency).await?;
    if found.as_ref().is_some_and(|payout| payout.status != "failed") {
        return Ok(found.map(|payout| (payout, Asked::Before)));
    }
    let (until, earned, paid) = earnings_sums(tx, of).await?;
    let amount_minor = due(until, earned, paid);
    if amount_minor == 0 {
        return Ok(None);
    }
    let payout = match found {
        Some(failed) => {
            payout_retry(tx, &failed, amount_minor, now_ms).await?;
            PayoutRow { status: "pending".to_owned(), amount_minor, ..failed }
        }
        None => {
            let payout = new_payout(of, amount_minor);
            payout_insert(tx, &payout, now_ms).await?;
            payout
        }
    };
    earnings_add(tx, of, 0, amount_minor, 0).await?;
    Ok(Some((payout, Asked::Never)))
}

/// Gives back what a refused payout had taken.
async fn refused(tx: &Tx, payout: &PayoutRow) -> Result<(), Error> {
    developer_lock(tx, &payout.product, &payout.developer_id).await?;
    if payout_next_try(tx, payout, "failed").await? {
        earnings_add(tx, &earned(payout), 0, -payout.amount_minor, 0).await?;
    }
    Ok(())
}

async fn reversal_refused(tx: &Tx, reversal: &ReversalRow) -> Result<(), Error> {
    let payout = payout_find(tx, &reversal.product, &reversal.payout_id).await?.ok_or(Error::NotFound("payout"))?;
    developer_lock(tx, &payout.product, &payout.developer_id).await?;
    if reversal_fail(tx, reversal).await? {
        earnings_add(tx, &earned(&payout), 0, reversal.amount_minor, 0).await?;
    }
    Ok(())
}

fn earned(payout: &PayoutRow) -> Earned<'_> {
    Earned {
        product: &payout.product,
        developer_id: &payout.developer_id,
        currency: &payout.currency,
        period: &payout.period,
    }
}

fn new_payout(of: &Earned<'_>, amount_minor: i64) -> PayoutRow {
    PayoutRow {
        product: of.product.to_owned(),
        id: new_id(),
        developer_id: of.developer_id.to_owned(),
        period: of.period.to_owned(),
        currency: of.currency.to_owned(),
        amount_minor,
        status: "pending".to_owned(),
        tries: 0,
        transfer_id: None,
        reversed_minor: 0,
    }
}
