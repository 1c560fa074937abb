//! Where the answers of this replica are kept: those that are told, and for a while those that have ended.
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::telling::id::Locator;
use crate::telling::run::Run;

/// So long an answer can be read after its end.
pub const KEPT: Duration = Duration::from_secs(120);
/// What an answer costs beside its events, roughly.
const RUN_BYTES: usize = 1024;

/// The answers.
pub struct Shelf {
    /// Most bytes of all of them.
    most: usize,
    used: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    runs: HashMap<Locator, Arc<Run>>,
    /// Those that have ended, in that order.
    ended: VecDeque<Locator>,
}

impl Shelf {
    /// An empty one for so many bytes.
    pub fn new(most: usize) -> Shelf {
        Shelf { most, used: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Keeps an answer that begins.
    pub fn put(&self, locator: Locator, run: Arc<Run>) {
        self.take(RUN_BYTES);
        self.kept().runs.insert(locator, run);
    }

    /// An answer with so many bytes of events is no more.
    pub fn left(&self, bytes: usize) {
        self.free(bytes + RUN_BYTES);
    }

    /// The answer that is kept here, if its time is not over.
    pub fn get(&self, locator: &Locator, now_ms: i64) -> Option<Arc<Run>> {
        let kept = self.kept();
        kept.runs.get(locator).filter(|run| !run.ended_at_ms().is_some_and(|at_ms| is_over(at_ms, now_ms))).cloned()
    }

    /// This one has ended.
    pub fn ended(&self, locator: Locator) {
        self.kept().ended.push_back(locator);
    }

    /// Forgets those whose time is over.
    pub fn tidy(&self, now_ms: i64) {
        // Dropped when the shelf is free again.
        let mut over = Vec::new();
        let mut kept = self.kept();
        while let Some(first) = kept.ended.front().copied() {
            let ended = kept.runs.get(&first).map(|run| run.ended_at_ms());
            if ended.is_some_and(|ended| !ended.is_some_and(|at_ms| is_over(at_ms, now_ms))) {
                break;
            }
            kept.ended.pop_front();
            over.extend(kept.runs.remove(&first));
        }
        drop(kept);
    }

    /// So many bytes more are used.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes less.
    pub fn free(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether no more is used than may be, after those that have ended have left for it.
    pub fn has_room(&self) -> bool {
        while self.used.load(Ordering::Relaxed) > self.most {
            let left = {
                let mut kept = self.kept();
                let first = kept.ended.pop_front();
                first.map(|first| kept.runs.remove(&first))
            };
            if left.is_none() {
                return false;
            }
        }
        true
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer that ended then is not to be read any more.
pub fn is_over(ended_at_ms: i64, now_ms: i64) -> bool {
    let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_sub(ended_at_ms) > kept_ms
}
