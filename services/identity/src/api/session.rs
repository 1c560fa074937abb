//! `SessionService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims, Refusal};
use weft_db::Tx;
use weft_proto::identity::v1::session_service_server::SessionService;
use weft_proto::identity::v1::{
    EndSessionRequest, EndSessionResponse, ListSessionsRequest, ListSessionsResponse, LogoutAllRequest,
    LogoutAllResponse, Session,
};

use super::{Identity, end_sessions, revoke};
use crate::domain::page::Page;
use crate::domain::session::EndReason;
use crate::error::Error;
use crate::store::account::account_lock;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::session::{SessionRow, session_end, session_is_open, session_list};

/// The service behind `weft.identity.v1.SessionService`.
pub struct SessionApi(pub Arc<Identity>);

#[tonic::async_trait]
impl SessionService for SessionApi {
    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.sessions(caller.user()?, request.into_inner()).await?))
    }

    async fn end_session(&self, request: Request<EndSessionRequest>) -> Result<Response<EndSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.end_session(&caller, caller.user()?, &request.into_inner().session_id).await?;
        Ok(Response::new(EndSessionResponse { ok: true }))
    }

    async fn logout_all(&self, request: Request<LogoutAllRequest>) -> Result<Response<LogoutAllResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ended = self.0.logout_all(&caller, caller.user()?, request.into_inner().keep_current).await?;
        Ok(Response::new(LogoutAllResponse { ended }))
    }
}

impl Identity {
    async fn sessions(&self, claims: &Claims, request: ListSessionsRequest) -> Result<ListSessionsResponse, Error> {
        let list = format!("sessions {} {}", claims.prd, claims.sub);
        let after = self.secrets.page_place(&list, &request.page_token)?;
        let page = Page::new(request.page_size, 0, 0, after)?;
        let rows = session_list(&self.db, &claims.prd, &claims.sub, self.clock.now_ms(), &page).await?;
        let (rows, more) = page.cut(rows);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map(|row| self.secrets.page_token(&list, &row.id)).unwrap_or_default();
        let sessions = rows.into_iter().map(|row| session(row, &claims.sid)).collect();
        Ok(ListSessionsResponse { sessions, next_page_token })
    }

    /// Ends one session of the caller's. Whether an id that is not one of them is somebody else's is not told, not even
    /// by the work: it is looked for among the caller's own only.
    async fn end_session(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        if !session_is_open(&self.db, &claims.prd, &claims.sub, id, now_ms).await? {
            return Err(Error::NoSession);
        }
        let event = event(caller, claims, AuditKind::SessionEnded, Some(id), now_ms);
        let until_ms = self
            .db
            .write("end session", async |tx: Tx| {
                check_open(&tx, claims, now_ms).await?;
                if !session_end(&tx, &claims.prd, id, EndReason::Ended, now_ms).await? {
                    return Err(Error::NoSession);
                }
                audit_insert(&tx, &event).await?;
                Ok(revoke(&tx, &claims.prd, id, now_ms).await?)
            })
            .await?;
        self.revocations.insert(id, Refusal::Ended, until_ms);
        Ok(())
    }

    /// Ends all sessions of the caller, or all others; says how many.
    async fn logout_all(&self, caller: &Caller, claims: &Claims, keep_current: bool) -> Result<i64, Error> {
        let now_ms = self.clock.now_ms();
        let keep = keep_current.then_some(claims.sid.as_str());
        let event = event(caller, claims, AuditKind::LogoutAll, Some(&claims.sid), now_ms);
        let (ended, rows) = self
            .db
            .write("logout all", async |tx: Tx| {
                account_lock(&tx, &claims.prd, &claims.sub).await?.ok_or(Error::InvalidAccessToken)?;
                check_open(&tx, claims, now_ms).await?;
                audit_insert(&tx, &event).await?;
                Ok::<_, Error>(end_sessions(&tx, &claims.prd, &claims.sub, keep, EndReason::Ended, now_ms).await?)
            })
            .await?;
        self.refuse(rows);
        Ok(i64::try_from(ended).unwrap_or(i64::MAX))
    }
}

/// That the caller's own session is not over: while its guard has not heard of that yet, a thief must not end the
/// session that ended theirs.
pub(super) async fn check_open(tx: &Tx, claims: &Claims, now_ms: i64) -> Result<(), Error> {
    let open = session_is_open(tx, &claims.prd, &claims.sub, &claims.sid, now_ms).await?;
    if open { Ok(()) } else { Err(Error::InvalidAccessToken) }
}

fn event<'a>(
    caller: &'a Caller,
    claims: &'a Claims,
    kind: AuditKind,
    session_id: Option<&'a str>,
    at: i64,
) -> AuditEvent<'a> {
    AuditEvent { session_id, ..AuditEvent::of(&claims.prd, kind, &claims.sub, &caller.request_id, at) }
}

fn session(row: SessionRow, current: &str) -> Session {
    Session {
        current: row.id == current,
        created_at: row.created_at,
        last_used_at: row.refreshed_at.max(row.seen_at.unwrap_or(row.refreshed_at)),
        expires_at: row.expires_at,
        client_address: row.client_address.unwrap_or_default(),
        user_agent: row.user_agent.unwrap_or_default(),
        id: row.id,
    }
}
