//! What is written together is kept together, or not at all.
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use tokio::sync::Barrier;
use weft_db::{Db, DbError, Migration, Tx, sql};

use super::{Place, on_both};

const WALLETS: Migration = Migration {
    version: 1,
    name: "wallets",
    sql: "CREATE TABLE wallets (id TEXT PRIMARY KEY, credits BIGINT NOT NULL CHECK (credits >= 0));\n\
          INSERT INTO wallets (id, credits) VALUES ('a', 100), ('b', 100);",
};

/// A service's own error, as `write` sees it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not today")]
    Refused,
    #[error("the database failed")]
    Db(#[from] DbError),
}

async fn wallets(place: &Place) -> Db {
    let db = place.open().await;
    db.migrate(&[WALLETS]).await.unwrap();
    db
}

async fn add(tx: &Tx, id: &str, credits: i64) -> Result<u64, DbError> {
    sql("UPDATE wallets SET credits = credits + $1 WHERE id = $2").bind(credits).bind(id).run(tx).await
}

async fn credits(db: &Db) -> (i64, i64) {
    sql("SELECT a.credits, b.credits FROM wallets a, wallets b WHERE a.id = 'a' AND b.id = 'b'").one(db).await.unwrap()
}

async fn read_and_add(db: &Db) {
    db.write("add", async |tx: Tx| -> Result<(), DbError> {
        let before: i64 = sql("SELECT credits FROM wallets WHERE id = 'a'")
            .on_postgres("SELECT credits FROM wallets WHERE id = 'a' FOR UPDATE")
            .one(&tx)
            .await?;
        sql("UPDATE wallets SET credits = $1 WHERE id = 'a'").bind(before + 1).run(&tx).await?;
        Ok(())
    })
    .await
    .unwrap();
}

/// As an async trait's method holds it: boxed and sent between threads.
fn transfer<'a>(
    db: &'a Db,
    from: &'a str,
    to: &'a str,
) -> Pin<Box<dyn Future<Output = Result<i64, Error>> + Send + 'a>> {
    Box::pin(async move {
        let note = String::from("borrowed by every run");
        db.write("transfer", async |tx: Tx| {
            assert!(!note.is_empty());
            add(&tx, from, -10).await?;
            add(&tx, to, 10).await?;
            Ok(sql("SELECT credits FROM wallets WHERE id = $1").bind(from).one(&tx).await?)
        })
        .await
    })
}

on_both! {
    async fn a_transaction_sees_its_own_writes_and_others_see_them_after(place: Place) {
        let db = wallets(&place).await;
        assert_eq!(transfer(&db, "a", "b").await.unwrap(), 90);
        assert_eq!(credits(&db).await, (90, 110));
    }

    async fn an_error_rolls_back(place: Place) {
        let db = wallets(&place).await;
        let result: Result<(), Error> = db.write("refused", async |tx: Tx| {
            add(&tx, "a", -10).await?;
            Err(Error::Refused)
        }).await;
        assert!(matches!(result, Err(Error::Refused)));
        assert_eq!(credits(&db).await, (100, 100));
    }

    async fn a_panic_rolls_back(place: Place) {
        let db = wallets(&place).await;
        let work = db.write("panics", async |tx: Tx| -> Result<(), Error> {
            add(&tx, "a", -10).await?;
            panic!("on purpose");
        });
        assert!(std::panic::AssertUnwindSafe(work).catch_unwind().await.is_err());
        assert_eq!(transfer(&db, "b", "a").await.unwrap(), 90);
        assert_eq!(credits(&db).await, (110, 90));
    }

    async fn a_cancelled_call_rolls_back_and_frees_the_writer(place: Place) {
        let db = wallets(&place).await;
        let work = db.write("cancelled", async |tx: Tx| -> Result<(), Error> {
            add(&tx, "a", -10).await?;
            std::future::pending().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
        transfer(&db, "b", "a").await.unwrap();
        assert_eq!(credits(&db).await, (110, 90));
    }

    async fn a_swallowed_error_does_not_commit_the_rest(place: Place) {
        let db = wallets(&place).await;
        let result: Result<(), Error> = db.write("swallows", async |tx: Tx| {
            add(&tx, "b", 10).await?;
            let error = add(&tx, "a", -1000).await.unwrap_err();
            assert!(matches!(error, DbError::Statement(_)), "{error:?}");
            assert!(matches!(add(&tx, "a", 1).await, Err(DbError::RolledBack)));
            Ok(())
        }).await;
        assert!(matches!(result, Err(Error::Db(DbError::RolledBack))));
        assert_eq!(credits(&db).await, (100, 100));
    }

    async fn a_taken_key_is_told_apart(place: Place) {
        let db = wallets(&place).await;
        let insert = || sql("INSERT INTO wallets (id, credits) VALUES ($1, $2)").bind("a");
        assert!(insert().bind(1).run(&db).await.unwrap_err().is_unique_violation());
        let other = insert().bind(None::<i64>).run(&db).await.unwrap_err();
        assert!(!other.is_unique_violation() && !other.is_unavailable() && !other.is_conflict(), "{other:?}");
    }

    async fn fifty_writers_lose_nothing(place: Place) {
        let db = wallets(&place).await;
        let writers = (0..50).map(|_| async {
            for _ in 0..10 {
                read_and_add(&db).await;
                credits(&db).await;
            }
        });
        join_all(writers).await;
        assert_eq!(credits(&db).await, (600, 100));
    }
}

/// Several programs on one file stand in line on the file's lock instead of in a pool. A transaction that begins
/// by reading and writes after another has written would fail at once, whatever the busy timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_several_programs_share_a_sqlite_file() {
    let place = Place::sqlite();
    let db = wallets(&place).await;
    let programs = (0..4).map(|_| async {
        let db = place.open().await;
        for _ in 0..25 {
            read_and_add(&db).await;
        }
    });
    join_all(programs).await;
    assert_eq!(credits(&db).await, (200, 100));
}

/// SQLite has one writer at a time: there is nobody to meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_on_postgresql_is_run_again() {
    let db = wallets(&Place::postgres().await).await;
    let (meeting, runs) = (Barrier::new(2), AtomicU32::new(0));
    let crossing = async |first: &str, second: &str| {
        db.write("crossing", async |tx: Tx| -> Result<(), Error> {
            add(&tx, first, -10).await?;
            if runs.fetch_add(1, Ordering::SeqCst) < 2 {
                meeting.wait().await;
            }
            add(&tx, second, 10).await?;
            Ok(())
        })
        .await
    };
    let (one, other) = join(crossing("a", "b"), crossing("b", "a")).await;
    one.unwrap();
    other.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert_eq!(credits(&db).await, (100, 100));
}

