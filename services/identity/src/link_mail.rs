//! Mails with a link: to a new password, to prove an address, to an organisation. Each is a job, so that asking for it
//! takes the same time whoever asks, and so that a crash between the request and the mail loses nothing. After a crash a
//! mail may go out twice, each with a link of its own.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use weft_db::jobs::{self, Job, NewJob};
use weft_db::{DbError, Tx};
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::domain::link::{
    KINDS, LinkKind, MOST_RESETS, PROOF_MS, RESET_MS, invitation_text, next_reset, proof_text, reset_text,
};
use crate::domain::token::LinkToken;
use crate::error::Error;
use crate::mail::{Mail, MailError, Mailer};
use crate::store::account::{account_find, account_lock};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::invitation::invitation_find;
use crate::store::link::{NewLink, link_has_job, link_insert, link_mark_sent, link_sent};

/// How often jobs are looked for besides when one is added: those of other replicas, and those to be tried again.
const EVERY: Duration = Duration::from_secs(1);
/// Longer than one mail may take.
const LEASE: Duration = Duration::from_secs(60);
/// How often a mail is tried, over about an hour.
const ATTEMPTS: i64 = 12;

/// A job for an account or an invitation (`subject_id`), or for nobody: then it ends with nothing done. One waits for
/// each `name`.
pub fn job(kind: LinkKind, product: &str, name: &str, subject_id: String, now_ms: i64) -> NewJob {
    let id = job_id(kind, name);
    NewJob { product: product.to_owned(), id, kind: kind.job(), payload: subject_id, run_at: now_ms }
}

/// The job of a name. For a new password that is the keyed hash of the address, else the account or the invitation.
pub fn job_id(kind: LinkKind, name: &str) -> String {
    format!("{} {name}", kind.job())
}

/// What a mail is made of.
struct Letter {
    /// The account or the invitation.
    subject_id: String,
    /// Whom it is for.
    to: String,
    /// When its link is void, in ms since 1970.
    expires_at: i64,
    /// Keyed hash of the address of an account; none for an invitation.
    address: Option<String>,
    /// Name of the organisation; empty for other mails.
    organisation: String,
}

/// What became of a job before a mail is sent.
enum Begun {
    /// The link is stored.
    Ready,
    /// It waits for its time.
    Later,
    /// Nobody wants it any more: the password was changed, the address proven.
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
        for kind in KINDS {
            sending.all(kind, &shutdown).await;
        }
    }
}

struct Sending {
    identity: Arc<Identity>,
    mailer: Mailer,
    app_url: String,
}

