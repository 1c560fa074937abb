//! `AuditService`.
use std::fmt::Write;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_proto::identity::v1::audit_service_server::AuditService;
use weft_proto::identity::v1::{
    AuditEvent, AuditFault, ListAuditEventsRequest, ListAuditEventsResponse, VerifyAuditRequest, VerifyAuditResponse,
};

use super::Identity;
use crate::audit;
use crate::domain::page::Page;
use crate::error::Error;
use crate::store::audit::{AuditFilter, AuditKind, AuditRow, audit_list};

/// The service behind `weft.identity.v1.AuditService`.
pub struct AuditApi(pub Arc<Identity>);

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.audit_events(caller.user()?, request.into_inner()).await?))
    }

    async fn verify_audit(
        &self,
        request: Request<VerifyAuditRequest>,
    ) -> Result<Response<VerifyAuditResponse>, Status> {
        let caller = Caller::of(&request)?;
        let report = audit::look(&self.0.db, &self.0.secrets, &caller.user()?.prd).await?;
        Ok(Response::new(VerifyAuditResponse {
            ok: report.is_ok(),
            events: report.events,
            last_number: report.last_number,
            last_hash: hex(&report.last_hash),
            faults: report
                .faults
                .iter()
                .map(|fault| AuditFault { number: fault.number, kind: fault.kind.as_str().to_owned() })
                .collect(),
        }))
    }
}

impl Identity {
    async fn audit_events(
        &self,
        claims: &Claims,
        request: ListAuditEventsRequest,
    ) -> Result<ListAuditEventsResponse, Error> {
        let ListAuditEventsRequest { page_size, page_token, account_id, kind } = request;
        if !kind.is_empty() && !AuditKind::is_stored(&kind) {
            return Err(Error::InvalidField("there is no such kind of audit event, leave it out for all"));
        }
        let list = format!("audit {} {} {kind} {account_id}", claims.prd, claims.sub);
        let place = self.secrets.page_place(&list, &page_token)?;
        let before = if place.is_empty() { i64::MAX } else { place.parse().map_err(|_| Error::InvalidPageToken)? };
        let page = Page::new(page_size, 0, 0, place)?;
        let filter = AuditFilter { account_id, kind };
        let (rows, more) = page.cut(audit_list(&self.db, &claims.prd, &filter, before, page.size).await?);
        let last = rows.last().filter(|_| more);
        let next_page_token =
            last.map(|row| self.secrets.page_token(&list, &row.number.to_string())).unwrap_or_default();
        Ok(ListAuditEventsResponse { events: rows.into_iter().map(event).collect(), next_page_token })
    }
}

fn event(row: AuditRow) -> AuditEvent {
    AuditEvent {
        number: row.number,
        kind: row.kind,
        account_id: row.account_id.unwrap_or_default(),
        session_id: row.session_id.unwrap_or_default(),
        actor_id: row.actor_id.unwrap_or_default(),
        detail: row.detail.unwrap_or_default(),
        request_id: row.request_id,
        created_at: row.at,
        hash: hex(&row.hash),
    }
}

/// In lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