async fn read_serializable(tx: &Tx) -> Result<i64, DbError> {
    sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").run(tx).await?;
    sql("SELECT credits FROM wallets WHERE id = 'a'").one(tx).await
}

/// Runs a serializable transaction whose row somebody else changes under it in the first `spoiled` runs.
async fn spoil(db: &Db, spoiled: u32) -> (Result<i64, Error>, u32) {
    let runs = AtomicU32::new(0);
    let result = db
        .write("spoiled", async |tx: Tx| {
            let before = read_serializable(&tx).await?;
            if runs.fetch_add(1, Ordering::SeqCst) < spoiled {
                sql("UPDATE wallets SET credits = credits + 1 WHERE id = 'a'").run(db).await?;
            }
            add(&tx, "a", 1000).await?;
            Ok(before)
        })
        .await;
    (result, runs.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serialization_failure_on_postgresql_is_retried_three_times_and_then_given_up() {
    let db = wallets(&Place::postgres().await).await;
    let (result, runs) = spoil(&db, 3).await;
    assert_eq!((result.unwrap(), runs), (103, 4));
    let (result, runs) = spoil(&db, 4).await;
    assert!(matches!(&result, Err(Error::Db(error)) if error.is_conflict()), "{result:?}");
    assert_eq!(runs, 4);
    assert_eq!(credits(&db).await, (1107, 100));
}

/// Each reads what the other writes: PostgreSQL notices at the second commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_that_shows_only_at_the_commit_is_retried() {
    let db = wallets(&Place::postgres().await).await;
    let (meeting, runs) = (Barrier::new(2), AtomicU32::new(0));
    let crossing = async |id: &str| {
        db.write("skew", async |tx: Tx| -> Result<(), Error> {
            sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").run(&tx).await?;
            let all: i64 = sql("SELECT CAST(SUM(credits) AS BIGINT) FROM wallets").one(&tx).await?;
            let first = runs.fetch_add(1, Ordering::SeqCst) < 2;
            if first {
                meeting.wait().await;
            }
            sql("UPDATE wallets SET credits = $1 WHERE id = $2").bind(all).bind(id).run(&tx).await?;
            if first {
                meeting.wait().await;
            }
            Ok(())
        })
        .await
    };
    let (one, other) = join(crossing("a"), crossing("b")).await;
    one.unwrap();
    other.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let (a, b) = credits(&db).await;
    assert_eq!((a.min(b), a.max(b)), (200, 300));
}
