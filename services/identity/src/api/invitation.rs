//! Invitations to an organisation.
use std::time::Duration;

use weft_auth::{Caller, Claims};
use weft_core::new_id;
use weft_db::{Tx, jobs};
use weft_proto::identity::v1::{
    CreateInvitationRequest, Invitation, ListInvitationsRequest, ListInvitationsResponse, Organisation,
    RevokeInvitationRequest,
};

use super::Identity;
use super::join::Joining;
use super::organisation::{acting, event};
use crate::domain::account::Email;
use crate::domain::link::LinkKind;
use crate::domain::organisation::{INVITATION_MS, INVITED_WITHIN_MS, MOST_INVITATIONS, MOST_INVITED, MemberRole};
use crate::domain::page::Page;
use crate::domain::token::LinkToken;
use crate::error::Error;
use crate::link_mail;
use crate::store::account::account_find;
use crate::store::audit::{AuditKind, audit_insert};
use crate::store::invitation::{
    InvitationRow, InvitedRow, NewInvitation, invitation_count, invitation_end_for, invitation_find, invitation_insert,
    invitation_list, invitation_made, invitation_revoke,
};
use crate::store::link::link_find;
use crate::store::organisation::{member_has_email, member_role};

impl Identity {
    /// Invites an address, whether anybody has it or not; the mail goes out later.
    pub(super) async fn invite(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: CreateInvitationRequest,
    ) -> Result<Invitation, Error> {
        let id = new_id();
        let now_ms = self.clock.now_ms();
        let job = link_mail::job(LinkKind::Invitation, &claims.prd, &id, id.clone(), now_ms);
        let invitation = self
            .db
            .write("invite", async |tx: Tx| {
                let invitation = invite(&tx, claims, &request, &id, now_ms).await?;
                let detail = format!("{} {id}", request.organisation_id);
                let event = event(caller, claims, AuditKind::InvitationCreated, None, &detail, now_ms);
                audit_insert(&tx, &event).await?;
                jobs::enqueue(&tx, &job).await?;
                Ok::<_, Error>(invitation)
            })
            .await?;
        self.mail_due.notify_one();
        Ok(invitation)
    }

