//! The generic cell rate algorithm (GCRA), and the limiter of one process.
//!
//! A key's whole state is its *theoretical arrival time*: the moment up to which its allowance is spent. A key
//! whose moment has passed is idle and needs no state at all, so idle keys can be forgotten without changing
//! any decision. The same steps are in `limit.lua` for Redis.
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Times a minute, and at once after idling. 0 admits nothing.
    pub per_minute: u32,
}

/// The answer of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead; it has been counted.
    Admitted {
        /// How many more would be admitted at this moment.
        remaining: u32,
        /// After this time without requests the whole allowance is there again.
        reset: Duration,
    },
    /// Not now; it has not been counted.
    Refused {
        /// The next one is admitted after exactly this time (whole milliseconds, rounded up).
        retry_after: Duration,
    },
}

impl Decision {
    /// Whether to go ahead.
    pub fn is_admitted(&self) -> bool {
        matches!(self, Decision::Admitted { .. })
    }
}

/// A rate as GCRA counts it, in µs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What one request spends. Rounded up, so that rounding never admits more than the rate.
    pub(crate) interval_us: i64,
    /// How far ahead of now may be spent: exactly `per_minute` intervals.
    pub(crate) window_us: i64,
}

impl Pace {
    /// None for a rate of 0, which has no pace.
    pub(crate) fn of(rate: Rate) -> Option<Pace> {
        let limit = i64::from(rate.per_minute);
        let interval_us = (60_000_000 + limit - 1).checked_div(limit)?;
        Some(Pace { interval_us, window_us: interval_us * limit })
    }

    /// What a limiter found, as an answer: Ok is how far ahead the key is now, Err how long it has to wait, in µs.
    pub(crate) fn decision(self, found: Result<i64, i64>) -> Decision {
        match found {
            Ok(ahead_us) => Decision::Admitted {
                remaining: u32::try_from((self.window_us - ahead_us) / self.interval_us).unwrap_or(0),
                reset: whole_ms(ahead_us),
            },
            Err(wait_us) => Decision::Refused { retry_after: whole_ms(wait_us) },
        }
    }
}

/// The answer to a rate of 0: there is no moment at which it would be admitted, so come back in a minute.
pub(crate) const CLOSED: Decision = Decision::Refused { retry_after: Duration::from_secs(60) };

fn whole_ms(us: i64) -> Duration {
    Duration::from_millis(u64::try_from(us).unwrap_or(0).div_ceil(1000))
}

/// Locks taken one at a time by different keys.
const SHARDS: usize = 64;
/// Keys of a shard; with all shards half a million, some 20 MB.
const MAX_KEYS_PER_SHARD: usize = 8 * 1024;
/// Keys that are left of a full shard, so that the next sweep is a shard's half away.
const KEPT_KEYS_PER_SHARD: usize = MAX_KEYS_PER_SHARD / 2;
/// Below this a shard is not worth sweeping.
const MIN_KEYS_PER_SWEEP: usize = 256;

/// The limiter of one process. Keys are kept as a hash with a seed of this process: their length costs nothing,
/// nobody outside can make two collide, and at the most keys that are ever held two share a count by accident
/// with a chance of 1 to 100 million.
pub(crate) struct Limiter {
    seed: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

struct Shard {
    /// Theoretical arrival time in µs since 1970 by the key's hash.
    arrivals_us: HashMap<u64, i64>,
    /// Size at which to look for idle keys: twice what was left the last time, so that a sweep costs each new
    /// key a constant.
    sweep_at: usize,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        let shard = || Mutex::new(Shard { arrivals_us: HashMap::new(), sweep_at: MIN_KEYS_PER_SWEEP });
        Limiter { seed: RandomState::new(), shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Counts one request of `key` at `now_ms`.
    pub(crate) fn admit(&self, key: &str, rate: Rate, now_ms: i64) -> Decision {
        let Some(pace) = Pace::of(rate) else {
            return CLOSED;
        };
        let hash = self.seed.hash_one(key);
        let shard = &self.shards[(hash % SHARDS as u64) as usize];
        // A panic while holding the lock cannot leave a shard half changed.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        pace.decision(shard.admit(hash, pace, now_ms.saturating_mul(1000)))
    }

    #[cfg(test)]
    fn tracked_keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().arrivals_us.len()).sum()
    }
}

impl Shard {
    fn admit(&mut self, hash: u64, pace: Pace, now_us: i64) -> Result<i64, i64> {
        let known = self.arrivals_us.get_mut(&hash);
        // Never further ahead than the window: after the clock was set back a key waits for one interval, not for
        // the difference.
        let ahead = known.as_ref().map_or(0, |arrival| (**arrival - now_us).clamp(0, pace.window_us));
        let next = ahead + pace.interval_us;
        if next > pace.window_us {
            return Err(next - pace.window_us);
        }
        match known {
            Some(arrival) => *arrival = now_us + next,
            None => self.insert(hash, now_us + next, now_us),
        }
        Ok(next)
    }

    fn insert(&mut self, hash: u64, arrival_us: i64, now_us: i64) {
        if self.arrivals_us.len() >= self.sweep_at {
            self.sweep(now_us);
        }
        self.arrivals_us.insert(hash, arrival_us);
    }

