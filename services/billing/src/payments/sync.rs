//! What never arrived: Stripe's own list of events against the inbox, and subscriptions that nobody has told of since
//! their period ended. Any replica may do it, several at once too: every effect is there once.
use std::time::Duration;

use serde_json::{Value, json};
use weft_db::Tx;
use weft_runtime::Mesh;

use super::apply::Books;
use super::client::is_missing;
use crate::domain::event::Event;
use crate::error::Error;
use crate::store::customer::customer_lock;
use crate::store::event::{event_prune, events_known, synced, synced_set};
use crate::store::payment::{link_find, payment_find_by_source, unlinked_intents};
use crate::store::subscription::subscription_list_overdue;

/// How far back the first comparison looks, and how far behind the last one each begins.
const FIRST_S: i64 = 3 * 24 * 3600;
const OVERLAP_S: i64 = 3600;
/// Pages of events, of 100 each, of one comparison. More have to wait for the next.
const MAX_PAGES: usize = 500;
/// How long after the end of its period a subscription must have been told of.
const GRACE_MS: i64 = 2 * 3600 * 1000;
/// A subscription that is read counts as told so long ago: what was sent meanwhile is newer.
const READ_AGO_S: i64 = 60;
/// Rows of one step.
const BATCH: i64 = 100;
/// How often it is looked whether it is time, and how long it is left alone after a failure.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const RETRY_MS: i64 = 60_000;
/// How long events are remembered. Stripe tells of none that is older than 30 days.
const KEEP_MS: i64 = 90 * 24 * 3600 * 1000;

/// Compares every `minutes`, until the mesh shuts down.
pub fn start(books: Books, mesh: &Mesh, minutes: u32) {
    let shutdown = mesh.shutdown().clone();
    let period_s = i64::from(minutes) * 60;
    mesh.tasks().spawn("stripe_sync", async move {
        let mut not_before_ms = 0;
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if books.clock.now_ms() < not_before_ms {
                continue;
            }
            for product in books.payments.configured() {
                if let Err(error) = due(&books, &product, period_s).await {
                    tracing::warn!(product, %error, "Stripe's events were not compared");
                    not_before_ms = books.clock.now_ms().saturating_add(RETRY_MS);
                }
            }
        }
    });
}

async fn due(books: &Books, product: &str, period_s: i64) -> Result<(), Error> {
    let now_s = books.clock.now_ms().div_euclid(1000);
    match synced(&books.db, product).await? {
        Some(last) if now_s - last < period_s => Ok(()),
        last => compare(books, product, last, now_s).await,
    }
}

/// Applies what Stripe lists and the inbox lacks, then asks for what is overdue.
async fn compare(books: &Books, product: &str, last: Option<i64>, now_s: i64) -> Result<(), Error> {
    let since = last.map_or(now_s - FIRST_S, |last| last - OVERLAP_S);
    let missed = missed(books, product, since).await?;
    for event in missed.iter().rev() {
        match books.receive(&[product], event).await {
            Ok(outcome) => tracing::debug!(event = event.id, outcome = outcome.as_str(), "an event that never arrived"),
            // Of another product that is paid through the same account, or not to be understood.
            Err(Error::Invalid(why)) => tracing::debug!(event = event.id, why, "an event that is not ours"),
            Err(error) => return Err(error),
        }
    }
    relink(books, product).await?;
    ask_for_overdue(books, product, now_s).await?;
    event_prune(&books.db, books.clock.now_ms().saturating_sub(KEEP_MS)).await?;
    Ok(synced_set(&books.db, product, now_s).await?)
}

/// Newest first.
async fn missed(books: &Books, product: &str, since_s: i64) -> Result<Vec<Event>, Error> {
    let stripe = books.payments.stripe(product)?;
    let (mut missed, mut after) = (Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let page = stripe.event_list(since_s, &after).await?;
        let listed: Vec<Event> = page.data.into_iter().filter_map(Event::of).collect();
        let ids: Vec<String> = listed.iter().map(|event| event.id.clone()).collect();
        let known = events_known(&books.db, &ids).await?;
        match ids.last().filter(|_| page.has_more) {
            Some(last) => after.clone_from(last),
            None => after.clear(),
        }
        missed.extend(listed.into_iter().filter(|event| !known.contains(&event.id)));
        if after.is_empty() {
            break;
        }
    }
    Ok(missed)
}

/// Money that went back of payments that nobody could name.
async fn relink(books: &Books, product: &str) -> Result<(), Error> {
    for intent in unlinked_intents(&books.db, product, BATCH).await? {
        books.resolve_intent(product, &intent).await?;
        let Some(source) = link_find(&books.db, product, &intent).await? else { continue };
        let Some(paid) = payment_find_by_source(&books.db, product, &source).await? else { continue };
        let now_ms = books.clock.now_ms();
        let settle = async |tx: Tx| -> Result<(), Error> {
            customer_lock(&tx, product, &paid.user_id, now_ms).await?;
            books.settle(&tx, product, &source).await
        };
        books.db.write("settle", settle).await?;
    }
    Ok(())
}

async fn ask_for_overdue(books: &Books, product: &str, now_s: i64) -> Result<(), Error> {
    let stripe = books.payments.stripe(product)?;
    let before_ms = now_s.saturating_mul(1000).saturating_sub(GRACE_MS);
    let mut after = String::new();
    loop {
        let overdue = subscription_list_overdue(&books.db, product, before_ms, &after, BATCH).await?;
        let Some(last) = overdue.last() else { return Ok(()) };
        after.clone_from(last);
        for id in &overdue {
            let told = match stripe.subscription_get(id).await {
                Ok(told) => told,
                Err(error) if is_missing(&error) => {
                    tracing::warn!(product, subscription = id, "Stripe does not know a subscription of ours");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(event) = read(id, told, now_s) else { continue };
            match books.receive(&[product], &event).await {
                Ok(_) | Err(Error::Invalid(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was read, as the event that would have told it.
fn read(id: &str, told: Value, now_s: i64) -> Option<Event> {
    let over = matches!(told["status"].as_str(), Some("canceled" | "incomplete_expired"));
    let kind = if over { "customer.subscription.deleted" } else { "customer.subscription.updated" };
    let created = now_s - READ_AGO_S;
    Event::of(json!({"id": format!("read_{id}_{now_s}"), "type": kind, "created": created, "data": {"object": told}}))
}
