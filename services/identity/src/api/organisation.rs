//! `OrganisationService`; invitations are in [`super::invitation`], joining is in [`super::join`].
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_core::new_id;
use weft_db::{DbError, Tx};
use weft_proto::identity::v1::organisation_service_server::OrganisationService;
use weft_proto::identity::v1::{
    AcceptInvitationRequest, CreateInvitationRequest, CreateOrganisationRequest, DeleteOrganisationRequest,
    DeleteOrganisationResponse, GetOrganisationRequest, Invitation, ListInvitationsRequest, ListInvitationsResponse,
    ListMembersRequest, ListMembersResponse, ListOrganisationsRequest, ListOrganisationsResponse, Member, Organisation,
    RemoveMemberRequest, RemoveMemberResponse, RevokeInvitationRequest, RevokeInvitationResponse, UpdateMemberRequest,
    UpdateOrganisationRequest,
};

use super::Identity;
use crate::domain::organisation::{self, MOST_OWNED, MemberRole};
use crate::domain::page::Page;
use crate::error::Error;
use crate::seats;
use crate::store::account::account_lock;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::invitation::invitation_end_by;
use crate::store::organisation::{
    MemberRow, MineRow, NewMember, NewOrganisation, OrganisationRow, member_delete, member_find, member_insert,
    member_list, member_of, member_role, member_set_role, organisation_delete, organisation_find,
    organisation_ids_owned, organisation_insert, organisation_list, organisation_lock, organisation_owned,
    organisation_rename,
};
use crate::store::session::session_is_open;

/// Memberships that one look of [`forget_memberships`] goes through.
const MEMBERSHIPS: i64 = 1000;

/// The service behind `weft.identity.v1.OrganisationService`.
pub struct OrganisationApi(pub Arc<Identity>);

#[tonic::async_trait]
impl OrganisationService for OrganisationApi {
    async fn create_organisation(
        &self,
        request: Request<CreateOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.create_organisation(&caller, caller.user()?, &request.into_inner().name).await?))
    }

    async fn list_organisations(
        &self,
        request: Request<ListOrganisationsRequest>,
    ) -> Result<Response<ListOrganisationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.organisations(caller.user()?, request.into_inner()).await?))
    }

    async fn get_organisation(
        &self,
        request: Request<GetOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        Ok(Response::new(self.0.organisation(claims, &request.into_inner().organisation_id).await?))
    }

    async fn update_organisation(
        &self,
        request: Request<UpdateOrganisationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.rename_organisation(caller.user()?, request.into_inner()).await?))
    }

    async fn delete_organisation(
        &self,
        request: Request<DeleteOrganisationRequest>,
    ) -> Result<Response<DeleteOrganisationResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.delete_organisation(&caller, caller.user()?, &request.into_inner().organisation_id).await?;
        Ok(Response::new(DeleteOrganisationResponse { ok: true }))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.members(caller.user()?, request.into_inner()).await?))
    }

    async fn update_member(&self, request: Request<UpdateMemberRequest>) -> Result<Response<Member>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.change_member(&caller, caller.user()?, request.into_inner()).await?))
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.remove_member(&caller, caller.user()?, request.into_inner()).await?;
        Ok(Response::new(RemoveMemberResponse { ok: true }))
    }

    async fn create_invitation(
        &self,
        request: Request<CreateInvitationRequest>,
    ) -> Result<Response<Invitation>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.invite(&caller, caller.user()?, request.into_inner()).await?))
    }

    async fn list_invitations(
        &self,
        request: Request<ListInvitationsRequest>,
    ) -> Result<Response<ListInvitationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.invitations(caller.user()?, request.into_inner()).await?))
    }

    async fn revoke_invitation(
        &self,
        request: Request<RevokeInvitationRequest>,
    ) -> Result<Response<RevokeInvitationResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.revoke_invitation(&caller, caller.user()?, request.into_inner()).await?;
        Ok(Response::new(RevokeInvitationResponse { ok: true }))
    }

    async fn accept_invitation(
        &self,
        request: Request<AcceptInvitationRequest>,
    ) -> Result<Response<Organisation>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.accept_invitation(&caller, caller.user()?, &request.into_inner().token).await?))
    }
}

impl Identity {
    async fn create_organisation(&self, caller: &Caller, claims: &Claims, name: &str) -> Result<Organisation, Error> {
        let name = organisation::name(name)?;
        let (product, owner_id) = (claims.prd.as_str(), claims.sub.as_str());
        let (id, now_ms) = (new_id(), self.clock.now_ms());
        self.db
            .write("create organisation", async |tx: Tx| {
                account_lock(&tx, product, owner_id).await?.ok_or(Error::InvalidAccessToken)?;
                check_session(&tx, claims, now_ms).await?;
                if organisation_owned(&tx, product, owner_id).await? >= MOST_OWNED {
                    return Err(Error::TooManyOrganisations);
                }
                let new = NewOrganisation { product, id: &id, name: &name, owner_id, created_at: now_ms };
                organisation_insert(&tx, &new).await?;
                let role = MemberRole::Owner;
                let owner = NewMember { product, organisation_id: &id, account_id: owner_id, role, joined_at: now_ms };
                member_insert(&tx, &owner).await?;
                let event = event(caller, claims, AuditKind::OrganisationCreated, None, &id, now_ms);
                audit_insert(&tx, &event).await?;
                let row = organisation_find(&tx, product, &id, owner_id).await?;
                Ok(shown(row.ok_or(Error::NoOrganisation)?))
            })
            .await
    }

