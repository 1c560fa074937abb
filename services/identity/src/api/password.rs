//! `PasswordService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_core::new_id;
use weft_db::{DbError, Tx, jobs};
use weft_proto::identity::v1::password_service_server::PasswordService;
use weft_proto::identity::v1::{
    ChangePasswordRequest, ChangePasswordResponse, ForgotPasswordRequest, ForgotPasswordResponse, ResetPasswordRequest,
    ResetPasswordResponse,
};

use super::{Identity, end_sessions};
use crate::domain::account::Email;
use crate::domain::link::LinkKind;
use crate::domain::password;
use crate::domain::session::EndReason;
use crate::domain::token::LinkToken;
use crate::error::Error;
use crate::link_mail;
use crate::store::account::{
    account_by_email, account_credential, account_lock, account_set_password, account_set_verified,
};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::failure::failure_delete_all;
use crate::store::link::{link_delete_all, link_delete_job, link_find};

/// The service behind `weft.identity.v1.PasswordService`.
pub struct PasswordApi(pub Arc<Identity>);

#[tonic::async_trait]
impl PasswordService for PasswordApi {
    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ended = self.0.change_password(&caller, caller.user()?, request.into_inner()).await?;
        Ok(Response::new(ChangePasswordResponse { ended_sessions: i64::try_from(ended).unwrap_or(i64::MAX) }))
    }

    async fn forgot_password(
        &self,
        request: Request<ForgotPasswordRequest>,
    ) -> Result<Response<ForgotPasswordResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.forgot_password(&caller, &request.into_inner().email).await?;
        Ok(Response::new(ForgotPasswordResponse { ok: true }))
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.reset_password(&caller, request.into_inner()).await?;
        Ok(Response::new(ResetPasswordResponse { ok: true }))
    }
}

impl Identity {
    /// Sets another password for who knows the present one; says how many other sessions ended. A wrong one counts as
    /// a failed login: whoever has found an open app guesses no better than at the door.
    async fn change_password(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: ChangePasswordRequest,
    ) -> Result<u64, Error> {
        let product = self.password_product(caller)?;
        if request.old_password.is_empty() {
            return Err(Error::Missing("old_password"));
        }
        password::check(&request.new_password)?;
        let place = self.hashing.place()?;
        let row = account_credential(&self.db, &claims.prd, &claims.sid, &claims.sub).await?;
        let row = row.ok_or(Error::InvalidAccessToken)?;
        let address = self.secrets.address_hash(&row.email);
        self.check_failures(&self.db, product, &address).await?;
        if !place.verify_own(request.old_password.into(), row.password_hash.clone()).await? {
            let now_ms = self.clock.now_ms();
            self.note_failure(product, &address, &event(caller, AuditKind::LoginFailed, &claims.sub, now_ms)).await?;
            return Err(Error::WrongPassword);
        }
        let hash = self.hashing.place()?.hash(request.new_password.into()).await?;
        let now_ms = self.clock.now_ms();
        let event = event(caller, AuditKind::PasswordChanged, &claims.sub, now_ms);
        let (ended, rows) = self
            .db
            .write("change password", async |tx: Tx| {
                // Again, as for a login: guesses that were hashed at the same time learn nothing.
                self.check_failures(&tx, product, &address).await?;
                if !account_set_password(&tx, &claims.prd, &claims.sub, Some(&row.password_hash), &hash).await? {
                    return Err(Error::PasswordChanged);
                }
                void_links(&tx, &claims.prd, &claims.sub, &address).await?;
                audit_insert(&tx, &event).await?;
                let keep = Some(claims.sid.as_str());
                Ok(end_sessions(&tx, &claims.prd, &claims.sub, keep, EndReason::Password, now_ms).await?)
            })
            .await?;
        self.refuse(rows);
        Ok(ended)
    }

    /// Takes the wish down. Whether anybody has the address makes no difference here: one look-up and one job, and the
    /// rest happens later.
    async fn forgot_password(&self, caller: &Caller, email: &str) -> Result<(), Error> {
        let product = self.password_product(caller)?;
        if email.is_empty() {
            return Err(Error::Missing("email"));
        }
        let nobody = new_id();
        let found = match Email::parse(email) {
            Ok(email) => account_by_email(&self.db, &product.slug, &email).await?,
            Err(_) => None,
        };
        let account_id = found.map_or(nobody, |row| row.id);
        let address = self.secrets.address_hash(email);
        let job = link_mail::job(LinkKind::PasswordReset, &product.slug, &address, account_id, self.clock.now_ms());
        self.db.write("forgot password", async |tx: Tx| jobs::enqueue(&tx, &job).await).await?;
        self.mail_due.notify_one();
        Ok(())
    }

    /// Sets a password for who has a link. The account's lock comes first, then the link is looked at again: of several
    /// at once, those who come later find it gone.
    async fn reset_password(&self, caller: &Caller, request: ResetPasswordRequest) -> Result<(), Error> {
        let product = self.password_product(caller)?;
        password::check(&request.new_password)?;
        let token = LinkToken::parse(&request.token).ok_or(Error::InvalidLink)?;
        let token_hash = self.secrets.link_hash(LinkKind::PasswordReset, &token);
        let slug = product.slug.as_str();
        // Before the hash, which is dear: who has no link gets none.
        let link = link_find(&self.db, slug, LinkKind::PasswordReset, &token_hash, self.clock.now_ms()).await?;
        let account_id = link.and_then(|link| link.account_id).ok_or(Error::InvalidLink)?;
        let hash = self.hashing.place()?.hash(request.new_password.into()).await?;
        let now_ms = self.clock.now_ms();
        let event = event(caller, AuditKind::PasswordReset, &account_id, now_ms);
        let (_, rows) = self
            .db
            .write("reset password", async |tx: Tx| {
                let account = account_lock(&tx, slug, &account_id).await?.ok_or(Error::InvalidLink)?;
                let address = self.secrets.address_hash(&account.email);
                link_find(&tx, slug, LinkKind::PasswordReset, &token_hash, now_ms).await?.ok_or(Error::InvalidLink)?;
                account_set_password(&tx, slug, &account_id, None, &hash).await?;
                void_links(&tx, slug, &account_id, &address).await?;
                account_set_verified(&tx, slug, &account_id, now_ms).await?;
                // Whoever guessed at the old password must not keep the owner from the new one.
                failure_delete_all(&tx, slug, &address).await?;
                audit_insert(&tx, &event).await?;
                Ok::<_, Error>(end_sessions(&tx, slug, &account_id, None, EndReason::Password, now_ms).await?)
            })
            .await?;
        self.refuse(rows);
        Ok(())
    }
}

/// Voids every link to a new password of an account, whose lock the caller holds, and the mail that waits.
async fn void_links(tx: &Tx, product: &str, account_id: &str, address: &str) -> Result<(), DbError> {
    link_delete_all(tx, product, LinkKind::PasswordReset, account_id).await?;
    link_delete_job(tx, product, &link_mail::job_id(LinkKind::PasswordReset, address)).await
}

fn event<'a>(caller: &'a Caller, kind: AuditKind, account_id: &'a str, at: i64) -> AuditEvent<'a> {
    AuditEvent {
        product: &caller.product,
        kind,
        account_id: Some(account_id),
        session_id: None,
        request_id: &caller.request_id,
        at,
        actor_id: None,
        detail: None,
    }
}
