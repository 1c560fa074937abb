//! `PersonalDataService`.
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_db::{Db, Tx, jobs};
use weft_proto::identity::v1::personal_data_service_server::PersonalDataService;
use weft_proto::identity::v1::{EraseAccountRequest, EraseAccountResponse, ExportDataRequest, ExportedData};

use super::organisation::forget_memberships;
use super::{Identity, end_keys, end_sessions};
use crate::domain::api_key::stored_scopes;
use crate::domain::link::LinkKind;
use crate::domain::role::Roles;
use crate::domain::session::EndReason;
use crate::erasure;
use crate::error::Error;
use crate::github::Revoke;
use crate::keepers::Parts;
use crate::link_mail;
use crate::store::account::{CredentialRow, account_credential, account_is_verified, account_lock};
use crate::store::api_key::api_key_list;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::failure::failure_delete_all;
use crate::store::github::{ConnectionRow, github_delete};
use crate::store::link::{link_delete_job, link_void_all};
use crate::store::personal::{
    PART_ROWS, person_delete, person_events, person_find, person_github, person_issuers, person_organisations,
    person_owns_others, person_sessions,
};
use crate::store::revocation::RevocationRow;
use crate::store::session::session_is_open;

/// The service behind `weft.identity.v1.PersonalDataService`.
pub struct PersonalDataApi(pub Arc<Identity>);

#[tonic::async_trait]
impl PersonalDataService for PersonalDataApi {
    type ExportDataStream = Parts;

    async fn export_data(
        &self,
        request: Request<ExportDataRequest>,
    ) -> Result<Response<Self::ExportDataStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.export(caller.user()?).await?))
    }

    async fn erase_account(
        &self,
        request: Request<EraseAccountRequest>,
    ) -> Result<Response<EraseAccountResponse>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?.clone();
        self.0.erase(&caller, &claims, request.into_inner().password).await?;
        Ok(Response::new(EraseAccountResponse { ok: true }))
    }
}

/// Where our part of an export goes on.
enum Next {
    Profile,
    /// Before the session with this id.
    Sessions(String),
    Organisations,
    Issuers,
    GitHub,
    ApiKeys,
    /// Before this place in the log.
    Audit(i64),
    Done,
}

impl Identity {
    /// Everything. The other services are asked first: whoever hears that one is away has been given nothing.
    async fn export(self: &Arc<Self>, claims: &Claims) -> Result<Parts, Status> {
        let mut parts = Vec::new();
        for keeper in &self.keepers {
            parts.push(keeper.export(&claims.prd, &claims.sub).await?);
        }
        let from = (Arc::clone(self), claims.prd.clone(), claims.sub.clone(), Next::Profile);
        let ours = stream::try_unfold(from, |(identity, product, id, next)| async move {
            if matches!(next, Next::Done) {
                return Ok(None);
            }
            let (name, rows, next) = part(&identity.db, &product, &id, next).await?;
            let part = ExportedData { service: "identity".to_owned(), name: name.to_owned(), json: rows.to_string() };
            Ok::<_, Status>(Some((part, (identity, product, id, next))))
        });
        Ok(ours.chain(stream::iter(parts).flatten()).boxed())
    }

    /// Deletes what is known here, at once, and leaves a job that sees to the other services.
    async fn erase(&self, caller: &Caller, claims: &Claims, password: String) -> Result<(), Error> {
        let row = account_credential(&self.db, &claims.prd, &claims.sid, &claims.sub).await?;
        let row = row.ok_or(Error::InvalidAccessToken)?;
        self.prove_again(caller, &row, password).await?;
        let now_ms = self.clock.now_ms();
        let (rows, github) = self
            .db
            .write("erase account", async |tx: Tx| self.erase_here(&tx, caller, claims, &row, now_ms).await)
            .await?;
        self.refuse(rows);
        self.seats_due.notify_one();
        self.erasure_due.notify_one();
        if let (Some(row), Some(app)) = (github, self.github.app(&claims.prd)) {
            self.give_back(&app, claims, &row, Revoke::Grant).await;
        }
        Ok(())
    }

    /// Who has a password shows it, under the same limit as at the door; who has none has shown who they are by signing in.
    async fn prove_again(&self, caller: &Caller, row: &CredentialRow, password: String) -> Result<(), Error> {
        if row.password_hash.is_empty() {
            return Ok(());
        }
        if password.is_empty() {
            return Err(Error::Missing("password"));
        }
        let product = self.product(caller)?;
        let place = self.hashing.place()?;
        let address = self.secrets.address_hash(&row.email);
        self.check_failures(&self.db, product, &address).await?;
        if place.verify_own(password.into(), row.password_hash.clone()).await? {
            return self.check_failures(&self.db, product, &address).await;
        }
        let event = event(caller, AuditKind::LoginFailed, &row.id, None, self.clock.now_ms());
        self.note_failure(product, &address, &event).await?;
        Err(Error::InvalidCredentials)
    }