    async fn organisations(
        &self,
        claims: &Claims,
        request: ListOrganisationsRequest,
    ) -> Result<ListOrganisationsResponse, Error> {
        let list = format!("organisations {} {}", claims.prd, claims.sub);
        let after = self.secrets.page_place(&list, &request.page_token)?;
        let page = Page::new(request.page_size, 0, 0, after)?;
        let (rows, more) = page.cut(organisation_list(&self.db, &claims.prd, &claims.sub, &page).await?);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| self.secrets.page_token(&list, &row.id)).unwrap_or_default();
        Ok(ListOrganisationsResponse { organisations: rows.into_iter().map(shown).collect(), next_page_token })
    }

    /// One organisation as the caller sees it.
    ///
    /// Errors: [`Error::NoOrganisation`] for who is no member.
    pub(super) async fn organisation(&self, claims: &Claims, id: &str) -> Result<Organisation, Error> {
        let row = organisation_find(&self.db, &claims.prd, id, &claims.sub).await?;
        Ok(shown(row.ok_or(Error::NoOrganisation)?))
    }

    async fn rename_organisation(
        &self,
        claims: &Claims,
        request: UpdateOrganisationRequest,
    ) -> Result<Organisation, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        let now_ms = self.clock.now_ms();
        self.db
            .write("rename organisation", async |tx: Tx| {
                let acting = acting(&tx, claims, id, now_ms).await?;
                acting.role.check_runs()?;
                organisation_rename(&tx, product, id, &organisation::name(&request.name)?).await?;
                let row = organisation_find(&tx, product, id, &claims.sub).await?;
                Ok(shown(row.ok_or(Error::NoOrganisation)?))
            })
            .await
    }

    async fn delete_organisation(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        self.db
            .write("delete organisation", async |tx: Tx| {
                let acting = acting(&tx, claims, id, now_ms).await?;
                acting.role.check_owns()?;
                organisation_delete(&tx, &claims.prd, id).await?;
                seats::note(&tx, &claims.prd, &acting.organisation.owner_id, now_ms).await?;
                let event = event(caller, claims, AuditKind::OrganisationDeleted, None, id, now_ms);
                audit_insert(&tx, &event).await?;
                Ok::<_, Error>(())
            })
            .await?;
        self.seats_due.notify_one();
        Ok(())
    }

    async fn members(&self, claims: &Claims, request: ListMembersRequest) -> Result<ListMembersResponse, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        member_role(&self.db, product, id, &claims.sub).await?.ok_or(Error::NoOrganisation)?;
        let list = format!("members {product} {} {id}", claims.sub);
        let place = self.secrets.page_place(&list, &request.page_token)?;
        let (joined_at, last_id) = place.split_once(' ').unwrap_or_default();
        let after = (joined_at.parse().unwrap_or(i64::MIN), last_id);
        let page = Page::new(request.page_size, 0, 0, place.clone())?;
        let (rows, more) = page.cut(member_list(&self.db, product, id, after, page.size).await?);
        let place = rows.last().filter(|_| more).map(|row| format!("{} {}", row.joined_at, row.account_id));
        let next_page_token = place.map(|place| self.secrets.page_token(&list, &place)).unwrap_or_default();
        Ok(ListMembersResponse { members: rows.into_iter().map(member).collect(), next_page_token })
    }

    async fn change_member(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: UpdateMemberRequest,
    ) -> Result<Member, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        let account_id = request.account_id.as_str();
        let now_ms = self.clock.now_ms();
        self.db
            .write("change member", async |tx: Tx| {
                let acting = acting(&tx, claims, id, now_ms).await?;
                acting.role.check_runs()?;
                let role = MemberRole::given(&request.role)?;
                let before = member_role(&tx, product, id, account_id).await?.ok_or(Error::NoMember)?;
                acting.role.check_changes(before)?;
                if role != before {
                    member_set_role(&tx, product, id, account_id, role).await?;
                    if role == MemberRole::Member {
                        invitation_end_by(&tx, product, id, account_id, now_ms).await?;
                    }
                    let detail = format!("{id} {}", role.as_str());
                    let changed = event(caller, claims, AuditKind::MemberChanged, Some(account_id), &detail, now_ms);
                    audit_insert(&tx, &changed).await?;
                }
                let row = member_find(&tx, product, id, account_id).await?;
                Ok(member(row.ok_or(Error::NoMember)?))
            })
            .await
    }

    async fn remove_member(&self, caller: &Caller, claims: &Claims, request: RemoveMemberRequest) -> Result<(), Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        let account_id = request.account_id.as_str();
        let now_ms = self.clock.now_ms();
        self.db
            .write("remove member", async |tx: Tx| {
                let acting = acting(&tx, claims, id, now_ms).await?;
                let oneself = account_id == claims.sub;
                if !oneself {
                    acting.role.check_runs()?;
                }
                let role = member_role(&tx, product, id, account_id).await?.ok_or(Error::NoMember)?;
                acting.role.check_removes(role, oneself)?;
                member_delete(&tx, product, id, account_id).await?;
                invitation_end_by(&tx, product, id, account_id, now_ms).await?;
                seats::note(&tx, product, &acting.organisation.owner_id, now_ms).await?;
                let event = event(caller, claims, AuditKind::MemberRemoved, Some(account_id), id, now_ms);
                audit_insert(&tx, &event).await?;
                Ok::<_, Error>(())
            })
            .await?;
        self.seats_due.notify_one();
        Ok(())
    }
}

