//! `KeyService`.
use std::sync::Arc;

use tonic::body::Body;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use weft_auth::Signer;
use weft_proto::Channel;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{GetJwksRequest, Jwks, ListRevocationsRequest, ListRevocationsResponse, Revocation};

use super::Identity;
use crate::error::Error;
use crate::keys;
use crate::store::revocation::{revocation_last, revocation_list};

/// Most sessions of one page, and how many there are if the caller does not say.
const PAGE_MOST: i64 = 1000;

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
        let revocations =
            rows.into_iter().map(|row| Revocation { session_id: row.session_id, expires_at: row.expires_at });
        Ok(ListRevocationsResponse { revocations: revocations.collect(), next_page_token: next.to_string() })
    }
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn get_jwks(&self, _request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        let signers = keys::load(&self.0.db, &self.0.secrets).await?;
        Ok(Response::new(Jwks { keys: signers.iter().map(Signer::jwk).collect() }))
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        Ok(Response::new(self.page(request.into_inner()).await?))
    }
}

/// The position in a page token. It is no secret and bound to nobody: only services of ours may ask, and each of
/// them may see all.
fn position(page_token: &str) -> Result<i64, Error> {
    match page_token {
        "" => Ok(0),
        text => text.parse().ok().filter(|position| *position >= 0).ok_or(Error::InvalidPageToken),
    }
}
