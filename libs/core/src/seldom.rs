//! Trouble that may come with every call, and goes to the log once a minute.
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const EVERY_MS: i64 = 60_000;

/// Remembers when a kind of trouble was last logged. Metrics count each time.
#[derive(Debug)]
pub struct Seldom {
    logged_at_ms: AtomicI64,
    left_out: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom { logged_at_ms: AtomicI64::new(i64::MIN), left_out: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Whether this time is to be logged, and then how many were left out before it.
    pub fn turn(&self, now_ms: i64) -> Option<u64> {
        let logged_at_ms = self.logged_at_ms.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(logged_at_ms) >= EVERY_MS;
        let is_ours =
            || self.logged_at_ms.compare_exchange(logged_at_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_due && is_ours() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_minute_is_logged_and_the_others_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.turn(1_000), Some(0));
        assert_eq!((seldom.turn(1_000), seldom.turn(60_999)), (None, None));
        assert_eq!((seldom.turn(61_000), seldom.turn(61_001)), (Some(2), None));
        assert_eq!(seldom.turn(500_000), Some(1));
    }
}
