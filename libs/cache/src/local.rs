//! Limits and state of one process.
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Store;
use weft_core::Clock;

use crate::limit::{Binding, Limiter, Rate};

/// Keys and values that are held in process at most, in bytes.
pub const LOCAL_STATE_BYTES: u64 = 64 * 1024 * 1024;
/// Values from this size on are weighed at once, because the store works off what was written in batches of 64.
const WEIGH_AT_ONCE_BYTES: usize = 64 * 1024;
/// What an entry costs beside its key and value, roughly.
const ENTRY_BYTES: usize = 200;

/// The cache of one process.
pub struct Local {
    clock: Clock,
    limiter: Limiter,
    store: Store<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    value: Bytes,
    ttl_ms: i64,
    expires_at_ms: i64,
}

/// Frees the memory of what is over. The answer to a caller goes by `expires_at_ms`, that is by the [`Clock`].
struct AfterTtl;

impl Expiry<String, Entry> for AfterTtl {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl())
    }

    fn expire_after_update(&self, _: &String, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.ttl())
    }
}

impl Entry {
    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms.unsigned_abs())
    }
}

impl Local {
    pub(crate) fn new(clock: Clock) -> Self {
        let weigh = |key: &String, entry: &Entry| {
            u32::try_from(key.len() + entry.value.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        // Least recently used, not least frequently: a new value must never be turned away in favour of old ones.
        let store = Store::builder()
            .max_capacity(LOCAL_STATE_BYTES)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AfterTtl);
        Local { clock, limiter: Limiter::new(), store: store.build() }
    }

    pub(crate) fn admit(&self, limits: &[(&str, Rate)]) -> Option<Binding> {
        self.limiter.admit(limits, self.clock.now_ms())
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.store.get(key).filter(|entry| entry.expires_at_ms > self.clock.now_ms()).map(|entry| entry.value)
    }

    pub(crate) fn set(&self, key: &str, value: Bytes, ttl_ms: i64) {
        let (size, entry) = (value.len(), self.entry(value, ttl_ms));
        // Through the key's lock like the others, so that it cannot fall between the look and the write of
        // set_if_absent.
        self.store.entry_by_ref(key).and_compute_with(|_| Op::Put(entry));
        self.weigh(size);
    }

    pub(crate) fn set_if_absent(&self, key: &str, value: Bytes, ttl_ms: i64) -> bool {
        let (size, entry) = (value.len(), self.entry(value, ttl_ms));
        let now_ms = self.clock.now_ms();
        let result = self.store.entry_by_ref(key).and_compute_with(|found| match found {
            Some(found) if found.value().expires_at_ms > now_ms => Op::Nop,
            _ => Op::Put(entry),
        });
        self.weigh(size);
        matches!(result, CompResult::Inserted(_) | CompResult::ReplacedWith(_))
    }

    pub(crate) fn replace(&self, key: &str, seen: &[u8], value: Bytes, ttl_ms: i64) -> bool {
        let (size, entry) = (value.len(), self.entry(value, ttl_ms));
        let now_ms = self.clock.now_ms();
        let result = self.store.entry_by_ref(key).and_compute_with(|found| match found {
            Some(found) if found.value().expires_at_ms > now_ms && *found.value().value == *seen => Op::Put(entry),
            _ => Op::Nop,
        });
        self.weigh(size);
        matches!(result, CompResult::ReplacedWith(_))
    }

    pub(crate) fn delete(&self, key: &str) {
        self.store.entry_by_ref(key).and_compute_with(|_| Op::Remove);
    }

    pub(crate) fn take(&self, key: &str) -> Option<Bytes> {
        match self.store.entry_by_ref(key).and_compute_with(|_| Op::Remove) {
            CompResult::Removed(entry) => {
                let entry = entry.into_value();
                (entry.expires_at_ms > self.clock.now_ms()).then_some(entry.value)
            }
            _ => None,
        }
    }

    fn weigh(&self, written_bytes: usize) {
        if written_bytes >= WEIGH_AT_ONCE_BYTES {
            self.store.run_pending_tasks();
        }
    }

    fn entry(&self, value: Bytes, ttl_ms: i64) -> Entry {
        // A slice of a larger buffer would keep all of it alive, and the weigher would not know.
        let value = Bytes::copy_from_slice(&value);
        Entry { value, ttl_ms, expires_at_ms: self.clock.now_ms().saturating_add(ttl_ms) }
    }
}
