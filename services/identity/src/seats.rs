//! Seats: who is in an organisation sits on one of its owner's, and nobody else does.
//!
//! Billing keeps the seats and identity the members, and either may be away or crash between two steps. So whoever
//! changes who should sit notes the payer in the same transaction, and a worker compares what billing has with the
//! members, now and every hour. A seat is taken before its member is written down, under an intent that says so until it
//! runs out; a seat is released under an intent too, which who wants it again waits for. An owner sits as soon as
//! somebody else is in the organisation.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::{Request, Status};
use weft_core::{Reason, new_id};
use weft_db::{DbError, Tx};
use weft_proto::billing::v1::{AssignSeatRequest, GetSeatsRequest, ReleaseSeatRequest, Seats};
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::error::Error;
use crate::store::seat::{
    NewIntent, PayerRow, intent_end, intent_exists, intent_insert, intent_next, intent_prune, intent_to_join,
    payer_claim, payer_forget, payer_lock, payer_put_off, payer_touch, seat_is_due, seat_members,
};

/// How long billing may take for a seat.
const BILLING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an intent lasts that nobody ends, in ms: longer than all that is done under it.
pub const INTENT_MS: i64 = 30_000;
/// How often payers are looked for besides when one is noted.
const EVERY: Duration = Duration::from_secs(1);
/// How long a worker has a payer for itself, in ms.
const LEASE_MS: i64 = 60_000;
/// How often seats and members are compared though nothing changed, in ms.
const COMPARE_MS: i64 = 60 * 60 * 1000;
/// Most seats that one look at a payer releases; the next follows at once.
const MOST_RELEASED: usize = 100;
/// The wait after the first look at which billing could not be asked, in ms; it doubles with each.
const BACKOFF_MS: i64 = 1_000;
/// The longest such wait, in ms.
const MAX_BACKOFF_MS: i64 = 60_000;

/// What a look at a payer came to.
enum Looked {
    /// Nobody sits and nobody should.
    Nobody,
    /// All is right, or as right as the subscription allows.
    Even,
    /// There is more to do once this time, in ms since 1970, has come.
    Again(i64),
}

/// Sees to seats until the shutdown.
pub async fn run(identity: Arc<Identity>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = identity.seats_due.notified() => {}
            () = sleep(EVERY) => {}
        }
        while !shutdown.is_triggered() {
            match identity.see_to_seats().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "seats could not be seen to, trying again in {EVERY:?}");
                    break;
                }
            }
        }
    }
}

/// Whose seat it is about.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Whose subscription pays.
    pub payer_id: &'a str,
    /// Who sits.
    pub account_id: &'a str,
}

impl Identity {
    /// Takes a seat for the payer and one for somebody who joins. Taken again it is the same.
    ///
    /// Errors: [`Error::NoSeat`], [`Error::SeatedElsewhere`], [`Error::OwnerSeatedElsewhere`],
    /// [`Error::BillingUnavailable`].
    pub(crate) async fn take_seats(&self, seat: Seat<'_>) -> Result<(), Error> {
        let owner = Seat { account_id: seat.payer_id, ..seat };
        self.assign_seat(owner).await.map_err(|error| match error {
            Error::SeatedElsewhere => Error::OwnerSeatedElsewhere,
            error => error,
        })?;
        self.assign_seat(seat).await
    }

    async fn assign_seat(&self, seat: Seat<'_>) -> Result<(), Error> {
        let message = AssignSeatRequest {
            product: seat.product.to_owned(),
            payer_id: seat.payer_id.to_owned(),
            user_id: seat.account_id.to_owned(),
        };
        let mut client = self.accounts.clone();
        let Err(status) = asked(client.assign_seat(request(message))).await else { return Ok(()) };
        match Reason::of(&status) {
            Some(Reason::QuotaExceeded) => Err(Error::NoSeat),
            // The payer has no seats, or the person has somebody else's.
            Some(Reason::FailedPrecondition) => match self.seats(seat.product, seat.payer_id).await?.total {
                0 => Err(Error::NoSeat),
                _ => Err(Error::SeatedElsewhere),
            },
            _ => Err(away(&status)),
        }
    }

    async fn seats(&self, product: &str, payer_id: &str) -> Result<Seats, Error> {
        let message = GetSeatsRequest { product: product.to_owned(), payer_id: payer_id.to_owned() };
        let mut client = self.accounts.clone();
        asked(client.get_seats(request(message))).await.map_err(|status| away(&status))
    }

    /// Sees to one payer; false if none is due.
    async fn see_to_seats(&self) -> Result<bool, Error> {
        let now_ms = self.clock.now_ms();
        let Some(payer) = payer_claim(&self.db, now_ms, now_ms + LEASE_MS).await? else { return Ok(false) };
        intent_prune(&self.db, &payer.product, &payer.payer_id, now_ms).await?;
        let (due_at, failures) = match self.settle(&payer).await {
            Ok(Looked::Nobody) if payer_forget(&self.db, &payer).await? => return Ok(true),
            Ok(Looked::Nobody | Looked::Even) => (now_ms + COMPARE_MS, 0),
            Ok(Looked::Again(at)) => (at, 0),
            Err(Error::BillingUnavailable) => (now_ms + backoff_ms(payer.failures), payer.failures + 1),
            Err(error) => {
                payer_put_off(&self.db, &payer, now_ms + MAX_BACKOFF_MS, now_ms + MAX_BACKOFF_MS, 0).await?;
                return Err(error);
            }
        };
        let again_at = if failures == 0 { now_ms } else { due_at };
        payer_put_off(&self.db, &payer, due_at, again_at, failures).await?;
        Ok(true)
    }

