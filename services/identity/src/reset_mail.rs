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
use crate::store::account::{account_find, account_lock};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::reset::{NewReset, reset_has_job, reset_insert, reset_mark_sent, reset_sent};

/// Which jobs these are.
const KIND: &str = "password_reset_mail";
/// How long a link is good for, in ms.
pub const LINK_MS: i64 = 30 * 60 * 1000;
/// Most mails an account is sent within [`LINK_MS`], so that one of their links is good for who asked. More would be
/// somebody's mischief; they wait.
const MOST_MAILS: usize = 5;
/// The least time from one mail of an account to the next, in ms.
const APART_MS: i64 = 2 * 60 * 1000;
/// How often jobs are looked for besides when one is added: those of other replicas, and those to be tried again.
const EVERY: Duration = Duration::from_secs(1);
/// Longer than one mail may take.
const LEASE: Duration = Duration::from_secs(60);
/// How often a mail is tried, over about an hour.
const ATTEMPTS: i64 = 12;

/// A job for the account, or for nobody: then it ends with nothing done. One waits for each address.
pub fn job(product: &str, address: &str, account_id: String, now_ms: i64) -> NewJob {
    NewJob { product: product.to_owned(), id: job_id(address), kind: KIND, payload: account_id, run_at: now_ms }
}

/// The job of an address, by its keyed hash.
pub fn job_id(address: &str) -> String {
    format!("{KIND} {address}")
}

/// From when on an account may be sent another mail, if it was sent some at these times, newest first.
fn next_mail(sent: &[i64]) -> i64 {
    let apart = sent.first().map_or(0, |at| at + APART_MS);
    sent.get(MOST_MAILS - 1).map_or(apart, |at| apart.max(at + LINK_MS))
}

/// What became of a job before a mail is sent.
enum Begun {
    /// The link is stored.
    Ready,
    /// It waits for its time.
    Later,
    /// The password was changed meanwhile, so nobody wants it any more.
    Gone,
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
        let account = account_find(db, &job.product, &job.payload).await?;
        let (Some(account), Some(product)) = (account, self.identity.products.get(&job.product)) else {
            return self.end(&job, None).await;
        };
        let token = ResetToken::generate()?;
        let hash = self.identity.secrets.reset_hash(&token);
        let reset = NewReset {
            product: &job.product,
            hash: &hash,
            account_id: &account.id,
            created_at: now_ms,
            expires_at: now_ms + LINK_MS,
        };
        match db.write("reset link", async |tx: Tx| begin(&tx, &job, &reset).await).await? {
            Begun::Ready => {}
            Begun::Later | Begun::Gone => return Ok(true),
        }
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

    /// The link leads to the app that the operator has set, whatever the request's headers said. The token is in the
    /// fragment, which a browser sends to nobody: it is in no server's log and no referrer.
    fn mail(&self, to: String, name: &str, slug: &str, token: &ResetToken, at: i64) -> Mail {
        let base = self.app_url.trim_end_matches('/');
        let link = format!("{base}/reset-password?product={slug}#token={}", token.text());
        let text = format!(
            "Somebody asked for a new password for your account at {name}.\n\n\
             To choose one, open this within 30 minutes:\n\n{link}\n\n\
             It works once, and signs you out everywhere. If it was not you, do nothing: your password stays as it is.\n"
        );
        Mail { to, subject: format!("A new password for {name}"), text, at }
    }
}

/// Stores the link if its time has come. A change of the password deletes the job under the account's lock, so that no link
/// is made after it.
async fn begin(tx: &Tx, job: &Job, reset: &NewReset<'_>) -> Result<Begun, DbError> {
    let locked = account_lock(tx, reset.product, reset.account_id).await?.is_some();
    if !locked || !reset_has_job(tx, &job.product, &job.id).await? {
        return Ok(Begun::Gone);
    }
    let alive_ms = reset.created_at - LINK_MS;
    let sent = reset_sent(tx, reset.product, reset.account_id, alive_ms, MOST_MAILS as i64).await?;
    let run_at = next_mail(&sent);
    if run_at > reset.created_at {
        // Whoever asks meanwhile finds it waiting, and is sent this one.
        if jobs::done(tx, job).await? {
            let (product, id) = (job.product.clone(), job.id.clone());
            jobs::enqueue(tx, &NewJob { product, id, kind: KIND, payload: job.payload.clone(), run_at }).await?;
        }
        return Ok(Begun::Later);
    }
    reset_insert(tx, reset).await?;
    Ok(Begun::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_are_apart_and_no_more_than_there_are_good_links() {
        assert_eq!(next_mail(&[]), 0);
        assert_eq!(next_mail(&[1_000]), 1_000 + APART_MS);
        let sent: Vec<i64> = (0..5).rev().map(|number| number * APART_MS).collect();
        assert_eq!(next_mail(&sent[1..]), sent[1] + APART_MS);
        assert_eq!(next_mail(&sent), LINK_MS);
    }
}
