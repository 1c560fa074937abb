//! Whose request it is.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;
use weft_auth::{Caller, Entitlements, KeyClaim};
use weft_product::{Product, Products};
use weft_proto::billing::v1 as billing;

use crate::api::chat::Parts;
use crate::cost::{Asker, Payer};
use crate::domain::model;
use crate::error::Error;
use crate::keys::{Keys, OwnKey};
use crate::models::vendor::is_compatible;

/// Billing answers in this time or is away: the caller learns it within a second.
const ENTITLEMENTS_WITHIN: Duration = Duration::from_millis(800);

/// The account that calls.
pub struct Account {
    /// Slug of the product.
    pub product: String,
    /// Account id.
    pub id: String,
    /// Its API key that calls, if one does.
    pub key: Option<KeyClaim>,
}

impl Account {
    /// The caller's.
    ///
    /// # Errors
    /// [`Error::Refused`] if nobody is signed in.
    pub fn of(caller: &Caller) -> Result<Account, Error> {
        let user = caller.user().map_err(|status| Error::Refused(Box::new(status)))?;
        Ok(Account { product: caller.product.to_string(), id: user.sub.clone(), key: user.key.clone() })
    }

    /// Its product.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such product.
    pub fn product<'a>(&self, products: &'a Products) -> Result<&'a Arc<Product>, Error> {
        products.get(&self.product).ok_or(Error::Invalid("unknown product; name one in x-weft-product".into()))
    }

    /// The way to models that this account pays for.
    ///
    /// # Errors
    /// As [`Account::plan`].
    pub async fn asker(&self, parts: &Parts, product: &Arc<Product>) -> Result<Asker, Error> {
        let plan = self.plan(&parts.entitlements).await?;
        let payer = Payer::of(&self.product, &self.id, self.key.as_ref(), &plan);
        let (models, books) = (Arc::clone(&parts.models), parts.books.clone());
        Ok(Asker::new(models, books, Arc::clone(product), payer, i64::MAX).with_keys(self.keys(parts)))
    }

    /// Its own key for a model, which goes before ours.
    ///
    /// # Errors
    /// As [`Keys::of_model`].
    pub async fn own_key(&self, parts: &Parts, model: &str) -> Result<Option<OwnKey>, Error> {
        match self.keys(parts) {
            Some(keys) => keys.of_model(&self.product, &self.id, model).await,
            None => Ok(None),
        }
    }

    /// Looks whether it may choose this model; its own key for it, if there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the plan does not allow it, [`Error::Model`] if nobody answers for it, and as
    /// [`Account::own_key`].
    pub async fn choose(
        &self,
        parts: &Parts,
        product: &Product,
        plan: &billing::Entitlements,
        model: &str,
    ) -> Result<Option<OwnKey>, Error> {
        let own = self.own_key(parts, model).await?;
        // A server of the caller's own has models that no product knows.
        if own.is_none() || !is_compatible(model) {
            model::check(model, product, plan)?;
        }
        if own.is_none() {
            parts.models.answering(model)?;
        }
        Ok(own)
    }

    /// Where its own keys are. An API key with a budget goes over ours only: no budget counts what a provider charges its
    /// owner.
    pub fn keys(&self, parts: &Parts) -> Option<Keys> {
        let is_free = self.key.as_ref().is_none_or(|key| key.limit.is_none());
        is_free.then(|| parts.keys.clone())
    }

    /// What its plan allows.
    ///
    /// # Errors
    /// [`Error::NoEntitlements`] if billing does not say in time; [`Error::Refused`] if it does not know the product.
    pub async fn plan(&self, entitlements: &Entitlements) -> Result<Arc<billing::Entitlements>, Error> {
        match timeout(ENTITLEMENTS_WITHIN, entitlements.of(&self.product, &self.id)).await {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(status)) if status.code() == Code::NotFound => Err(Error::Refused(Box::new(status))),
            Ok(Err(_)) | Err(_) => Err(Error::NoEntitlements),
        }
    }
}
