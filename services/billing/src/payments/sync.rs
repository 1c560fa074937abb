//! What never arrived: Stripe's own list of events against the inbox, and subscriptions that nobody has told of since
//! their period ended. Any replica may do it, several at once too: every effect is there once.
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use weft_db::Tx;
use weft_runtime::Mesh;

use super::apply::Books;
use super::client::{is_missing, key};
use crate::domain::event::Event;
use crate::error::Error;
use crate::store::customer::customer_lock;
use crate::store::event::{event_prune, events_known, synced, synced_set};
use crate::store::payment::{link_find, payment_find_by_source, unlinked_intents};
use crate::store::refund::refunds_pending;
use crate::store::subscription::{subscription_list_doubled, subscription_list_overdue};

/// How far back the first comparison looks, and how far behind the last one each begins.
const FIRST_S: i64 = 3 * 24 * 3600;
const OVERLAP_S: i64 = 3600;
/// Events that cannot be applied, after which a comparison gives up.
const MAX_FAILURES: usize = 10;
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
        let mut relinked: BTreeMap<String, String> = BTreeMap::new();
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if books.clock.now_ms() < not_before_ms {
                continue;
            }
            for product in books.payments.configured() {
                let relinked = relinked.entry(product.clone()).or_default();
                if let Err(error) = due(&books, &product, period_s, relinked).await {
                    tracing::warn!(product, %error, "Stripe's events were not compared");
                    not_before_ms = books.clock.now_ms().saturating_add(RETRY_MS);
                }
            }
        }
    });
}

async fn due(books: &Books, product: &str, period_s: i64, relinked: &mut String) -> Result<(), Error> {
    let now_s = books.clock.now_ms().div_euclid(1000);
    // A moment that is yet to come was noted by a clock that was wrong, and says nothing.
    match synced(&books.db, product).await?.filter(|last| *last <= now_s) {
        Some(last) if now_s - last < period_s => Ok(()),
        last => compare(books, product, last, now_s, relinked).await,
    }
}

/// Applies what Stripe lists and the inbox lacks, then asks for what is overdue. One thing that cannot be done does not
/// stop the others; from the first such event on it is all compared again.
async fn compare(
    books: &Books,
    product: &str,
    last: Option<i64>,
    now_s: i64,
    relinked: &mut String,
) -> Result<(), Error> {
    let since = last.map_or(now_s - FIRST_S, |last| last - OVERLAP_S);
    let failed = take_missed(books, product, since).await?;
    relink(books, product, relinked).await?;
    finish_refunds(books, product).await?;
    end_doubles(books, product).await?;
    ask_for_overdue(books, product, now_s).await?;
    event_prune(&books.db, books.clock.now_ms().saturating_sub(KEEP_MS)).await?;
    match failed {
        None => Ok(synced_set(&books.db, product, now_s).await?),
        Some((oldest, error)) => {
            synced_set(&books.db, product, oldest.min(now_s)).await?;
            Err(error)
        }
    }
}

/// Applies page by page, newest first, what is missing. Answers when the oldest event happened that could not be
/// applied, and why.
async fn take_missed(books: &Books, product: &str, since_s: i64) -> Result<Option<(i64, Error)>, Error> {
    let stripe = books.payments.stripe(product)?;
    let (mut failed, mut failures, mut after) = (None, 0, String::new());
    loop {
        let page = stripe.event_list(since_s, &after).await?;
        let next = page.data.last().and_then(|last| last["id"].as_str()).map(str::to_owned);
        let listed: Vec<Event> = page.data.into_iter().filter_map(Event::of).collect();
        let ids: Vec<String> = listed.iter().map(|event| event.id.clone()).collect();
        let known = events_known(&books.db, &ids).await?;
        for event in listed.iter().rev().filter(|event| !known.contains(&event.id)) {
            match books.receive(&[product], event).await {
                Ok(outcome) => {
                    tracing::debug!(event = event.id, outcome = outcome.as_str(), "an event that never arrived");
                }
                // Of another product that is paid through the same account, or not to be understood.
                Err(Error::Invalid(why)) => tracing::debug!(event = event.id, why, "an event that is not ours"),
                Err(error) => {
                    tracing::warn!(event = event.id, %error, "an event that never arrived cannot be applied");
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        return Err(error);
                    }
                    let oldest = failed.as_ref().map_or(event.created, |(oldest, _): &(i64, Error)| *oldest);
                    failed = Some((oldest.min(event.created), error));
                }
            }
        }
        match next.filter(|_| page.has_more) {
            Some(last) => after = last,
            None => return Ok(failed),
        }
    }
}

/// Money that went back of payments that nobody could name: some of them each time, after those of the last time.
async fn relink(books: &Books, product: &str, after: &mut String) -> Result<(), Error> {
    let intents = unlinked_intents(&books.db, product, after, BATCH).await?;
    let more = i64::try_from(intents.len()).is_ok_and(|found| found == BATCH);
    *after = intents.last().filter(|_| more).cloned().unwrap_or_default();
    for intent in intents {
        if let Err(error) = relink_one(books, product, &intent).await {
            tracing::warn!(product, intent, %error, "what was paid back belongs to nobody yet");
        }
    }
    Ok(())
}

async fn relink_one(books: &Books, product: &str, intent: &str) -> Result<(), Error> {
    books.resolve_intent(product, intent).await?;
    let Some(source) = link_find(&books.db, product, intent).await? else { return Ok(()) };
    let Some(paid) = payment_find_by_source(&books.db, product, &source).await? else { return Ok(()) };
    let now_ms = books.clock.now_ms();
    let settle = async |tx: Tx| -> Result<(), Error> {
        customer_lock(&tx, product, &paid.user_id, now_ms).await?;
        books.settle(&tx, product, &source).await
    };
    books.db.write("settle", settle).await
}

/// Refunds whose callers have given up.
async fn finish_refunds(books: &Books, product: &str) -> Result<(), Error> {
    let before_ms = books.clock.now_ms().saturating_sub(RETRY_MS);
    for refund in refunds_pending(&books.db, product, before_ms, BATCH).await? {
        if let Err(error) = books.pay_back(product, &refund, true).await {
            tracing::warn!(product, refund = refund.id, %error, "a refund is left unfinished");
        }
    }
    Ok(())
}

/// Of an account that pays for several subscriptions the newest is kept, the others end now.
async fn end_doubles(books: &Books, product: &str) -> Result<(), Error> {
    let stripe = books.payments.stripe(product)?;
    for id in subscription_list_doubled(&books.db, product, BATCH).await? {
        match stripe.subscription_end(&id, true, &key(&["double", product, &id])).await {
            Ok(_) => {
                tracing::warn!(product, subscription = id, "a second subscription was ended, pay back what it cost")
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => tracing::warn!(product, subscription = id, %error, "a second subscription was not ended"),
        }
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
