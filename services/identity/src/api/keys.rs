//! `KeyService`.
use std::sync::Arc;

use tonic::body::Body;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use weft_auth::{Signer, key_of_session};
use weft_db::{DbError, Tx};
use weft_proto::Channel;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{
    GetJwksRequest, Jwks, ListRevocationsRequest, ListRevocationsResponse, ReportUseRequest, ReportUseResponse,
    Revocation,
};

use super::Identity;
use crate::domain::api_key;
use crate::error::Error;
use crate::keys;
use crate::store::api_key::api_key_mark_used;
use crate::store::revocation::{revocation_last, revocation_list};
use crate::store::token::token_mark_seen;

/// Most entries of one page, and how many there are if the caller does not say.
const PAGE_MOST: i64 = 1000;
/// Most uses of one report.
const REPORT_MOST: usize = 1000;
/// Longer than every token id, in bytes.
const TOKEN_ID_MOST_BYTES: usize = 64;

/// The service behind `weft.identity.v1.KeyService`.
#[derive(Clone)]
pub struct KeyApi(pub Arc<Identity>);

impl KeyApi {
    /// A client that calls this service without a network: our own guard reads keys and ended sessions by it, as
    /// the guard of every other service does over one.
    pub fn client(&self) -> KeyServiceClient<Channel> {
        let server = KeyServiceServer::new(self.clone());
        let channel = ServiceExt::<http::Request<Body>>::map_err(server, |never| match never {});
        KeyServiceClient::new(BoxCloneSyncService::new(channel))
    }

    async fn page(&self, request: ListRevocationsRequest) -> Result<ListRevocationsResponse, Error> {
        let after = position(&request.page_token)?;
        let limit = match i64::from(request.page_size) {
            0 => PAGE_MOST,
            size => size.clamp(1, PAGE_MOST),
        };
        let db = &self.0.db;
        let rows = revocation_list(db, after, self.0.clock.now_ms(), limit).await?;
        // Given out by a database that was put back to an older state since. Who is told so begins anew.
        if rows.is_empty() && after > revocation_last(db).await? {
            return Err(Error::InvalidPageToken);
        }
        let next = rows.last().map_or(after, |row| row.position);
        let revocations = rows.into_iter().map(|row| Revocation {
            id: row.ended_id,
            expires_at: row.expires_at,
            suspended: row.suspended,
            last_token_id: row.last_token_id.unwrap_or_default(),
        });
        Ok(ListRevocationsResponse { revocations: revocations.collect(), next_page_token: next.to_string() })
    }

    /// Writes down the first use of each access token, for Refresh to know that the answer which carried it arrived, and
    /// the minute in which an API key was used.
    async fn mark_used(&self, request: ReportUseRequest) -> Result<(), Error> {
        let mut ids = request.token_ids;
        if ids.len() > REPORT_MOST {
            return Err(Error::TooManyTokenIds);
        }
        ids.retain(|id| may_be_token_id(id));
        let of_key = |id: &String| key_of_session(id).map(str::to_owned);
        let keys: Vec<String> = ids.iter().filter_map(of_key).collect();
        ids.retain(|id| key_of_session(id).is_none());
        if ids.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let (tokens, of_keys) = (!ids.is_empty(), !keys.is_empty());
        let (ids, keys) = (serde_json::Value::from(ids).to_string(), serde_json::Value::from(keys).to_string());
        let now_ms = self.0.clock.now_ms();
        let marked = async |tx: Tx| {
            if tokens {
                token_mark_seen(&tx, &ids, now_ms).await?;
            }
            if of_keys {
                api_key_mark_used(&tx, &keys, api_key::minute(now_ms)).await?;
            }
            Ok::<_, DbError>(())
        };
        self.0.db.write("report use", marked).await?;
        Ok(())
    }
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn get_jwks(&self, _request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        // A secret that signs in place of the key pairs is shown to nobody, and theirs are no keys of tokens then.
        let pairs = !self.0.signer.kid().is_empty();
        let signers = if pairs { keys::load(&self.0.db, &self.0.secrets).await? } else { Vec::new() };
        Ok(Response::new(Jwks { keys: signers.iter().map(Signer::jwk).collect() }))
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        Ok(Response::new(self.page(request.into_inner()).await?))
    }

    async fn report_use(&self, request: Request<ReportUseRequest>) -> Result<Response<ReportUseResponse>, Status> {
        self.mark_used(request.into_inner()).await?;
        Ok(Response::new(ReportUseResponse {}))
    }
}

/// Whether an id could be one of ours; what cannot needs no look-up, and is not text that every database takes.
fn may_be_token_id(id: &str) -> bool {
    (1..=TOKEN_ID_MOST_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The position in a page token. It is no secret and bound to nobody: only services of ours may ask, and each of
/// them may see all.
fn position(page_token: &str) -> Result<i64, Error> {
    match page_token {
        "" => Ok(0),
        text => text.parse().ok().filter(|position| *position >= 0).ok_or(Error::InvalidPageToken),
    }
}
