//! `AuthService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims, Refusal};
use weft_db::Tx;
use weft_proto::identity::v1::auth_service_server::AuthService;
use weft_proto::identity::v1::{
    AccessToken, AuthTokens, ExchangeTokenRequest, GetMeRequest, LoginRequest, LogoutRequest, LogoutResponse,
    RefreshRequest, RegisterRequest, UserProfile,
};

use super::{Identity, client_of, revoke};
use crate::domain::session::EndReason;
use crate::error::Error;
use crate::store::account::{ProfileRow, account_profile};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::session::session_end;

/// The service behind `weft.identity.v1.AuthService`.
pub struct AuthApi(pub Arc<Identity>);

#[tonic::async_trait]
impl AuthService for AuthApi {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<AuthTokens>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.register(&caller, &client_of(request.metadata()), request.into_inner()).await?))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<AuthTokens>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.login(&caller, &client_of(request.metadata()), request.into_inner()).await?))
    }

    async fn exchange_token(&self, request: Request<ExchangeTokenRequest>) -> Result<Response<AccessToken>, Status> {
        let caller = Caller::of(&request)?;
        let client = client_of(request.metadata());
        Ok(Response::new(self.0.exchange_token(&caller, &client, request.into_inner()).await?))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<AuthTokens>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.refresh(&caller, request.into_inner()).await?))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.logout(&caller, caller.user()?).await?;
        Ok(Response::new(LogoutResponse { ok: true }))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<UserProfile>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let plan = self.0.entitlements.of(&claims.prd, &claims.sub);
        let (row, plan) = tokio::join!(self.0.profile(claims), plan);
        let row = row?;
        Ok(Response::new(UserProfile {
            id: claims.sub.clone(),
            email: row.email,
            tier: plan?.plan.clone(),
            product: claims.prd.clone(),
            created_at: row.created_at,
            email_verified: row.email_verified_at.is_some(),
        }))
    }
}

impl Identity {
    /// Ends the caller's session. Ending it again changes nothing.
    async fn logout(&self, caller: &Caller, claims: &Claims) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        let event = AuditEvent {
            session_id: Some(&claims.sid),
            ..AuditEvent::of(&claims.prd, AuditKind::Logout, &claims.sub, &caller.request_id, now_ms)
        };
        let revoked = self
            .db
            .write("logout", async |tx: Tx| {
                if !session_end(&tx, &claims.prd, &claims.sid, EndReason::Logout, now_ms).await? {
                    return Ok::<_, Error>(None);
                }
                audit_insert(&tx, &event).await?;
                Ok(Some(revoke(&tx, &claims.prd, &claims.sid, now_ms).await?))
            })
            .await?;
        if let Some(until_ms) = revoked {
            self.revocations.insert(claims.sid.as_str(), Refusal::Ended, until_ms);
        }
        Ok(())
    }

    /// The account behind an access token: one read.
    pub(super) async fn profile(&self, claims: &Claims) -> Result<ProfileRow, Error> {
        let row = account_profile(&self.db, &claims.prd, &claims.sid, &claims.sub).await?;
        row.filter(|row| row.ended_at.is_none()).ok_or(Error::InvalidAccessToken)
    }
}
