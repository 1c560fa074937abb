//! Work that must happen once the transaction that asks for it has committed, and that survives a crash.
//!
//! A job is enqueued in the transaction of its reason, claimed for a time (the lease) by one of any number of
//! workers, and ended in the transaction of its effect. A worker that dies leaves a lease that runs out, and
//! the job goes to another one: work must bear being done twice up to its own transaction.
use std::time::Duration;

use weft_core::new_id;

use crate::{Db, DbError, Migration, On, Tx, record, sql};

/// A job is claimed at most this often; then it stays in the table, and `weft_jobs_given_up_total` counts it.
pub const MAX_ATTEMPTS: i64 = 20;
/// The wait after the first failure; it doubles with each.
const BACKOFF_MS: i64 = 1_000;
/// The longest wait between two attempts.
const MAX_BACKOFF_MS: i64 = 3_600_000;
/// The most that one [`claim`] takes.
const MAX_CLAIM: i64 = 100;

/// The table, as the migration `version` of a service that has jobs.
pub const fn migration(version: i64) -> Migration {
    Migration { version, name: "jobs", sql: include_str!("jobs.sql") }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Slug of the product it is for.
    pub product: String,
    /// Unique within the product; a second job with the id of one that waits is dropped.
    pub id: String,
    /// Which worker does it.
    pub kind: &'static str,
    /// What the worker needs to know; no user text.
    pub payload: String,
    /// Not before this, ms since 1970.
    pub run_at: i64,
}

record! {
    /// A job that is this worker's until its lease ends.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Job {
        /// Slug of the product.
        pub product: String,
        /// Unique within the product.
        pub id: String,
        /// Which worker does it.
        pub kind: String,
        /// What it needs to know.
        pub payload: String,
        /// How often it was claimed, this time included.
        pub attempts: i64,
        lease: String,
    }
}

/// Adds a job to the transaction; false if one with its id waits already.
pub async fn enqueue(tx: &Tx, job: &NewJob) -> Result<bool, DbError> {
    let added = sql("INSERT INTO jobs (product, id, kind, payload, run_at) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (product, id) DO NOTHING")
    .bind(&job.product)
    .bind(&job.id)
    .bind(job.kind)
    .bind(&job.payload)
    .bind(job.run_at)
    .run(tx)
    .await?;
    Ok(added == 1)
}

/// Takes up to `most` due jobs of a kind (at most 100), the longest due first, for `lease` from `now` (ms since 1970).
pub async fn claim(db: &Db, kind: &str, now: i64, lease: Duration, most: i64) -> Result<Vec<Job>, DbError> {
    let until = now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
    sql("UPDATE jobs SET run_at = $1, lease = $2, attempts = attempts + 1 \
         WHERE (product, id) IN (SELECT product, id FROM jobs \
             WHERE kind = $3 AND run_at <= $4 AND attempts < $5 ORDER BY run_at LIMIT $6) \
         RETURNING product, id, kind, payload, attempts, lease")
    .on_postgres(
        "WITH due AS (SELECT product, id FROM jobs \
                 WHERE kind = $3 AND run_at <= $4 AND attempts < $5 ORDER BY run_at LIMIT $6 FOR UPDATE SKIP LOCKED) \
             UPDATE jobs SET run_at = $1, lease = $2, attempts = jobs.attempts + 1 FROM due \
             WHERE jobs.product = due.product AND jobs.id = due.id \
             RETURNING jobs.product, jobs.id, jobs.kind, jobs.payload, jobs.attempts, jobs.lease",
    )
    .bind(until)
    .bind(new_id())
    .bind(kind)
    .bind(now)
    .bind(MAX_ATTEMPTS)
    .bind(most.min(MAX_CLAIM))
    .all(db)
    .await
}

/// Ends a job, in the transaction of its effect. False if the lease has run out and somebody else has it or has
/// ended it: then the effect must not be kept, so return an error from the transaction.
pub async fn done(tx: &Tx, job: &Job) -> Result<bool, DbError> {
    let ended = sql("DELETE FROM jobs WHERE product = $1 AND id = $2 AND lease = $3");
    Ok(ended.bind(&job.product).bind(&job.id).bind(&job.lease).run(tx).await? == 1)
}

/// Gives a job back after a failure: due again after 1 s, 2 s, 4 s … up to an hour, from `now` (ms since 1970).
/// `error` is kept for the operator and holds no user text. False if the lease has run out.
pub async fn retry(on: &impl On, job: &Job, now: i64, error: &str) -> Result<bool, DbError> {
    if job.attempts >= MAX_ATTEMPTS {
        metrics::counter!("weft_jobs_given_up_total", "kind" => job.kind.clone()).increment(1);
        tracing::error!(kind = job.kind, id = job.id, error, "a job failed too often and is given up");
    }
    let back =
        sql("UPDATE jobs SET run_at = $1, lease = NULL, last_error = $2 WHERE product = $3 AND id = $4 AND lease = $5");
    let back = back.bind(now.saturating_add(backoff_ms(job.attempts))).bind(error);
    Ok(back.bind(&job.product).bind(&job.id).bind(&job.lease).run(on).await? == 1)
}

/// The wait after the attempt with this number, from 1.
fn backoff_ms(attempt: i64) -> i64 {
    let doublings = attempt.clamp(1, 30) - 1;
    (BACKOFF_MS << doublings).min(MAX_BACKOFF_MS)
}
