//! `ApiKeyService`, and access tokens for API keys.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims, KEY_AUDIENCE, KeyClaim, Refusal, key_session};
use weft_core::new_id;
use weft_db::Tx;
use weft_product::Product;
use weft_proto::billing::v1::ListKeySpendingRequest;
use weft_proto::identity::v1::api_key_service_server::ApiKeyService;
use weft_proto::identity::v1::{
    AccessToken, ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
    RevokeApiKeyRequest, RevokeApiKeyResponse, UpdateApiKeyRequest,
};

use super::session::check_open;
use super::{Identity, STREAM_MS};
use crate::domain::account::Account;
use crate::domain::api_key::{self, ApiKeySecret, MOST_KEYS, stored_scopes};
use crate::domain::role::Roles;
use crate::domain::session::Session;
use crate::domain::token::Access;
use crate::error::Error;
use crate::store::account::account_lock;
use crate::store::api_key::{
    ApiKeyRow, api_key_by_hash, api_key_count, api_key_delete, api_key_find, api_key_insert, api_key_issue,
    api_key_list, api_key_update, api_key_withdraw,
};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::revocation::revocation_insert;

/// How long billing may take to say what keys have spent; without its answer they are shown without.
const SPENT_WITHIN: Duration = Duration::from_secs(1);

/// The service behind `weft.identity.v1.ApiKeyService`.
pub struct ApiKeyApi(pub Arc<Identity>);

#[tonic::async_trait]
impl ApiKeyService for ApiKeyApi {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.create_key(&caller, caller.user()?, request.into_inner()).await?))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let rows = api_key_list(&self.0.db, &claims.prd, &claims.sub).await.map_err(Error::from)?;
        Ok(Response::new(ListApiKeysResponse { api_keys: self.0.with_spent(claims, rows).await }))
    }

    async fn update_api_key(&self, request: Request<UpdateApiKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let row = self.0.update_key(&caller, claims, request.into_inner()).await?;
        let key = self.0.with_spent(claims, vec![row]).await.pop();
        Ok(Response::new(key.ok_or(Error::NoApiKey)?))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.revoke_key(&caller, caller.user()?, &request.into_inner().id).await?;
        Ok(Response::new(RevokeApiKeyResponse { ok: true }))
    }
}

