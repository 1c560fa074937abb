//! `SsoService`: providers of organisations, and the domains that are theirs.
use std::sync::Arc;

use futures_util::future::join_all;
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_db::Tx;
use weft_db::keyring::Sealed;
use weft_proto::identity::v1::sso_service_server::SsoService;
use weft_proto::identity::v1::{
    ConfirmDomainRequest, DeleteConnectionRequest, DeleteConnectionResponse, GetConnectionRequest,
    PutConnectionRequest, SsoConnection, SsoDomain,
};
use weft_runtime::outbound::Reach;

use super::Identity;
use super::organisation::{acting, event};
use crate::domain::organisation::MemberRole;
use crate::domain::provider::{self, MOST_DOMAINS};
use crate::error::Error;
use crate::oidc::ProviderError;
use crate::sign_on::secret_of;
use crate::store::audit::{AuditKind, audit_insert};
use crate::store::organisation::organisation_find;
use crate::store::sso::{
    ConnectionRow, DomainRow, connection_delete, connection_find, connection_put, domain_delete, domain_insert,
    domain_list, domain_owner, domain_prove,
};

/// The feature of a plan.
const FEATURE: &str = "sso";
/// More than an organisation ever has.
const ALL_DOMAINS: i64 = 2 * MOST_DOMAINS as i64;

/// The service behind `weft.identity.v1.SsoService`.
pub struct SsoApi(pub Arc<Identity>);

#[tonic::async_trait]
impl SsoService for SsoApi {
    async fn put_connection(&self, request: Request<PutConnectionRequest>) -> Result<Response<SsoConnection>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.put_connection(&caller, caller.user()?, request.into_inner()).await?))
    }

    async fn get_connection(&self, request: Request<GetConnectionRequest>) -> Result<Response<SsoConnection>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().organisation_id;
        Ok(Response::new(self.0.connection_with_news(&caller, caller.user()?, &id).await?))
    }

    async fn delete_connection(
        &self,
        request: Request<DeleteConnectionRequest>,
    ) -> Result<Response<DeleteConnectionResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.delete_connection(&caller, caller.user()?, &request.into_inner().organisation_id).await?;
        Ok(Response::new(DeleteConnectionResponse { ok: true }))
    }

    async fn confirm_domain(&self, request: Request<ConfirmDomainRequest>) -> Result<Response<SsoConnection>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.confirm_domain(&caller, caller.user()?, request.into_inner()).await?))
    }
}

impl Identity {
    /// Whether the plan of an account includes single sign-on.
    pub(super) async fn has_sso(&self, product: &str, payer_id: &str) -> Result<bool, Error> {
        let plan = self.entitlements.of(product, payer_id).await.map_err(|_| Error::BillingUnavailable)?;
        Ok(plan.features.get(FEATURE) == Some(&true))
    }

    /// That the caller runs the organisation, and its owner's plan includes single sign-on.
    async fn check_sso(&self, claims: &Claims, organisation_id: &str) -> Result<(), Error> {
        let found = organisation_find(&self.db, &claims.prd, organisation_id, &claims.sub).await?;
        let organisation = found.ok_or(Error::NoOrganisation)?;
        MemberRole::stored(&organisation.role).check_runs()?;
        let has = self.has_sso(&claims.prd, &organisation.owner_id).await?;
        if has { Ok(()) } else { Err(Error::SsoNotInPlan) }
    }

