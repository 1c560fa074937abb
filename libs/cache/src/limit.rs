//! The generic cell rate algorithm (GCRA), and the limiter of one process.
//!
//! A key's state is its *theoretical arrival time*: the moment up to which its allowance is spent. A key whose moment
//! has passed is idle and needs no state at all, so idle keys can be forgotten without changing any decision. The same
//! steps are in `limit.lua` for Redis.
//!
//! A key's rate may change, because its plan does. With a higher rate the requests that are spent stay spent, and the
//! rest of the new allowance is there at once; with a lower one the spent part of the minute stays spent. The highest
//! rate since the key was idle is remembered with it, so that going down and up again is no second allowance: whatever
//! the changes, no more is admitted than the highest rate alone would.
use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// The answer to a request that several limits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which of the limits binds: of those that refuse the one with the longest wait, else the one with the fewest
    /// remaining.
    pub limit: usize,
    /// What it says.
    pub decision: Decision,
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
    pub(crate) per_minute: u32,
    /// What one request spends. Rounded up, so that rounding never admits more than the rate.
    interval_us: i64,
    /// How far ahead of now may be spent: exactly `per_minute` intervals.
    window_us: i64,
}

impl Pace {
    /// None for a rate of 0, which has no pace.
    pub(crate) fn of(rate: Rate) -> Option<Pace> {
        let limit = i64::from(rate.per_minute);
        let interval_us = (60_000_000 + limit - 1).checked_div(limit)?;
        Some(Pace { per_minute: rate.per_minute, interval_us, window_us: interval_us * limit })
    }

    /// The paces of several rates, or the place of the first that has none.
    pub(crate) fn of_all(rates: impl Iterator<Item = Rate>) -> Result<Vec<Pace>, usize> {
        rates.enumerate().map(|(place, rate)| Pace::of(rate).ok_or(place)).collect()
    }

    fn admitted(self, ahead_us: i64) -> Decision {
        Decision::Admitted {
            remaining: u32::try_from((self.window_us - ahead_us) / self.interval_us).unwrap_or(0),
            reset: whole_ms(ahead_us),
        }
    }
}

/// What a limiter found of several limits, as an answer. Ok is how far ahead each key is now; Err how long each has to
/// wait, 0 for those that would have admitted. All in µs.
pub(crate) fn verdict(paces: &[Pace], found: Result<&[i64], &[i64]>) -> Option<Binding> {
    let tightest = match found {
        Ok(ahead_us) => {
            let admitted = paces.iter().zip(ahead_us).map(|(pace, ahead_us)| pace.admitted(*ahead_us)).enumerate();
            admitted.min_by_key(|(_, decision)| match decision {
                Decision::Admitted { remaining, reset } => (*remaining, Reverse(*reset)),
                Decision::Refused { .. } => (0, Reverse(Duration::MAX)),
            })
        }
        Err(wait_us) => {
            let longest = wait_us.iter().enumerate().max_by_key(|(_, wait_us)| **wait_us);
            longest.map(|(limit, wait_us)| (limit, Decision::Refused { retry_after: whole_ms(*wait_us) }))
        }
    };
    tightest.map(|(limit, decision)| Binding { limit, decision })
}

/// The answer to a rate of 0: there is no moment at which it would be admitted, so come back in a minute.
pub(crate) const CLOSED: Decision = Decision::Refused { retry_after: Duration::from_secs(60) };

fn whole_ms(us: i64) -> Duration {
    Duration::from_millis(u64::try_from(us).unwrap_or(0).div_ceil(1000))
}

/// Locks taken one at a time by different keys.
const SHARDS: usize = 64;
/// Keys of a shard; with all shards half a million, some 30 MB.
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
    /// What is spent, by the key's hash.
    spent: HashMap<u64, Spent>,
    /// Size at which to look for idle keys: twice what was left the last time, so that a sweep costs each new
    /// key a constant.
    sweep_at: usize,
}