impl Identity {
    async fn create_key(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse, Error> {
        let now_ms = self.clock.now_ms();
        let secret = ApiKeySecret::generate()?;
        let row = ApiKeyRow {
            id: new_id(),
            name: api_key::name(&request.name)?.to_owned(),
            scopes: api_key::scopes(&request.scopes)?,
            last_four: secret.last_four().to_owned(),
            budget: self.budget(claims, request.budget)?,
            created_at: now_ms,
            expires_at: api_key::expiry(request.expires_at, now_ms)?,
            last_used_at: None,
        };
        let event = event(caller, claims, AuditKind::ApiKeyCreated, &row.id, now_ms);
        self.db
            .write("create api key", async |tx: Tx| {
                lock_open(&tx, claims, now_ms).await?;
                if api_key_count(&tx, &claims.prd, &claims.sub).await? >= MOST_KEYS {
                    return Err(Error::TooManyApiKeys);
                }
                api_key_insert(&tx, &claims.prd, &claims.sub, &secret.hash(), &row).await?;
                Ok(audit_insert(&tx, &event).await?)
            })
            .await?;
        let api_key = ApiKey { spent: Some(0), ..api_key(row) };
        Ok(CreateApiKeyResponse { key: secret.text().to_owned(), api_key: Some(api_key) })
    }

    /// What a key may spend, in a product where something is spent.
    fn budget(&self, claims: &Claims, micro: Option<i64>) -> Result<Option<i64>, Error> {
        let has_credits = |product: &Arc<Product>| product.plans.iter().any(|plan| plan.credits.is_some());
        if micro.is_some() && !self.products.get(&claims.prd).is_some_and(has_credits) {
            return Err(Error::InvalidField("this product has no credits, leave budget out"));
        }
        api_key::budget(micro)
    }

    /// Changes name or budget. Tokens that say another budget are withdrawn, so that the new one counts within a second.
    async fn update_key(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: UpdateApiKeyRequest,
    ) -> Result<ApiKeyRow, Error> {
        let now_ms = self.clock.now_ms();
        let name = request.name.as_deref().map(api_key::name).transpose()?;
        let budget = self.budget(claims, request.budget)?;
        let event = event(caller, claims, AuditKind::ApiKeyChanged, &request.id, now_ms);
        let (row, withdrawn) = self
            .db
            .write("update api key", async |tx: Tx| {
                lock_open(&tx, claims, now_ms).await?;
                let found = api_key_find(&tx, &claims.prd, &claims.sub, &request.id).await?;
                let before = found.ok_or(Error::NoApiKey)?;
                let row = ApiKeyRow {
                    name: name.unwrap_or(&before.name).to_owned(),
                    budget: budget.or(before.budget),
                    ..before.clone()
                };
                if row == before {
                    return Ok::<_, Error>((row, None));
                }
                api_key_update(&tx, &claims.prd, &claims.sub, &row).await?;
                audit_insert(&tx, &event).await?;
                if row.budget == before.budget {
                    return Ok((row, None));
                }
                let withdrawn = api_key_withdraw(&tx, &claims.prd, &row.id, now_ms + STREAM_MS).await?;
                Ok((row, withdrawn))
            })
            .await?;
        self.refuse(withdrawn.into_iter().collect());
        Ok(row)
    }

    async fn revoke_key(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let event = event(caller, claims, AuditKind::ApiKeyRevoked, id, now_ms);
        let session_id = key_session(id);
        let until_ms = self
            .db
            .write("revoke api key", async |tx: Tx| {
                lock_open(&tx, claims, now_ms).await?;
                let last = api_key_delete(&tx, &claims.prd, &claims.sub, id).await?.ok_or(Error::NoApiKey)?;
                audit_insert(&tx, &event).await?;
                let Some(expires) = last.last_token_exp else { return Ok::<_, Error>(None) };
                let until_ms = (expires * 1000).max(now_ms + STREAM_MS);
                revocation_insert(&tx, &session_id, until_ms).await?;
                Ok(Some(until_ms))
            })
            .await?;
        if let Some(until_ms) = until_ms {
            self.revocations.insert(session_id, Refusal::Ended, until_ms);
        }
        Ok(())
    }

    /// An access token for an API key. One that is none costs one look-up, and no lock.
    ///
    /// Errors: [`Error::InvalidToken`], one and the same whatever is wrong; [`Error::AccountSuspended`].
    pub(super) async fn exchange_key(&self, product: &Product, text: &str) -> Result<AccessToken, Error> {
        let secret = ApiKeySecret::parse(text).ok_or(Error::InvalidToken)?;
        let found = api_key_by_hash(&self.db, &product.slug, &secret.hash()).await?.ok_or(Error::InvalidToken)?;
        let now_ms = self.clock.now_ms();
        self.db
            .write("exchange an api key", async |tx: Tx| {
                let account = account_lock(&tx, &product.slug, &found.account_id).await?.ok_or(Error::InvalidToken)?;
                if account.suspended_at.is_some() {
                    return Err(Error::AccountSuspended);
                }
                let key = api_key_find(&tx, &product.slug, &found.account_id, &found.id).await?;
                let key = key.ok_or(Error::InvalidToken)?;
                let session = session(product, &found.account_id, &key);
                let access = Access::new(now_ms, product.identity.access_ttl_s, &session);
                let minute = api_key::minute(now_ms);
                let key = api_key_issue(&tx, &product.slug, &key.id, &access, minute, now_ms).await?;
                let claims = claims(&access, &session, key.ok_or(Error::InvalidToken)?);
                Ok(AccessToken { access_token: self.signer.mint(&claims), expires_at: access.expires * 1000 })
            })
            .await
    }

    /// Keys with what they have spent, if billing says it in time.
    async fn with_spent(&self, claims: &Claims, rows: Vec<ApiKeyRow>) -> Vec<ApiKey> {
        let spent = if rows.is_empty() { None } else { self.spent(claims, &rows).await };
        let spent_of = |id: &str| spent.as_ref().map(|spent| spent.get(id).copied().unwrap_or(0));
        rows.into_iter().map(|row| ApiKey { spent: spent_of(&row.id), ..api_key(row) }).collect()
    }

    async fn spent(&self, claims: &Claims, rows: &[ApiKeyRow]) -> Option<HashMap<String, i64>> {
        let (product, user_id) = (claims.prd.clone(), claims.sub.clone());
        let key_ids = rows.iter().map(|row| row.id.clone()).collect();
        let mut request = Request::new(ListKeySpendingRequest { product, user_id, key_ids });
        request.set_timeout(SPENT_WITHIN);
        match timeout(SPENT_WITHIN, self.wallets.clone().list_key_spending(request)).await {
            Ok(Ok(answer)) => {
                Some(answer.into_inner().spending.into_iter().map(|key| (key.key_id, key.spent)).collect())
            }
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), "billing does not say what api keys have spent");
                None
            }
            Err(_elapsed) => {
                tracing::warn!("billing did not say in time what api keys have spent");
                None
            }
        }
    }
}

/// Locks the caller's account. Their session is not over, even if our guard has not heard of it yet.
async fn lock_open(tx: &Tx, claims: &Claims, now_ms: i64) -> Result<(), Error> {
    account_lock(tx, &claims.prd, &claims.sub).await?.ok_or(Error::InvalidAccessToken)?;
    check_open(tx, claims, now_ms).await
}

/// What the tokens of a key take for their session: nobody can sign out of it, and it is not among the account's.
fn session(product: &Product, account_id: &str, key: &ApiKeyRow) -> Session {
    Session {
        product: product.slug.clone(),
        id: key_session(&key.id),
        account_id: account_id.to_owned(),
        created_at: key.created_at,
        expires_at: key.expires_at.unwrap_or(i64::MAX),
        ended_at: None,
    }
}

/// Neither who the account is to people nor its roles.
fn claims(access: &Access, session: &Session, key: ApiKeyRow) -> Claims {
    let account = Account {
        product: session.product.clone(),
        id: session.account_id.clone(),
        email: String::new(),
        created_at: key.created_at,
        roles: Roles::default(),
        suspended: false,
    };
    Claims {
        aud: KEY_AUDIENCE.to_owned(),
        roles: Vec::new(),
        scp: Some(stored_scopes(&key.scopes)),
        key: Some(KeyClaim { id: key.id, limit: key.budget }),
        ..access.claims(&account, session)
    }
}

fn api_key(row: ApiKeyRow) -> ApiKey {
    ApiKey {
        id: row.id,
        name: row.name,
        scopes: stored_scopes(&row.scopes),
        last_four: row.last_four,
        budget: row.budget,
        spent: None,
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
    }
}

fn event<'a>(caller: &'a Caller, claims: &'a Claims, kind: AuditKind, key_id: &'a str, at: i64) -> AuditEvent<'a> {
    AuditEvent {
        product: &claims.prd,
        kind,
        account_id: Some(&claims.sub),
        session_id: Some(&claims.sid),
        request_id: &caller.request_id,
        at,
        actor_id: None,
        detail: Some(key_id),
    }
}
