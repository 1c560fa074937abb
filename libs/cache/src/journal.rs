//! What one process writes and all others read while it is written: entries in order, with signs of life.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use crate::error::CacheError;
use crate::redis::{Redis, Script};
use crate::{MAX_VALUE_BYTES, check_key};

const WRITE: &str = include_str!("journal_write.lua");
const READ: &str = include_str!("journal_read.lua");

/// The scripts of journals.
pub(crate) struct Scripts {
    write: Script,
    read: Script,
}

impl Scripts {
    pub(crate) fn new() -> Scripts {
        Scripts { write: Script::new(WRITE), read: Script::new(READ) }
    }
}

/// A journal in Redis, by its key. It has one writer, who renews a mark while it lives; readers leave a mark too, and may
/// leave the wish that it be stopped. An entry has a place, a number that never falls.
#[derive(Clone)]
pub struct Journal {
    redis: Arc<Redis>,
    keys: [String; 4],
}

/// One turn of a writer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Place of the entry.
    pub place: u64,
    /// The entry; empty: none. Writing one again that may have been written is for the reader to notice.
    pub entry: Bytes,
    /// Entries whose places are before this are dropped.
    pub keep_from: u64,
    /// How long the journal outlasts this turn.
    pub ttl: Duration,
    /// How long the writer counts as alive.
    pub alive: Duration,
}

/// What a writer hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Somebody has read lately.
    pub is_read: bool,
    /// Somebody wants it stopped.
    pub is_stopped: bool,
}

/// What a reader sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// There is an entry, maybe before the place.
    pub exists: bool,
    /// Its writer has given a sign of life lately.
    pub is_written: bool,
    /// The entries from the place on, in order.
    pub entries: Vec<Bytes>,
}

impl Journal {
    pub(crate) fn new(redis: Arc<Redis>, key: &str) -> Result<Journal, CacheError> {
        check_key(key)?;
        let keys = ["log", "writer", "reader", "stop"].map(|part| format!("weft:journal:{key}:{part}"));
        Ok(Journal { redis, keys })
    }

    /// Writes what there is, and that the writer lives.
    ///
    /// # Errors
    /// [`CacheError::ValueTooLarge`], [`CacheError::InvalidTtl`]; [`CacheError::Unavailable`], after which the entry may be
    /// there or not.
    pub async fn write(&self, turn: Turn) -> Result<Heard, CacheError> {
        if turn.entry.len() > MAX_VALUE_BYTES {
            return Err(CacheError::ValueTooLarge { bytes: turn.entry.len() });
        }
        let (ttl_ms, alive_ms) = (milliseconds(turn.ttl)?, milliseconds(turn.alive)?);
        let numbers = [number(turn.keep_from), ttl_ms, alive_ms].map(Value::from);
        let arguments = [Value::from(number(turn.place)), Value::from(turn.entry)].into_iter().chain(numbers).collect();
        let heard: (i64, i64) = self.redis.run(&self.redis.journals.write, self.keys.to_vec(), arguments).await?;
        Ok(Heard { is_read: heard.0 > 0, is_stopped: heard.1 > 0 })
    }

    /// At most so many entries from a place on. That somebody reads is known for `mark`.
    ///
    /// # Errors
    /// [`CacheError::InvalidTtl`], [`CacheError::Unavailable`].
    pub async fn read(&self, from: u64, at_most: u32, mark: Duration) -> Result<Seen, CacheError> {
        let arguments = [number(from), i64::from(at_most), milliseconds(mark)?].map(Value::from).to_vec();
        let answer: (i64, i64, Vec<Bytes>) =
            self.redis.run(&self.redis.journals.read, self.keys.to_vec(), arguments).await?;
        let (exists, lives, entries) = answer;
        Ok(Seen { exists: exists > 0, is_written: lives > 0, entries })
    }

    /// Tells the writer to stop, for as long as it takes until its next turn, `mark` at most.
    ///
    /// # Errors
    /// [`CacheError::InvalidTtl`], [`CacheError::Unavailable`].
    pub async fn stop(&self, mark: Duration) -> Result<(), CacheError> {
        let [_, _, _, stop] = &self.keys;
        self.redis.mark(stop, milliseconds(mark)?).await
    }
}

fn milliseconds(time: Duration) -> Result<i64, CacheError> {
    i64::try_from(time.as_millis()).ok().filter(|ms| *ms > 0).ok_or(CacheError::InvalidTtl)
}

/// Places are far below what a score in Redis, a double, tells apart.
fn number(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}