/// What a key has spent.
#[derive(Clone, Copy)]
struct Spent {
    /// Theoretical arrival time in µs since 1970.
    until_us: i64,
    /// The highest rate since the key was last idle; the time is counted at this one.
    per_minute: u32,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        let shard = || Mutex::new(Shard { spent: HashMap::new(), sweep_at: MIN_KEYS_PER_SWEEP });
        Limiter { seed: RandomState::new(), shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Counts one request at `now_ms` against each of the limits, or against none if one of them refuses it.
    pub(crate) fn admit(&self, limits: &[(&str, Rate)], now_ms: i64) -> Option<Binding> {
        let paces = match Pace::of_all(limits.iter().map(|(_, rate)| *rate)) {
            Ok(paces) => paces,
            Err(limit) => return Some(Binding { limit, decision: CLOSED }),
        };
        let now_us = now_ms.saturating_mul(1000);
        let hashes: Vec<u64> = limits.iter().map(|(key, _)| self.seed.hash_one(key)).collect();
        let place = |hash: u64| (hash % SHARDS as u64) as usize;
        // Each shard once and in their order, so that no two calls wait for each other.
        let mut places: Vec<usize> = hashes.iter().map(|hash| place(*hash)).collect();
        places.sort_unstable();
        places.dedup();
        // A panic while holding the lock cannot leave a shard half changed.
        let lock = |place: &usize| self.shards[*place].lock().unwrap_or_else(PoisonError::into_inner);
        let mut locked: Vec<MutexGuard<'_, Shard>> = places.iter().map(lock).collect();
        let shard_of = |hash: u64| places.iter().position(|one| *one == place(hash)).unwrap_or(0);

        let looks = hashes.iter().zip(&paces).map(|(hash, pace)| locked[shard_of(*hash)].look(*hash, *pace, now_us));
        let next: Vec<Spent> = looks.collect();
        let ahead_us: Vec<i64> = next.iter().map(|next| next.until_us - now_us).collect();
        let wait_us: Vec<i64> =
            ahead_us.iter().zip(&paces).map(|(ahead_us, pace)| (ahead_us - pace.window_us).max(0)).collect();
        if wait_us.iter().any(|wait_us| *wait_us > 0) {
            return verdict(&paces, Err(&wait_us));
        }
        for (hash, next) in hashes.iter().zip(next) {
            locked[shard_of(*hash)].spend(*hash, next, now_us);
        }
        verdict(&paces, Ok(&ahead_us))
    }

    #[cfg(test)]
    fn tracked_keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().spent.len()).sum()
    }
}

impl Shard {
    /// What a key will have spent with one request more.
    fn look(&self, hash: u64, pace: Pace, now_us: i64) -> Spent {
        let (ahead_us, per_minute) = match self.spent.get(&hash) {
            Some(spent) => spent.at(pace, now_us),
            None => (0, pace.per_minute),
        };
        Spent { until_us: now_us + ahead_us + pace.interval_us, per_minute }
    }

    fn spend(&mut self, hash: u64, next: Spent, now_us: i64) {
        if self.spent.len() >= self.sweep_at && !self.spent.contains_key(&hash) {
            self.sweep(now_us);
        }
        self.spent.insert(hash, next);
    }

    /// Forgets idle keys; if too many are active, also those that are closest to idle. A flood of fresh keys
    /// evicts itself that way, and whoever has spent most stays known.
    fn sweep(&mut self, now_us: i64) {
        self.spent.retain(|_, spent| spent.until_us > now_us);
        if let Some(excess) = self.spent.len().checked_sub(KEPT_KEYS_PER_SHARD).filter(|excess| *excess > 0) {
            let mut arrivals: Vec<i64> = self.spent.values().map(|spent| spent.until_us).collect();
            let (_, last_to_go, _) = arrivals.select_nth_unstable(excess - 1);
            self.spent.retain(|_, spent| spent.until_us > *last_to_go);
        }
        let kept = self.spent.len();
        self.sweep_at = (2 * kept).max(MIN_KEYS_PER_SWEEP);
        self.spent.shrink_to(self.sweep_at);
    }
}

