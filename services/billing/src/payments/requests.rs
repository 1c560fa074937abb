//! What is asked of Stripe, request by request.
use std::collections::HashMap;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_billing::invoice::ListInvoice;
use stripe_billing::invoice_payment::{ListInvoicePayment, ListInvoicePaymentPayment, ListInvoicePaymentPaymentType};
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionItems, CreateSubscriptionItemsPriceData,
    CreateSubscriptionItemsPriceDataRecurring, CreateSubscriptionItemsPriceDataRecurringInterval,
    CreateSubscriptionPaymentBehavior, RetrieveSubscription, UpdateSubscription, UpdateSubscriptionItems,
    UpdateSubscriptionItemsPriceData, UpdateSubscriptionItemsPriceDataRecurring,
    UpdateSubscriptionItemsPriceDataRecurringInterval, UpdateSubscriptionPaymentBehavior,
    UpdateSubscriptionProrationBehavior,
};
use stripe_checkout::checkout_session::{
    CreateCheckoutSession, CreateCheckoutSessionLineItems, CreateCheckoutSessionLineItemsPriceData,
    CreateCheckoutSessionLineItemsPriceDataRecurring, CreateCheckoutSessionLineItemsPriceDataRecurringInterval,
    CreateCheckoutSessionPaymentIntentData, CreateCheckoutSessionSubscriptionData, ExpireCheckoutSession,
    ListCheckoutSession, ProductData,
};
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_core::customer::CreateCustomer;
use stripe_core::event::ListEvent;
use stripe_shared::{CheckoutSessionMode, CheckoutSessionStatus};
use stripe_types::{Currency, RangeQueryTs};

use super::client::{Once, Stripe, is_missing, key};
use crate::domain::event::HANDLED;
use crate::error::Error;

/// Events of one request, Stripe's most.
const EVENTS: i64 = 100;

/// Open pages of a customer that are looked through; each is open for a day.
const SESSIONS: i64 = 100;
/// What a page was made for, on the page itself.
const PURCHASE: &str = "purchase";

/// Our words on an object of Stripe's, by which its events are understood.
pub type Metadata = HashMap<String, String>;

/// What is bought, in Stripe's terms.
#[derive(Clone, Debug)]
pub struct Item {
    /// Name of the plan or package, for people.
    pub name: String,
    /// Id of the plan's product at Stripe.
    pub product_id: String,
    /// Minor units, for one.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// `month` or `year`; none: once.
    pub period: Option<String>,
    /// How many.
    pub quantity: i64,
    /// Ours.
    pub metadata: Metadata,
}

/// When the difference of a change is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pays {
    /// At once, or nothing changes.
    Now,
    /// For the rest of the period, with the next invoice.
    WithTheNext,
    /// Not at all: the next period costs something else.
    NextPeriod,
}

/// A page to buy on.
#[derive(Debug, Deserialize)]
pub struct Session {
    /// Stripe's id.
    pub id: String,
    /// Where it is.
    pub url: Option<String>,
}

/// An object of which the id is enough.
#[derive(Debug, Deserialize)]
pub struct Made {
    /// Stripe's id.
    pub id: String,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// Newest first.
    pub data: Vec<T>,
    /// There is more behind the last.
    #[serde(default)]
    pub has_more: bool,
}

/// A page at Stripe's, by its address.
#[derive(Debug, Deserialize)]
pub struct Portal {
    /// Where it is.
    pub url: String,
}

/// An invoice as far as it is shown.
#[derive(Debug, Deserialize)]
pub struct Invoice {
    /// Stripe's id.
    pub id: String,
    /// On the document; none while it is a draft.
    pub number: Option<String>,
    /// `draft`, `open`, `paid`, `uncollectible`, `void`.
    pub status: Option<String>,
    /// Minor units.
    pub amount_due: i64,
    /// Minor units.
    pub amount_paid: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Page with the document.
    pub hosted_invoice_url: Option<String>,
    /// The document.
    pub invoice_pdf: Option<String>,
    /// s since 1970.
    pub created: i64,
}

#[derive(Deserialize)]
struct InvoicePayment {
    invoice: Value,
    payment: Value,
}

impl Stripe {
    /// A customer, one for each account however often it is asked for.
    pub async fn customer_create(&self, product: &str, user_id: &str, email: &str) -> Result<String, Error> {
        let key = key(&["customer", product, user_id, email]);
        let metadata = Metadata::from([("product", product), ("user_id", user_id)].map(owned));
        let mut request = CreateCustomer::new().metadata(metadata);
        if !email.is_empty() {
            request = request.email(email);
        }
        Ok(self.send::<Made>(&request, Once::Makes(&key)).await?.id)
    }

