//! Redis away or slow: each replica goes on with its share, quickly, and comes back by itself.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use weft_cache::{Cache, CacheError, Decision, Rate};
use weft_core::{Clock, new_id};
use weft_testing::redis::Redis;
use weft_testing::{Logs, eventually};

const REPLICAS: u32 = 3;
const SIXTY: Rate = Rate { per_minute: 60 };
/// Far below what 200 requests took if each waited for Redis (50 s).
const BOUND: Duration = Duration::from_secs(3);
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// A gateway whose time stands still, so that no share refills while it is counted.
async fn gateway(redis: &Redis) -> (Cache, Clock) {
    let clock = Clock::manual(1_800_000_000_000);
    (Cache::redis(&redis.url(), REPLICAS, clock.clone()).await.unwrap(), clock)
}

/// How many of 200 requests are admitted, and how long they took.
async fn spend(cache: &Cache, key: &str, rate: Rate) -> (usize, Duration) {
    let begun = Instant::now();
    let mut admitted = 0;
    for _ in 0..200 {
        admitted += usize::from(cache.admit(key, rate).await.is_admitted());
    }
    (admitted, begun.elapsed())
}

/// Waits until limits are counted in Redis: a share could not have that many remaining.
async fn until_shared(cache: &Cache) {
    let rate = Rate { per_minute: 3_000 };
    eventually("limits counted in redis", BACK_WITHIN, || async {
        matches!(cache.admit(&new_id(), rate).await, Decision::Admitted { remaining: 2_999, .. })
    })
    .await;
}

#[tokio::test]
async fn without_redis_each_replica_admits_its_share_and_comes_back_by_itself() {
    let redis = Redis::start().await;
    let gateways = [gateway(&redis).await, gateway(&redis).await, gateway(&redis).await];
    for (cache, _) in &gateways {
        until_shared(cache).await;
    }
    redis.kill();
    let key = new_id();
    for (cache, clock) in &gateways {
        let (admitted, took) = spend(cache, &key, SIXTY).await;
        assert_eq!(admitted, 20);
        assert!(took < BOUND, "{took:?}");
        let (admitted, _) = spend(cache, &new_id(), Rate { per_minute: 2 }).await;
        assert_eq!(admitted, 1, "a share is at least 1");
        assert_eq!(spend(cache, &key, Rate { per_minute: 0 }).await.0, 0);
        clock.advance(Duration::from_secs(3));
        assert_eq!(spend(cache, &key, SIXTY).await.0, 1, "a share refills at its own rate");
    }
    redis.restart().await;
    for (cache, _) in &gateways {
        until_shared(cache).await;
    }
}

#[tokio::test]
async fn a_slow_redis_holds_nobody_up_and_comes_back_by_itself() {
    let redis = Redis::start().await;
    let (cache, _) = gateway(&redis).await;
    until_shared(&cache).await;
    // Longer than limits wait; shorter and longer than the silence after which the connection is made anew.
    for stall in [Duration::from_millis(380), Duration::from_secs(3)] {
        redis.stall(stall).await;
        let (admitted, took) = spend(&cache, &new_id(), SIXTY).await;
        assert_eq!(admitted, 20);
        assert!(took < BOUND, "{took:?}");
        until_shared(&cache).await;
    }
}

#[tokio::test]
async fn a_cache_starts_without_redis_and_takes_it_up_when_it_comes() {
    let redis = Redis::start().await;
    redis.kill();
    let begun = Instant::now();
    let (cache, _) = gateway(&redis).await;
    assert_eq!(spend(&cache, &new_id(), SIXTY).await.0, 20);
    assert!(begun.elapsed() < BOUND);
    assert!(matches!(cache.ping().await, Err(CacheError::Unavailable(_))));
    redis.restart().await;
    until_shared(&cache).await;
    cache.ping().await.unwrap();
}

#[tokio::test]
async fn state_is_unavailable_within_a_second_and_comes_back_by_itself() {
    let redis = Redis::start().await;
    let (cache, _) = gateway(&redis).await;
    let key = new_id();
    cache.set(&key, "here", Duration::from_secs(60)).await.unwrap();
    redis.stall(Duration::from_secs(3)).await;
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(matches!(cache.get(&key).await, Err(CacheError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    eventually("the value", BACK_WITHIN, || async { cache.get(&key).await.is_ok_and(|value| value.is_some()) }).await;
    redis.kill();
    let ttl = Duration::from_secs(60);
    for result in [
        cache.get(&key).await.map(drop),
        cache.set(&key, "value", ttl).await,
        cache.set_if_absent(&key, "value", ttl).await.map(drop),
        cache.take(&key).await.map(drop),
        cache.delete(&key).await,
    ] {
        assert!(matches!(result, Err(CacheError::Unavailable(_))), "{result:?}");
    }
    redis.restart().await;
    eventually("state", BACK_WITHIN, || async { cache.set(&key, "again", ttl).await.is_ok() }).await;
    assert_eq!(cache.get(&key).await.unwrap().as_deref(), Some(&b"again"[..]));
}

#[tokio::test]
async fn an_outage_is_counted_each_time_and_logged_once_a_minute() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let (logs, _guard) = Logs::capture(tracing::Level::WARN);
    let warnings = || logs.lines().iter().filter(|line| line.contains("weft_cache")).count();

    let redis = Redis::start().await;
    let (cache, clock) = gateway(&redis).await;
    until_shared(&cache).await;
    redis.kill();
    spend(&cache, &new_id(), SIXTY).await;
    let counted = |expected: u64| metrics.render().contains(&format!("weft_cache_fallback_total {expected}\n"));
    assert!(counted(200), "{}", metrics.render());
    assert_eq!(warnings(), 1);
    clock.advance(Duration::from_millis(59_999));
    spend(&cache, &new_id(), SIXTY).await;
    assert_eq!(warnings(), 1);
    clock.advance(Duration::from_millis(1));
    spend(&cache, &new_id(), SIXTY).await;
    assert_eq!(warnings(), 2);
    assert!(counted(600), "{}", metrics.render());
}