impl Spent {
    /// How far ahead of now, at this pace, and the rate to remember.
    fn at(self, pace: Pace, now_us: i64) -> (i64, u32) {
        // Never further ahead than the window: after the clock was set back a key waits for one interval, not for
        // the difference.
        let ahead = |window_us: i64| self.until_us.saturating_sub(now_us).clamp(0, window_us);
        match Pace::of(Rate { per_minute: self.per_minute }) {
            // A higher rate: so many requests are spent of the new one too.
            Some(known) if known.per_minute < pace.per_minute => {
                let ahead_us = ahead(known.window_us) * pace.interval_us;
                (ahead_us / known.interval_us + i64::from(ahead_us % known.interval_us > 0), pace.per_minute)
            }
            // A lower one: the same part of it is spent, and coming back to the higher one renews nothing.
            Some(known) if ahead(pace.window_us) > 0 => (ahead(pace.window_us), known.per_minute),
            _ => (0, pace.per_minute),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: i64 = 1_800_000_000_000;
    const SIXTY: Rate = Rate { per_minute: 60 };

    fn admit(limiter: &Limiter, key: &str, rate: Rate, now_ms: i64) -> Decision {
        limiter.admit(&[(key, rate)], now_ms).unwrap().decision
    }

    fn spend(limiter: &Limiter, key: &str, rate: Rate, now_ms: i64, times: usize) -> usize {
        (0..times).filter(|_| admit(limiter, key, rate, now_ms).is_admitted()).count()
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
        let told: Vec<Decision> = (0..4).map(|_| admit(&limiter, "key", rate, START_MS)).collect();
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
        assert_eq!(
            admit(&limiter, "key", SIXTY, day_before),
            Decision::Refused { retry_after: Duration::from_secs(1) }
        );
    }

    #[test]
    fn idle_keys_are_forgotten() {
        let limiter = Limiter::new();
        for round in 0..10 {
            let now_ms = START_MS + round * 60_000;
            for key in 0..100_000 {
                assert!(admit(&limiter, &format!("{round}/{key}"), SIXTY, now_ms).is_admitted());
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
            admit(&limiter, &key.to_string(), SIXTY, START_MS);
        }
        assert!(limiter.tracked_keys() <= SHARDS * MAX_KEYS_PER_SHARD);
        assert!(!admit(&limiter, "greedy", SIXTY, START_MS).is_admitted());
    }

    #[test]
    fn who_changes_to_a_higher_rate_keeps_what_is_spent_and_gets_the_rest_at_once() {
        let (limiter, low, high) = (Limiter::new(), Rate { per_minute: 20 }, Rate { per_minute: 200 });
        assert_eq!(spend(&limiter, "key", low, START_MS, 100), 20);
        assert_eq!(spend(&limiter, "key", high, START_MS, 1_000), 180);
        // And then one every 300 ms.
        assert_eq!(spend(&limiter, "key", high, START_MS + 3_000, 1_000), 10);
    }

    #[test]
    fn who_changes_to_a_lower_rate_has_spent_the_same_part_of_the_minute() {
        let (limiter, low, high) = (Limiter::new(), Rate { per_minute: 20 }, Rate { per_minute: 200 });
        assert_eq!(spend(&limiter, "key", high, START_MS, 50), 50);
        assert_eq!(spend(&limiter, "key", low, START_MS, 100), 15);
    }

    #[test]
    fn changing_down_and_up_again_is_no_second_allowance() {
        let (limiter, low, high) = (Limiter::new(), Rate { per_minute: 20 }, Rate { per_minute: 200 });
        assert_eq!(spend(&limiter, "key", high, START_MS, 1_000), 200);
        for round in 0..5 {
            // 3 s give one of the low rate, which costs as much as ten of the high one.
            let now_ms = START_MS + round * 3_000;
            assert_eq!(spend(&limiter, "key", low, now_ms, 100), usize::from(round > 0));
            assert_eq!(spend(&limiter, "key", high, now_ms, 1_000), 0);
        }
        // Once idle it is a key like any other.
        assert_eq!(spend(&limiter, "key", low, START_MS + 100_000, 100), 20);
        assert_eq!(spend(&limiter, "key", high, START_MS + 100_000, 1_000), 180);
    }

    #[test]
    fn of_several_limits_the_tightest_binds_and_a_refusal_spends_nothing() {
        let (limiter, few, many) = (Limiter::new(), Rate { per_minute: 2 }, Rate { per_minute: 60 });
        let both = |few_key: &str| limiter.admit(&[("many", many), (few_key, few)], START_MS).unwrap();
        for remaining in [1, 0] {
            let binding = both("few");
            assert!(
                matches!(binding, Binding { limit: 1, decision: Decision::Admitted { remaining: told, .. } } if told == remaining)
            );
        }
        let refused = Decision::Refused { retry_after: Duration::from_secs(30) };
        for _ in 0..100 {
            assert_eq!(both("few"), Binding { limit: 1, decision: refused });
        }
        assert_eq!(spend(&limiter, "many", many, START_MS, 100), 58, "only what was admitted is spent");
        // Both refuse: the longer wait counts, wherever it stands.
        assert_eq!(both("few"), Binding { limit: 1, decision: refused });
        let turned = limiter.admit(&[("few", few), ("many", many)], START_MS);
        assert_eq!(turned, Some(Binding { limit: 0, decision: refused }));
        assert_eq!(
            both("another"),
            Binding { limit: 0, decision: Decision::Refused { retry_after: Duration::from_secs(1) } }
        );
        assert_eq!(spend(&limiter, "another", few, START_MS, 9), 2);
        let closed = limiter.admit(&[("fresh", many), ("closed", Rate { per_minute: 0 })], START_MS);
        assert_eq!(closed, Some(Binding { limit: 1, decision: CLOSED }));
        assert_eq!(spend(&limiter, "fresh", many, START_MS, 100), 60);
        assert_eq!(limiter.admit(&[], START_MS), None);
    }

    proptest! {
        #[test]
        fn no_change_of_rates_gets_more_than_the_highest_rate_alone(
            steps in prop::collection::vec(
                (prop_oneof![3 => Just(0i64), 2 => 1i64..100, 1 => 100i64..90_000], 1u32..30, 1usize..40), 1..150),
        ) {
            let limiter = Limiter::new();
            let highest = steps.iter().map(|(_, per_minute, _)| *per_minute).max().unwrap();
            let mut now_ms = START_MS;
            let mut admitted_at = Vec::new();
            for (pause_ms, per_minute, times) in steps {
                now_ms += pause_ms;
                let admitted = spend(&limiter, "key", Rate { per_minute }, now_ms, times);
                prop_assert!(admitted <= per_minute as usize);
                admitted_at.extend(std::iter::repeat_n(now_ms, admitted));
            }
            for (first, start_ms) in admitted_at.iter().enumerate() {
                for (last, end_ms) in admitted_at.iter().enumerate().skip(first) {
                    let refilled = (end_ms - start_ms) * i64::from(highest) / 60_000;
                    prop_assert!((last - first + 1) as i64 <= i64::from(highest) + refilled);
                }
            }
        }

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
                if admit(&limiter, "key", rate, now_ms).is_admitted() {
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
            let Decision::Refused { retry_after } = admit(&limiter, "key", rate, now_ms) else { panic!("all is spent") };
            let then_ms = now_ms + retry_after.as_millis() as i64;
            prop_assert!(!admit(&limiter, "key", rate, then_ms - 1).is_admitted());
            prop_assert!(admit(&limiter, "key", rate, then_ms).is_admitted());
        }
    }
}
