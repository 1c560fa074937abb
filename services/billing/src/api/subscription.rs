//! `SubscriptionService`: buying, changing, ending, paying back.
use prost::Message;
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::new_id;
use weft_db::Tx;
use weft_product::Product;
use weft_proto::billing::v1::subscription_service_server::SubscriptionService;
use weft_proto::billing::v1::{
    CancelSubscriptionRequest, CancelSubscriptionResponse, Checkout, CreateCheckoutRequest, CreatePortalSessionRequest,
    GetSubscriptionRequest, Invoice, ListInvoicesRequest, ListInvoicesResponse, ListPaymentsRequest,
    ListPaymentsResponse, Payment, PortalSession, RefundPaymentRequest, Subscription, UpdateSubscriptionRequest,
};

use crate::domain::idempotency::{Key, key_of, key_required};
use crate::domain::payment;
use crate::domain::subscription::is_living;
use crate::error::Error;
use crate::payments::apply::Books;
use crate::payments::client::{is_missing, key};
use crate::payments::purchase::Wanted;
use crate::store::account::account_standing;
use crate::store::customer::customer_of;
use crate::store::idempotency::{idempotency_find, idempotency_store};
use crate::store::payment::{PaymentRow, payment_find, payment_list};
use crate::store::subscription::{SubscriptionRow, subscription_list};

/// Entries of a page that does not say how many, and most payments and invoices of one.
const PAGE: i32 = 50;
const MAX_PAYMENTS: i32 = 1000;
const MAX_INVOICES: i32 = 100;

/// Buying, changing, ending, paying back.
pub struct SubscriptionApi {
    /// What is known, and Stripe.
    pub books: Books,
}

/// Who calls, for which product.
struct Buyer<'a> {
    product: &'a Product,
    user_id: String,
    email: String,
}

