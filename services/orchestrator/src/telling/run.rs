//! One streamed answer: who makes it writes its log, who reads it may come and go.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weft_core::Clock;
use weft_proto::orchestrator::v1::ChatEvent;
use weft_proto::orchestrator::v1::chat_event::Event;

use crate::error::Error;
use crate::telling::id::{Locator, RunId};
use crate::telling::log::{End, Found, Log};
use crate::telling::shelf::Shelf;

/// What a reader who has not read yet what has to go keeps the answer waiting at most; then it has lost it.
const SLOW_READER: Duration = Duration::from_secs(10);
/// How often it is looked whether a slow reader has moved on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An answer while it is told and for a while after.
pub struct Run {
    /// Its id.
    pub id: RunId,
    log: watch::Sender<Log>,
    /// The place of each reader.
    readers: watch::Sender<Vec<Arc<AtomicU64>>>,
    /// Ends the work on it.
    stop: CancellationToken,
    shelf: Weak<Shelf>,
}

impl Run {
    /// One that begins.
    pub fn new(id: RunId, shelf: &Arc<Shelf>) -> Run {
        let (log, readers) = (watch::Sender::new(Log::default()), watch::Sender::new(Vec::new()));
        Run { id, log, readers, stop: CancellationToken::new(), shelf: Arc::downgrade(shelf) }
    }

    /// The log, and when it changes.
    pub fn log(&self) -> watch::Receiver<Log> {
        self.log.subscribe()
    }

    /// Happens when the work on it is to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // The sender lives as long as this does.
        let _ended = self.log().wait_for(|log| log.end().is_some()).await.map(drop);
    }

    /// When it ended.
    pub fn ended_at_ms(&self) -> Option<i64> {
        self.log.borrow().end().map(|end| end.at_ms)
    }

    /// Somebody reads from here on, until this is dropped.
    pub fn attend(self: &Arc<Self>, next: u64) -> Attendance {
        let place = Arc::new(AtomicU64::new(next));
        self.readers.send_modify(|readers| readers.push(Arc::clone(&place)));
        Attendance { run: Arc::clone(self), place }
    }

    /// Returns when nobody has read it for this long.
    pub async fn left_alone(&self, grace: Duration) {
        let mut readers = self.readers.subscribe();
        loop {
            let _alone = readers.wait_for(Vec::is_empty).await.map(drop);
            let returned = readers.wait_for(|readers| !readers.is_empty());
            if timeout(grace, returned).await.is_err() {
                return;
            }
        }
    }

    /// Whether a reader wants this event next. Who wants one before it has lost that already.
    fn is_wanted(&self, number: u64) -> bool {
        self.readers.borrow().iter().any(|place| place.load(Ordering::Relaxed) == number)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.left(self.log.borrow().bytes());
        }
    }
}

/// That somebody reads. Dropping it, he has left.
pub struct Attendance {
    run: Arc<Run>,
    place: Arc<AtomicU64>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.run.readers.send_modify(|readers| readers.retain(|place| !Arc::ptr_eq(place, &self.place)));
    }
}

impl Attendance {
    /// The events from its place on as they come, then how the answer ended.
    pub fn events(self) -> impl Stream<Item = Result<ChatEvent, Status>> + Send + 'static {
        let log = self.run.log();
        stream::unfold(Some((self, log)), |reading| async move {
            let (reader, mut log) = reading?;
            loop {
                let number = reader.place.load(Ordering::Relaxed);
                // Marked as seen before it is looked at, so that no change is missed.
                let found = log.borrow_and_update().find(number);
                match found {
                    Found::Event(event) => {
                        reader.place.store(number + 1, Ordering::Relaxed);
                        let event = ChatEvent { id: reader.run.id.event(number), ..*event };
                        return Some((Ok(event), Some((reader, log))));
                    }
                    Found::NotYet => {
                        // The sender lives as long as the reader.
                        let _changed = log.changed().await;
                    }
                    Found::Gone => return Some((Err(Error::RunGone.into()), None)),
                    Found::End(outcome) => return outcome.err().map(|status| (Err(status), None)),
                }
            }
        })
    }
}

/// The one who writes an answer's log. Dropped before the end, the answer is lost.
pub struct Teller {
    run: Arc<Run>,
    shelf: Arc<Shelf>,
    locator: Locator,
    clock: Clock,
    /// Most bytes of it that are kept.
    most: usize,
}

impl Teller {
    /// Of this run, which is on the shelf.
    pub fn new(run: Arc<Run>, shelf: Arc<Shelf>, locator: Locator, clock: Clock, most: usize) -> Teller {
        Teller { run, shelf, locator, clock, most }
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Tells everybody.
    pub async fn tell(&self, event: Event) {
        let event = ChatEvent { event: Some(event), id: String::new() };
        self.run.log.send_modify(|log| self.shelf.take(log.push(&event)));
        let began = Instant::now();
        while self.has_too_much() {
            let first = self.run.log.borrow().first();
            if self.run.is_wanted(first) && began.elapsed() < SLOW_READER {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            let mut freed = 0;
            // Nobody waits for what is dropped.
            self.run.log.send_if_modified(|log| {
                freed = log.drop_first();
                false
            });
            self.shelf.free(freed);
            if freed == 0 {
                return;
            }
        }
    }

    /// Tells how it ended.
    pub fn end(self, outcome: Result<(), Status>) {
        self.close(outcome);
    }

    fn close(&self, outcome: Result<(), Status>) {
        let end = End { at_ms: self.clock.now_ms(), outcome };
        let ended = self.run.log.send_if_modified(|log| {
            let first = log.end().is_none();
            if first {
                log.close(end);
            }
            first
        });
        if ended {
            self.shelf.ended(self.locator);
        }
    }

    fn has_too_much(&self) -> bool {
        self.run.log.borrow().bytes() > self.most || !self.shelf.has_room()
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.close(Err(Error::Lost.into()));
    }
}
