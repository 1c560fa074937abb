//! Each job is done once, whatever happens to those who do it.
use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;
use weft_db::jobs::{self, Job, NewJob};
use weft_db::{Db, DbError, Tx, sql};

use super::{Place, on_both};

const NOW: i64 = 1_800_000_000_000;
const LEASE: Duration = Duration::from_secs(30);
const LEASE_MS: i64 = 30_000;

async fn queue(place: &Place) -> Db {
    let db = place.open().await;
    db.migrate(&[jobs::migration(1)]).await.unwrap();
    db
}

async fn add(db: &Db, id: &str, run_at: i64) -> bool {
    let job = NewJob { product: "adiuva".into(), id: id.into(), kind: "mail", payload: "{}".into(), run_at };
    db.write("add", async |tx: Tx| jobs::enqueue(&tx, &job).await).await.unwrap()
}

async fn claim(db: &Db, now: i64) -> Vec<Job> {
    jobs::claim(db, "mail", now, LEASE, 10).await.unwrap()
}

async fn done(db: &Db, job: &Job) -> bool {
    db.write("done", async |tx: Tx| jobs::done(&tx, job).await).await.unwrap()
}

on_both! {
    async fn a_job_is_claimed_when_due_and_gone_when_done(place: Place) {
        let db = queue(&place).await;
        assert!(add(&db, "later", NOW + 1).await);
        assert!(add(&db, "now", NOW).await);
        let claimed = claim(&db, NOW).await;
        assert_eq!(claimed.len(), 1);
        assert_eq!((claimed[0].id.as_str(), claimed[0].attempts), ("now", 1));
        assert!(jobs::claim(&db, "other", NOW + 1, LEASE, 10).await.unwrap().is_empty());
        assert!(done(&db, &claimed[0]).await);
        assert!(!done(&db, &claimed[0]).await);
        assert_eq!(claim(&db, NOW + LEASE_MS).await[0].id, "later");
    }

    async fn a_job_whose_transaction_fails_was_never_there(place: Place) {
        let db = queue(&place).await;
        let job = NewJob { product: "adiuva".into(), id: "x".into(), kind: "mail", payload: "{}".into(), run_at: NOW };
        let result: Result<(), DbError> = db.write("fails", async |tx: Tx| {
            jobs::enqueue(&tx, &job).await?;
            Err(DbError::NoRow)
        }).await;
        result.unwrap_err();
        assert!(claim(&db, NOW).await.is_empty());
    }

    async fn a_waiting_job_is_not_added_twice(place: Place) {
        let db = queue(&place).await;
        assert!(add(&db, "daily", NOW).await);
        assert!(!add(&db, "daily", NOW).await);
        assert_eq!(claim(&db, NOW).await.len(), 1);
    }

    async fn eight_racing_workers_claim_each_job_once(place: Place) {
        let db = queue(&place).await;
        db.write("fill", async |tx: Tx| -> Result<(), DbError> {
            for n in 0..200 {
                let job = NewJob { product: "adiuva".into(), id: n.to_string(), kind: "mail", payload: "{}".into(), run_at: NOW };
                jobs::enqueue(&tx, &job).await?;
            }
            Ok(())
        }).await.unwrap();
        let mut workers = JoinSet::new();
        for _ in 0..8 {
            let db = db.clone();
            workers.spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let claimed = jobs::claim(&db, "mail", NOW, LEASE, 3).await.unwrap();
                    assert!(claimed.len() <= 3);
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed);
                }
            });
        }
        let claimed = workers.join_all().await.concat();
        assert_eq!(claimed.len(), 200);
        assert_eq!(claimed.iter().map(|job| &job.id).collect::<HashSet<_>>().len(), 200);
        for job in &claimed {
            assert!(done(&db, job).await);
        }
    }

    async fn a_lease_that_ran_out_gives_the_job_to_another(place: Place) {
        let db = queue(&place).await;
        add(&db, "x", NOW).await;
        let lost = claim(&db, NOW).await.remove(0);
        assert!(claim(&db, NOW + LEASE_MS - 1).await.is_empty());
        let taken = claim(&db, NOW + LEASE_MS).await.remove(0);
        assert_eq!(taken.attempts, 2);
        assert!(!done(&db, &lost).await);
        assert!(!jobs::retry(&db, &lost, NOW + LEASE_MS, "late").await.unwrap());
        assert!(done(&db, &taken).await);
    }

    async fn a_failing_job_waits_longer_each_time_and_is_given_up_in_the_end(place: Place) {
        let db = queue(&place).await;
        add(&db, "x", NOW).await;
        let (mut now, mut waits) = (NOW, Vec::new());
        for attempt in 1..=jobs::MAX_ATTEMPTS {
            let job = claim(&db, now).await.remove(0);
            assert_eq!(job.attempts, attempt);
            assert!(jobs::retry(&db, &job, now, "no connection").await.unwrap());
            let due: i64 = sql("SELECT run_at FROM jobs").one(&db).await.unwrap();
            assert!(claim(&db, due - 1).await.is_empty());
            waits.push(due - now);
            now = due;
        }
        assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(waits[waits.len() - 1], 3_600_000);
        assert!(claim(&db, i64::MAX).await.is_empty());
        assert_eq!(sql("SELECT last_error FROM jobs").one::<String>(&db).await.unwrap(), "no connection");
    }
}

/// On SQLite a claim waits for its turn to write, as everything does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_on_postgresql_passes_by_what_another_is_taking() {
    let db = queue(&Place::postgres().await).await;
    add(&db, "taken", NOW).await;
    add(&db, "free", NOW).await;
    let claimed = db.write("taking", async |tx: Tx| {
        sql("UPDATE jobs SET attempts = attempts + 1 WHERE id = 'taken'").run(&tx).await?;
        jobs::claim(&db, "mail", NOW, LEASE, 10).await
    });
    let claimed = tokio::time::timeout(Duration::from_secs(5), claimed).await.unwrap().unwrap();
    assert_eq!(claimed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["free"]);
}
