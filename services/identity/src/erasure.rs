//! What is left to do when an account was deleted here: other services forget it too. A job, so that neither a crash nor
//! an outage stops it.
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use weft_db::jobs::{self, Job, NewJob};
use weft_db::{DbError, Tx};
use weft_runtime::Shutdown;

use crate::api::Identity;
use crate::error::Error;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};

/// Which jobs these are.
const KIND: &str = "erase_account";
/// How often jobs are looked for besides when one is added.
const EVERY: Duration = Duration::from_secs(1);
/// Longer than a service may take.
const LEASE: Duration = Duration::from_secs(60);
/// A job that failed so often begins anew, and is never given up.
const ATTEMPTS: i64 = 10;
/// The wait between attempts from then on, in ms.
const PAUSE_MS: i64 = 10 * 60 * 1000;
/// What was under way when the sessions ended may write for so long, in ms; then everything is deleted once more.
const AGAIN_MS: i64 = 15 * 60 * 1000;
/// Marks the job of that second time.
const AGAIN: &str = " again";

/// The job for an account.
pub fn job(product: &str, account_id: &str, now_ms: i64) -> NewJob {
    new_job(product, account_id, "", now_ms)
}

fn new_job(product: &str, account_id: &str, mark: &str, run_at: i64) -> NewJob {
    let id = format!("{KIND} {account_id}{mark}");
    NewJob { product: product.to_owned(), id, kind: KIND, payload: account_id.to_owned(), run_at }
}

/// Erases until the shutdown.
pub async fn run(identity: Arc<Identity>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = identity.erasure_due.notified() => {}
            () = sleep(EVERY) => {}
        }
        while !shutdown.is_triggered() {
            match next(&identity).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "an erasure could not be seen to, trying again in {EVERY:?}");
                    break;
                }
            }
        }
    }
}

/// Sees to one job; false if none is due.
async fn next(identity: &Identity) -> Result<bool, Error> {
    let db = &identity.db;
    let claimed = jobs::claim(db, KIND, identity.clock.now_ms(), LEASE, 1).await?;
    let Some(job) = claimed.into_iter().next() else { return Ok(false) };
    let Err(why) = ask_all(identity, &job).await else {
        return db
            .write("erased", async |tx: Tx| finish(&tx, &job, identity.clock.now_ms()).await)
            .await
            .map(|()| true);
    };
    tracing::warn!(why, attempt = job.attempts, "not every service has erased an account yet, all are asked again");
    let now_ms = identity.clock.now_ms();
    if job.attempts < ATTEMPTS {
        jobs::retry(db, &job, now_ms, &why).await?;
        return Ok(true);
    }
    let mark = if job.id.ends_with(AGAIN) { AGAIN } else { "" };
    let anew = new_job(&job.product, &job.payload, mark, now_ms + PAUSE_MS);
    db.write("erase later", async |tx: Tx| {
        if jobs::done(&tx, &job).await? {
            jobs::enqueue(&tx, &anew).await?;
        }
        Ok::<_, DbError>(())
    })
    .await?;
    Ok(true)
}

/// All at once, so that none waits for another that is away. Who has forgotten the account already says so again.
async fn ask_all(identity: &Identity, job: &Job) -> Result<(), String> {
    let asked = identity.keepers.iter().map(|keeper| keeper.erase(&job.product, &job.payload));
    let failed: Vec<String> = join_all(asked).await.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
}

/// The first time the erasure ends, once however many worked at it; the second time leaves no trace.
async fn finish(tx: &Tx, job: &Job, now_ms: i64) -> Result<(), Error> {
    if !jobs::done(tx, job).await? || job.id.ends_with(AGAIN) {
        return Ok(());
    }
    jobs::enqueue(tx, &new_job(&job.product, &job.payload, AGAIN, now_ms + AGAIN_MS)).await?;
    let event = AuditEvent {
        product: &job.product,
        kind: AuditKind::Erased,
        account_id: Some(&job.payload),
        session_id: None,
        request_id: &job.id,
        at: now_ms,
        actor_id: None,
        detail: None,
    };
    Ok(audit_insert(tx, &event).await?)
}
