//! A transaction, and [`Db::write`] that runs one.
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sqlx::{Postgres, Sqlite, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use crate::db::Pools;
use crate::{AssertSqlSafe, Db, DbError, On, Row, Sql};

/// How often a transaction that lost against others is run again.
const RETRIES: u32 = 3;
/// The wait before the first retry; it doubles, and up to as much again is added by chance.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// No statement of the transaction has failed.
const SOUND: u8 = 0;
/// A statement failed.
const FAILED: u8 = 1;
/// A statement failed because of other transactions.
const CONFLICT: u8 = 2;

/// An open transaction. Dropped before its commit (error, panic, cancelled call), nothing of it is kept.
///
/// After a failed statement the transaction is over on both databases, as PostgreSQL has it: further
/// statements are refused and it is not committed, even if the error was swallowed. Where a row may exist
/// already, write `ON CONFLICT`.
pub struct Tx(Arc<Inner>);

struct Inner {
    /// Taken out for the commit or the rollback.
    open: Mutex<Option<Open>>,
    /// What is left for the commit.
    last: Mutex<Vec<Sql>>,
    state: AtomicU8,
}

enum Open {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Db {
    /// Runs `work` in a transaction and commits it when it returns `Ok`.
    ///
    /// On SQLite it starts with `BEGIN IMMEDIATE` on the one writing connection. On PostgreSQL a transaction
    /// that lost against others (40001, 40P01) is run again, at most 3 times: `work` must have no effect but on
    /// `tx`, and borrows or clones what it needs. `name` is for the log and for `weft_db_retries_total`.
    ///
    /// ```
    /// # use weft_db::{Db, DbError, Tx, sql};
    /// async fn transfer(db: &Db, from: &str, to: &str) -> Result<(), DbError> {
    ///     db.write("transfer", async |tx: Tx| {
    ///         sql("UPDATE wallets SET credits = credits - 1 WHERE id = $1").bind(from).run(&tx).await?;
    ///         sql("UPDATE wallets SET credits = credits + 1 WHERE id = $1").bind(to).run(&tx).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// }
    /// ```
    ///
    /// `work` is given the transaction itself and not a reference, because the future of a closure over any
    /// lifetime is not `Send` to the compiler, and every gRPC method has to be.
    pub async fn write<T, E, F>(&self, name: &'static str, mut work: impl FnMut(Tx) -> F) -> Result<T, E>
    where
        E: From<DbError>,
        F: Future<Output = Result<T, E>>,
    {
        let mut retries = 0;
        loop {
            let tx = self.begin().await?;
            let result = work(Tx(tx.0.clone())).await;
            let state = tx.0.state.load(Ordering::Acquire);
            let (conflict, error) = match result {
                Ok(value) if state == SOUND => match tx.commit().await {
                    Ok(()) => return Ok(value),
                    Err(error) => (error.is_conflict(), E::from(error)),
                },
                Ok(_) => {
                    tx.rollback().await;
                    (state == CONFLICT, E::from(DbError::RolledBack))
                }
                Err(error) => {
                    tx.rollback().await;
                    (state == CONFLICT, error)
                }
            };
            if !conflict || retries == RETRIES {
                return Err(error);
            }
            metrics::counter!("weft_db_retries_total", "service" => self.schema, "write" => name).increment(1);
            tracing::debug!(write = name, retries, "the transaction met others, running it again");
            let wait = RETRY_AFTER * 2_u32.pow(retries);
            tokio::time::sleep(wait + wait.mul_f64(chance())).await;
            retries += 1;
        }
    }

    /// Runs `work` in a transaction that only reads and sees the database as it was at its first statement, however
    /// long it goes on and whatever is written meanwhile. It keeps nobody from writing: on SQLite it is on a reading
    /// connection, on PostgreSQL it is REPEATABLE READ.
    pub async fn snapshot<T, E, F>(&self, work: impl FnOnce(Tx) -> F) -> Result<T, E>
    where
        E: From<DbError>,
        F: Future<Output = Result<T, E>>,
    {
        let open = match &self.pools {
            Pools::Sqlite { read, .. } => read.begin().await.map(Open::Sqlite),
            Pools::Postgres(pool) => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Open::Postgres)
            }
        };
        let tx = Tx::new(open.map_err(DbError::from)?);
        let result = work(Tx(tx.0.clone())).await;
        tx.rollback().await;
        result
    }

    /// Whether it is PostgreSQL: for a choice between statements that goes further than [`Sql::on_postgres`].
    pub fn is_postgres(&self) -> bool {
        matches!(self.pools, Pools::Postgres(_))
    }

    async fn begin(&self) -> Result<Tx, DbError> {
        let open = match &self.pools {
            Pools::Sqlite { write, .. } => Open::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => Open::Postgres(pool.begin().await?),
        };
        Ok(Tx::new(open))
    }
}

impl Tx {
    fn new(open: Open) -> Tx {
        Tx(Arc::new(Inner { open: Mutex::new(Some(open)), last: Mutex::default(), state: AtomicU8::new(SOUND) }))
    }

    /// Leaves a statement for the very end: it runs just before the commit, after all others, in the order in which
    /// they were left. For a row that many transactions change, so that each holds its lock for a moment only and none
    /// waits for another lock while it does. What it gives back is not to be had.
    pub async fn run_last(&self, sql: Sql) -> Result<(), DbError> {
        sql.check()?;
        self.0.last.lock().await.push(sql);
        Ok(())
    }

    /// Whether it is one of PostgreSQL, as [`Db::is_postgres`].
    pub async fn is_postgres(&self) -> bool {
        matches!(*self.0.open.lock().await, Some(Open::Postgres(_)))
    }

    /// Several statements without values; for migrations.
    pub(crate) async fn script(&self, text: String) -> Result<(), DbError> {
        // Of a program's own migrations.
        let text = AssertSqlSafe(text);
        self.0.note(match self.0.open().await?.as_mut() {
            Some(Open::Sqlite(tx)) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
            Some(Open::Postgres(tx)) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
            None => return Err(DbError::RolledBack),
        })
    }

    async fn commit(&self) -> Result<(), DbError> {
        let last = std::mem::take(&mut *self.0.last.lock().await);
        for sql in last {
            if let Err(error) = self.run(sql).await {
                self.rollback().await;
                return Err(error);
            }
        }
        match self.0.open.lock().await.take() {
            Some(Open::Sqlite(tx)) => tx.commit().await?,
            Some(Open::Postgres(tx)) => tx.commit().await?,
            None => return Err(DbError::RolledBack),
        }
        Ok(())
    }

    /// Waits for the end of the transaction, so that its locks are gone before anything else happens. If that
    /// fails the connection is broken, and the database ends the transaction with it.
    async fn rollback(&self) {
        let result = match self.0.open.lock().await.take() {
            Some(Open::Sqlite(tx)) => tx.rollback().await,
            Some(Open::Postgres(tx)) => tx.rollback().await,
            None => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "the rollback did not get through");
        }
    }
}

