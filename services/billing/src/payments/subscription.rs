//! What Stripe's events say of subscriptions.
use weft_db::{DbError, Tx};

use super::apply::{Case, Outcome, Stop};
use crate::domain::event::{Session, Subscription};
use crate::domain::subscription::{Evidence, gives_plan};
use crate::error::Error;
use crate::store::account::{Subscribed, account_set_subscribed};
use crate::store::price::{PriceRow, price_at_version};
use crate::store::subscription::{SubscriptionRow, subscription_list, subscription_put};

/// A subscription was bought on a page of Stripe's.
pub(super) async fn begin(tx: &Tx, case: &Case<'_>, user_id: &str, session: &Session) -> Result<Outcome, Stop> {
    let Some(price) = price_of(tx, case).await? else { return Err(Stop::Ignored("its price")) };
    if session.currency != price.currency {
        return Err(Stop::Ignored("its currency"));
    }
    let seats = if price.per_seat { case.marks.seats.unwrap_or(1).max(1) } else { 1 };
    if session.subtotal != price.amount_minor.saturating_mul(seats) {
        return Err(Stop::Ignored("its amount"));
    }
    let id = session.subscription.as_deref().unwrap_or_default();
    let row = SubscriptionRow { seats, ..inferred(user_id, id, &price, "active", session.created) };
    Ok(Outcome::of(put(tx, case, &row).await?))
}

/// Stripe tells what a subscription is.
pub(super) async fn change(tx: &Tx, case: &Case<'_>, user_id: &str, told: &Subscription) -> Result<Outcome, Stop> {
    let Some(price) = price_of(tx, case).await? else { return Err(Stop::Ignored("its price")) };
    let costs = told.unit_amount.is_none_or(|amount| amount == price.amount_minor)
        && told.currency.as_ref().is_none_or(|currency| *currency == price.currency);
    let status = if told.deleted { "canceled" } else { &told.status };
    // An end ends, whatever it cost. Of another price only the price and what it brings is not believed.
    if !costs && !told.deleted {
        let Some(row) = known(tx, case, user_id, &told.id).await? else { return Err(Stop::Ignored("its amount")) };
        let row = SubscriptionRow {
            item_id: told.item_id.clone(),
            status: status.to_owned(),
            period_end: told.period_end.saturating_mul(1000),
            cancel_at_period_end: told.cancel_at_period_end,
            ..row
        };
        tracing::warn!(
            event = case.event.id,
            subscription = told.id,
            "a subscription costs something else than its price"
        );
        return Ok(Outcome::of(put(tx, case, &row).await?));
    }
    let row = SubscriptionRow {
        item_id: told.item_id.clone(),
        seats: told.seats,
        period_end: told.period_end.saturating_mul(1000),
        cancel_at_period_end: told.cancel_at_period_end,
        ..inferred(user_id, &told.id, &price, status, told.created)
    };
    Ok(Outcome::of(put(tx, case, &row).await?))
}

/// What is known of one of the account's subscriptions.
pub(super) async fn known(
    tx: &Tx,
    case: &Case<'_>,
    user_id: &str,
    id: &str,
) -> Result<Option<SubscriptionRow>, DbError> {
    Ok(subscription_list(tx, case.product, user_id).await?.into_iter().find(|row| row.id == id))
}

/// The price that an event is about, in the version it was sold.
pub(super) async fn price_of(tx: &Tx, case: &Case<'_>) -> Result<Option<PriceRow>, Error> {
    let marks = &case.marks;
    let (Some(plan), Some(version), Some(price)) = (&marks.plan, marks.version, &marks.price_id) else {
        return Ok(None);
    };
    Ok(price_at_version(tx, case.product, plan, version, price).await?)
}

/// What is known of a subscription by its price alone. `created` in s.
pub(super) fn inferred(user_id: &str, id: &str, price: &PriceRow, status: &str, created: i64) -> SubscriptionRow {
    SubscriptionRow {
        id: id.to_owned(),
        user_id: user_id.to_owned(),
        item_id: String::new(),
        plan: price.plan.clone(),
        plan_version: price.version,
        price_id: price.id.clone(),
        status: status.to_owned(),
        seats: 1,
        period_end: 0,
        cancel_at_period_end: false,
        created_at: created.saturating_mul(1000),
    }
}

/// Stores a subscription and notes what counts for its account now.
pub(super) async fn put(tx: &Tx, case: &Case<'_>, row: &SubscriptionRow) -> Result<bool, Error> {
    let evidence = Evidence::of(&case.event.kind, &row.status, case.event.created, &case.event.id);
    if !subscription_put(tx, case.product, row, &evidence).await? {
        return Ok(false);
    }
    count(tx, case.product, &row.user_id).await?;
    Ok(true)
}

/// Notes which of its subscriptions counts for an account.
async fn count(tx: &Tx, product: &str, user_id: &str) -> Result<(), Error> {
    let all = subscription_list(tx, product, user_id).await?;
    if all.iter().filter(|row| gives_plan(&row.status)).count() > 1 {
        metrics::counter!("weft_billing_double_subscriptions_total", "product" => product.to_owned()).increment(1);
        tracing::warn!(product, user_id, "an account pays for more than one subscription, the newest one is kept");
    }
    let counts = all.into_iter().find(|row| gives_plan(&row.status));
    let subscribed = counts.map(|row| Subscribed {
        plan: row.plan,
        version: row.plan_version,
        seats: row.seats,
        status: row.status,
    });
    Ok(account_set_subscribed(tx, product, user_id, subscribed).await?)
}
