//! Movements: what enters the books, in the transaction of its cause.
use weft_core::new_id;
use weft_db::{DbError, Tx};

use crate::domain::event::Dispute;
use crate::domain::revenue::{DisputeStatus, Kind, Split, movement, period_of, split, taken_back};
use crate::store::payout::{ReversalRow, developer_ensure, developer_lock, payouts_left, reversal_insert};
use crate::store::revenue::{Earned, NewEvent, earnings_add, earnings_sums, event_insert};
use crate::store::sale::{
    SaleRow, dispute_sums, dispute_upsert, sale_lock_paid_by, sale_set_paid, sale_set_taken_back,
};

/// What Stripe reports about a payment.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// So much was paid back until now, in minor units.
    Refunded(i64),
    /// The buyer's bank disputes it.
    Dispute {
        /// Stripe's id of the dispute.
        id: &'a str,
        /// In minor units.
        amount_minor: i64,
        /// Where the dispute is.
        status: DisputeStatus,
    },
}

impl Change<'_> {
    /// What an event says of a dispute.
    pub fn of(dispute: &Dispute) -> Change<'_> {
        let status = match dispute {
            Dispute { returned: true, .. } => DisputeStatus::Won,
            Dispute { lost: true, .. } => DisputeStatus::Lost,
            Dispute { taken: true, .. } => DisputeStatus::Open,
            _ => DisputeStatus::Inquiry,
        };
        Change::Dispute { id: &dispute.id, amount_minor: dispute.amount, status }
    }
}

/// Books what Stripe reports about a payment, in the transaction of the event; false if the payment is for no sale.
/// Again, late or in another order comes to the same sums.
pub async fn sale_event(
    tx: &Tx,
    product: &str,
    payment_intent: &str,
    change: Change<'_>,
    now_ms: i64,
) -> Result<bool, DbError> {
    let Some(mut sale) = sale_lock_paid_by(tx, product, payment_intent).await? else {
        return Ok(false);
    };
    book_paid(tx, &mut sale, now_ms).await?;
    match change {
        Change::Refunded(refunded) => drop(book_refunded(tx, &mut sale, refunded, now_ms).await?),
        Change::Dispute { id, amount_minor, status } => {
            dispute_upsert(tx, &sale, id, amount_minor.max(0), status).await?;
            let (disputed, lost) = dispute_sums(tx, &sale).await?;
            let now = SaleRow { disputed_minor: disputed, lost_minor: lost, ..sale.clone() };
            take_back(tx, &mut sale, now, Kind::Dispute, now_ms).await?;
        }
    }
    Ok(true)
}

/// Books the money of a locked sale, once.
pub(super) async fn book_paid(tx: &Tx, sale: &mut SaleRow, now_ms: i64) -> Result<(), DbError> {
    if sale.is_paid() {
        return Ok(());
    }
    sale_set_paid(tx, sale, now_ms).await?;
    sale.status = "paid".to_owned();
    sale.created_at = now_ms;
    developer_ensure(tx, &sale.product, &sale.developer_id, &new_id(), now_ms).await?;
    book(tx, sale, Kind::Sale, split(sale.amount_minor), 1, now_ms).await
}

/// Books that of a locked, paid sale `refunded` was paid back until now, in minor units. Answers the reversals that
/// it needs.
pub(super) async fn book_refunded(
    tx: &Tx,
    sale: &mut SaleRow,
    refunded: i64,
    now_ms: i64,
) -> Result<Vec<ReversalRow>, DbError> {
    let refunded_minor = sale.refunded_minor.max(refunded.min(sale.amount_minor));
    let now = SaleRow { refunded_minor, ..sale.clone() };
    take_back(tx, sale, now, Kind::Refund, now_ms).await
}

async fn take_back(
    tx: &Tx,
    sale: &mut SaleRow,
    now: SaleRow,
    kind: Kind,
    now_ms: i64,
) -> Result<Vec<ReversalRow>, DbError> {
    let of = |sale: &SaleRow| taken_back(sale.amount_minor, sale.refunded_minor, sale.disputed_minor, sale.lost_minor);
    let (amount, before, after) = (sale.amount_minor, of(sale), of(&now));
    let live = taken_back(amount, now.refunded_minor, 0, now.lost_minor) < amount;
    sale_set_taken_back(tx, &now, live).await?;
    *sale = now;
    if before == after {
        return Ok(Vec::new());
    }
    let kind = if after < before { Kind::DisputeWon } else { kind };
    let sales = i64::from(before == amount) - i64::from(after == amount);
    book(tx, sale, kind, movement(amount, before, after), sales, now_ms).await?;
    claw_back(tx, &sale.product, &sale.developer_id, &sale.currency, now_ms).await
}

async fn book(tx: &Tx, sale: &SaleRow, kind: Kind, split: Split, sales: i64, now_ms: i64) -> Result<(), DbError> {
    let sequence = developer_lock(tx, &sale.product, &sale.developer_id).await?.ok_or(DbError::NoRow)?;
    let (id, period) = (new_id(), period_of(now_ms));
    let event = NewEvent { id: &id, sequence, kind, split, sales, period: &period, created_at: now_ms };
    event_insert(tx, sale, &event).await
}

/// Writes down the reversals that bring a developer's debt to 0, as far as transfers are left; the developer is locked.
pub(super) async fn claw_back(
    tx: &Tx,
    product: &str,
    developer_id: &str,
    currency: &str,
    now_ms: i64,
) -> Result<Vec<ReversalRow>, DbError> {
    let (_, earned, paid) = earnings_sums(tx, &Earned { product, developer_id, currency, period: "" }).await?;
    let mut owed = paid.saturating_sub(earned);
    let mut reversals = Vec::new();
    if owed <= 0 {
        return Ok(reversals);
    }
    for payout in payouts_left(tx, product, developer_id, currency).await? {
        let amount_minor = owed.min(payout.amount_minor - payout.reversed_minor);
        if amount_minor <= 0 {
            break;
        }
        let reversal =
            ReversalRow { product: product.to_owned(), id: new_id(), payout_id: payout.id, amount_minor, tries: 0 };
        reversal_insert(tx, &reversal, now_ms).await?;
        let of = Earned { product, developer_id, currency, period: &payout.period };
        earnings_add(tx, &of, 0, -amount_minor, 0).await?;
        owed -= amount_minor;
        reversals.push(reversal);
    }
    Ok(reversals)
}
