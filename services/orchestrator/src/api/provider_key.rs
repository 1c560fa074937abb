//! `weft.orchestrator.v1.ProviderKeyService`.
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Entitlements};
use weft_core::{Clock, new_id};
use weft_db::Tx;
use weft_proto::orchestrator::v1::provider_key_service_server::ProviderKeyService;
use weft_proto::orchestrator::v1::{
    CreateProviderKeyRequest, DeleteProviderKeyRequest, DeleteProviderKeyResponse, ListProviderKeyUsageRequest,
    ListProviderKeyUsageResponse, ListProviderKeysRequest, ListProviderKeysResponse, ProviderKey, ProviderKeyUse,
    UpdateProviderKeyRequest,
};
use weft_runtime::outbound::Networks;

use crate::api::account::Account;
use crate::api::page::Pages;
use crate::domain::provider_key as rules;
use crate::error::Error;
use crate::keys::{KEYS_MOST, Keys, bound_to};
use crate::store::Ready;
use crate::store::provider_key::{KeyRow, key_delete, key_get, key_held, key_insert, key_list, key_lock, key_update};
use crate::store::provider_key_use::{UseRow, use_list};

/// The plan's limit on providers, by name.
const PROVIDERS_LIMIT: &str = "providers";

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ProviderKeyApi {
    /// The keys.
    pub keys: Keys,
    /// How many providers plans allow.
    pub entitlements: Entitlements,
    /// When keys were made.
    pub clock: Clock,
    /// Signs page tokens.
    pub pages: Pages,
    /// Where base URLs may lead besides outside.
    pub networks: Networks,
}

impl ProviderKeyApi {
    async fn create(&self, account: &Account, request: CreateProviderKeyRequest) -> Result<ProviderKey, Error> {
        let provider = rules::provider(&request.provider)?;
        let secret = rules::secret(&request.key)?;
        let name = rules::name(&request.name, provider)?;
        let base_url = rules::base_url(&request.base_url, provider, &self.networks)?;
        let plan = account.plan(&self.entitlements).await?;
        let providers_most = plan.limits.get(PROVIDERS_LIMIT).copied();
        let Ready { db, keyring } = self.keys.ready()?;
        let id = new_id();
        let sealed = keyring.seal(&bound_to(&account.product, &account.id, &id), secret.as_bytes()).await?;
        let row = KeyRow {
            product: account.product.clone(),
            id,
            account_id: account.id.clone(),
            provider: provider.to_owned(),
            name,
            last_four: rules::last_four(secret),
            active: true,
            base_url,
            key_id: sealed.key_id,
            sealed: sealed.bytes,
            created_at: self.clock.now_ms(),
            used_at: None,
        };
        let _changing = self.keys.changing(&account.product, &account.id);
        db.write("provider_key_create", async |tx: Tx| {
            key_lock(&tx, &row.product, &row.account_id).await?;
            let held = key_held(&tx, &row.product, &row.account_id, &row.provider, &row.base_url).await?;
            if held.keys >= KEYS_MOST {
                return Err(Error::Quota("you have 20 provider keys; delete one first"));
            }
            if !held.is_among && providers_most.is_some_and(|most| held.providers >= most) {
                return Err(Error::Quota("your plan allows no further provider; delete its keys or upgrade"));
            }
            key_insert(&tx, &row).await?;
            Ok(())
        })
        .await?;
        Ok(shown(row))
    }

    async fn update(&self, account: &Account, request: UpdateProviderKeyRequest) -> Result<ProviderKey, Error> {
        let Ready { db, keyring } = self.keys.ready()?;
        let secret = request.key.as_deref().map(rules::secret).transpose()?;
        let sealed = match secret {
            Some(secret) => {
                let bound_to = bound_to(&account.product, &account.id, &request.id);
                Some((keyring.seal(&bound_to, secret.as_bytes()).await?, rules::last_four(secret)))
            }
            None => None,
        };
        let _changing = self.keys.changing(&account.product, &account.id);
        let row = db
            .write("provider_key_update", async |tx: Tx| {
                key_lock(&tx, &account.product, &account.id).await?;
                let row = key_get(&tx, &account.product, &account.id, &request.id).await?;
                let mut row = row.ok_or(Error::NotFound("provider key"))?;
                if let Some(name) = &request.name {
                    row.name = rules::name(name, &row.provider)?;
                }
                row.active = request.active.unwrap_or(row.active);
                if let Some((sealed, last_four)) = &sealed {
                    (row.key_id, row.sealed) = (sealed.key_id.clone(), sealed.bytes.clone());
                    row.last_four.clone_from(last_four);
                }
                key_update(&tx, &row).await?;
                Ok::<_, Error>(row)
            })
            .await?;
        Ok(shown(row))
    }