impl Inner {
    /// Its connection, if nothing has failed yet.
    async fn open(&self) -> Result<MutexGuard<'_, Option<Open>>, DbError> {
        let open = self.open.lock().await;
        if self.state.load(Ordering::Acquire) == SOUND { Ok(open) } else { Err(DbError::RolledBack) }
    }

    /// Remembers a failure.
    fn note<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, DbError> {
        result.map_err(DbError::from).inspect_err(|error| {
            self.state.store(if error.is_conflict() { CONFLICT } else { FAILED }, Ordering::Release);
        })
    }
}

impl On for Tx {
    async fn fetch(&self, sql: Sql) -> Result<Vec<Row>, DbError> {
        sql.check()?;
        self.0.note(match self.0.open().await?.as_mut() {
            Some(Open::Sqlite(tx)) => sql.sqlite()?.fetch_all(&mut **tx).await.map(Row::sqlite),
            Some(Open::Postgres(tx)) => sql.postgres().fetch_all(&mut **tx).await.map(Row::postgres),
            None => return Err(DbError::RolledBack),
        })
    }

    async fn run(&self, sql: Sql) -> Result<u64, DbError> {
        sql.check()?;
        self.0.note(match self.0.open().await?.as_mut() {
            Some(Open::Sqlite(tx)) => sql.sqlite()?.execute(&mut **tx).await.map(|done| done.rows_affected()),
            Some(Open::Postgres(tx)) => sql.postgres().execute(&mut **tx).await.map(|done| done.rows_affected()),
            None => return Err(DbError::RolledBack),
        })
    }
}

/// A number from 0 up to 1, different in every process and call.
fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}