    /// Forgets idle keys; if too many are active, also those that are closest to idle. A flood of fresh keys
    /// evicts itself that way, and whoever has spent most stays known.
    fn sweep(&mut self, now_us: i64) {
        self.arrivals_us.retain(|_, arrival| *arrival > now_us);
        if let Some(excess) = self.arrivals_us.len().checked_sub(KEPT_KEYS_PER_SHARD).filter(|excess| *excess > 0) {
            let mut arrivals: Vec<i64> = self.arrivals_us.values().copied().collect();
            let (_, last_to_go, _) = arrivals.select_nth_unstable(excess - 1);
            self.arrivals_us.retain(|_, arrival| *arrival > *last_to_go);
        }
        let kept = self.arrivals_us.len();
        self.sweep_at = (2 * kept).max(MIN_KEYS_PER_SWEEP);
        self.arrivals_us.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: i64 = 1_800_000_000_000;
    const SIXTY: Rate = Rate { per_minute: 60 };

    fn spend(limiter: &Limiter, key: &str, rate: Rate, now_ms: i64, times: usize) -> usize {
        (0..times).filter(|_| limiter.admit(key, rate, now_ms).is_admitted()).count()
    }

    #[test]
    fn an_idle_key_gets_exactly_its_limit_and_then_one_an_interval() {
        for per_minute in [1, 2, 7, 20, 60, 200, 777, 5_000] {
            let (limiter, rate) = (Limiter::new(), Rate { per_minute });
            assert_eq!(spend(&limiter, "key", rate, START_MS, 10_000), per_minute as usize);
            let steps_ms = (1..=300_000).step_by(4);
            let later: usize = steps_ms.map(|ms| spend(&limiter, "key", rate, START_MS + ms, 2)).sum();
            let most = per_minute as usize * 5;
            assert!((most - most / 1000 - 1..=most).contains(&later), "{later} of {most}");
        }
    }

    #[test]
    fn remaining_and_reset_count_down() {
        let limiter = Limiter::new();
        let rate = Rate { per_minute: 3 };
        let told: Vec<Decision> = (0..4).map(|_| limiter.admit("key", rate, START_MS)).collect();
        let seconds = Duration::from_secs;
        assert_eq!(told[0], Decision::Admitted { remaining: 2, reset: seconds(20) });
        assert_eq!(told[1], Decision::Admitted { remaining: 1, reset: seconds(40) });
        assert_eq!(told[2], Decision::Admitted { remaining: 0, reset: seconds(60) });
        assert_eq!(told[3], Decision::Refused { retry_after: seconds(20) });
    }

    #[test]
    fn a_clock_that_is_set_back_costs_one_interval() {
        let limiter = Limiter::new();
        assert_eq!(spend(&limiter, "key", SIXTY, START_MS, 60), 60);
        let day_before = START_MS - 86_400_000;
        assert_eq!(limiter.admit("key", SIXTY, day_before), Decision::Refused { retry_after: Duration::from_secs(1) });
    }

    #[test]
    fn idle_keys_are_forgotten() {
        let limiter = Limiter::new();
        for round in 0..10 {
            let now_ms = START_MS + round * 60_000;
            for key in 0..100_000 {
                assert!(limiter.admit(&format!("{round}/{key}"), SIXTY, now_ms).is_admitted());
            }
            let tracked = limiter.tracked_keys();
            assert!((100_000..=200_000).contains(&tracked), "{tracked} after round {round}");
        }
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_does_not_wash_out_who_has_spent() {
        let limiter = Limiter::new();
        assert_eq!(spend(&limiter, "greedy", SIXTY, START_MS, 100), 60);
        for key in 0..1_200_000 {
            limiter.admit(&key.to_string(), SIXTY, START_MS);
        }
        assert!(limiter.tracked_keys() <= SHARDS * MAX_KEYS_PER_SHARD);
        assert!(!limiter.admit("greedy", SIXTY, START_MS).is_admitted());
    }

    proptest! {
        #[test]
        fn no_pattern_of_requests_gets_more_than_the_limit_and_its_refill(
            per_minute in 1u32..2_000,
            pauses_ms in prop::collection::vec(prop_oneof![3 => Just(0i64), 2 => 1i64..100, 1 => 100i64..90_000], 1..400),
        ) {
            let (limiter, rate) = (Limiter::new(), Rate { per_minute });
            let mut now_ms = START_MS;
            let mut admitted_at = Vec::new();
            for pause_ms in pauses_ms {
                now_ms += pause_ms;
                if limiter.admit("key", rate, now_ms).is_admitted() {
                    admitted_at.push(now_ms);
                }
            }
            for (first, start_ms) in admitted_at.iter().enumerate() {
                for (last, end_ms) in admitted_at.iter().enumerate().skip(first) {
                    let refilled = (end_ms - start_ms) * i64::from(per_minute) / 60_000;
                    prop_assert!((last - first + 1) as i64 <= i64::from(per_minute) + refilled);
                }
            }
        }

        #[test]
        fn a_refusal_says_to_the_millisecond_how_long_to_wait(per_minute in 1u32..5_000, spent_ms in 0i64..3_000) {
            let (limiter, rate) = (Limiter::new(), Rate { per_minute });
            let now_ms = START_MS + spent_ms;
            spend(&limiter, "key", rate, START_MS, per_minute as usize);
            spend(&limiter, "key", rate, now_ms, per_minute as usize);
            let Decision::Refused { retry_after } = limiter.admit("key", rate, now_ms) else { panic!("all is spent") };
            let then_ms = now_ms + retry_after.as_millis() as i64;
            prop_assert!(!limiter.admit("key", rate, then_ms - 1).is_admitted());
            prop_assert!(limiter.admit("key", rate, then_ms).is_admitted());
        }
    }
}
