//! How long ago something was, also when a clock misbehaves.
use std::time::Duration;

use tokio::time::Instant;
use weft_core::Clock;

/// A point in time on the wall clock and on the monotonic one. Age is the larger of the two: the wall clock
/// can be set back (or stand still under a test), and neither may keep something cached for longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall_ms: i64,
    monotonic: Instant,
}

impl Moment {
    pub(crate) fn now(clock: &Clock) -> Self {
        Moment { wall_ms: clock.now_ms(), monotonic: Instant::now() }
    }

    /// The time that passed from `earlier` to this; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        let wall_ms = u64::try_from(self.wall_ms.saturating_sub(earlier.wall_ms)).unwrap_or(0);
        self.monotonic.saturating_duration_since(earlier.monotonic).max(Duration::from_millis(wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_younger() {
        let later = Clock::manual(60_000);
        let earlier = Clock::manual(50_000);
        let start = Moment::now(&later);
        assert!(Moment::now(&earlier).since(start) < Duration::from_secs(1));
        later.advance(Duration::from_secs(7));
        assert!(Moment::now(&later).since(start) >= Duration::from_secs(7));
    }
}
