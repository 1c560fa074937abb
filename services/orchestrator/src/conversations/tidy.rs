//! What time brings to conversations: those that nobody uses go. Every replica looks after all of them.
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use weft_db::{Db, DbError, Tx};
use weft_runtime::Shutdown;

use super::Conversations;
use crate::domain::conversation::EMPTY_MS;
use crate::error::Error;
use crate::store::conversation_end::{OverRow, session_delete_silent, session_empty_before, session_silent_before};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);
/// Sessions that are looked for at once.
pub const SESSIONS: i64 = 100;
/// Messages that one transaction deletes, unless a single session has more.
const MESSAGES: i64 = 2_000;

/// Looks after everything until the shutdown.
pub async fn run(all: Conversations, shutdown: Shutdown) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => {}
        }
        for (product, count) in all.active.count(all.clock.now_ms()) {
            metrics::gauge!("weft_chat_sessions_active", "product" => product).set(count as f64);
        }
        let Ok(ready) = all.database.ready() else { continue };
        tokio::select! {
            () = shutdown.wait() => return,
            done = tidy(&all, &ready.db) => if let Err(error) = done {
                tracing::warn!(%error, "old sessions could not be forgotten, trying again");
            }
        }
    }
}

async fn tidy(all: &Conversations, db: &Db) -> Result<(), Error> {
    let now_ms = all.clock.now_ms();
    let empty_before = now_ms.saturating_sub(EMPTY_MS);
    forget(db, empty_before, || session_empty_before(db, empty_before, SESSIONS)).await?;
    if let Some(silent_ms) = all.silent_ms {
        let before = now_ms.saturating_sub(silent_ms);
        forget(db, before, || session_silent_before(db, before, SESSIONS)).await?;
    }
    Ok(())
}

/// Deletes what is over, unless something is said in it meanwhile.
async fn forget<F>(db: &Db, before: i64, over: impl Fn() -> F) -> Result<(), Error>
where
    F: Future<Output = Result<Vec<OverRow>, DbError>>,
{
    loop {
        let sessions = over().await?;
        let mut forgotten = 0;
        for some in batches(&sessions) {
            let delete = async |tx: Tx| {
                let mut deleted = 0;
                for OverRow { product, id, .. } in some {
                    deleted += u64::from(session_delete_silent(&tx, product, id, before).await?);
                }
                Ok::<_, Error>(deleted)
            };
            forgotten += db.write("chat_sessions_forget", delete).await?;
        }
        if forgotten == 0 {
            return Ok(());
        }
        metrics::counter!("weft_chat_sessions_forgotten_total").increment(forgotten);
        tracing::info!(forgotten, "sessions that nobody used were forgotten");
    }
}

/// Parts of these sessions that one transaction can delete.
pub fn batches(sessions: &[OverRow]) -> impl Iterator<Item = &[OverRow]> {
    let mut rest = sessions;
    std::iter::from_fn(move || {
        let mut messages = 0;
        let fits = |session: &&OverRow| {
            messages += session.message_count;
            messages <= MESSAGES
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (batch, after) = rest.split_at_checked(count)?;
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_deletes_so_many_messages_or_one_session() {
        let of = |message_count| OverRow { product: "p".to_owned(), id: "i".to_owned(), message_count };
        let counts = |given: &[i64]| {
            let sessions: Vec<OverRow> = given.iter().copied().map(of).collect();
            batches(&sessions).map(<[OverRow]>::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[]), [] as [usize; 0]);
        assert_eq!(counts(&[0, 0, 0]), [3]);
        assert_eq!(counts(&[1_000, 1_000, 1, 9_999, 5]), [2, 1, 1, 1]);
    }
}