/// Who changes an organisation, as it stands under its lock.
pub(super) struct Acting {
    /// The organisation.
    pub organisation: OrganisationRow,
    /// The caller's role in it.
    pub role: MemberRole,
}

/// Locks an organisation until the transaction ends and says what the caller is in it. That the caller is no member, and
/// that there is no such organisation, are one answer.
///
/// Errors: [`Error::NoOrganisation`]; [`Error::InvalidAccessToken`] if the caller's session is over.
pub(super) async fn acting(tx: &Tx, claims: &Claims, id: &str, now_ms: i64) -> Result<Acting, Error> {
    let organisation = organisation_lock(tx, &claims.prd, id).await?.ok_or(Error::NoOrganisation)?;
    let role = member_role(tx, &claims.prd, id, &claims.sub).await?.ok_or(Error::NoOrganisation)?;
    check_session(tx, claims, now_ms).await?;
    Ok(Acting { organisation, role })
}

/// That the caller's session is not over, while its guard may not have heard of that yet.
async fn check_session(tx: &Tx, claims: &Claims, now_ms: i64) -> Result<(), Error> {
    let open = session_is_open(tx, &claims.prd, &claims.sub, &claims.sid, now_ms).await?;
    if open { Ok(()) } else { Err(Error::InvalidAccessToken) }
}

/// Takes an account out of every organisation, and deletes those that it owns, so that the account itself can be deleted
/// in the same transaction. Who calls tells [`Identity::seats_due`] once it is committed.
///
/// # Errors
/// The database.
pub async fn forget_memberships(tx: &Tx, product: &str, account_id: &str, now_ms: i64) -> Result<(), DbError> {
    for id in organisation_ids_owned(tx, product, account_id, MOST_OWNED).await? {
        organisation_lock(tx, product, &id).await?;
        organisation_delete(tx, product, &id).await?;
    }
    seats::note(tx, product, account_id, now_ms).await?;
    loop {
        let rows = member_of(tx, product, account_id, MEMBERSHIPS).await?;
        for row in &rows {
            organisation_lock(tx, product, &row.id).await?;
            member_delete(tx, product, &row.id, account_id).await?;
            invitation_end_by(tx, product, &row.id, account_id, now_ms).await?;
            seats::note(tx, product, &row.owner_id, now_ms).await?;
        }
        if rows.len() < MEMBERSHIPS as usize {
            return Ok(());
        }
    }
}

/// What happened in an organisation: to `account_id` by the caller, or if none is named, to the caller.
pub(super) fn event<'a>(
    caller: &'a Caller,
    claims: &'a Claims,
    kind: AuditKind,
    account_id: Option<&'a str>,
    detail: &'a str,
    at: i64,
) -> AuditEvent<'a> {
    let account_id = account_id.unwrap_or(&claims.sub);
    AuditEvent {
        product: &claims.prd,
        kind,
        account_id: Some(account_id),
        session_id: None,
        request_id: &caller.request_id,
        at,
        actor_id: Some(claims.sub.as_str()).filter(|actor_id| *actor_id != account_id),
        detail: Some(detail),
    }
}

fn shown(row: MineRow) -> Organisation {
    Organisation {
        id: row.id,
        name: row.name,
        owner_id: row.owner_id,
        role: row.role,
        members: i32::try_from(row.members).unwrap_or(i32::MAX),
        created_at: row.created_at,
    }
}

fn member(row: MemberRow) -> Member {
    Member {
        account_id: row.account_id,
        email: row.email,
        display_name: row.display_name.unwrap_or_default(),
        role: row.role,
        joined_at: row.joined_at,
    }
}
