//! Developers' accounts at Stripe.
use weft_core::new_id;

use super::Revenue;
use crate::error::Error;
use crate::payments::connect::{self, Account};
use crate::store::payout::{developer_ensure, developer_find, developer_set_account};

impl Revenue {
    /// A developer's account, opened if there is none, and the page where they complete it; the page comes back to
    /// `return_url`.
    pub async fn open_account(
        &self,
        product: &str,
        developer_id: &str,
        return_url: &str,
    ) -> Result<(Account, String), Error> {
        let stripe = self.payments.stripe(product)?;
        let return_url = self.payments.return_url("return_url", return_url, "/developer")?;
        developer_ensure(&self.db, product, developer_id, &new_id(), self.now_ms()).await?;
        let developer = developer_find(&self.db, product, developer_id).await?.ok_or(Error::Busy)?;
        let account_id = match developer.account_id {
            Some(account_id) => account_id,
            None => {
                // The key is the same for every call, so Stripe opens one account for all of them.
                let opened = connect::account_create(stripe, &developer.id).await?;
                developer_set_account(&self.db, product, developer_id, &opened.id).await?;
                let developer = developer_find(&self.db, product, developer_id).await?;
                developer.and_then(|developer| developer.account_id).ok_or(Error::Busy)?
            }
        };
        let account = connect::account_find(stripe, &account_id).await?;
        let page = connect::account_link(stripe, &account_id, &return_url).await?;
        Ok((account, page))
    }
}
