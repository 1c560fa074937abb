//! The pools of one service's database.
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Database, Pool};

use crate::{DbError, On, Row, Sql, sql};

/// How long a call waits for a connection to PostgreSQL: who cannot reach what it needs says so within a second.
const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_millis(900);
/// How long a call waits for its turn on SQLite: the one writer is never away, only busy.
const SQLITE_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process that holds the file.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the first connection at the start may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the database has to answer a [`Db::ping`], and a connection to show that it is fit for its next use.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that has rested for this long is tried before it is used: the server may have gone meanwhile.
pub(crate) const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);
/// A PostgreSQL statement may take this long; a request is given up on long before.
const POSTGRES_STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// PostgreSQL ends a transaction that its client has left open and silent for this long.
const POSTGRES_IDLE_IN_TRANSACTION_MS: u32 = 30_000;
/// PostgreSQL asks a silent client every so many seconds whether it is still there.
const POSTGRES_KEEPALIVE_S: u32 = 30;

/// Where the database is and how much of it to use.
#[derive(Clone)]
pub struct DbOptions {
    /// `sqlite:///absolute/path/x.db` or `postgres://user:password@host:port/database`.
    pub url: String,
    /// The service's own schema on PostgreSQL, lower case letters, digits and `_`; a label elsewhere.
    pub schema: &'static str,
    /// The most connections to PostgreSQL, or the most reading ones to the SQLite file; at least 1.
    pub max_connections: u32,
}

/// The database of one service. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(crate) schema: &'static str,
    pub(crate) pools: Pools,
}

#[derive(Clone)]
pub(crate) enum Pools {
    /// One connection writes, so that writers wait in line here and not on a locked file.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Postgres(PgPool),
}

impl Db {
    /// Opens the database. Creates the SQLite file and its folder; tries PostgreSQL once, for at most 5 s.
    /// [`DbError::Connect`] says in one sentence what is wrong, without the password.
    pub async fn connect(options: &DbOptions) -> Result<Db, DbError> {
        let schema = options.schema;
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || !schema.chars().all(lower) {
            return Err(refused(format!("schema {schema:?} may only have lower case letters, digits and _")));
        }
        let most = options.max_connections.max(1);
        let pools = match options.url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "sqlite" => sqlite(&options.url, most).await?,
            "postgres" | "postgresql" => postgres(&options.url, schema, most).await?,
            _ => return Err(refused("the database url must begin with sqlite:// or postgres://")),
        };
        Ok(Db { schema, pools })
    }

    /// Whether it answers, within 1 s. Also brings the gauges `weft_db_pool_connections` up to date, so it is
    /// what a readiness check calls.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.measure();
        let answer = tokio::time::timeout(PING_TIMEOUT, self.fetch(sql("SELECT 1"))).await;
        answer.unwrap_or(Err(DbError::Unavailable(sqlx::Error::PoolTimedOut))).map(drop)
    }

    /// Closes every connection, after those in use are back. For the end of a service, once it is drained.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    fn measure(&self) {
        match &self.pools {
            Pools::Sqlite { write, read } => {
                gauge(self.schema, "write", write);
                gauge(self.schema, "read", read);
            }
            Pools::Postgres(pool) => gauge(self.schema, "all", pool),
        }
    }
}

impl On for Db {
    async fn fetch(&self, sql: Sql) -> Result<Vec<Row>, DbError> {
        sql.check()?;
        Ok(match &self.pools {
            Pools::Sqlite { write, read } => {
                let pool = if sql.reads() { read } else { write };
                Row::sqlite(sql.sqlite()?.fetch_all(pool).await?)
            }
            Pools::Postgres(pool) => Row::postgres(sql.postgres().fetch_all(pool).await?),
        })
    }

    async fn run(&self, sql: Sql) -> Result<u64, DbError> {
        sql.check()?;
        Ok(match &self.pools {
            Pools::Sqlite { write, .. } => sql.sqlite()?.execute(write).await?.rows_affected(),
            Pools::Postgres(pool) => sql.postgres().execute(pool).await?.rows_affected(),
        })
    }
}

fn gauge<D: Database>(service: &'static str, pool: &'static str, of: &Pool<D>) {
    let idle = u32::try_from(of.num_idle()).unwrap_or(u32::MAX);
    let used = of.size().saturating_sub(idle);
    for (state, count) in [("idle", idle), ("used", used)] {
        metrics::gauge!("weft_db_pool_connections", "service" => service, "pool" => pool, "state" => state).set(count);
    }
}

fn refused(text: impl Into<String>) -> DbError {
    DbError::Connect(text.into(), None)
}

async fn sqlite(url: &str, readers: u32) -> Result<Pools, DbError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(refused("an in-memory sqlite database cannot be shared by readers and the writer, name a file"));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|e| {
            DbError::Connect("the sqlite url is not valid, write sqlite:///path/to/file.db".into(), Some(e.into()))
        })?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode anything less may lose a committed payment when the power goes.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(SQLITE_BUSY_TIMEOUT);
    let file = options.get_filename().to_path_buf();
    let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
        let text = format!("the sqlite file {} cannot be opened, check that its folder is writable", file.display());
        DbError::Connect(text, Some(error))
    };
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        tokio::fs::create_dir_all(folder).await.map_err(|e| cannot(e.into()))?;
    }
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(SQLITE_ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    // The writer comes first: it creates the file and switches it to WAL, which readers cannot.
    let write = pool().max_connections(1).connect_with(options.clone()).await.map_err(|e| cannot(e.into()))?;
    let read = pool().max_connections(readers).connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Pools::Sqlite { write, read })
}

async fn postgres(url: &str, schema: &str, most: u32) -> Result<Pools, DbError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| {
            DbError::Connect(
                "the postgres url is not valid, write postgres://user:password@host:port/database".into(),
                Some(e.into()),
            )
        })?
        .application_name(&format!("weft-{schema}"))
        .options([("search_path", schema)])
        .options([
            ("statement_timeout", POSTGRES_STATEMENT_TIMEOUT_MS),
            ("idle_in_transaction_session_timeout", POSTGRES_IDLE_IN_TRANSACTION_MS),
            ("tcp_keepalives_idle", POSTGRES_KEEPALIVE_S),
        ]);
    let place = format!("postgresql at {}:{}", options.get_host(), options.get_port());
    // One connection by hand, because the pool hides why it got none.
    let first = tokio::time::timeout(CONNECT_TIMEOUT, sqlx::PgConnection::connect_with(&options)).await;
    match first {
        Ok(Ok(connection)) => drop(connection.close().await),
        Ok(Err(error @ sqlx::Error::Database(_))) => {
            let text =
                format!("{place} refused the connection, check the user, the password and the database in the url");
            return Err(DbError::Connect(text, Some(error.into())));
        }
        Ok(Err(error)) => {
            return Err(DbError::Connect(
                format!("{place} cannot be reached, check that it runs and the url"),
                Some(error.into()),
            ));
        }
        Err(error) => {
            return Err(DbError::Connect(
                format!("{place} did not answer in time, check that it runs and the url"),
                Some(error.into()),
            ));
        }
    }
    let pool = PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(POSTGRES_ACQUIRE_TIMEOUT)
        // Not a round trip before every use, but one after it, while nobody waits. It has a time limit, because a
        // call that was given up leaves its statement running, and on a server that went silent the connection
        // would be neither back nor gone until TCP gives up, a quarter of an hour later.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < TRY_AFTER_IDLE || connection.ping().await.is_ok()) })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                let answer = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
            })
        });
    Ok(Pools::Postgres(pool.connect_lazy_with(options)))
}
