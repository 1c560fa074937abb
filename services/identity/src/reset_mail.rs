//! The mail with a link to a new password: a job, so that asking for it takes the same time whoever asks, and so that a
//! crash between the request and the mail loses nothing. After a crash a mail may go out twice, each with a link of its
//! own.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weft_db::jobs::{self, Job, NewJob};
use weft_db::{DbError, Tx};
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::domain::token::ResetToken;
use crate::error::Error;
use crate::mail::{Mail, MailError, Mailer};
use crate::store::account::account_find;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::reset::{NewReset, reset_count_sent, reset_insert, reset_mark_sent};

/// Which jobs these are.
const KIND: &str = "password_reset_mail";
/// How long a link is good for, in ms.
pub const LINK_MS: i64 = 30 * 60 * 1000;
/// Most mails an account is sent within [`WITHIN_MS`]: more would be somebody's mischief.
const MOST_MAILS: i64 = 5;
/// In ms.
pub const WITHIN_MS: i64 = 60 * 60 * 1000;
/// How often jobs are looked for besides when one is added: those of other replicas, and those to be tried again.
const EVERY: Duration = Duration::from_secs(1);
/// Longer than one mail may take.
const LEASE: Duration = Duration::from_secs(60);
/// How often a mail is tried, over about an hour.
const ATTEMPTS: i64 = 12;

/// A job for the account, or for nobody: then it ends with nothing done. One waits for each address.
pub fn job(product: &str, address: &str, account_id: String, now_ms: i64) -> NewJob {
    let id = format!("{KIND} {address}");
    NewJob { product: product.to_owned(), id, kind: KIND, payload: account_id, run_at: now_ms }
}

/// Sends mails until the shutdown.
pub async fn run(identity: Arc<Identity>, mailer: Mailer, app_url: String, shutdown: Shutdown) {
    let sending = Sending { identity, mailer, app_url };
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = sending.identity.mail_due.notified() => {}
            () = sleep(EVERY) => {}
        }
        while !shutdown.is_triggered() {
            match sending.next().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "a mail could not be seen to, trying again in {EVERY:?}");
                    break;
                }
            }
        }
    }
}

struct Sending {
    identity: Arc<Identity>,
    mailer: Mailer,
    app_url: String,
}

impl Sending {
    /// Sees to one job; false if none is due.
    async fn next(&self) -> Result<bool, Error> {
        let db = &self.identity.db;
        let now_ms = self.identity.clock.now_ms();
        let Some(job) = jobs::claim(db, KIND, now_ms, LEASE, 1).await?.into_iter().next() else { return Ok(false) };
        let sent_since = now_ms - WITHIN_MS;
        let account = account_find(db, &job.product, &job.payload).await?;
        let (Some(account), Some(product)) = (account, self.identity.products.get(&job.product)) else {
            return self.end(&job, None).await;
        };
        if reset_count_sent(db, &job.product, &account.id, sent_since).await? >= MOST_MAILS {
            return self.end(&job, None).await;
        }
        let token = ResetToken::generate()?;
        let hash = self.identity.secrets.reset_hash(&token);
        let reset = NewReset {
            product: &job.product,
            hash: &hash,
            account_id: &account.id,
            created_at: now_ms,
            expires_at: now_ms + LINK_MS,
        };
        reset_insert(db, &reset).await?;
        match self.mailer.send(self.mail(account.email, &product.name, &job.product, &token, now_ms)).await {
            Ok(()) => self.end(&job, Some(&hash)).await,
            Err(MailError::Later(why)) if job.attempts < ATTEMPTS => {
                tracing::warn!(why, attempt = job.attempts, "a mail did not go out, it is tried again");
                jobs::retry(db, &job, self.identity.clock.now_ms(), &why).await?;
                Ok(true)
            }
            Err(error) => {
                tracing::error!(why = %error, account_id = account.id, "a mail did not go out and is given up");
                self.end(&job, None).await
            }
        }
    }

    /// The job is over; with the hash of the link if one was sent. Should another worker have it by now, that one sends
    /// another link.
    async fn end(&self, job: &Job, sent: Option<&str>) -> Result<bool, Error> {
        let now_ms = self.identity.clock.now_ms();
        let event = AuditEvent {
            product: &job.product,
            kind: AuditKind::PasswordResetSent,
            account_id: Some(&job.payload),
            session_id: None,
            request_id: &job.id,
            at: now_ms,
            actor_id: None,
            detail: None,
        };
        self.identity
            .db
            .write("reset mail", async |tx: Tx| {
                jobs::done(&tx, job).await?;
                if let Some(hash) = sent {
                    reset_mark_sent(&tx, &job.product, hash, now_ms).await?;
                    audit_insert(&tx, &event).await?;
                }
                Ok::<_, DbError>(())
            })
            .await?;
        Ok(true)
    }

    /// The link leads to the app that the operator has set, whatever the request's headers said.
    fn mail(&self, to: String, name: &str, slug: &str, token: &ResetToken, at: i64) -> Mail {
        let base = self.app_url.trim_end_matches('/');
        let link = format!("{base}/reset-password?product={slug}&token={}", token.text());
        let text = format!(
            "Somebody asked for a new password for your account at {name}.\n\n\
             To choose one, open this within 30 minutes:\n\n{link}\n\n\
             It works once, and signs you out everywhere. If it was not you, do nothing: your password stays as it is.\n"
        );
        Mail { to, subject: format!("A new password for {name}"), text, at }
    }
}
