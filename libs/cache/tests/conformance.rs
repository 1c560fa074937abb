//! What every cache promises: each test runs in process and over Redis.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use weft_cache::{Cache, CacheError, Decision, MAX_KEY_BYTES, MAX_TTL, MAX_VALUE_BYTES, Rate, RedisOptions};
use weft_core::{Clock, new_id};

/// Time enough for a busy machine, where the time itself is not what is tested.
const LONG: Duration = Duration::from_secs(60);

struct Subject {
    cache: Cache,
    clock: Clock,
}

impl Subject {
    async fn local() -> Subject {
        let clock = Clock::manual(1_800_000_000_000);
        Subject { cache: Cache::local(clock.clone()), clock }
    }

    async fn redis() -> Subject {
        let mut options = RedisOptions::new(weft_testing::redis::shared().await.url(), 1_000_000);
        // A million replicas: the share of one is 1, so whoever falls back unseen fails the test.
        options.patience = LONG;
        let cache = Cache::redis_with(options, Clock::System).await.unwrap();
        Subject { cache, clock: Clock::System }
    }

    /// Moves the cache's time: our clock in process, the real one in Redis.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        if let Cache::Redis(_) = self.cache {
            tokio::time::sleep(time).await;
        }
    }

    async fn spend(&self, key: &str, rate: Rate, times: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..times {
            admitted += usize::from(self.cache.admit(key, rate).await.is_admitted());
        }
        admitted
    }

    async fn wait_of(&self, key: &str, rate: Rate) -> Duration {
        match self.cache.admit(key, rate).await {
            Decision::Refused { retry_after } => retry_after,
            admitted => panic!("{key} should be refused: {admitted:?}"),
        }
    }
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Subject::local().await).await })*
        }
        mod over_redis {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Subject::redis().await).await })*
        }
    };
}

conformance! {
    an_idle_key_is_admitted_its_limit_at_once
    a_refused_key_is_admitted_after_exactly_the_time_it_was_told
    being_refused_costs_nothing
    keys_do_not_share_a_limit
    parallel_requests_are_admitted_exactly_the_limit
    a_rate_of_zero_admits_nothing
    a_lower_rate_holds_at_once
    a_higher_rate_gives_the_rest_at_once_and_no_second_allowance
    several_limits_are_counted_in_one_step
    what_was_set_comes_back
    a_value_ends_with_its_time
    setting_again_begins_a_new_time
    of_many_that_set_if_absent_one_wins
    of_many_that_replace_what_they_saw_one_wins
    what_is_not_there_any_more_is_not_replaced
    of_many_that_take_one_gets_it
    the_largest_value_fits_and_a_larger_is_refused
    a_time_to_live_out_of_range_is_refused
    limits_and_values_of_one_name_are_apart
    it_answers_a_ping
}

async fn an_idle_key_is_admitted_its_limit_at_once(subject: Subject) {
    let (key, rate) = (new_id(), Rate { per_minute: 5 });
    for expected in (0..5).rev() {
        let decision = subject.cache.admit(&key, rate).await;
        let Decision::Admitted { remaining, reset } = decision else { panic!("{decision:?} with {expected} to go") };
        let spent = Duration::from_secs(12 * (5 - u64::from(expected)));
        assert_eq!(remaining, expected);
        assert!(reset <= spent && reset > spent - Duration::from_secs(12), "{reset:?}, {spent:?}");
    }
    let wait = subject.wait_of(&key, rate).await;
    assert!(wait <= Duration::from_secs(12) && wait > Duration::ZERO, "{wait:?}");
}

async fn a_refused_key_is_admitted_after_exactly_the_time_it_was_told(subject: Subject) {
    let (key, rate) = (new_id(), Rate { per_minute: 60 });
    subject.spend(&key, rate, 60).await;
    let wait = subject.wait_of(&key, rate).await;
    subject.pass(wait / 2).await;
    assert!(subject.wait_of(&key, rate).await <= wait - wait / 2);
    subject.pass(wait - wait / 2).await;
    assert!(subject.cache.admit(&key, rate).await.is_admitted());
    subject.wait_of(&key, rate).await;
}

async fn being_refused_costs_nothing(subject: Subject) {
    let (key, rate) = (new_id(), Rate { per_minute: 2 });
    assert_eq!(subject.spend(&key, rate, 50).await, 2);
    assert!(subject.wait_of(&key, rate).await <= Duration::from_secs(30));
}

async fn keys_do_not_share_a_limit(subject: Subject) {
    let rate = Rate { per_minute: 2 };
    let (one, other) = (format!("adiuva/{}", new_id()), format!("adiuva/{}", new_id()));
    assert_eq!(subject.spend(&one, rate, 9).await, 2);
    assert_eq!(subject.spend(&other, rate, 9).await, 2);
}

