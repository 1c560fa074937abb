//! The marketplace's money: what is written down before Stripe is asked, and what its answers come to. Every step may
//! be cut off and done again: rows in the tables and Stripe's idempotency keys make one effect of any number of tries.
mod book;
mod charge;
mod developer;
mod payout;
mod reconcile;
mod refund;

use weft_core::Clock;
use weft_db::Db;

pub use book::{Change, sale_event};
pub use charge::Wanted;
pub use payout::Paid;

use crate::payments::Payments;

/// How often one call tries again within itself before it says that Stripe does not answer.
const MAX_STEPS: usize = 4;

/// Whether Stripe may have been asked for something before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It was written down by this very call.
    Never,
    /// It was found as another call has left it, perhaps long ago.
    Before,
}

impl Asked {
    /// Whether it has to be looked for before Stripe is asked: Stripe knows a key for a day only, and under a later
    /// key not what was done under the earlier one.
    fn before(self, tries: i64) -> bool {
        self == Asked::Before || tries > 0
    }
}

/// Sales, refunds and payouts. Cheap to clone.
#[derive(Clone)]
pub struct Revenue {
    /// The tables.
    pub db: Db,
    /// Stripe.
    pub payments: Payments,
    /// What says which month it is.
    pub clock: Clock,
}

impl Revenue {
    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}
