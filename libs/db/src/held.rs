//! A connection that one task keeps for itself.
use std::sync::{Mutex, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use sqlx::{PgPool, Postgres};
use tokio::time::Instant;

use crate::db::{Pools, TRY_AFTER_IDLE};
use crate::{Db, DbError, On, Row, Sql};

/// Of a pool with fewer connections nobody keeps one: the others might never get one.
const ENOUGH: u32 = 8;

/// Where a task that writes all the time, one statement after the other, runs them: on PostgreSQL always on the same
/// connection, which is not tried between them as the pool does; on SQLite as on a [`Db`].
///
/// What is refused leaves the connection as it was. What goes wrong otherwise, and a statement that nobody waits for any
/// more, gives it back to the pool, which tries it; the next statement gets another.
pub struct Held {
    db: Db,
    is_kept: bool,
    /// With when it was last used.
    kept: Mutex<Option<(PoolConnection<Postgres>, Instant)>>,
}

impl Db {
    /// A connection for one task. It counts as one of the pool's while it is kept; one of few is not kept.
    pub fn held(&self) -> Held {
        let is_kept = match &self.pools {
            Pools::Postgres(pool) => pool.options().get_max_connections() >= ENOUGH,
            Pools::Sqlite { .. } => false,
        };
        Held { db: self.clone(), is_kept, kept: Mutex::new(None) }
    }
}

impl Held {
    async fn take(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, DbError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((connection, used)) = kept
            && used.elapsed() < TRY_AFTER_IDLE
        {
            return Ok(connection);
        }
        Ok(pool.acquire().await?)
    }

    fn keep<T>(&self, connection: PoolConnection<Postgres>, outcome: Result<T, sqlx::Error>) -> Result<T, DbError> {
        let goes_on = outcome.as_ref().map_or_else(is_refusal, |_done| true);
        let outcome = outcome.map_err(DbError::from);
        // A server that only reads refuses, too, and another connection may find one that writes.
        let is_sound = goes_on && !outcome.as_ref().is_err_and(DbError::is_unavailable);
        if is_sound && self.is_kept {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((connection, Instant::now()));
        }
        outcome
    }
}

/// Whether a statement was refused, and the session goes on.
fn is_refusal(error: &sqlx::Error) -> bool {
    let refused = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    refused.is_some_and(|refused| matches!(refused.severity(), PgSeverity::Error))
}

impl On for Held {
    async fn fetch(&self, sql: Sql) -> Result<Vec<Row>, DbError> {
        let Pools::Postgres(pool) = &self.db.pools else { return self.db.fetch(sql).await };
        sql.check()?;
        let mut connection = self.take(pool).await?;
        let outcome = sql.postgres().fetch_all(&mut *connection).await;
        self.keep(connection, outcome).map(Row::postgres)
    }

    async fn run(&self, sql: Sql) -> Result<u64, DbError> {
        let Pools::Postgres(pool) = &self.db.pools else { return self.db.run(sql).await };
        sql.check()?;
        let mut connection = self.take(pool).await?;
        let outcome = sql.postgres().execute(&mut *connection).await;
        self.keep(connection, outcome).map(|done| done.rows_affected())
    }
}