async fn parallel_requests_are_admitted_exactly_the_limit(subject: Subject) {
    let (key, rate) = (new_id(), Rate { per_minute: 20 });
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        let (cache, key) = (subject.cache.clone(), key.clone());
        requests.spawn(async move { cache.admit(&key, rate).await.is_admitted() });
    }
    assert_eq!(requests.join_all().await.into_iter().filter(|admitted| *admitted).count(), 20);
}

async fn a_rate_of_zero_admits_nothing(subject: Subject) {
    assert_eq!(subject.wait_of(&new_id(), Rate { per_minute: 0 }).await, Duration::from_secs(60));
}

async fn a_higher_rate_gives_the_rest_at_once_and_no_second_allowance(subject: Subject) {
    let (key, low, high) = (new_id(), Rate { per_minute: 4 }, Rate { per_minute: 40 });
    let begun = Instant::now();
    let spent = subject.spend(&key, low, 10).await + subject.spend(&key, high, 100).await;
    assert_eq!(subject.spend(&key, low, 10).await, 0);
    let spent = spent + subject.spend(&key, high, 100).await;
    let refilled = begun.elapsed().as_millis() as usize * 40 / 60_000;
    assert!((40..=40 + refilled).contains(&spent), "{spent} of 40 and {refilled} of the refill");
}

async fn several_limits_are_counted_in_one_step(subject: Subject) {
    let (one, two, rate) = (new_id(), new_id(), Rate { per_minute: 2 });
    let both = async || subject.cache.admit_all(&[(&one, Rate { per_minute: 3 }), (&two, rate)]).await.unwrap();
    for _ in 0..2 {
        let binding = both().await;
        assert!(binding.limit == 1 && binding.decision.is_admitted(), "{binding:?}");
    }
    for _ in 0..20 {
        let binding = both().await;
        assert!(binding.limit == 1 && !binding.decision.is_admitted(), "{binding:?}");
    }
    // Of the first one is left, because what was refused was not counted there.
    assert_eq!(subject.spend(&one, Rate { per_minute: 3 }, 9).await, 1);
    assert_eq!(subject.cache.admit_all(&[]).await, None);
}

async fn a_lower_rate_holds_at_once(subject: Subject) {
    let key = new_id();
    assert_eq!(subject.spend(&key, Rate { per_minute: 200 }, 190).await, 190);
    let wait = subject.wait_of(&key, Rate { per_minute: 1 }).await;
    assert!(wait <= Duration::from_secs(60), "never longer than the interval of the new rate: {wait:?}");
}

async fn what_was_set_comes_back(subject: Subject) {
    let (cache, key) = (&subject.cache, new_id());
    assert_eq!(cache.get(&key).await.unwrap(), None);
    for value in [&b"plain"[..], b"", b"\x00\xff\r\n$5\r\n", "größer".as_bytes()] {
        cache.set(&key, value.to_vec(), LONG).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(value));
    }
    cache.delete(&key).await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap(), None);
    cache.delete(&key).await.unwrap();
    assert_eq!(cache.take(&key).await.unwrap(), None);
}

async fn a_value_ends_with_its_time(subject: Subject) {
    let (cache, ttl) = (&subject.cache, Duration::from_secs(1));
    let (get, take, again) = (new_id(), new_id(), new_id());
    for key in [&get, &take, &again] {
        assert!(cache.set_if_absent(key, "short", ttl).await.unwrap());
    }
    assert_eq!(cache.get(&get).await.unwrap().as_deref(), Some(&b"short"[..]));
    subject.pass(ttl + Duration::from_millis(5)).await;
    assert_eq!(cache.get(&get).await.unwrap(), None);
    assert_eq!(cache.take(&take).await.unwrap(), None);
    assert!(cache.set_if_absent(&again, "new", LONG).await.unwrap());
    assert_eq!(cache.get(&again).await.unwrap().as_deref(), Some(&b"new"[..]));
}

async fn setting_again_begins_a_new_time(subject: Subject) {
    let (cache, key) = (&subject.cache, new_id());
    cache.set(&key, "short", Duration::from_secs(1)).await.unwrap();
    cache.set(&key, "long", LONG).await.unwrap();
    subject.pass(Duration::from_millis(1_005)).await;
    assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(&b"long"[..]));
}

async fn of_many_that_set_if_absent_one_wins(subject: Subject) {
    let key = new_id();
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let (cache, key) = (subject.cache.clone(), key.clone());
        callers.spawn(async move { (caller, cache.set_if_absent(&key, caller.to_string(), LONG).await.unwrap()) });
    }
    let won: Vec<i32> =
        callers.join_all().await.into_iter().filter(|(_, won)| *won).map(|(caller, _)| caller).collect();
    let held = subject.cache.get(&key).await.unwrap().unwrap();
    assert_eq!(won.iter().map(i32::to_string).collect::<Vec<_>>(), [String::from_utf8_lossy(&held)]);
}

