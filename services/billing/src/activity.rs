//! Which accounts there are and when they last came, for analytics. Noted beside the answers: in batches, in the
//! background, at most once per account, UTC day and process.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use weft_db::{Db, DbError, Tx};
use weft_runtime::Mesh;

use crate::domain::day::day_of;
use crate::store::account::account_note_active;

/// How long notes gather before they are written.
const GATHER: Duration = Duration::from_millis(500);
/// How many accounts one transaction writes.
const BATCH: usize = 200;
/// How many notes wait at most while the database is away; an account that finds no room is noted at its next call.
const WAITING_MAX: usize = 100_000;

/// A note: who, and when in ms since 1970.
type Notes = HashMap<(String, String), i64>;

/// Takes notes. Clones share one list.
#[derive(Clone)]
pub struct Activity(Arc<Inner>);

struct Inner {
    waiting: Mutex<Notes>,
    some: Notify,
}

impl Activity {
    /// Writes what is noted until the shutdown, and then the rest.
    pub fn start(db: &Db, mesh: &Mesh) -> Activity {
        let activity = Activity(Arc::new(Inner { waiting: Mutex::default(), some: Notify::new() }));
        let (noted, db, shutdown) = (activity.clone(), db.clone(), mesh.shutdown().clone());
        mesh.tasks().spawn("activity", async move {
            while !shutdown.is_triggered() {
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = noted.0.some.notified() => tokio::select! {
                        () = shutdown.wait() => {}
                        () = tokio::time::sleep(GATHER) => {}
                    },
                }
                noted.write(&db).await;
            }
        });
        activity
    }

    /// Remembers that an account was active now. Never waits.
    pub fn note(&self, product: &str, user_id: &str, now_ms: i64) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.entry((product.to_owned(), user_id.to_owned())).or_insert(now_ms);
            self.0.some.notify_one();
        }
    }

    /// Writes all that waits. What cannot be written is noted again at the account's next call: a database that is away
    /// must not hold up the end of the service.
    async fn write(&self, db: &Db) {
        let notes = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut notes: Vec<_> = notes.into_iter().collect();
        // Replicas that write the same accounts lock them in the same order.
        notes.sort();
        for batch in notes.chunks(BATCH) {
            let written: Result<(), DbError> = db
                .write("activity", async |tx: Tx| {
                    for ((product, user_id), at) in batch {
                        account_note_active(&tx, product, user_id, *at, day_of(*at)).await?;
                    }
                    Ok(())
                })
                .await;
            if let Err(error) = written {
                tracing::warn!(%error, accounts = notes.len(), "activity was not noted, the next calls will");
                return;
            }
        }
    }
}
