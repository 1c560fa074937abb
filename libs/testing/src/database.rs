//! One test on both databases.
#![expect(clippy::panic, reason = "a test bench that cannot be set up ends the test")]
use tempfile::TempDir;

use crate::postgres::{self, Postgres};

/// An empty database that nobody else uses.
pub struct Database {
    /// What a service is configured with, `sqlite://…` or `postgres://…`.
    pub url: String,
    /// Where an SQLite database has its files; they end with this value.
    pub folder: Option<TempDir>,
}

impl Database {
    /// A new file; SQLite makes it when it is first opened.
    pub fn sqlite() -> Database {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Database { url, folder: Some(folder) }
    }

    /// One on the PostgreSQL that all tests of a process share.
    pub async fn postgres() -> Database {
        Database::on(postgres::shared().await).await
    }

    /// One on a PostgreSQL that may fail.
    pub async fn on(postgres: &Postgres) -> Database {
        Database { url: postgres.database().await, folder: None }
    }
}

/// Declares each test twice: on SQLite and on PostgreSQL. A test is an `async fn(&World)` beside the declaration;
/// a `World` with `async fn on(Database) -> World` must be in scope there.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&super::World::on($crate::Database::sqlite()).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&super::World::on($crate::Database::postgres().await).await).await;
            })*
        }
    };
}