async fn of_many_that_replace_what_they_saw_one_wins(subject: Subject) {
    let key = new_id();
    // Bytes that no text has.
    let seen = [0, 255, 10, 13, 0];
    subject.cache.set(&key, seen.to_vec(), LONG).await.unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let (cache, key) = (subject.cache.clone(), key.clone());
        callers.spawn(async move { (caller, cache.replace(&key, &seen, caller.to_string(), LONG).await.unwrap()) });
    }
    let won: Vec<i32> =
        callers.join_all().await.into_iter().filter(|(_, won)| *won).map(|(caller, _)| caller).collect();
    let held = subject.cache.get(&key).await.unwrap().unwrap();
    assert_eq!(won.iter().map(i32::to_string).collect::<Vec<_>>(), [String::from_utf8_lossy(&held)]);
}

async fn what_is_not_there_any_more_is_not_replaced(subject: Subject) {
    let key = new_id();
    assert!(!subject.cache.replace(&key, b"", "new", LONG).await.unwrap());
    subject.cache.set(&key, "old", Duration::from_millis(50)).await.unwrap();
    assert!(subject.cache.replace(&key, b"old", "newer", Duration::from_millis(50)).await.unwrap());
    assert!(!subject.cache.replace(&key, b"old", "newest", LONG).await.unwrap());
    subject.pass(Duration::from_millis(60)).await;
    assert!(!subject.cache.replace(&key, b"newer", "newest", LONG).await.unwrap());
    assert_eq!(subject.cache.get(&key).await.unwrap(), None);
}

async fn of_many_that_take_one_gets_it(subject: Subject) {
    let key = new_id();
    subject.cache.set(&key, "once", LONG).await.unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (cache, key) = (subject.cache.clone(), key.clone());
        callers.spawn(async move { cache.take(&key).await.unwrap() });
    }
    let got: Vec<Bytes> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(got, ["once"]);
}

async fn the_largest_value_fits_and_a_larger_is_refused(subject: Subject) {
    let (cache, key) = (&subject.cache, new_id());
    let largest = vec![7; MAX_VALUE_BYTES];
    cache.set(&key, largest.clone(), LONG).await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(largest.as_slice()));
    let larger = vec![8; MAX_VALUE_BYTES + 1];
    assert!(matches!(cache.set(&key, larger.clone(), LONG).await, Err(CacheError::ValueTooLarge { .. })));
    assert!(matches!(cache.set_if_absent(&new_id(), larger, LONG).await, Err(CacheError::ValueTooLarge { .. })));
    assert_eq!(cache.take(&key).await.unwrap().as_deref(), Some(largest.as_slice()));

    let long = "k".repeat(MAX_KEY_BYTES + 1);
    cache.set(&long[1..], "fits", LONG).await.unwrap();
    assert!(matches!(cache.set(&long, "", LONG).await, Err(CacheError::KeyTooLong { .. })));
    assert!(matches!(cache.get(&long).await, Err(CacheError::KeyTooLong { .. })));
    assert!(matches!(cache.delete(&long).await, Err(CacheError::KeyTooLong { .. })));
    assert!(matches!(cache.take(&long).await, Err(CacheError::KeyTooLong { .. })));
}

async fn a_time_to_live_out_of_range_is_refused(subject: Subject) {
    let (cache, key) = (&subject.cache, new_id());
    for ttl in [Duration::ZERO, Duration::from_micros(999), MAX_TTL + Duration::from_nanos(1), Duration::MAX] {
        assert!(matches!(cache.set(&key, "value", ttl).await, Err(CacheError::InvalidTtl)), "{ttl:?}");
        assert!(matches!(cache.set_if_absent(&key, "value", ttl).await, Err(CacheError::InvalidTtl)), "{ttl:?}");
    }
    assert_eq!(cache.get(&key).await.unwrap(), None);
    assert!(cache.set_if_absent(&key, "value", MAX_TTL).await.unwrap());
}

async fn limits_and_values_of_one_name_are_apart(subject: Subject) {
    let (key, rate) = (new_id(), Rate { per_minute: 2 });
    subject.cache.set(&key, "not a number", LONG).await.unwrap();
    assert_eq!(subject.spend(&key, rate, 5).await, 2);
    assert_eq!(subject.cache.get(&key).await.unwrap().as_deref(), Some(&b"not a number"[..]));
}

async fn it_answers_a_ping(subject: Subject) {
    subject.cache.ping().await.unwrap();
}

/// In process the memory for values is bounded; over Redis its own `maxmemory` is.
#[tokio::test]
async fn values_in_process_are_bounded_and_the_newest_stay() {
    let subject = Subject::local().await;
    for number in 0..200 {
        subject.cache.set(&number.to_string(), vec![number; MAX_VALUE_BYTES], LONG).await.unwrap();
    }
    let mut held = Vec::new();
    for number in 0..200 {
        if subject.cache.get(&number.to_string()).await.unwrap().is_some() {
            held.push(number);
        }
    }
    let most = (weft_cache::LOCAL_STATE_BYTES / MAX_VALUE_BYTES as u64) as usize;
    assert!((most - 2..=most).contains(&held.len()), "{held:?}");
    assert_eq!(held.last(), Some(&199));
}