    /// Has Stripe forget who a customer is, and ends what is left of their subscriptions. One that is not there any more is
    /// forgotten already.
    pub async fn customer_delete(&self, customer: &str) -> Result<(), Error> {
        let request = || RequestBuilder::new(StripeMethod::Delete, format!("/customers/{customer}"));
        match self.send_built::<Value>(request, Once::Reads).await {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// A page of Stripe's on which `item` is bought.
    pub async fn session_create(
        &self,
        (customer, user_id): (&str, &str),
        item: &Item,
        (success_url, cancel_url): (&str, &str),
        key: &str,
    ) -> Result<Session, Error> {
        let mut price = CreateCheckoutSessionLineItemsPriceData::new(currency(&item.currency));
        price.unit_amount = Some(item.amount_minor);
        price.product_data = Some(ProductData::new(&item.name));
        price.recurring = item.period.as_deref().map(|period| {
            use CreateCheckoutSessionLineItemsPriceDataRecurringInterval as Interval;
            let interval = if period == "year" { Interval::Year } else { Interval::Month };
            CreateCheckoutSessionLineItemsPriceDataRecurring::new(interval)
        });
        let mut line = CreateCheckoutSessionLineItems::new();
        line.price_data = Some(price);
        line.quantity = Some(item.quantity.unsigned_abs());
        let mark = (PURCHASE.to_owned(), key.to_owned());
        let request = CreateCheckoutSession::new()
            .customer(customer)
            .client_reference_id(user_id)
            .metadata(
                item.metadata
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .chain([mark])
                    .collect::<Metadata>(),
            )
            .line_items(vec![line])
            .success_url(success_url)
            .cancel_url(cancel_url);
        let request = if item.period.is_some() {
            let mut data = CreateCheckoutSessionSubscriptionData::new();
            data.metadata = Some(item.metadata.clone());
            request.mode(CheckoutSessionMode::Subscription).subscription_data(data)
        } else {
            let mut data = CreateCheckoutSessionPaymentIntentData::new();
            data.metadata = Some(item.metadata.clone());
            request.mode(CheckoutSessionMode::Payment).payment_intent_data(data)
        };
        self.send(&request, Once::Makes(key)).await
    }

    /// Closes the pages on which a customer could still buy a subscription of a product, except that of the purchase
    /// `key`.
    ///
    /// # Errors
    /// [`Error::NotNow`] if one of them is being paid.
    pub async fn sessions_expire(&self, product: &str, customer: &str, key: &str) -> Result<(), Error> {
        let request = ListCheckoutSession::new().customer(customer).status(CheckoutSessionStatus::Open).limit(SESSIONS);
        let open: Page<Value> = self.send(&request, Once::Reads).await?;
        let others = open.data.iter().filter(|of| {
            of["mode"] == "subscription" && of["metadata"]["product"] == product && of["metadata"][PURCHASE] != key
        });
        for id in others.filter_map(|of| of["id"].as_str()) {
            let expire = super::client::key(&["expire", id]);
            match self.send::<Made>(&ExpireCheckoutSession::new(id), Once::Makes(&expire)).await {
                Err(Error::PaymentsRefused(_)) => {
                    return Err(Error::NotNow("another purchase is being paid, wait for it".to_owned()));
                }
                expired => expired.map(drop)?,
            }
        }
        Ok(())
    }

    /// A subscription that waits for its first payment; the answer has its latest invoice.
    pub async fn subscription_create(&self, customer: &str, item: &Item, key: &str) -> Result<Value, Error> {
        self.product_ensure(item).await?;
        use CreateSubscriptionItemsPriceDataRecurringInterval as Interval;
        let interval = if item.period.as_deref() == Some("year") { Interval::Year } else { Interval::Month };
        let recurring = CreateSubscriptionItemsPriceDataRecurring::new(interval);
        let mut price = CreateSubscriptionItemsPriceData::new(currency(&item.currency), &item.product_id, recurring);
        price.unit_amount = Some(item.amount_minor);
        let mut line = CreateSubscriptionItems::new();
        line.price_data = Some(price);
        line.quantity = Some(item.quantity.unsigned_abs());
        let request = CreateSubscription::new()
            .customer(customer)
            .items(vec![line])
            .metadata(item.metadata.clone())
            .payment_behavior(CreateSubscriptionPaymentBehavior::DefaultIncomplete)
            .expand(vec!["latest_invoice.confirmation_secret".to_owned()]);
        self.send(&request, Once::Makes(key)).await
    }

    /// A subscription as it is now.
    pub async fn subscription_get(&self, id: &str) -> Result<Value, Error> {
        self.send(&RetrieveSubscription::new(id), Once::Reads).await
    }

    /// Another price or quantity for the subscription's item, and what we say of it. Answers what it
    /// has become.
    pub async fn subscription_change(
        &self,
        (id, item_id): (&str, &str),
        item: &Item,
        pays: Pays,
        key: &str,
    ) -> Result<Value, Error> {
        self.product_ensure(item).await?;
        use UpdateSubscriptionItemsPriceDataRecurringInterval as Interval;
        let interval = if item.period.as_deref() == Some("year") { Interval::Year } else { Interval::Month };
        let recurring = UpdateSubscriptionItemsPriceDataRecurring::new(interval);
        let mut price = UpdateSubscriptionItemsPriceData::new(currency(&item.currency), &item.product_id, recurring);
        price.unit_amount = Some(item.amount_minor);
        let mut line = UpdateSubscriptionItems::new();
        line.id = Some(item_id.to_owned());
        line.price_data = Some(price);
        line.quantity = Some(item.quantity.unsigned_abs());
        let prorations = match pays {
            Pays::Now => UpdateSubscriptionProrationBehavior::AlwaysInvoice,
            Pays::WithTheNext => UpdateSubscriptionProrationBehavior::CreateProrations,
            Pays::NextPeriod => UpdateSubscriptionProrationBehavior::None,
        };
        let mut request = UpdateSubscription::new(id)
            .items(vec![line])
            .metadata(item.metadata.clone())
            .proration_behavior(prorations);
        if matches!(pays, Pays::Now) {
            // Not `pending_if_incomplete`: Stripe takes no metadata with it, and ours say what is paid for.
            request = request.payment_behavior(UpdateSubscriptionPaymentBehavior::ErrorIfIncomplete);
        }
        self.send(&request, Once::Moves(key)).await
    }

    /// Ends a subscription, now or with its period.
    pub async fn subscription_end(&self, id: &str, now: bool, key: &str) -> Result<Value, Error> {
        if now {
            // What earlier changes have left to pay is not forgotten.
            return self.send(&CancelSubscription::new(id).invoice_now(true), Once::Moves(key)).await;
        }
        self.send(&UpdateSubscription::new(id).cancel_at_period_end(true), Once::Moves(key)).await
    }

    /// The page on which a customer changes payment methods.
    pub async fn portal_create(&self, customer: &str, return_url: &str, key: &str) -> Result<String, Error> {
        let request = CreateBillingPortalSession::new().customer(customer).return_url(return_url);
        Ok(self.send::<Portal>(&request, Once::Makes(key)).await?.url)
    }

    /// A customer's invoices, newest first; `after` is the last of the page before.
    pub async fn invoice_list(&self, customer: &str, limit: i64, after: &str) -> Result<Page<Invoice>, Error> {
        let mut request = ListInvoice::new().customer(customer).limit(limit);
        if !after.is_empty() {
            request = request.starting_after(after);
        }
        self.send(&request, Once::Reads).await
    }

    /// The invoice that a payment intent has paid, if it was one.
    pub async fn invoice_of_intent(&self, payment_intent: &str) -> Result<Option<String>, Error> {
        let mut payment = ListInvoicePaymentPayment::new(ListInvoicePaymentPaymentType::PaymentIntent);
        payment.payment_intent = Some(payment_intent.to_owned());
        let request = ListInvoicePayment::new().payment(payment).limit(1);
        let page: Page<InvoicePayment> = self.send(&request, Once::Reads).await?;
        Ok(page.data.first().and_then(|found| found.invoice.as_str()).map(str::to_owned))
    }

    /// A charge.
    pub async fn charge_get(&self, id: &str) -> Result<Value, Error> {
        let request = || RequestBuilder::new(StripeMethod::Get, format!("/charges/{id}"));
        self.send_built(request, Once::Reads).await
    }

    /// The payment intent that has paid an invoice.
    pub async fn intent_of_invoice(&self, invoice: &str) -> Result<Option<String>, Error> {
        let request = ListInvoicePayment::new().invoice(invoice).limit(1);
        let page: Page<InvoicePayment> = self.send(&request, Once::Reads).await?;
        Ok(page.data.first().and_then(|found| found.payment["payment_intent"].as_str()).map(str::to_owned))
    }

    /// The events that are handled here, since a moment, newest first; `after` is the last of the page before.
    pub async fn event_list(&self, since_s: i64, after: &str) -> Result<Page<Value>, Error> {
        let kinds: Vec<String> = HANDLED.iter().map(|kind| (*kind).to_owned()).collect();
        let mut request = ListEvent::new().types(kinds).created(RangeQueryTs::gte(since_s)).limit(EVENTS);
        if !after.is_empty() {
            request = request.starting_after(after);
        }
        self.send(&request, Once::Reads).await
    }

    /// Prices of subscriptions that are not bought on a page of Stripe's name a product that is there.
    async fn product_ensure(&self, item: &Item) -> Result<(), Error> {
        let read = || RequestBuilder::new(StripeMethod::Get, format!("/products/{}", item.product_id));
        match self.send_built::<Made>(read, Once::Reads).await {
            Err(error) if super::client::is_missing(&error) => {}
            read => return read.map(drop),
        }
        let form = [("id", item.product_id.as_str()), ("name", item.name.as_str())].map(owned);
        let form = std::collections::BTreeMap::from(form);
        let key = key(&["product", &item.product_id, &item.name]);
        let make = || RequestBuilder::new(StripeMethod::Post, "/products").form(&form);
        self.send_built::<Made>(make, Once::Makes(&key)).await.map(drop)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn currency(iso: &str) -> Currency {
    match Currency::from_str(&iso.to_ascii_lowercase()) {
        Ok(currency) => currency,
        Err(never) => match never {},
    }
}
