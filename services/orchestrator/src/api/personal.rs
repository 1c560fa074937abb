//! `weft.orchestrator.v1.PersonalDataService`.
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_db::Tx;
use weft_product::{Product, Products};
use weft_proto::orchestrator::v1::personal_data_service_server::PersonalDataService;
use weft_proto::orchestrator::v1::{EraseAccountRequest, EraseAccountResponse, ExportAccountRequest, ExportedPart};

use crate::conversations::{Conversations, Cursor};
use crate::error::Error;
use crate::keys::{KEYS_MOST, Keys};
use crate::store::personal::{PART_ROWS, personal_delete_keys, personal_delete_uses, personal_uses};
use crate::store::provider_key::{key_list, key_lock};

/// Longest id of an account in bytes.
const ID_BYTES_MOST: usize = 128;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct PersonalDataApi {
    /// The keys.
    pub keys: Keys,
    /// What was said.
    pub conversations: Conversations,
    /// Which product keeps what.
    pub products: Arc<Products>,
}

/// Where an export goes on.
#[derive(Clone)]
enum Next {
    Keys,
    /// After this key and this call.
    Uses(String, String),
    Conversations(Cursor),
}

#[tonic::async_trait]
impl PersonalDataService for PersonalDataApi {
    type ExportAccountStream = BoxStream<'static, Result<ExportedPart, Status>>;

    async fn export_account(
        &self,
        request: Request<ExportAccountRequest>,
    ) -> Result<Response<Self::ExportAccountStream>, Status> {
        let product = self.product(&Caller::of(&request)?)?;
        let account_id = account_id(request.into_inner().account_id)?;
        // Before the first part: whoever cannot have it is told so at once.
        self.keys.ready()?;
        let from = (self.clone(), product, account_id, Some(Next::Keys));
        let parts = stream::try_unfold(from, |(api, product, account_id, mut next)| async move {
            while let Some(now) = next {
                let may_miss = matches!(now, Next::Conversations(_));
                let (name, rows, then) = api.part(&product, &account_id, now).await?;
                next = then;
                // Most accounts have no conversations, or not of both kinds.
                if may_miss && rows.as_array().is_some_and(Vec::is_empty) {
                    continue;
                }
                let part = ExportedPart { name: name.to_owned(), json: rows.to_string() };
                return Ok::<_, Status>(Some((part, (api, product, account_id, next))));
            }
            Ok(None)
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn erase_account(
        &self,
        request: Request<EraseAccountRequest>,
    ) -> Result<Response<EraseAccountResponse>, Status> {
        let product = self.product(&Caller::of(&request)?)?;
        let account_id = account_id(request.into_inner().account_id)?;
        self.erase(&product, &account_id).await?;
        Ok(Response::new(EraseAccountResponse { ok: true }))
    }
}

impl PersonalDataApi {
    fn product(&self, caller: &Caller) -> Result<Arc<Product>, Error> {
        self.products.get(&caller.product).cloned().ok_or(Error::NotFound("product"))
    }

    /// The keys first: what has gone is used no more.
    async fn erase(&self, product: &Product, account_id: &str) -> Result<(), Error> {
        self.erase_keys(&product.slug, account_id).await?;
        self.conversations.erase(product, account_id).await
    }

    async fn erase_keys(&self, product: &str, account_id: &str) -> Result<(), Error> {
        let db = &self.keys.ready()?.db;
        let changing = self.keys.changing(product, account_id);
        db.write("erase account", async |tx: Tx| {
            // Whoever is just adding one is waited for.
            key_lock(&tx, product, account_id).await?;
            personal_delete_keys(&tx, product, account_id).await
        })
        .await?;
        drop(changing);
        while personal_delete_uses(db, product, account_id).await? >= PART_ROWS.unsigned_abs() {}
        Ok(())
    }

    /// One part of an export, and where the next begins, if there is one. The secret of a key is its provider's to give out, not ours.
    async fn part(
        &self,
        product: &Product,
        account_id: &str,
        next: Next,
    ) -> Result<(&'static str, Value, Option<Next>), Error> {
        let (db, slug) = (&self.keys.ready()?.db, product.slug.as_str());
        let (key_id, use_id) = match next {
            Next::Keys => {
                let rows = key_list(db, slug, account_id, "", KEYS_MOST).await?.into_iter().map(|row| {
                    json!({"id": row.id, "provider": row.provider, "name": row.name, "last_four": row.last_four,
                           "active": row.active, "base_url": row.base_url, "created_at": row.created_at,
                           "used_at": row.used_at})
                });
                return Ok(("provider_keys", rows.collect(), Some(Next::Uses(String::new(), String::new()))));
            }
            Next::Uses(key_id, use_id) => (key_id, use_id),
            Next::Conversations(cursor) => {
                let (name, rows, next) = self.conversations.export(product, account_id, cursor).await?;
                return Ok((name, rows, next.map(Next::Conversations)));
            }
        };
        let rows = personal_uses(db, slug, account_id, (&key_id, &use_id)).await?;
        let last = rows.last().filter(|_| rows.len() as i64 == PART_ROWS);
        let next = last.map_or(Next::Conversations(Cursor::first()), |row| {
            Next::Uses(row.provider_key_id.clone(), row.id.clone())
        });
        let rows = rows.iter().map(|row| {
            json!({"provider_key_id": row.provider_key_id, "model": row.model, "prompt_tokens": row.prompt_tokens,
                   "completion_tokens": row.completion_tokens, "outcome": row.outcome, "created_at": row.created_at})
        });
        Ok(("provider_key_uses", rows.collect(), Some(next)))
    }
}

fn account_id(id: String) -> Result<String, Error> {
    if (1..=ID_BYTES_MOST).contains(&id.len()) {
        Ok(id)
    } else {
        Err(Error::Invalid("account_id must have 1 to 128 bytes".into()))
    }
}