    /// Everything that is asked of others is asked before the transaction.
    async fn put_connection(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: PutConnectionRequest,
    ) -> Result<SsoConnection, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        self.check_sso(claims, id).await?;
        provider::issuer(&request.issuer, self.sign_on.providers.allowed())?;
        provider::client_id(&request.client_id)?;
        provider::client_secret(&request.client_secret)?;
        let domains = provider::domains(&request.domains)?;
        let asked = self.sign_on.providers.find_now(Reach::Public, &request.issuer).await;
        asked.map_err(|error| unusable(&request.issuer, error))?;
        let proven = self.with_record(product, id, &domains).await;
        let given = if request.client_secret.is_empty() {
            None
        } else {
            let secret = request.client_secret.as_bytes();
            Some(self.sign_on.keyring.seal(&secret_of(product, id), secret).await?)
        };
        let now_ms = self.clock.now_ms();
        self.db
            .write("set single sign-on", async |tx: Tx| {
                acting(&tx, claims, id, now_ms).await?.role.check_runs()?;
                let before = connection_find(&tx, product, id).await?;
                let sealed = given.clone().or_else(|| kept(before.as_ref(), &request)).ok_or(Error::NoClientSecret)?;
                let row = ConnectionRow {
                    organisation_id: id.to_owned(),
                    issuer: request.issuer.clone(),
                    client_id: request.client_id.clone(),
                    key_id: sealed.key_id,
                    sealed: sealed.bytes,
                    updated_at: now_ms,
                };
                connection_put(&tx, product, &row).await?;
                let set = event(caller, claims, AuditKind::SsoSet, None, id, now_ms);
                audit_insert(&tx, &set).await?;
                set_domains(&tx, product, id, &domains).await?;
                for domain in &domains {
                    let owner = domain_owner(&tx, product, domain).await?;
                    if owner.is_some_and(|owner| owner != id) {
                        return Err(Error::DomainTaken);
                    }
                }
                for domain in &proven {
                    prove(&tx, caller, claims, id, domain, now_ms).await?;
                }
                let domains = domain_list(&tx, product, id, ALL_DOMAINS).await?;
                Ok(self.shown_connection(product, row, domains))
            })
            .await
    }

    /// As it is; domains that are not proven are looked at again.
    async fn connection_with_news(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<SsoConnection, Error> {
        self.check_sso(claims, id).await?;
        let product = claims.prd.as_str();
        let row = connection_find(&self.db, product, id).await?.ok_or(Error::NoConnection)?;
        let mut domains = domain_list(&self.db, product, id, ALL_DOMAINS).await?;
        let open: Vec<String> = domains.iter().filter(|row| !row.proven).map(|row| row.domain.clone()).collect();
        let proven = self.with_record(product, id, &open).await;
        if !proven.is_empty() {
            let now_ms = self.clock.now_ms();
            domains = self
                .db
                .write("prove domains", async |tx: Tx| {
                    acting(&tx, claims, id, now_ms).await?.role.check_runs()?;
                    for domain in &proven {
                        prove(&tx, caller, claims, id, domain, now_ms).await?;
                    }
                    Ok::<_, Error>(domain_list(&tx, product, id, ALL_DOMAINS).await?)
                })
                .await?;
        }
        Ok(self.shown_connection(product, row, domains))
    }

    async fn delete_connection(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<(), Error> {
        self.check_sso(claims, id).await?;
        let now_ms = self.clock.now_ms();
        self.db
            .write("delete single sign-on", async |tx: Tx| {
                acting(&tx, claims, id, now_ms).await?.role.check_runs()?;
                if connection_delete(&tx, &claims.prd, id).await? {
                    let deleted = event(caller, claims, AuditKind::SsoDeleted, None, id, now_ms);
                    audit_insert(&tx, &deleted).await?;
                }
                Ok(())
            })
            .await
    }

    async fn confirm_domain(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: ConfirmDomainRequest,
    ) -> Result<SsoConnection, Error> {
        let (product, id) = (claims.prd.as_str(), request.organisation_id.as_str());
        let domain = request.domain.to_ascii_lowercase();
        let now_ms = self.clock.now_ms();
        self.db
            .write("confirm domain", async |tx: Tx| {
                let row = connection_find(&tx, product, id).await?.ok_or(Error::NoConnection)?;
                prove(&tx, caller, claims, id, &domain, now_ms).await?;
                let domains = domain_list(&tx, product, id, ALL_DOMAINS).await?;
                match domains.iter().find(|row| row.domain == domain) {
                    None => Err(Error::NoDomain),
                    Some(row) if !row.proven => Err(Error::DomainTaken),
                    Some(_) => Ok(self.shown_connection(product, row, domains)),
                }
            })
            .await
    }

    /// Those of the domains whose DNS has the organisation's record.
    async fn with_record(&self, product: &str, organisation_id: &str, domains: &[String]) -> Vec<String> {
        let asked = domains.iter().map(async |domain| {
            let record = self.secrets.domain_record(product, organisation_id, domain);
            self.sign_on.dns.has_record(domain, &record).await.then(|| domain.clone())
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn shown_connection(&self, product: &str, row: ConnectionRow, domains: Vec<DomainRow>) -> SsoConnection {
        let shown = |domain: DomainRow| SsoDomain {
            txt_record: self.secrets.domain_record(product, &row.organisation_id, &domain.domain),
            verified: domain.proven,
            domain: domain.domain,
        };
        let domains = domains.into_iter().map(shown).collect();
        SsoConnection {
            organisation_id: row.organisation_id.clone(),
            issuer: row.issuer.clone(),
            client_id: row.client_id.clone(),
            domains,
            updated_at: row.updated_at,
        }
    }
}

/// The secret as it was, for the same issuer and client id: it goes to nobody else.
fn kept(before: Option<&ConnectionRow>, request: &PutConnectionRequest) -> Option<Sealed> {
    let before = before.filter(|row| (&row.issuer, &row.client_id) == (&request.issuer, &request.client_id))?;
    Some(Sealed { key_id: before.key_id.clone(), bytes: before.sealed.clone() })
}

/// These and no other domains are named by the organisation from now on. A domain that goes is proven no more.
async fn set_domains(tx: &Tx, product: &str, id: &str, domains: &[String]) -> Result<(), Error> {
    for old in domain_list(tx, product, id, ALL_DOMAINS).await? {
        if !domains.contains(&old.domain) {
            domain_delete(tx, product, id, &old.domain).await?;
        }
    }
    for domain in domains {
        domain_insert(tx, product, id, domain).await?;
    }
    Ok(())
}

/// Notes that a domain is proven, if it is named and nobody else's.
async fn prove(tx: &Tx, caller: &Caller, claims: &Claims, id: &str, domain: &str, now_ms: i64) -> Result<(), Error> {
    if domain_prove(tx, &claims.prd, id, domain, now_ms).await? {
        let detail = format!("{id} {domain}");
        let proven = event(caller, claims, AuditKind::SsoDomainProven, None, &detail, now_ms);
        audit_insert(tx, &proven).await?;
    }
    Ok(())
}

/// What the caller learns of an issuer that they named. That a name leads inside is told like that it leads nowhere.
fn unusable(issuer: &str, error: ProviderError) -> Error {
    tracing::info!(issuer, %error, "the issuer of an organisation was refused");
    match error {
        ProviderError::Wrong(why) => Error::InvalidField(why),
        ProviderError::Inside => Error::InvalidField("issuer must be a public address"),
        ProviderError::Away | ProviderError::Refused(_) => Error::IssuerUnavailable,
    }
}