impl SubscriptionApi {
    fn buyer<T>(&self, request: &Request<T>) -> Result<Buyer<'_>, Status> {
        let caller = Caller::of(request)?;
        let user = caller.user()?;
        let product = self.books.products.get(&caller.product);
        let product = product.ok_or_else(|| Error::UnknownProduct(caller.product.to_string()))?;
        Ok(Buyer { product, user_id: user.sub.clone(), email: user.email.clone() })
    }

    async fn checkout(
        &self,
        buyer: &Buyer<'_>,
        request: CreateCheckoutRequest,
        key: Option<Key>,
    ) -> Result<Checkout, Error> {
        let product = &buyer.product.slug;
        self.books.payments.stripe(product)?;
        let stored = match &key {
            Some(key) => idempotency_find(&self.books.db, key).await?,
            None => None,
        };
        if let Some(answer) = stored.and_then(|answer| Checkout::decode(&*answer).ok()) {
            return Ok(answer);
        }
        let wanted = Wanted::of(&request)?;
        let urls = (
            self.books.payments.return_url("success_url", &request.success_url, "/billing/success")?,
            self.books.payments.return_url("cancel_url", &request.cancel_url, "/billing/cancel")?,
        );
        let item = self.books.item(product, &buyer.user_id, &wanted, request.seats).await?;
        if item.period.is_some() && self.living(product, &buyer.user_id).await?.is_some() {
            return Err(Error::NotNow("there is a subscription already, change it instead".to_owned()));
        }
        let intent = key.as_ref().map_or_else(new_id, |key| key.key.clone());
        let who = (product.as_str(), buyer.user_id.as_str(), buyer.email.as_str());
        let answer = self.books.checkout(who, &item, request.mode(), (&urls.0, &urls.1), &intent).await?;
        match key {
            Some(key) => self.once(&key, answer).await,
            None => Ok(answer),
        }
    }

    /// Keeps the answer of a key; whoever came first has said what it is.
    async fn once<M: Message + Default>(&self, key: &Key, answer: M) -> Result<M, Error> {
        let encoded = answer.encode_to_vec();
        let now_ms = self.books.clock.now_ms();
        let write = async |tx: Tx| idempotency_store(&tx, key, &encoded, now_ms).await.map_err(Error::from);
        if self.books.db.write("idempotency", write).await? {
            return Ok(answer);
        }
        let first = idempotency_find(&self.books.db, key).await?;
        Ok(first.and_then(|first| M::decode(&*first).ok()).unwrap_or(answer))
    }

    /// The subscription that Stripe still has, if there is one.
    async fn living(&self, product: &str, user_id: &str) -> Result<Option<SubscriptionRow>, Error> {
        let all = subscription_list(&self.books.db, product, user_id).await?;
        Ok(all.into_iter().find(|row| is_living(&row.status)))
    }

    /// A subscription as clients see it; `row` is the caller's own.
    async fn view(&self, buyer: &Buyer<'_>, row: Option<SubscriptionRow>) -> Result<Subscription, Error> {
        let product = buyer.product;
        let standing = account_standing(&self.books.db, &product.slug, &buyer.user_id, &product.default_plan).await?;
        let standing = standing
            .ok_or_else(|| Error::NoPlan { product: product.slug.clone(), plan: product.default_plan.clone() })?;
        let counts = Subscription {
            tier: standing.plan,
            plan_version: i32::try_from(standing.version).unwrap_or(i32::MAX),
            status: "none".to_owned(),
            ..Subscription::default()
        };
        Ok(match row {
            Some(row) => Subscription {
                id: row.id,
                status: row.status,
                current_period_end: row.period_end,
                cancel_at_period_end: row.cancel_at_period_end,
                seats: row.seats,
                price_id: row.price_id,
                subscribed_plan: row.plan,
                ..counts
            },
            None => counts,
        })
    }

    async fn update(
        &self,
        buyer: &Buyer<'_>,
        request: UpdateSubscriptionRequest,
        intent: &str,
    ) -> Result<Subscription, Error> {
        let product = &buyer.product.slug;
        self.books.payments.stripe(product)?;
        let row = self.living(product, &buyer.user_id).await?.ok_or(Error::NotFound("subscription"))?;
        let price = self.books.changed_price(product, &row, &request).await?;
        let seats = match request.seats {
            0 if price.per_seat => row.seats,
            0 => 1,
            seats => seats,
        };
        self.books.seats_suffice(product, &buyer.user_id, &price, seats).await?;
        let item = self.books.item_of_price(product, &buyer.user_id, &price, seats).await?;
        let id = row.id.clone();
        self.books.change(product, &id, &item, true, &key(&["update", product, &buyer.user_id, intent])).await?;
        let changed = SubscriptionRow { plan: price.plan, price_id: price.id, seats, ..row };
        self.view(buyer, Some(changed)).await
    }

    async fn cancel(&self, buyer: &Buyer<'_>, now: bool, intent: &str) -> Result<(), Error> {
        let product = &buyer.product.slug;
        let stripe = self.books.payments.stripe(product)?;
        let row = self.living(product, &buyer.user_id).await?.ok_or(Error::NotFound("subscription"))?;
        if row.cancel_at_period_end && !now {
            return Ok(());
        }
        let key = key(&["cancel", product, &buyer.user_id, intent]);
        match stripe.subscription_end(&row.id, now, &key).await {
            // It ended before; the event will say so.
            Err(error) if is_missing(&error) => Ok(()),
            ended => ended.map(drop),
        }
    }

    async fn portal(&self, buyer: &Buyer<'_>, return_url: &str) -> Result<PortalSession, Error> {
        let product = &buyer.product.slug;
        let stripe = self.books.payments.stripe(product)?;
        let return_url = self.books.payments.return_url("return_url", return_url, "/billing")?;
        let customer = customer_of(&self.books.db, product, &buyer.user_id).await?;
        let customer = customer.ok_or(Error::NotFound("customer"))?;
        let key = key(&["portal", product, &buyer.user_id, &new_id()]);
        Ok(PortalSession { portal_url: stripe.portal_create(&customer, &return_url, &key).await? })
    }

    async fn invoices(&self, buyer: &Buyer<'_>, request: ListInvoicesRequest) -> Result<ListInvoicesResponse, Error> {
        let product = &buyer.product.slug;
        let stripe = self.books.payments.stripe(product)?;
        let limit = page_size(request.page_size, MAX_INVOICES)?;
        let after = &request.page_token;
        let sound = after.is_empty() || (after.starts_with("in_") && after.len() <= 255);
        if !sound || !after.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(not_a_page());
        }
        let Some(customer) = customer_of(&self.books.db, product, &buyer.user_id).await? else {
            return Ok(ListInvoicesResponse::default());
        };
        let page = stripe.invoice_list(&customer, limit, after).await?;
        let next = page.data.last().filter(|_| page.has_more).map(|last| last.id.clone());
        // What Stripe has not sent to anybody yet is nothing to show.
        let shown = page.data.into_iter().filter(|invoice| invoice.status.as_deref() != Some("draft"));
        let invoices = shown.map(|invoice| Invoice {
            id: invoice.id,
            number: invoice.number.unwrap_or_default(),
            status: invoice.status.unwrap_or_default(),
            amount_due: invoice.amount_due,
            amount_paid: invoice.amount_paid,
            currency: invoice.currency.to_ascii_uppercase(),
            hosted_invoice_url: invoice.hosted_invoice_url.unwrap_or_default(),
            invoice_pdf: invoice.invoice_pdf.unwrap_or_default(),
            created_at: invoice.created.saturating_mul(1000),
        });
        Ok(ListInvoicesResponse { invoices: invoices.collect(), next_page_token: next.unwrap_or_default() })
    }

    async fn payments(&self, buyer: &Buyer<'_>, request: ListPaymentsRequest) -> Result<ListPaymentsResponse, Error> {
        let product = &buyer.product.slug;
        let limit = page_size(request.page_size, MAX_PAYMENTS)?;
        let after = match request.page_token.as_str() {
            "" => (i64::MAX, String::new()),
            id => {
                let last = payment_find(&self.books.db, product, id).await?;
                let last = last.filter(|last| last.user_id == buyer.user_id).ok_or_else(not_a_page)?;
                (last.created_at, last.id)
            }
        };
        let mut rows =
            payment_list(&self.books.db, product, &buyer.user_id, (after.0, &after.1), limit.saturating_add(1)).await?;
        let size = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|last| last.id.clone()).unwrap_or_default();
        Ok(ListPaymentsResponse { payments: rows.into_iter().map(shown).collect(), next_page_token: next })
    }

    async fn refund(&self, product: &str, request: RefundPaymentRequest, key_of_call: &Key) -> Result<Payment, Error> {
        self.books.payments.stripe(product)?;
        let stored = idempotency_find(&self.books.db, key_of_call).await?;
        if let Some(answer) = stored.and_then(|answer| Payment::decode(&*answer).ok()) {
            return Ok(answer);
        }
        let paid = self.books.refund_payment(key_of_call, &request.payment_id, request.amount_minor).await?;
        self.once(key_of_call, shown(paid)).await
    }
}

