//! Every test runs on SQLite and on PostgreSQL, except where it says why not.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]
mod jobs;
mod keyring;
mod migrations;
mod outage;
mod transactions;
mod types;

use tempfile::TempDir;
use weft_db::{Db, DbError, DbOptions};
use weft_testing::postgres;

/// An empty database.
struct Place {
    options: DbOptions,
    _folder: Option<TempDir>,
}

impl Place {
    fn sqlite() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("new/test.db").display());
        Place { options: options(url), _folder: Some(folder) }
    }

    async fn postgres() -> Place {
        Place { options: options(postgres::shared().await.database().await), _folder: None }
    }

    async fn open(&self) -> Db {
        Db::connect(&self.options).await.unwrap()
    }
}

fn options(url: String) -> DbOptions {
    DbOptions { url, schema: "testing", max_connections: 8 }
}

async fn refusal(options: &DbOptions) -> DbError {
    Db::connect(options).await.err().unwrap()
}

/// One test for each database.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($place:ident: Place) $body:block)+) => {$(
        mod $name {
            use super::*;

            $(#[$doc])*
            async fn holds($place: Place) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                holds(Place::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                holds(Place::postgres().await).await;
            }
        }
    )+};
}
use on_both;
