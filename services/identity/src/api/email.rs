//! `EmailService`: proof that mail to an account's address reaches its owner.
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_db::{Tx, jobs};
use weft_proto::identity::v1::email_service_server::EmailService;
use weft_proto::identity::v1::{
    SendVerificationRequest, SendVerificationResponse, VerifyEmailRequest, VerifyEmailResponse,
};

use super::Identity;
use crate::domain::link::{LinkKind, MOST_PROOFS, PROOFS_WITHIN_MS};
use crate::domain::token::LinkToken;
use crate::error::Error;
use crate::link_mail;
use crate::store::account::{account_is_verified, account_lock, account_set_verified};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::link::{LinkRow, link_delete_all, link_delete_job, link_find, link_sent};
use crate::store::session::session_is_open;

/// The service behind `weft.identity.v1.EmailService`.
pub struct EmailApi(pub Arc<Identity>);

#[tonic::async_trait]
impl EmailService for EmailApi {
    async fn send_verification(
        &self,
        request: Request<SendVerificationRequest>,
    ) -> Result<Response<SendVerificationResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.send_verification(caller.user()?).await?;
        Ok(Response::new(SendVerificationResponse { ok: true }))
    }

    async fn verify_email(
        &self,
        request: Request<VerifyEmailRequest>,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.verify_email(&caller, &request.into_inner().token).await?;
        Ok(Response::new(VerifyEmailResponse { ok: true }))
    }
}

impl Identity {
    /// Leaves a job for the mail, unless the address is proven already. Who asks again while it waits is sent that one.
    async fn send_verification(&self, claims: &Claims) -> Result<(), Error> {
        let (product, id) = (claims.prd.as_str(), claims.sub.as_str());
        let now_ms = self.clock.now_ms();
        let job = link_mail::job(LinkKind::EmailProof, product, id, id.to_owned(), now_ms);
        self.db
            .write("send verification", async |tx: Tx| {
                let account = account_lock(&tx, product, id).await?.ok_or(Error::InvalidAccessToken)?;
                if !session_is_open(&tx, product, id, &claims.sid, now_ms).await? {
                    return Err(Error::InvalidAccessToken);
                }
                if account.email.is_empty() {
                    return Err(Error::NoEmail);
                }
                if account_is_verified(&tx, product, id).await? {
                    return Ok(());
                }
                let since_ms = now_ms - PROOFS_WITHIN_MS;
                let address = self.secrets.address_hash(&account.email);
                let sent = link_sent(&tx, product, LinkKind::EmailProof, &address, since_ms, MOST_PROOFS).await?;
                if let (true, Some(oldest)) = (sent.len() as i64 >= MOST_PROOFS, sent.last()) {
                    let left_ms = oldest + PROOFS_WITHIN_MS - now_ms;
                    return Err(Error::TooManyProofs(Duration::from_millis(left_ms.max(1).unsigned_abs())));
                }
                jobs::enqueue(&tx, &job).await?;
                Ok(())
            })
            .await?;
        self.mail_due.notify_one();
        Ok(())
    }

    /// Notes that the address is proven, by who has a link. The account's lock comes first, then the link is looked at
    /// again: of several at once, those who come later find it gone.
    async fn verify_email(&self, caller: &Caller, token: &str) -> Result<(), Error> {
        let product = self.product(caller)?.slug.as_str();
        let token = LinkToken::parse(token).ok_or(Error::InvalidLink)?;
        let hash = self.secrets.link_hash(LinkKind::EmailProof, &token);
        let now_ms = self.clock.now_ms();
        let find = link_find(&self.db, product, LinkKind::EmailProof, &hash, now_ms).await?;
        let LinkRow { account_id, address, .. } = find.ok_or(Error::InvalidLink)?;
        let account_id = account_id.ok_or(Error::InvalidLink)?;
        let event = AuditEvent {
            product,
            kind: AuditKind::EmailVerified,
            account_id: Some(&account_id),
            session_id: None,
            request_id: &caller.request_id,
            at: now_ms,
            actor_id: None,
            detail: None,
        };
        self.db
            .write("verify email", async |tx: Tx| {
                let account = account_lock(&tx, product, &account_id).await?.ok_or(Error::InvalidLink)?;
                let found = link_find(&tx, product, LinkKind::EmailProof, &hash, now_ms).await?;
                if found.is_none() || address.as_ref() != Some(&self.secrets.address_hash(&account.email)) {
                    return Err(Error::InvalidLink);
                }
                account_set_verified(&tx, product, &account_id, now_ms).await?;
                link_delete_all(&tx, product, LinkKind::EmailProof, &account_id).await?;
                let job_id = link_mail::job_id(LinkKind::EmailProof, &account_id);
                link_delete_job(&tx, product, &job_id).await?;
                Ok(audit_insert(&tx, &event).await?)
            })
            .await
    }
}
