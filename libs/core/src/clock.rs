//! Time and ids, always taken from a [`Clock`] so that tests can move it.
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that only moves when told to, in ms since 1970.
    Manual(Arc<AtomicI64>),
    /// The machine's clock, so many ms ahead of it (or behind).
    Shifted(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `now_ms` until it is advanced.
    pub fn manual(now_ms: i64) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(now_ms)))
    }

    /// A clock that runs with the machine's and can be set.
    pub fn shifted() -> Self {
        Clock::Shifted(Arc::default())
    }

    /// UTC in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        match self {
            Clock::System => machine_ms(),
            Clock::Manual(now) => now.load(Ordering::SeqCst),
            Clock::Shifted(ahead) => machine_ms().saturating_add(ahead.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual or shifted clock forward; the machine's clock is not touched.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(ms) | Clock::Shifted(ms) = self {
            ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a manual or shifted clock, to ms since 1970; the machine's clock is not touched.
    pub fn set(&self, now_ms: i64) {
        match self {
            Clock::System => {}
            Clock::Manual(now) => now.store(now_ms, Ordering::SeqCst),
            Clock::Shifted(ahead) => ahead.store(now_ms.saturating_sub(machine_ms()), Ordering::SeqCst),
        }
    }
}

fn machine_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// A new id: UUID v7 text. Ids made later sort later.
pub fn new_id() -> String {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    let id = Uuid::now_v7();
    id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let same = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(same.now_ms(), 3_000);
    }

    #[test]
    fn a_shifted_clock_runs_on_from_where_it_was_set() {
        let clock = Clock::shifted();
        clock.set(1_000_000);
        let first = clock.now_ms();
        assert!((1_000_000..1_010_000).contains(&first), "{first}");
        clock.advance(Duration::from_secs(60));
        assert!(clock.now_ms() >= first + 60_000);
        assert!(Clock::System.now_ms() > 2_000_000, "the machine's clock is not touched");
    }

    #[test]
    fn ids_sort_by_age() {
        let ids: Vec<String> = (0..100).map(|_| new_id()).collect();
        assert!(ids.is_sorted());
    }
}
