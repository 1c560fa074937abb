//! The marketplace's requests: payments of buyers, refunds, accounts of developers, transfers to them and reversals.
//!
//! Whoever moves money says so by an idempotency key. [`Failure::Broken`] is an answer that Stripe keeps for the key:
//! whether it was done has to be looked up, and the next try needs another key.
use std::collections::HashMap;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stripe::{StripeError, StripeRequest};
use stripe_connect::account::{
    CreateAccount, CreateAccountCapabilities, CreateAccountCapabilitiesTransfers, CreateAccountType, RetrieveAccount,
};
use stripe_connect::account_link::{CreateAccountLink, CreateAccountLinkType};
use stripe_connect::transfer::{CreateTransfer, ListTransfer};
use stripe_connect::transfer_reversal::{CreateIdTransferReversal, ListIdTransferReversal};
use stripe_core::customer::{ListPaymentMethodsCustomer, RetrieveCustomer};
use stripe_core::payment_intent::{
    CancelPaymentIntent, ConfirmPaymentIntent, ConfirmPaymentIntentOffSession, CreatePaymentIntent,
    RetrievePaymentIntent,
};
use stripe_core::refund::{CreateRefund, ListRefund};
use stripe_shared::{ApiErrorsCode, ApiErrorsType};
use stripe_types::Currency;

use super::client::{Once, Stripe, key, meaning};
use super::requests::{Made, Page};
use crate::error::Error;
use crate::store::payout::{PayoutRow, ReversalRow};
use crate::store::sale::{RefundRow, SaleRow};

/// Our id on what is made, by which it is found again.
const OUR_ID: &str = "weft_id";
/// Refunds of a payment, or reversals of a transfer, that are looked through.
const LOOKED_THROUGH: i64 = 100;

/// Why Stripe did not do it.
#[derive(Debug)]
pub enum Failure {
    /// No answer: it may have been done, and the same key tells.
    Unavailable(StripeError),
    /// An error of Stripe's own, kept for the key: it may have been done.
    Broken(StripeError),
    /// The payment method was declined; nothing was charged.
    Declined {
        /// The bank wants the buyer to confirm it.
        bank_wants_buyer: bool,
    },
    /// Refused: it was not done.
    Refused(StripeError),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Unavailable(error) | Failure::Broken(error) | Failure::Refused(error) => meaning(error),
            Failure::Declined { .. } => Error::NotNow("the payment method was declined, use another one".to_owned()),
        }
    }
}

impl From<StripeError> for Failure {
    fn from(error: StripeError) -> Failure {
        let StripeError::Stripe(told, status) = &error else { return Failure::Unavailable(error) };
        match status {
            500 => Failure::Broken(error),
            402 if told.type_ == ApiErrorsType::CardError => {
                Failure::Declined { bank_wants_buyer: told.code == Some(ApiErrorsCode::AuthenticationRequired) }
            }
            401 | 403 | 409 | 424 | 429 | 501..=599 => Failure::Unavailable(error),
            _ => Failure::Refused(error),
        }
    }
}

/// Whether the key was used with other fields.
pub fn is_idempotency_mismatch(error: &StripeError) -> bool {
    matches!(error, StripeError::Stripe(told, _) if told.type_ == ApiErrorsType::IdempotencyError)
}

/// Where a payment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentStatus {
    /// The money has come.
    Succeeded,
    /// The bank is at work; it may still come.
    Processing,
    /// Nothing was charged; it can be confirmed again.
    Open,
    /// The same, and the bank wants the buyer.
    WantsBuyer,
    /// It can never be charged.
    Cancelled,
}

impl IntentStatus {
    /// Nothing was charged, and it can be confirmed again.
    pub fn is_open(self) -> bool {
        matches!(self, IntentStatus::Open | IntentStatus::WantsBuyer)
    }
}

/// A refund at Stripe.
#[derive(Debug)]
pub struct Refunded {
    /// Stripe's id.
    pub id: String,
    /// All that was paid back of the payment then, in minor units, if Stripe told.
    pub refunded_minor: i64,
}

/// A developer's account.
#[derive(Debug, Deserialize)]
pub struct Account {
    /// Stripe's id.
    pub id: String,
    /// Stripe pays out to it.
    #[serde(default)]
    pub payouts_enabled: bool,
}

/// A transfer.
#[derive(Debug, Deserialize)]
pub struct Transfer {
    /// Stripe's id.
    pub id: String,
    /// In minor units.
    pub amount: i64,
}

