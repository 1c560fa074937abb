//! `PersonalDataService`.
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims, PRODUCT_HEADER};
use weft_db::{Tx, jobs};
use weft_proto::billing::v1::ExportAccountRequest;
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
use crate::link_mail;
use crate::store::account::{CredentialRow, account_credential, account_lock};
use crate::store::api_key::api_key_list;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::failure::failure_delete_all;
use crate::store::github::github_delete;
use crate::store::link::link_delete_job;
use crate::store::personal::{
    person_delete, person_events, person_find, person_github, person_issuers, person_organisations, person_owns_others,
    person_sessions,
};
use crate::store::session::session_is_open;

/// The service behind `weft.identity.v1.PersonalDataService`.
pub struct PersonalDataApi(pub Arc<Identity>);

#[tonic::async_trait]
impl PersonalDataService for PersonalDataApi {
    type ExportDataStream = BoxStream<'static, Result<ExportedData, Status>>;

    async fn export_data(
        &self,
        request: Request<ExportDataRequest>,
    ) -> Result<Response<Self::ExportDataStream>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        // Billing first: whoever hears that it is away has been given nothing.
        let theirs = self.0.billings(claims).await?;
        let ours = self.0.ours(claims).await?;
        Ok(Response::new(stream::iter(ours.into_iter().map(Ok)).chain(theirs).boxed()))
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

/// A call to billing about an account of this product.
pub fn about<M>(product: &str, message: M) -> Result<Request<M>, Status> {
    let product = MetadataValue::try_from(product).map_err(|_| Status::internal("a product's slug is no header"))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(PRODUCT_HEADER, product);
    Ok(request)
}

impl Identity {
    async fn billings(&self, claims: &Claims) -> Result<BoxStream<'static, Result<ExportedData, Status>>, Status> {
        let message = ExportAccountRequest { account_id: claims.sub.clone() };
        let away = |status: Status| {
            tracing::warn!(code = ?status.code(), "billing could not be asked for an export");
            Status::from(Error::BillingUnavailable)
        };
        let parts = self.personal.clone().export_account(about(&claims.prd, message)?).await.map_err(away)?;
        let parts = parts.into_inner().map(move |part| match part {
            Ok(part) => Ok(ExportedData { service: "billing".to_owned(), name: part.name, json: part.json }),
            Err(status) => Err(away(status)),
        });
        Ok(parts.boxed())
    }

    /// What is known here.
    async fn ours(&self, claims: &Claims) -> Result<Vec<ExportedData>, Error> {
        let (db, product, id) = (&self.db, claims.prd.as_str(), claims.sub.as_str());
        let person = person_find(db, product, id).await?.ok_or(Error::InvalidAccessToken)?;
        let profile = json!({
            "id": id, "product": product, "email": person.email, "email_verified_at": person.email_verified_at,
            "created_at": person.created_at, "signed_in_at": person.signed_in_at,
            "roles": Roles::stored(&person.roles).names(), "display_name": person.display_name,
            "locale": person.locale, "time_zone": person.time_zone, "avatar_url": person.avatar_url,
            "suspended_at": person.suspended_at,
        });
        let sessions = person_sessions(db, product, id).await?.into_iter().map(|row| {
            json!({"id": row.id, "created_at": row.created_at, "refreshed_at": row.refreshed_at,
                   "expires_at": row.expires_at, "ended_at": row.ended_at, "client_address": row.client_address,
                   "user_agent": row.user_agent})
        });
        let organisations = person_organisations(db, product, id)
            .await?
            .into_iter()
            .map(|row| json!({"id": row.id, "name": row.name, "role": row.role, "joined_at": row.joined_at}));
        let issuers = person_issuers(db, product, id)
            .await?
            .into_iter()
            .map(|row| json!({"issuer": row.issuer, "subject": row.subject, "created_at": row.created_at}));
        let github = person_github(db, product, id)
            .await?
            .into_iter()
            .map(|row| json!({"login": row.login, "scopes": row.scopes, "connected_at": row.connected_at}));
        let api_keys = api_key_list(db, product, id).await?.into_iter().map(|row| {
            json!({"id": row.id, "name": row.name, "scopes": stored_scopes(&row.scopes), "last_four": row.last_four,
                   "budget": row.budget, "created_at": row.created_at, "expires_at": row.expires_at,
                   "last_used_at": row.last_used_at})
        });
        let events = person_events(db, product, id)
            .await?
            .into_iter()
            .map(|row| json!({"kind": row.kind, "at": row.at, "session_id": row.session_id, "detail": row.detail}));
        Ok(vec![
            part("profile", &profile),
            part("sessions", &sessions.collect()),
            part("organisations", &organisations.collect()),
            part("issuers", &issuers.collect()),
            part("github", &github.collect()),
            part("api_keys", &api_keys.collect()),
            part("audit", &events.collect()),
        ])
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
        let product = self.product(caller)?;
        let place = self.hashing.place()?;
        let address = self.secrets.address_hash(&row.email);
        self.check_failures(&self.db, product, &address).await?;
        if place.is_password(password.into(), row.password_hash.clone()).await? {
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
    ) -> Result<(Vec<crate::store::revocation::RevocationRow>, Option<crate::store::github::ConnectionRow>), Error>
    {
        let (product, id) = (claims.prd.as_str(), claims.sub.as_str());
        // Organisations before accounts, as for everybody who changes one.
        if person_owns_others(tx, product, id).await? {
            return Err(Error::OwnsOrganisation);
        }
        forget_memberships(tx, product, id, now_ms).await?;
        account_lock(tx, product, id).await?.ok_or(Error::InvalidAccessToken)?;
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
        person_delete(tx, product, id, &row.email.to_lowercase()).await?;
        jobs::enqueue(tx, &erasure::job(product, id, now_ms)).await?;
        audit_insert(tx, &event(caller, AuditKind::EraseRequested, id, Some(&claims.sid), now_ms)).await?;
        Ok((rows, github))
    }
}

fn part(name: &str, value: &Value) -> ExportedData {
    ExportedData { service: "identity".to_owned(), name: name.to_owned(), json: value.to_string() }
}

fn event<'a>(
    caller: &'a Caller,
    kind: AuditKind,
    account_id: &'a str,
    session_id: Option<&'a str>,
    at: i64,
) -> AuditEvent<'a> {
    AuditEvent {
        product: &caller.product,
        kind,
        account_id: Some(account_id),
        session_id,
        request_id: &caller.request_id,
        at,
        actor_id: None,
        detail: None,
    }
}
