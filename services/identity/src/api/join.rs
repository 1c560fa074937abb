//! Joining an organisation: a seat first, then the membership, once however often it is tried at the same time.
use std::time::Duration;

use tokio::time::sleep;
use weft_auth::Caller;
use weft_core::new_id;
use weft_db::{DbError, Tx};

use super::Identity;
use crate::domain::organisation::MemberRole;
use crate::error::Error;
use crate::seats::{self, INTENT_MS, Seat};
use crate::store::account::account_set_verified;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::invitation::invitation_accept;
use crate::store::organisation::{NewMember, member_insert, member_role, organisation_lock};
use crate::store::seat::{NewIntent, intent_end, intent_exists, intent_insert, payer_touch};

/// How often a seat is looked at that is just being released to who wants it again, and how long between.
const LOOKS: u32 = 40;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Who joins what, and why they may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Id of the organisation.
    pub organisation_id: &'a str,
    /// Who joins.
    pub account_id: &'a str,
    /// Their role from then on; who is a member keeps theirs.
    pub role: MemberRole,
    /// The invitation that is accepted by it; none: the caller of [`Identity::join`] answers for it.
    pub invitation_id: Option<&'a str>,
    /// During which request.
    pub request_id: &'a str,
}

/// What was found before a seat was asked for.
enum Begun {
    /// They are a member.
    Member,
    /// The seat is just being released.
    Busy,
    /// An intent is noted; the seats are this account's.
    Ready(String),
}

impl Identity {
    /// Adds a member: takes a seat of the owner's and writes the membership down; the seat is released if that fails, also
    /// by a crash. True if they were none before. Who calls has made sure that they may join.
    ///
    /// Errors: [`Error::NoOrganisation`]; [`Error::NoSeat`], [`Error::SeatedElsewhere`],
    /// [`Error::OwnerSeatedElsewhere`], [`Error::BillingUnavailable`]; [`Error::SeatBusy`], which may be tried again.
    pub async fn join(
        &self,
        caller: &Caller,
        product: &str,
        organisation_id: &str,
        account_id: &str,
        role: MemberRole,
    ) -> Result<bool, Error> {
        let request_id = &caller.request_id;
        let joining = Joining { product, organisation_id, account_id, role, invitation_id: None, request_id };
        self.join_as(&joining).await
    }

    /// The same, perhaps by an invitation.
    ///
    /// Errors: [`Error::InvalidInvitation`] besides.
    pub(super) async fn join_as(&self, joining: &Joining<'_>) -> Result<bool, Error> {
        let intent_id = new_id();
        let payer_id = match self.begin_join(joining, &intent_id).await? {
            Some(payer_id) => payer_id,
            None => return self.finish_join(joining, None).await,
        };
        let intent = intent(joining, &payer_id, &intent_id, self.clock.now_ms());
        let seat = Seat { product: joining.product, payer_id: &payer_id, account_id: joining.account_id };
        let joined = match self.take_seats(seat).await {
            Ok(()) => self.finish_join(joining, Some(&intent)).await,
            Err(error) => Err(error),
        };
        if joined.is_err() {
            self.give_up(&intent).await;
        }
        joined
    }

    /// Whose seats they are, with an intent to take one; none for a member.
    async fn begin_join(&self, joining: &Joining<'_>, intent_id: &str) -> Result<Option<String>, Error> {
        for _ in 0..LOOKS {
            let now_ms = self.clock.now_ms();
            let begun =
                self.db.write("begin to join", async |tx: Tx| begin(&tx, joining, intent_id, now_ms).await).await?;
            match begun {
                Begun::Member => return Ok(None),
                Begun::Ready(payer_id) => return Ok(Some(payer_id)),
                Begun::Busy => sleep(BETWEEN_LOOKS).await,
            }
        }
        Err(Error::SeatBusy)
    }