#[derive(Deserialize)]
struct Intent {
    id: String,
    status: String,
}

#[derive(Deserialize)]
struct Refund {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    charge: Value,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Reversal {
    id: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Link {
    url: String,
}

impl Intent {
    fn status(&self) -> IntentStatus {
        match self.status.as_str() {
            "succeeded" => IntentStatus::Succeeded,
            "requires_payment_method" | "requires_confirmation" => IntentStatus::Open,
            "requires_action" => IntentStatus::WantsBuyer,
            "canceled" => IntentStatus::Cancelled,
            // Whatever it is: money may come of it.
            _ => IntentStatus::Processing,
        }
    }
}

impl From<Refund> for Refunded {
    fn from(refund: Refund) -> Refunded {
        Refunded { id: refund.id, refunded_minor: refund.charge["amount_refunded"].as_i64().unwrap_or(0) }
    }
}

async fn ask<T: DeserializeOwned>(stripe: &Stripe, request: &impl StripeRequest, once: Once<'_>) -> Result<T, Failure> {
    stripe.ask(request, once).await.map_err(Failure::from)
}

fn ours(id: &str) -> HashMap<String, String> {
    HashMap::from([(OUR_ID.to_owned(), id.to_owned())])
}

fn is_ours(metadata: &HashMap<String, String>, id: &str) -> bool {
    metadata.get(OUR_ID).is_some_and(|ours| ours == id)
}

fn currency(code: &str) -> Result<Currency, Failure> {
    let code = Currency::from_str(&code.to_ascii_lowercase());
    code.map_err(|error| Failure::Unavailable(StripeError::ConfigError(error.to_string())))
}

/// The payment method that a customer is charged through: the one for invoices, else the newest saved one.
pub async fn payment_method(stripe: &Stripe, customer: &str) -> Result<Option<String>, Failure> {
    let found: Value = ask(stripe, &RetrieveCustomer::new(customer), Once::Reads).await?;
    let default = &found["invoice_settings"]["default_payment_method"];
    if let Some(method) = default.as_str().or_else(|| default["id"].as_str()) {
        return Ok(Some(method.to_owned()));
    }
    let saved = ListPaymentMethodsCustomer::new(customer).limit(1);
    let saved: Page<Made> = ask(stripe, &saved, Once::Reads).await?;
    Ok(saved.data.into_iter().next().map(|method| method.id))
}

/// Makes the payment of a sale, which charges nobody until it is confirmed; answers its id.
pub async fn intent_create(stripe: &Stripe, sale: &SaleRow, customer: &str) -> Result<String, Failure> {
    let request = CreatePaymentIntent::new(sale.amount_minor, currency(&sale.currency)?)
        .customer(customer)
        .transfer_group(sale.id.as_str())
        .metadata(ours(&sale.id));
    let key = key(&["sale", &sale.product, &sale.id, &sale.tries.to_string()]);
    let made: Made = ask(stripe, &request, Once::Makes(&key)).await?;
    Ok(made.id)
}

/// Charges a payment while the buyer is away.
pub async fn intent_confirm(
    stripe: &Stripe,
    sale: &SaleRow,
    intent: &str,
    payment_method: &str,
) -> Result<IntentStatus, Failure> {
    let request = ConfirmPaymentIntent::new(intent)
        .payment_method(payment_method)
        .off_session(ConfirmPaymentIntentOffSession::Bool(true));
    let key = key(&["confirm", &sale.product, intent, &sale.tries.to_string()]);
    let confirmed: Intent = ask(stripe, &request, Once::Moves(&key)).await?;
    Ok(confirmed.status())
}

/// Where a payment is now.
pub async fn intent_status(stripe: &Stripe, intent: &str) -> Result<IntentStatus, Failure> {
    let found: Intent = ask(stripe, &RetrievePaymentIntent::new(intent), Once::Reads).await?;
    tracing::debug!(intent = found.id, status = found.status, "looked a payment up");
    Ok(found.status())
}

/// Cancels a payment that was not charged.
pub async fn intent_cancel(stripe: &Stripe, intent: &str) -> Result<(), Failure> {
    let key = key(&["cancel", intent]);
    let _cancelled: Made = ask(stripe, &CancelPaymentIntent::new(intent), Once::Makes(&key)).await?;
    Ok(())
}

/// Pays back a part of a payment.
pub async fn refund_create(stripe: &Stripe, refund: &RefundRow, intent: &str) -> Result<Refunded, Failure> {
    let request = CreateRefund::new()
        .payment_intent(intent)
        .amount(refund.amount_minor)
        .metadata(ours(&refund.id))
        .expand(vec!["charge".to_owned()]);
    let key = key(&["refund", &refund.product, &refund.id, &refund.tries.to_string()]);
    let made: Refund = ask(stripe, &request, Once::Moves(&key)).await?;
    Ok(made.into())
}

/// The refund that was made for ours, if there is one that did not fail.
pub async fn refund_find(stripe: &Stripe, refund: &RefundRow, intent: &str) -> Result<Option<Refunded>, Failure> {
    let request = ListRefund::new().payment_intent(intent).limit(LOOKED_THROUGH).expand(vec!["data.charge".to_owned()]);
    let found: Page<Refund> = ask(stripe, &request, Once::Reads).await?;
    let ended = |found: &Refund| matches!(found.status.as_str(), "failed" | "canceled");
    let ours = found.data.into_iter().find(|found| is_ours(&found.metadata, &refund.id) && !ended(found));
    Ok(ours.map(Refunded::from))
}

/// Transfers a payout to an account.
pub async fn transfer_create(stripe: &Stripe, payout: &PayoutRow, account: &str) -> Result<Transfer, Failure> {
    let request = CreateTransfer::new(currency(&payout.currency)?, account)
        .amount(payout.amount_minor)
        .transfer_group(payout.id.as_str())
        .metadata(ours(&payout.id));
    let key = key(&["payout", &payout.product, &payout.id, &payout.tries.to_string()]);
    ask(stripe, &request, Once::Moves(&key)).await
}

/// The transfer that was made for a payout, if there is one.
pub async fn transfer_find(stripe: &Stripe, payout: &PayoutRow) -> Result<Option<Transfer>, Failure> {
    let request = ListTransfer::new().transfer_group(payout.id.as_str()).limit(1);
    let found: Page<Transfer> = ask(stripe, &request, Once::Reads).await?;
    Ok(found.data.into_iter().next())
}

/// Takes back a part of a transfer; answers Stripe's id.
pub async fn reversal_create(stripe: &Stripe, reversal: &ReversalRow, transfer: &str) -> Result<String, Failure> {
    let request = CreateIdTransferReversal::new(transfer).amount(reversal.amount_minor).metadata(ours(&reversal.id));
    let key = key(&["reversal", &reversal.product, &reversal.id, &reversal.tries.to_string()]);
    let made: Made = ask(stripe, &request, Once::Moves(&key)).await?;
    Ok(made.id)
}

/// The reversal that was made for ours, if there is one.
pub async fn reversal_find(stripe: &Stripe, reversal: &ReversalRow, transfer: &str) -> Result<Option<String>, Failure> {
    let request = ListIdTransferReversal::new(transfer).limit(LOOKED_THROUGH);
    let found: Page<Reversal> = ask(stripe, &request, Once::Reads).await?;
    Ok(found.data.into_iter().find(|found| is_ours(&found.metadata, &reversal.id)).map(|found| found.id))
}

/// Opens an account that transfers can go to; `id` is ours.
pub async fn account_create(stripe: &Stripe, id: &str) -> Result<Account, Failure> {
    let mut transfers = CreateAccountCapabilitiesTransfers::new();
    transfers.requested = Some(true);
    let mut capabilities = CreateAccountCapabilities::new();
    capabilities.transfers = Some(transfers);
    let request = CreateAccount::new().type_(CreateAccountType::Express).capabilities(capabilities).metadata(ours(id));
    let key = key(&["account", id]);
    ask(stripe, &request, Once::Makes(&key)).await
}

/// An account as it is now.
pub async fn account_find(stripe: &Stripe, account: &str) -> Result<Account, Failure> {
    ask(stripe, &RetrieveAccount::new(account), Once::Reads).await
}

/// The page where a developer completes an account; it comes back to `return_url`.
pub async fn account_link(stripe: &Stripe, account: &str, return_url: &str) -> Result<String, Failure> {
    let request = CreateAccountLink::new(account, CreateAccountLinkType::AccountOnboarding)
        .refresh_url(return_url)
        .return_url(return_url);
    // Each call wants a page of its own, and one too many does no harm.
    let link: Link = ask(stripe, &request, Once::Reads).await?;
    Ok(link.url)
}