#[tonic::async_trait]
impl SubscriptionService for SubscriptionApi {
    async fn create_checkout(&self, request: Request<CreateCheckoutRequest>) -> Result<Response<Checkout>, Status> {
        let buyer = self.buyer(&request)?;
        let (metadata, _, mut message) = request.into_parts();
        let field = std::mem::take(&mut message.idempotency_key);
        let of = (&buyer.product.slug, &buyer.user_id);
        let key = key_of("CreateCheckout", of.0, of.1, &field, &metadata, &message.encode_to_vec())?;
        Ok(Response::new(self.checkout(&buyer, message, key).await?))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let buyer = self.buyer(&request)?;
        let all = subscription_list(&self.books.db, &buyer.product.slug, &buyer.user_id).await.map_err(Error::from)?;
        let over = |row: &SubscriptionRow| matches!(row.status.as_str(), "canceled" | "incomplete_expired");
        let row = all.into_iter().find(|row| !over(row));
        Ok(Response::new(self.view(&buyer, row).await?))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let buyer = self.buyer(&request)?;
        let intent = intent("UpdateSubscription", &buyer, &request)?;
        Ok(Response::new(self.update(&buyer, request.into_inner(), &intent).await?))
    }

    async fn cancel_subscription(
        &self,
        request: Request<CancelSubscriptionRequest>,
    ) -> Result<Response<CancelSubscriptionResponse>, Status> {
        let buyer = self.buyer(&request)?;
        let intent = intent("CancelSubscription", &buyer, &request)?;
        self.cancel(&buyer, request.get_ref().now, &intent).await?;
        Ok(Response::new(CancelSubscriptionResponse { ok: true }))
    }