    async fn erase_here(
        &self,
        tx: &Tx,
        caller: &Caller,
        claims: &Claims,
        row: &CredentialRow,
        now_ms: i64,
    ) -> Result<(Vec<RevocationRow>, Option<ConnectionRow>), Error> {
        let (product, id) = (claims.prd.as_str(), claims.sub.as_str());
        // Organisations before accounts, as for everybody who changes one.
        if person_owns_others(tx, product, id).await? {
            return Err(Error::OwnsOrganisation);
        }
        forget_memberships(tx, product, id, now_ms).await?;
        let account = account_lock(tx, product, id).await?.ok_or(Error::InvalidAccessToken)?;
        if account.suspended_at.is_some() {
            // Or they would be back in a moment, as somebody else.
            return Err(Error::AccountSuspended);
        }
        if !session_is_open(tx, product, id, &claims.sid, now_ms).await? {
            return Err(Error::InvalidAccessToken);
        }
        let (_, mut rows) = end_sessions(tx, product, id, None, EndReason::Ended, now_ms).await?;
        rows.extend(end_keys(tx, product, id, now_ms).await?);
        let github = github_delete(tx, product, id).await?;
        let address = self.secrets.address_hash(&row.email);
        failure_delete_all(tx, product, &address).await?;
        link_delete_job(tx, product, &link_mail::job_id(LinkKind::PasswordReset, &address)).await?;
        link_delete_job(tx, product, &link_mail::job_id(LinkKind::EmailProof, id)).await?;
        // Whose address it only says it is, is not kept from their invitations; nor are they sent more mails than before.
        let proven = account_is_verified(tx, product, id).await?.then(|| row.email.to_lowercase());
        link_void_all(tx, product, id).await?;
        person_delete(tx, product, id, proven.as_deref()).await?;
        jobs::enqueue(tx, &erasure::job(product, id, now_ms)).await?;
        audit_insert(tx, &event(caller, AuditKind::EraseRequested, id, Some(&claims.sid), now_ms)).await?;
        Ok((rows, github))
    }
}

/// One part of what is known here, and where the next begins.
async fn part(db: &Db, product: &str, id: &str, next: Next) -> Result<(&'static str, Value, Next), Error> {
    Ok(match next {
        Next::Profile => ("profile", profile(db, product, id).await?, Next::Sessions(String::new())),
        Next::Sessions(before) => {
            let rows = person_sessions(db, product, id, &before).await?;
            let last = rows.last().filter(|_| rows.len() as i64 == PART_ROWS);
            let next = last.map_or(Next::Organisations, |row| Next::Sessions(row.id.clone()));
            let rows = rows.iter().map(|row| {
                json!({"id": row.id, "created_at": row.created_at, "refreshed_at": row.refreshed_at,
                       "expires_at": row.expires_at, "ended_at": row.ended_at, "client_address": row.client_address,
                       "user_agent": row.user_agent})
            });
            ("sessions", rows.collect(), next)
        }
        Next::Organisations => {
            let rows = person_organisations(db, product, id).await?;
            let shown = rows
                .iter()
                .map(|row| json!({"id": row.id, "name": row.name, "role": row.role, "joined_at": row.joined_at}));
            ("organisations", shown.collect(), Next::Issuers)
        }
        Next::Issuers => {
            let rows = person_issuers(db, product, id).await?;
            let shown = rows
                .iter()
                .map(|row| json!({"issuer": row.issuer, "subject": row.subject, "created_at": row.created_at}));
            ("issuers", shown.collect(), Next::GitHub)
        }
        Next::GitHub => {
            let rows = person_github(db, product, id).await?;
            let shown = rows
                .iter()
                .map(|row| json!({"login": row.login, "scopes": row.scopes, "connected_at": row.connected_at}));
            ("github", shown.collect(), Next::ApiKeys)
        }
        Next::ApiKeys => {
            let rows = api_key_list(db, product, id).await?;
            let shown = rows.iter().map(|row| {
                json!({"id": row.id, "name": row.name, "scopes": stored_scopes(&row.scopes), "last_four": row.last_four,
                       "budget": row.budget, "created_at": row.created_at, "expires_at": row.expires_at,
                       "last_used_at": row.last_used_at})
            });
            ("api_keys", shown.collect(), Next::Audit(i64::MAX))
        }
        Next::Audit(before) => {
            let rows = person_events(db, product, id, before).await?;
            let last = rows.last().filter(|_| rows.len() as i64 == PART_ROWS);
            let next = last.map_or(Next::Done, |row| Next::Audit(row.number));
            let shown = rows.iter().map(|row| {
                json!({"number": row.number, "kind": row.kind, "at": row.at, "session_id": row.session_id,
                       "detail": row.detail})
            });
            ("audit", shown.collect(), next)
        }
        Next::Done => ("audit", json!([]), Next::Done),
    })
}

async fn profile(db: &Db, product: &str, id: &str) -> Result<Value, Error> {
    let person = person_find(db, product, id).await?.ok_or(Error::InvalidAccessToken)?;
    Ok(json!({
        "id": id, "product": product, "email": person.email, "email_verified_at": person.email_verified_at,
        "created_at": person.created_at, "signed_in_at": person.signed_in_at,
        "roles": Roles::stored(&person.roles).names(), "display_name": person.display_name,
        "locale": person.locale, "time_zone": person.time_zone, "avatar_url": person.avatar_url,
        "suspended_at": person.suspended_at,
    }))
}

fn event<'a>(
    caller: &'a Caller,
    kind: AuditKind,
    account_id: &'a str,
    session_id: Option<&'a str>,
    at: i64,
) -> AuditEvent<'a> {
    AuditEvent { session_id, ..AuditEvent::of(&caller.product, kind, account_id, &caller.request_id, at) }
}