    async fn finish_join(&self, joining: &Joining<'_>, intent: Option<&NewIntent<'_>>) -> Result<bool, Error> {
        let now_ms = self.clock.now_ms();
        self.db.write("join", async |tx: Tx| finish(&tx, joining, intent, now_ms).await).await
    }

    /// Has the seat released that is not needed after all. If that cannot be written down, the intent runs out.
    async fn give_up(&self, intent: &NewIntent<'_>) {
        let now_ms = self.clock.now_ms();
        let given_up = self
            .db
            .write("give up joining", async |tx: Tx| {
                seats::note(&tx, intent.product, intent.payer_id, now_ms).await?;
                intent_end(&tx, intent, now_ms).await
            })
            .await;
        match given_up {
            Ok(_) => self.seats_due.notify_one(),
            Err(error) => tracing::warn!(%error, "a seat that is not needed is released later"),
        }
    }
}

fn intent<'a>(joining: &Joining<'a>, payer_id: &'a str, id: &'a str, now_ms: i64) -> NewIntent<'a> {
    NewIntent {
        product: joining.product,
        payer_id,
        account_id: joining.account_id,
        id,
        releases: false,
        expires_at: now_ms + INTENT_MS,
    }
}

async fn begin(tx: &Tx, joining: &Joining<'_>, intent_id: &str, now_ms: i64) -> Result<Begun, Error> {
    let Joining { product, organisation_id, account_id, .. } = *joining;
    let organisation = organisation_lock(tx, product, organisation_id).await?.ok_or(Error::NoOrganisation)?;
    if member_role(tx, product, organisation_id, account_id).await?.is_some() {
        return Ok(Begun::Member);
    }
    let payer_id = organisation.owner_id;
    payer_touch(tx, product, &payer_id, now_ms + INTENT_MS).await?;
    if intent_exists(tx, product, &payer_id, [account_id, &payer_id], true, now_ms).await? {
        return Ok(Begun::Busy);
    }
    intent_insert(tx, &intent(joining, &payer_id, intent_id, now_ms)).await?;
    Ok(Begun::Ready(payer_id))
}

/// Writes the membership down if all is still as it was: the organisation is there, the invitation open, and the seat
/// ours.
async fn finish(tx: &Tx, joining: &Joining<'_>, intent: Option<&NewIntent<'_>>, now_ms: i64) -> Result<bool, Error> {
    let Joining { product, organisation_id, account_id, role, .. } = *joining;
    organisation_lock(tx, product, organisation_id).await?.ok_or(Error::NoOrganisation)?;
    if let Some(intent) = intent {
        // Somebody who read the members before this has seen the intent; who reads them later sees the member.
        payer_touch(tx, product, intent.payer_id, now_ms + INTENT_MS).await?;
        if !intent_end(tx, intent, now_ms).await? {
            return Err(Error::SeatBusy);
        }
    }
    let member = member_role(tx, product, organisation_id, account_id).await?.is_some();
    if !member && intent.is_none() {
        // They were removed since: they have no seat now.
        return Err(Error::SeatBusy);
    }
    if let Some(id) = joining.invitation_id {
        let accepted = invitation_accept(tx, product, id, account_id, now_ms).await?;
        // Who is a member may have accepted it in another call at the same time.
        if !accepted && !member {
            return Err(Error::InvalidInvitation);
        }
        account_set_verified(tx, product, account_id, now_ms).await?;
    }
    if member {
        return Ok(false);
    }
    let new = NewMember { product, organisation_id, account_id, role, joined_at: now_ms };
    let inserted = member_insert(tx, &new).await?;
    audit(tx, joining, now_ms).await?;
    Ok(inserted)
}

async fn audit(tx: &Tx, joining: &Joining<'_>, now_ms: i64) -> Result<(), DbError> {
    let detail = format!("{} {}", joining.organisation_id, joining.role.as_str());
    let event = AuditEvent {
        detail: Some(&detail),
        ..AuditEvent::of(joining.product, AuditKind::MemberJoined, joining.account_id, joining.request_id, now_ms)
    };
    audit_insert(tx, &event).await
}