impl Sending {
    /// Sees to every job of a kind that is due.
    async fn all(&self, kind: LinkKind, shutdown: &Shutdown) {
        while !shutdown.is_triggered() {
            match self.next(kind).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "a mail could not be seen to, trying again in {EVERY:?}");
                    return;
                }
            }
        }
    }

    /// Sees to one job; false if none is due.
    async fn next(&self, kind: LinkKind) -> Result<bool, Error> {
        let db = &self.identity.db;
        let now_ms = self.identity.clock.now_ms();
        let job = jobs::claim(db, kind.job(), now_ms, LEASE, 1).await?.into_iter().next();
        let Some(job) = job else { return Ok(false) };
        let letter = self.letter(kind, &job, now_ms).await?;
        let (Some(letter), Some(product)) = (letter, self.identity.products.get(&job.product)) else {
            return self.end(kind, &job, None).await;
        };
        let token = LinkToken::generate()?;
        let hash = self.identity.secrets.link_hash(kind, &token);
        let invites = kind == LinkKind::Invitation;
        let link = NewLink {
            product: &job.product,
            hash: &hash,
            kind,
            account_id: Some(letter.subject_id.as_str()).filter(|_| !invites),
            invitation_id: Some(letter.subject_id.as_str()).filter(|_| invites),
            address: letter.address.as_deref(),
            created_at: now_ms,
            expires_at: letter.expires_at,
        };
        match db.write("mail link", async |tx: Tx| begin(&tx, &job, &link).await).await? {
            Begun::Ready => {}
            Begun::Later => return Ok(true),
            Begun::Gone => return self.end(kind, &job, None).await,
        }
        match self.mailer.send(self.mail(kind, letter, &product.name, &job.product, &token, now_ms)).await {
            Ok(()) => self.end(kind, &job, Some(&hash)).await,
            Err(MailError::Later(why)) if job.attempts < ATTEMPTS => {
                tracing::warn!(why, attempt = job.attempts, "a mail did not go out, it is tried again");
                jobs::retry(db, &job, self.identity.clock.now_ms(), &why).await?;
                Ok(true)
            }
            Err(error) => {
                tracing::error!(why = %error, kind = kind.as_str(), id = job.payload, "a mail did not go out and is given up");
                self.end(kind, &job, None).await
            }
        }
    }

    /// What the mail of a job is made of; none if there is nothing to send.
    async fn letter(&self, kind: LinkKind, job: &Job, now_ms: i64) -> Result<Option<Letter>, Error> {
        if kind == LinkKind::Invitation {
            let invited = invitation_find(&self.identity.db, &job.product, &job.payload).await?;
            let open = invited.filter(|row| row.ended_at.is_none() && row.expires_at > now_ms);
            return Ok(open.map(|row| Letter {
                subject_id: row.id,
                to: row.email,
                expires_at: row.expires_at,
                address: None,
                organisation: row.organisation,
            }));
        }
        let account = account_find(&self.identity.db, &job.product, &job.payload).await?;
        let proves = kind == LinkKind::EmailProof;
        Ok(account.filter(|row| !row.email.is_empty()).map(|row| Letter {
            address: Some(self.identity.secrets.address_hash(&row.email)),
            subject_id: row.id,
            to: row.email,
            expires_at: now_ms + if proves { PROOF_MS } else { RESET_MS },
            organisation: String::new(),
        }))
    }

    /// The job is over; with the hash of the link if one was sent. Should another worker have it by now, that one sends
    /// another link.
    async fn end(&self, kind: LinkKind, job: &Job, sent: Option<&str>) -> Result<bool, Error> {
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
            .write("mail sent", async |tx: Tx| {
                jobs::done(&tx, job).await?;
                if let Some(hash) = sent {
                    link_mark_sent(&tx, &job.product, hash, now_ms).await?;
                }
                if sent.is_some() && kind == LinkKind::PasswordReset {
                    audit_insert(&tx, &event).await?;
                }
                Ok::<_, DbError>(())
            })
            .await?;
        Ok(true)
    }

    /// The link leads to the app that the operator has set, whatever the request's headers said. The token is in the
    /// fragment, which a browser sends to nobody: it is in no server's log and no referrer.
    fn mail(&self, kind: LinkKind, letter: Letter, name: &str, slug: &str, token: &LinkToken, at: i64) -> Mail {
        let base = self.app_url.trim_end_matches('/');
        let link = format!("{base}/{}?product={slug}#token={}", kind.page(), token.text());
        let (subject, text) = match kind {
            LinkKind::PasswordReset => reset_text(name, &link),
            LinkKind::EmailProof => proof_text(name, &link),
            LinkKind::Invitation => invitation_text(name, &letter.organisation, &link),
        };
        Mail { to: letter.to, subject, text, at }
    }
}

/// Stores the link if its time has come.
async fn begin(tx: &Tx, job: &Job, link: &NewLink<'_>) -> Result<Begun, DbError> {
    if let Some(account_id) = link.account_id {
        // A new password and the proof of the address delete the job under the account's lock, so that no link is made
        // after them.
        let locked = account_lock(tx, link.product, account_id).await?.is_some();
        if !locked || !link_has_job(tx, &job.product, &job.id).await? {
            return Ok(Begun::Gone);
        }
    }
    if let (LinkKind::PasswordReset, Some(address)) = (link.kind, link.address) {
        let alive_ms = link.created_at - RESET_MS;
        let sent = link_sent(tx, link.product, link.kind, address, alive_ms, MOST_RESETS as i64).await?;
        let run_at = next_reset(&sent);
        if run_at > link.created_at {
            // Whoever asks meanwhile finds it waiting, and is sent this one.
            if jobs::done(tx, job).await? {
                let (product, id) = (job.product.clone(), job.id.clone());
                let again = NewJob { product, id, kind: link.kind.job(), payload: job.payload.clone(), run_at };
                jobs::enqueue(tx, &again).await?;
            }
            return Ok(Begun::Later);
        }
    }
    link_insert(tx, link).await?;
    Ok(Begun::Ready)
}