    pub(super) async fn invitations(
        &self,
        claims: &Claims,
        request: ListInvitationsRequest,
    ) -> Result<ListInvitationsResponse, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        let role = member_role(&self.db, product, id, &claims.sub).await?.ok_or(Error::NoOrganisation)?;
        role.check_runs()?;
        let list = format!("invitations {product} {} {id}", claims.sub);
        let after = self.secrets.page_place(&list, &request.page_token)?;
        let page = Page::new(request.page_size, 0, 0, after)?;
        let (rows, more) = page.cut(invitation_list(&self.db, product, id, self.clock.now_ms(), &page).await?);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| self.secrets.page_token(&list, &row.id)).unwrap_or_default();
        Ok(ListInvitationsResponse { invitations: rows.into_iter().map(shown).collect(), next_page_token })
    }

    pub(super) async fn revoke_invitation(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: RevokeInvitationRequest,
    ) -> Result<(), Error> {
        let RevokeInvitationRequest { organisation_id, invitation_id } = request;
        let now_ms = self.clock.now_ms();
        self.db
            .write("revoke invitation", async |tx: Tx| {
                let acting = acting(&tx, claims, &organisation_id, now_ms).await?;
                acting.role.check_runs()?;
                if !invitation_revoke(&tx, &claims.prd, &organisation_id, &invitation_id, now_ms).await? {
                    return Err(Error::NoInvitation);
                }
                let detail = format!("{organisation_id} {invitation_id}");
                let event = event(caller, claims, AuditKind::InvitationRevoked, None, &detail, now_ms);
                Ok(audit_insert(&tx, &event).await?)
            })
            .await
    }

    /// Joins with the token of a mail. What can be wrong with it is one answer, so that a token tells nobody but the
    /// invited whose it is.
    pub(super) async fn accept_invitation(
        &self,
        caller: &Caller,
        claims: &Claims,
        token: &str,
    ) -> Result<Organisation, Error> {
        let product = claims.prd.as_str();
        let invited = self.invited(claims, token).await?.ok_or(Error::InvalidInvitation)?;
        if invited.ended_at.is_some() {
            let again = invited.accepted_by.as_deref() == Some(claims.sub.as_str());
            let organisation = self.organisation(claims, &invited.organisation_id).await;
            return organisation.ok().filter(|_| again).ok_or(Error::InvalidInvitation);
        }
        let joining = Joining {
            product,
            organisation_id: &invited.organisation_id,
            account_id: &claims.sub,
            role: MemberRole::stored(&invited.role),
            invitation_id: Some(&invited.id),
            request_id: &caller.request_id,
        };
        match self.join_as(&joining).await {
            Ok(_) => self.organisation(claims, &invited.organisation_id).await,
            // Deleted while it was being joined.
            Err(Error::NoOrganisation) => Err(Error::InvalidInvitation),
            Err(error) => Err(error),
        }
    }

    /// What the token invites the caller to.
    async fn invited(&self, claims: &Claims, token: &str) -> Result<Option<InvitedRow>, Error> {
        let Some(token) = LinkToken::parse(token) else { return Ok(None) };
        let hash = self.secrets.link_hash(LinkKind::Invitation, &token);
        let found = link_find(&self.db, &claims.prd, LinkKind::Invitation, &hash, self.clock.now_ms()).await?;
        let Some(id) = found.and_then(|link| link.invitation_id) else { return Ok(None) };
        let invited = invitation_find(&self.db, &claims.prd, &id).await?;
        let account = account_find(&self.db, &claims.prd, &claims.sub).await?.ok_or(Error::InvalidAccessToken)?;
        let theirs =
            |invited: &InvitedRow| Email::parse(&account.email).is_ok_and(|email| email.folded == invited.email_folded);
        Ok(invited.filter(theirs))
    }
}

/// Writes an invitation down, in the place of an earlier one for the same address.
async fn invite(
    tx: &Tx,
    claims: &Claims,
    request: &CreateInvitationRequest,
    id: &str,
    now_ms: i64,
) -> Result<Invitation, Error> {
    let (product, organisation_id) = (claims.prd.as_str(), request.organisation_id.as_str());
    let acting = acting(tx, claims, organisation_id, now_ms).await?;
    acting.role.check_runs()?;
    let email = Email::parse(&request.email)?;
    let role = if request.role.is_empty() { MemberRole::Member } else { MemberRole::given(&request.role)? };
    if member_has_email(tx, product, organisation_id, &email.folded).await? {
        return Err(Error::MemberExists);
    }
    let since_ms = now_ms - INVITED_WITHIN_MS;
    if let Some(at) = invitation_made(tx, product, organisation_id, &email.folded, since_ms, MOST_INVITED).await? {
        let left_ms = at + INVITED_WITHIN_MS - now_ms;
        return Err(Error::InvitedTooOften(Duration::from_millis(left_ms.max(1).unsigned_abs())));
    }
    invitation_end_for(tx, product, organisation_id, &email.folded, now_ms).await?;
    if invitation_count(tx, product, organisation_id, now_ms).await? >= MOST_INVITATIONS {
        return Err(Error::TooManyInvitations);
    }
    let new = NewInvitation {
        product,
        id,
        organisation_id,
        invited_by: &claims.sub,
        email: &email.shown,
        email_folded: &email.folded,
        role: role.as_str(),
        created_at: now_ms,
        expires_at: now_ms + INVITATION_MS,
    };
    invitation_insert(tx, &new).await?;
    Ok(Invitation {
        id: id.to_owned(),
        email: email.shown.clone(),
        role: role.as_str().to_owned(),
        created_at: now_ms,
        expires_at: new.expires_at,
    })
}

fn shown(row: InvitationRow) -> Invitation {
    let InvitationRow { id, email, role, created_at, expires_at } = row;
    Invitation { id, email, role, created_at, expires_at }
}
