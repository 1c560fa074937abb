//! Records calls that have ended, all that wait as one group: the calls of an account meet in its counter of the day, and
//! one after the other each would wait for the commit of the one before.
use std::collections::HashSet;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use weft_db::{Db, Held, Tx};
use weft_proto::billing::v1::UsageRecord;
use weft_runtime::{Mesh, Tasks};

use crate::domain::day::day_of;
use crate::domain::idempotency::Key;
use crate::domain::usage::TOKENS_PER_DAY;
use crate::error::Error;
use crate::gather::Waiting;
use crate::store::calls::{Ended, calls_commit, calls_write};
use crate::store::idempotency::idempotency_find;
use crate::store::usage::counters;

/// A group, or a call by itself, is written in this time, or it is not known whether it is.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// A group takes in what comes within this time: one statement for ten calls costs little more than for one.
const PATIENCE: Duration = Duration::from_millis(25);
/// So many are written by themselves at once.
const MAX_ALONE: usize = 8;

/// A call and who waits for it.
struct Job {
    ended: Ended,
    answer: oneshot::Sender<Result<UsageRecord, Error>>,
}

impl Job {
    /// Whether somebody's answer may wait for it: the call has counted as running, for a plan that limits the day.
    fn is_awaited(&self) -> bool {
        !self.ended.usage_id.is_empty()
    }
}

/// Where calls are recorded. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Job>);

impl Recorder {
    /// Starts among the background work of `mesh`.
    pub fn start(db: &Db, mesh: &Mesh) -> Recorder {
        let (jobs, mut waiting) = Waiting::new(mesh.shutdown());
        let places = Arc::new(Semaphore::new(MAX_ALONE));
        let desk = Desk { db: db.clone(), held: db.held(), tasks: mesh.tasks().clone(), places };
        mesh.tasks().spawn("recorder", async move {
            while let Some(jobs) = waiting.larger_group(PATIENCE, Job::is_awaited).await {
                desk.record(jobs).await;
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

/// What writes groups.
struct Desk {
    db: Db,
    held: Held,
    tasks: Tasks,
    places: Arc<Semaphore>,
}

impl Desk {
    /// Writes a group in one go. Where that cannot be, each by itself and beside the next group: whatever stood in the way
    /// of all, a key that was used before or an account that is locked, is in the way of few.
    async fn record(&self, jobs: Vec<Job>) {
        let (jobs, again) = once_each(jobs);
        let calls: Vec<Ended> = jobs.iter().map(|job| job.ended.clone()).collect();
        let written = timeout(WRITTEN_WITHIN, self.write(&calls)).await.unwrap_or(Err(Error::Unsure));
        match written {
            Ok(after) => {
                for (job, tokens_today) in jobs.into_iter().zip(after) {
                    let record = UsageRecord { tokens_today, ..job.ended.answer.clone() };
                    // Who no longer waits asks again with the same key.
                    let _gone = job.answer.send(Ok(record));
                }
            }
            Err(error) => {
                tracing::debug!(%error, calls = jobs.len(), "a group of calls is recorded one by one");
                jobs.into_iter().for_each(|job| self.one_by_one(job));
            }
        }
        again.into_iter().for_each(|job| self.one_by_one(job));
    }

    /// Writes all or nothing. The tokens of the day after each.
    async fn write(&self, calls: &[Ended]) -> Result<Vec<i64>, Error> {
        if self.db.is_postgres() {
            return Ok(calls_commit(&self.held, calls).await?);
        }
        self.db.write("RecordUsage", async |tx: Tx| calls_write(&tx, calls).await).await
    }

    fn one_by_one(&self, job: Job) {
        let (db, places) = (self.db.clone(), Arc::clone(&self.places));
        self.tasks.spawn("record alone", async move {
            let Ok(_place) = places.acquire().await else { return };
            if !job.answer.is_closed() {
                let record = timeout(WRITTEN_WITHIN, alone(&db, &job.ended)).await.unwrap_or(Err(Error::Unsure));
                let _gone = job.answer.send(record);
            }
        });
    }
}

/// The jobs that somebody waits for, and those whose key comes among them a second time.
fn once_each(jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    let mut seen = HashSet::new();
    let awaited = jobs.into_iter().filter(|job| !job.answer.is_closed());
    awaited.partition(|job| {
        let Key { product, user_id, key, .. } = &job.ended.key;
        seen.insert((product.clone(), user_id.clone(), key.clone()))
    })
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
