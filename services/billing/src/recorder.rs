//! Records calls that have ended, all that wait as one group: the calls of an account meet in its counter of the day, and
//! one after the other each would wait for the commit of the one before.
use std::slice;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use weft_db::{Db, Held, Tx};
use weft_proto::billing::v1::UsageRecord;
use weft_runtime::Mesh;

use crate::domain::day::day_of;
use crate::domain::usage::TOKENS_PER_DAY;
use crate::error::Error;
use crate::gather::Waiting;
use crate::store::calls::{Ended, calls_commit, calls_write};
use crate::store::idempotency::idempotency_find;
use crate::store::usage::counters;

/// A call and who waits for it.
struct Job {
    ended: Ended,
    answer: oneshot::Sender<Result<UsageRecord, Error>>,
}

/// Where calls are recorded. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Job>);

impl Recorder {
    /// Starts among the background work of `mesh`.
    pub fn start(db: &Db, mesh: &Mesh) -> Recorder {
        let (jobs, mut waiting) = Waiting::new(mesh.shutdown());
        let (db, held) = (db.clone(), db.held());
        mesh.tasks().spawn("recorder", async move {
            while let Some(jobs) = waiting.group().await {
                record(&db, &held, jobs).await;
            }
        });
        Recorder(jobs)
    }

    /// Records a call, once for its key; `Ok` only once it is durable.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once if too much waits, [`Error::Unsure`] if it may or may not have happened;
    /// [`Error::IdempotencyKeyReused`], [`Error::Invalid`] and the database.
    pub async fn record(&self, ended: Ended) -> Result<UsageRecord, Error> {
        let (answer, done) = oneshot::channel();
        self.0.try_send(Job { ended, answer }).map_err(|_| Error::Overloaded)?;
        done.await.unwrap_or(Err(Error::Unsure))
    }
}

async fn record(db: &Db, held: &Held, jobs: Vec<Job>) {
    let calls: Vec<Ended> = jobs.iter().map(|job| job.ended.clone()).collect();
    match write(db, held, &calls).await {
        Ok(after) => {
            for (job, tokens_today) in jobs.into_iter().zip(after) {
                let record = UsageRecord { tokens_today, ..job.ended.answer.clone() };
                // Who no longer waits asks again with the same key.
                let _gone = job.answer.send(Ok(record));
            }
        }
        Err(Error::Database(error)) if error.is_unavailable() => {
            tracing::warn!(%error, calls = jobs.len(), "it is not known whether calls were recorded");
            jobs.into_iter().for_each(|job| drop(job.answer.send(Err(Error::Unsure))));
        }
        // One of them stood in the way of all.
        Err(_) => {
            for Job { ended, answer } in jobs {
                let _gone = answer.send(alone(db, &ended).await);
            }
        }
    }
}

/// Writes all or nothing. The tokens of the day after each.
async fn write(db: &Db, held: &Held, calls: &[Ended]) -> Result<Vec<i64>, Error> {
    if db.is_postgres() {
        return Ok(calls_commit(held, calls).await?);
    }
    db.write("RecordUsage", async |tx: Tx| calls_write(&tx, calls).await).await
}

/// One by itself: what was answered to its key before, if it was recorded already.
async fn alone(db: &Db, ended: &Ended) -> Result<UsageRecord, Error> {
    let calls = slice::from_ref(ended);
    let refused = match db.write("RecordUsage", async |tx: Tx| calls_write(&tx, calls).await).await {
        Ok(after) => {
            return Ok(UsageRecord {
                tokens_today: after.first().copied().unwrap_or_default(),
                ..ended.answer.clone()
            });
        }
        Err(refused) => refused,
    };
    let Some(answer) = idempotency_find(db, &ended.key).await? else { return Err(refused) };
    let record = UsageRecord::decode(answer.as_slice()).map_err(|_| Error::IdempotencyKeyReused)?;
    let today = counters(db, &ended.key.product, &record.user_id, day_of(record.created_at)).await?;
    let tokens_today = today.iter().find(|counter| counter.name == TOKENS_PER_DAY).map_or(0, |counter| counter.used);
    Ok(UsageRecord { tokens_today, ..record })
}
