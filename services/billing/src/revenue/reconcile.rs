//! What was begun and never finished: a process that died, an answer that was lost, a caller who gave up.
use std::time::Duration;

use weft_runtime::Mesh;

use super::{Asked, Revenue};
use crate::error::Error;
use crate::payments::connect;
use crate::store::payout::{payouts_unfinished, reversals_unfinished};
use crate::store::sale::{SaleRow, refunds_unfinished, sale_next_try, sales_unfinished};

/// What was not touched for this long is taken up; longer than a call takes.
const GRACE_MS: i64 = 60_000;

/// Between two passes.
const EVERY: Duration = Duration::from_secs(5);

impl Revenue {
    /// Reconciles now and then until the shutdown.
    pub fn start(&self, mesh: &Mesh) {
        let (revenue, shutdown) = (self.clone(), mesh.shutdown().clone());
        mesh.tasks().spawn("revenue", async move {
            while !shutdown.is_triggered() {
                if let Err(error) = revenue.reconcile().await {
                    tracing::warn!(%error, "what is left unfinished cannot be finished now");
                }
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// Finishes what lies about, at most 100 of each kind, so that nobody is charged and forgotten. Who was not charged
    /// is not charged here.
    ///
    /// # Errors
    /// The database; trouble with Stripe is logged, and the next pass tries again.
    pub async fn reconcile(&self) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let before_ms = now_ms.saturating_sub(GRACE_MS);
        for sale in sales_unfinished(&self.db, before_ms, now_ms).await? {
            noted("sale", &sale.id, self.look_up(&sale).await);
        }
        for refund in refunds_unfinished(&self.db, before_ms, now_ms).await? {
            noted("refund", &refund.id, self.pay_back(&refund, Asked::Before).await);
        }
        for payout in payouts_unfinished(&self.db, before_ms, now_ms).await? {
            noted("payout", &payout.id, self.transfer(&payout, Asked::Before).await.map(drop));
        }
        for reversal in reversals_unfinished(&self.db, before_ms, now_ms).await? {
            noted("reversal", &reversal.id, self.reverse(&reversal, Asked::Before).await);
        }
        Ok(())
    }

    /// Books a sale if its payment was charged, else ends its try.
    async fn look_up(&self, sale: &SaleRow) -> Result<(), Error> {
        let Some(intent) = &sale.payment_intent else {
            return Ok(sale_next_try(&self.db, sale, "failed").await?);
        };
        let status = connect::intent_status(self.payments.stripe(&sale.product)?, intent).await?;
        match self.settle(sale, status).await {
            // Declined, or still under way.
            Ok(_) | Err(Error::NotNow(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn noted(what: &'static str, id: &str, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => tracing::info!(what, id, "finished what was left unfinished"),
        Err(error) => tracing::warn!(what, id, %error, "something is left unfinished"),
    }
}
