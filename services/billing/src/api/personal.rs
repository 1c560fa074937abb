//! `PersonalDataService`.
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_db::Tx;
use weft_product::Product;
use weft_proto::billing::v1::personal_data_service_server::PersonalDataService;
use weft_proto::billing::v1::{EraseAccountRequest, EraseAccountResponse, ExportAccountRequest, ExportedPart};

use super::account::account_id;
use crate::domain::subscription::is_living;
use crate::error::Error;
use crate::payments::apply::Books;
use crate::payments::client::{is_missing, key};
use crate::store::account::account_standing;
use crate::store::customer::customer_of;
use crate::store::overrides::override_list;
use crate::store::payment::payment_list;
use crate::store::personal::{PART_ROWS, personal_delete, personal_delete_calls, personal_entries, personal_usage};
use crate::store::subscription::subscription_list;

/// What is known of one account.
pub struct PersonalDataApi {
    /// What is known, and Stripe.
    pub books: Books,
}

/// Where an export goes on.
#[derive(Clone)]
enum Next {
    Plan,
    Subscriptions,
    Overrides,
    Payments(i64, String),
    Transactions(i64),
    Usage(i64),
    Done,
}

#[tonic::async_trait]
impl PersonalDataService for PersonalDataApi {
    type ExportAccountStream = BoxStream<'static, Result<ExportedPart, Status>>;

    async fn export_account(
        &self,
        request: Request<ExportAccountRequest>,
    ) -> Result<Response<Self::ExportAccountStream>, Status> {
        let product = self.product(&Caller::of(&request)?)?.clone();
        let user_id = account_id(request.into_inner().account_id)?;
        let from = (self.books.clone(), product, user_id, Next::Plan);
        let parts = stream::try_unfold(from, |(books, product, user_id, next)| async move {
            if matches!(next, Next::Done) {
                return Ok(None);
            }
            let (name, rows, next) = part(&books, &product, &user_id, next).await?;
            let part = ExportedPart { name: name.to_owned(), json: rows.to_string() };
            Ok::<_, Status>(Some((part, (books, product, user_id, next))))
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn erase_account(
        &self,
        request: Request<EraseAccountRequest>,
    ) -> Result<Response<EraseAccountResponse>, Status> {
        let product = self.product(&Caller::of(&request)?)?;
        let user_id = account_id(request.into_inner().account_id)?;
        self.end_payments(&product.slug, &user_id).await?;
        let db = &self.books.db;
        while personal_delete_calls(db, &product.slug, &user_id).await.map_err(Error::from)? >= PART_ROWS as u64 {}
        db.write("erase account", async |tx: Tx| personal_delete(&tx, &product.slug, &user_id).await)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(EraseAccountResponse { ok: true }))
    }
}

impl PersonalDataApi {
    fn product(&self, caller: &Caller) -> Result<&Product, Error> {
        let product = self.books.products.get(&caller.product);
        product.map(AsRef::as_ref).ok_or_else(|| Error::UnknownProduct(caller.product.to_string()))
    }

    /// Ends what Stripe would go on asking money for, and has Stripe forget who paid. The customer's id is deleted here
    /// only afterwards: after an outage it is asked again.
    async fn end_payments(&self, product: &str, user_id: &str) -> Result<(), Error> {
        let db = &self.books.db;
        let subscriptions = subscription_list(db, product, user_id).await?;
        let living: Vec<_> = subscriptions.into_iter().filter(|row| is_living(&row.status)).collect();
        let customer = customer_of(db, product, user_id).await?;
        if living.is_empty() && customer.is_none() {
            return Ok(());
        }
        let stripe = self.books.payments.stripe(product)?;
        if let Some(customer) = &customer {
            match stripe.sessions_expire(product, customer, &key(&["erase", product, user_id])).await {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        for row in living {
            match stripe.subscription_end(&row.id, true, &key(&["erase", product, user_id, &row.id])).await {
                // It ended before; the event will say so.
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        match customer {
            Some(customer) => stripe.customer_delete(&customer).await,
            None => Ok(()),
        }
    }
}

/// One part of an export, and where the next begins.
async fn part(
    books: &Books,
    product: &Product,
    user_id: &str,
    next: Next,
) -> Result<(&'static str, Value, Next), Error> {
    let (db, slug) = (&books.db, product.slug.as_str());
    Ok(match next {
        Next::Plan => {
            let standing = account_standing(db, slug, user_id, &product.default_plan).await?;
            let plan = standing.map(|row| {
                json!({"plan": row.plan, "version": row.version, "source": row.source, "seats": row.seats,
                       "first_seen_at": row.created_at, "last_active_day": row.active_day})
            });
            ("plan", plan.unwrap_or_else(|| json!({})), Next::Subscriptions)
        }
        Next::Subscriptions => {
            let rows = subscription_list(db, slug, user_id).await?.into_iter().map(|row| {
                json!({"id": row.id, "plan": row.plan, "version": row.plan_version, "price_id": row.price_id,
                       "status": row.status, "seats": row.seats, "period_end": row.period_end,
                       "cancel_at_period_end": row.cancel_at_period_end, "created_at": row.created_at})
            });
            ("subscriptions", rows.collect(), Next::Overrides)
        }
        Next::Overrides => {
            let rows = override_list(db, slug, std::slice::from_ref(&user_id.to_owned())).await?.into_iter();
            let rows =
                rows.map(|row| json!({"kind": row.kind, "name": row.name, "value": row.value, "model": row.model}));
            ("overrides", rows.collect(), Next::Payments(i64::MAX, String::new()))
        }
        Next::Payments(before, id) => {
            let rows = payment_list(db, slug, user_id, (before, &id), PART_ROWS).await?;
            let last = rows.last().filter(|_| rows.len() as i64 == PART_ROWS);
            let next = last.map_or(Next::Transactions(0), |row| Next::Payments(row.created_at, row.id.clone()));
            let rows = rows.iter().map(|row| {
                json!({"id": row.id, "kind": row.kind, "item": row.item, "amount_minor": row.amount_minor,
                       "currency": row.currency, "refunded_minor": row.refunded_minor, "credits": row.credits,
                       "created_at": row.created_at})
            });
            ("payments", rows.collect(), next)
        }
        Next::Transactions(after) => {
            let rows = personal_entries(db, slug, user_id, after).await?;
            let last = rows.last().filter(|_| rows.len() as i64 == PART_ROWS);
            let next = last.map_or(Next::Usage(0), |row| Next::Transactions(row.seq));
            let rows = rows.iter().map(|row| {
                json!({"number": row.seq, "bucket": row.bucket, "kind": row.kind, "amount": row.amount,
                       "balance_after": row.balance_after, "reference": row.reference, "created_at": row.created_at})
            });
            ("transactions", rows.collect(), next)
        }
        Next::Usage(skip) => {
            let rows = personal_usage(db, slug, user_id, skip).await?;
            let more = rows.len() as i64 == PART_ROWS;
            let next = if more { Next::Usage(skip + PART_ROWS) } else { Next::Done };
            let rows = rows.iter().map(|row| {
                json!({"day": row.day, "model": row.model, "agent_role": row.agent_role, "calls": row.calls,
                       "input_tokens": row.input_tokens, "output_tokens": row.output_tokens})
            });
            ("usage", rows.collect(), next)
        }
        Next::Done => ("usage", json!([]), Next::Done),
    })
}