    async fn create_portal_session(
        &self,
        request: Request<CreatePortalSessionRequest>,
    ) -> Result<Response<PortalSession>, Status> {
        let buyer = self.buyer(&request)?;
        Ok(Response::new(self.portal(&buyer, &request.get_ref().return_url).await?))
    }

    async fn list_invoices(
        &self,
        request: Request<ListInvoicesRequest>,
    ) -> Result<Response<ListInvoicesResponse>, Status> {
        let buyer = self.buyer(&request)?;
        Ok(Response::new(self.invoices(&buyer, request.into_inner()).await?))
    }

    async fn list_payments(
        &self,
        request: Request<ListPaymentsRequest>,
    ) -> Result<Response<ListPaymentsResponse>, Status> {
        let buyer = self.buyer(&request)?;
        Ok(Response::new(self.payments(&buyer, request.into_inner()).await?))
    }

    async fn refund_payment(&self, request: Request<RefundPaymentRequest>) -> Result<Response<Payment>, Status> {
        let admin = self.buyer(&request)?;
        let (metadata, _, mut message) = request.into_parts();
        let field = std::mem::take(&mut message.idempotency_key);
        let of = (&admin.product.slug, &admin.user_id);
        let key = key_of("RefundPayment", of.0, of.1, &field, &metadata, &message.encode_to_vec())?;
        Ok(Response::new(self.refund(of.0, message, &key_required(key)?).await?))
    }
}

/// What makes a call the same call: the caller's key, or nothing else.
fn intent<M: Message>(method: &'static str, buyer: &Buyer<'_>, request: &Request<M>) -> Result<String, Error> {
    let encoded = request.get_ref().encode_to_vec();
    let key = key_of(method, &buyer.product.slug, &buyer.user_id, "", request.metadata(), &encoded)?;
    // The same key for something else is another request to Stripe.
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(key.map_or_else(new_id, |key| format!("{} {}", hex(key.request), key.key)))
}

fn page_size(wanted: i32, most: i32) -> Result<i64, Error> {
    match wanted {
        0 => Ok(i64::from(PAGE)),
        size if (1..=most).contains(&size) => Ok(i64::from(size)),
        _ => Err(Error::Invalid(format!("page_size must be 1 to {most}, or 0 for {PAGE}"))),
    }
}

fn not_a_page() -> Error {
    Error::Invalid("page_token is none of this list, begin again without it".to_owned())
}

fn shown(row: PaymentRow) -> Payment {
    let status = payment::status(row.amount_minor, row.refunded_minor, row.disputed_minor).to_owned();
    Payment {
        id: row.id,
        kind: row.kind,
        item: row.item,
        amount_minor: row.amount_minor,
        currency: row.currency,
        status,
        refunded_minor: row.refunded_minor,
        credits: row.credits,
        created_at: row.created_at,
    }
}