    /// Releases the seats of who is no member, and takes those of members who have none. The members are read after the
    /// seats: who took one in between has an intent or is a member by then.
    async fn settle(&self, payer: &PayerRow) -> Result<Looked, Error> {
        let seated = self.seats(&payer.product, &payer.payer_id).await?.user_ids;
        let members = seat_members(&self.db, &payer.product, &payer.payer_id).await?;
        let alone = members.iter().all(|account_id| *account_id == payer.payer_id);
        let members: HashSet<String> = if alone { HashSet::new() } else { members.into_iter().collect() };
        let mut extra: Vec<&String> = seated.iter().filter(|account_id| !members.contains(*account_id)).collect();
        let more = extra.len() > MOST_RELEASED;
        extra.truncate(MOST_RELEASED);
        for account_id in extra {
            self.release_seat(payer, account_id).await?;
        }
        let seated: HashSet<&String> = seated.iter().collect();
        let mut missing: Vec<&String> = members.iter().filter(|account_id| !seated.contains(account_id)).collect();
        missing.sort_by_key(|account_id| (**account_id != payer.payer_id, account_id.as_str()));
        for account_id in missing {
            let seat = Seat { product: &payer.product, payer_id: &payer.payer_id, account_id };
            match self.assign_seat(seat).await {
                Ok(()) => tracing::info!(payer_id = payer.payer_id, "a member had no seat and was given one"),
                Err(Error::NoSeat) => break,
                Err(Error::SeatedElsewhere) => {}
                Err(error) => return Err(error),
            }
        }
        if more {
            return Ok(Looked::Again(self.clock.now_ms()));
        }
        // Who is joining may stop at any step: then the seat is released when the intent has run out.
        Ok(match intent_next(&self.db, &payer.product, &payer.payer_id).await? {
            Some(runs_out_at) => Looked::Again(runs_out_at),
            None if members.is_empty() => Looked::Nobody,
            None => Looked::Even,
        })
    }

    /// Releases the seat of who is no member, unless they are just joining.
    async fn release_seat(&self, payer: &PayerRow, account_id: &str) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let id = new_id();
        let intent = NewIntent {
            product: &payer.product,
            payer_id: &payer.payer_id,
            account_id,
            id: &id,
            releases: true,
            expires_at: now_ms + INTENT_MS,
        };
        let begun = self.db.write("release seat", async |tx: Tx| begin_release(&tx, &intent, now_ms).await).await?;
        if !begun {
            return Ok(());
        }
        let message = ReleaseSeatRequest {
            product: payer.product.clone(),
            payer_id: payer.payer_id.clone(),
            user_id: account_id.to_owned(),
        };
        let mut client = self.accounts.clone();
        // Without an answer it may still happen, so the intent stays until it runs out.
        asked(client.release_seat(request(message))).await.map_err(|status| away(&status))?;
        intent_end(&self.db, &intent, now_ms).await?;
        Ok(())
    }
}

/// Whether the seat may be released, with the intent to do so.
async fn begin_release(tx: &Tx, intent: &NewIntent<'_>, now_ms: i64) -> Result<bool, DbError> {
    let NewIntent { product, payer_id, account_id, .. } = *intent;
    if !payer_lock(tx, product, payer_id).await? || seat_is_due(tx, product, payer_id, account_id).await? {
        return Ok(false);
    }
    let joining = if account_id == payer_id {
        intent_to_join(tx, product, payer_id, now_ms).await?
    } else {
        intent_exists(tx, product, payer_id, [account_id; 2], false, now_ms).await?
    };
    if !joining {
        intent_insert(tx, intent).await?;
    }
    Ok(!joining)
}

/// Notes that the payer's seats have to be looked at; the caller tells the worker once the transaction is committed.
pub async fn note(tx: &Tx, product: &str, payer_id: &str, now_ms: i64) -> Result<(), DbError> {
    payer_touch(tx, product, payer_id, now_ms).await
}

fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(BILLING_TIMEOUT);
    request
}

/// What billing answers, in time.
async fn asked<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match timeout(BILLING_TIMEOUT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("billing did not answer in time")),
    }
}

fn away(status: &Status) -> Error {
    tracing::warn!(code = ?status.code(), "billing could not be asked about a seat");
    Error::BillingUnavailable
}

/// The wait after so many failures before this one.
fn backoff_ms(failures: i64) -> i64 {
    (BACKOFF_MS << failures.clamp(0, 20)).min(MAX_BACKOFF_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_is_asked_again_soon_and_then_every_minute() {
        let waits: Vec<i64> = [0, 1, 5, 6, 1000].into_iter().map(backoff_ms).collect();
        assert_eq!(waits, [1_000, 2_000, 32_000, 60_000, 60_000]);
    }
}