    async fn delete(&self, account: &Account, id: &str) -> Result<(), Error> {
        let _changing = self.keys.changing(&account.product, &account.id);
        let deleted = self.keys.ready()?.db.write("provider_key_delete", async |tx: Tx| {
            key_lock(&tx, &account.product, &account.id).await?;
            Ok::<_, Error>(key_delete(&tx, &account.product, &account.id, id).await?)
        });
        if !deleted.await? {
            return Err(Error::NotFound("provider key"));
        }
        Ok(())
    }

    async fn list(
        &self,
        account: &Account,
        request: ListProviderKeysRequest,
    ) -> Result<ListProviderKeysResponse, Error> {
        let scope = ["keys", &account.product, &account.id];
        let (size, below) = (Pages::size(request.page_size)?, self.pages.read(&scope, &request.page_token)?);
        let db = &self.keys.ready()?.db;
        let mut rows = key_list(db, &account.product, &account.id, &below, KEYS_MOST).await?;
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| self.pages.sign(&scope, &row.id));
        let keys = rows.into_iter().map(shown).collect();
        Ok(ListProviderKeysResponse { keys, next_page_token: next.unwrap_or_default() })
    }

    async fn uses(
        &self,
        account: &Account,
        request: ListProviderKeyUsageRequest,
    ) -> Result<ListProviderKeyUsageResponse, Error> {
        let scope = ["uses", &account.product, &account.id, &request.id];
        let (size, below) = (Pages::size(request.page_size)?, self.pages.read(&scope, &request.page_token)?);
        let db = &self.keys.ready()?.db;
        let most = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
        let mut rows = use_list(db, &account.product, &account.id, &request.id, &below, most).await?;
        let is_theirs = async || key_get(db, &account.product, &account.id, &request.id).await;
        // What a key was used for stays when the key has gone.
        if rows.is_empty() && below.is_empty() && is_theirs().await?.is_none() {
            return Err(Error::NotFound("provider key"));
        }
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| self.pages.sign(&scope, &row.id));
        let uses = rows.into_iter().map(used).collect();
        Ok(ListProviderKeyUsageResponse { uses, next_page_token: next.unwrap_or_default() })
    }
}

/// What is shown of a key: never the key.
fn shown(row: KeyRow) -> ProviderKey {
    let KeyRow { id, provider, name, last_four, active, base_url, created_at, used_at, .. } = row;
    ProviderKey { id, provider, name, last_four, active, base_url, created_at, used_at }
}

fn used(row: UseRow) -> ProviderKeyUse {
    let UseRow { model, prompt_tokens, completion_tokens, outcome, created_at, .. } = row;
    ProviderKeyUse { model, prompt_tokens, completion_tokens, outcome, created_at }
}

#[tonic::async_trait]
impl ProviderKeyService for ProviderKeyApi {
    async fn list_provider_keys(
        &self,
        request: Request<ListProviderKeysRequest>,
    ) -> Result<Response<ListProviderKeysResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.list(&account, request.into_inner()).await?))
    }

    async fn create_provider_key(
        &self,
        request: Request<CreateProviderKeyRequest>,
    ) -> Result<Response<ProviderKey>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.create(&account, request.into_inner()).await?))
    }

    async fn update_provider_key(
        &self,
        request: Request<UpdateProviderKeyRequest>,
    ) -> Result<Response<ProviderKey>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.update(&account, request.into_inner()).await?))
    }

    async fn delete_provider_key(
        &self,
        request: Request<DeleteProviderKeyRequest>,
    ) -> Result<Response<DeleteProviderKeyResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        self.delete(&account, &request.into_inner().id).await?;
        Ok(Response::new(DeleteProviderKeyResponse { ok: true }))
    }

    async fn list_provider_key_usage(
        &self,
        request: Request<ListProviderKeyUsageRequest>,
    ) -> Result<Response<ListProviderKeyUsageResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.uses(&account, request.into_inner()).await?))
    }
}
