//! Writes an answer's log to Redis, sealed, for readers at other replicas, and hears of them.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use weft_cache::{Heard, Journal, Turn};

use crate::error::Error;
use crate::telling::log::Log;
use crate::telling::page::Page;
use crate::telling::run::{Attendance, Run};
use crate::telling::seal::Sealer;
use crate::telling::shelf::KEPT;

/// A writer says at least this often that it is there.
const BEAT: Duration = Duration::from_millis(250);
/// So long after the last one it counts as alive. Readers know of its death within two seconds.
pub const ALIVE: Duration = Duration::from_millis(1_500);
/// While somebody reads elsewhere, what has gathered is written this often; else with the beat, since then it is only
/// needed once somebody comes.
const READ_BEAT: Duration = Duration::from_millis(20);
/// After this time a write that failed is tried again.
const AGAIN: Duration = Duration::from_millis(40);
/// So long the rest of an answer that has ended is tried to be written.
const GIVE_UP: Duration = Duration::from_secs(30);

/// What writes one answer.
struct Mirror {
    run: Arc<Run>,
    journal: Journal,
    sealer: Sealer,
    /// Number of the first event that is not written.
    next: u64,
    /// While somebody reads elsewhere.
    reader: Option<Attendance>,
}

/// Writes until all of it is written. It never keeps the answer waiting: what comes meanwhile goes together.
pub async fn mirror(run: Arc<Run>, journal: Journal) {
    let sealer = Sealer::new(&run.id);
    let mut log = run.log();
    let mut mirror = Mirror { run, journal, sealer, next: 0, reader: None };
    let mut ended = None;
    loop {
        match mirror.write(&mut log).await {
            Ok(true) => return,
            Ok(false) => {}
            // Redis is away, or there is no other: the next turn says the same again.
            // A reader elsewhere takes silence for death, so it says it at once.
            Err(error) => {
                tracing::debug!(%error, "an answer cannot be written for other replicas");
                sleep(AGAIN).await;
            }
        }
        let is_over = log.borrow().end().is_some();
        if is_over && ended.get_or_insert_with(Instant::now).elapsed() > GIVE_UP {
            return;
        }
        mirror.pause(&mut log, is_over).await;
    }
}

impl Mirror {
    /// Writes the next page. Whether it was the last one.
    async fn write(&mut self, log: &mut watch::Receiver<Log>) -> Result<bool, Error> {
        let (page, keep_from) = {
            let log = log.borrow_and_update();
            (Page::of(&log, self.next), log.first())
        };
        let entry = if page.is_empty() { Bytes::new() } else { self.sealer.seal(&page.encode_to_vec())? };
        let turn = Turn { place: page.place(), entry, keep_from, ttl: KEPT, alive: ALIVE };
        let heard = self.journal.write(turn).await.map_err(Error::Cache)?;
        self.next = page.next();
        self.hear(heard);
        Ok(page.end.is_some())
    }

    fn hear(&mut self, heard: Heard) {
        if heard.is_stopped {
            self.run.stop().cancel();
        }
        match (heard.is_read, &self.reader) {
            // It waits for nobody else's connection: what it wants is in Redis.
            (true, None) => self.reader = Some(self.run.attend(u64::MAX)),
            (false, Some(_)) => self.reader = None,
            _ => {}
        }
    }

    /// Waits until there is something to write, but not for long.
    async fn pause(&self, log: &mut watch::Receiver<Log>, is_over: bool) {
        if is_over {
            return sleep(READ_BEAT).await;
        }
        let has_ended = |log: &Log| log.end().is_some();
        if self.reader.is_none() {
            let _beat = timeout(BEAT, log.wait_for(has_ended)).await.map(drop);
            return;
        }
        let _first = timeout(READ_BEAT, log.wait_for(has_ended)).await.map(drop);
        let next = self.next;
        let _more = timeout(BEAT, log.wait_for(|log| has_ended(log) || log.next() > next)).await.map(drop);
    }
}
