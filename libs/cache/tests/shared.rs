//! Several processes on one Redis.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
use std::time::Duration;

use tokio::task::JoinSet;
use weft_cache::{Cache, CacheError, Decision, Rate, RedisOptions};
use weft_core::{Clock, new_id};
use weft_testing::{eventually, redis};

const REPLICAS: u32 = 3;

/// Handles as three gateways have them, each with its own idea of the time. They wait long for Redis: what is
/// tested is the count.
async fn gateways(url: &str) -> Vec<Cache> {
    let mut gateways = Vec::new();
    for number in 0..REPLICAS {
        let mut options = RedisOptions::new(url, REPLICAS);
        options.patience = Duration::from_secs(30);
        gateways.push(Cache::redis_with(options, Clock::manual(i64::from(number) * 1_000_000)).await.unwrap());
    }
    gateways
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_admit_exactly_the_limit_of_600_parallel_requests() {
    let gateways = gateways(&redis::shared().await.url()).await;
    let (key, rate) = (new_id(), Rate { per_minute: 60 });
    let mut requests = JoinSet::new();
    for number in 0..600 {
        let (gateway, key) = (gateways[number % gateways.len()].clone(), key.clone());
        requests.spawn(async move { gateway.admit(&key, rate).await.is_admitted() });
    }
    assert_eq!(requests.join_all().await.into_iter().filter(|admitted| *admitted).count(), 60);
}

#[tokio::test]
async fn a_value_set_by_one_gateway_is_taken_by_another() {
    let gateways = gateways(&redis::shared().await.url()).await;
    let key = new_id();
    gateways[0].set(&key, "over there", Duration::from_secs(60)).await.unwrap();
    assert_eq!(gateways[1].take(&key).await.unwrap().as_deref(), Some(&b"over there"[..]));
    assert_eq!(gateways[2].get(&key).await.unwrap(), None);
}

#[tokio::test]
async fn redis_forgets_a_key_when_it_is_idle() {
    let redis = redis::shared().await;
    let gateway = gateways(&redis.url()).await.remove(0);
    let key = new_id();
    for _ in 0..3 {
        assert!(gateway.admit(&key, Rate { per_minute: 60 }).await.is_admitted());
    }
    let answer = redis.command(&format!("PTTL weft:limit:{key}")).await;
    let left_ms: i64 = answer.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=3_000).contains(&left_ms), "{left_ms} ms");
}

#[tokio::test]
async fn a_redis_that_has_forgotten_the_script_learns_it_again() {
    let redis = redis::Redis::start().await;
    let gateway = gateways(&redis.url()).await.remove(0);
    let (key, rate) = (new_id(), Rate { per_minute: 60 });
    for remaining in [59, 58, 57] {
        let decision = gateway.admit(&key, rate).await;
        // One interval may have passed on a busy machine; the share of a replica would be below 20.
        assert!(matches!(decision, Decision::Admitted { remaining: told, .. } if told >= remaining), "{decision:?}");
        assert_eq!(redis.command("SCRIPT FLUSH").await, "+OK\r\n");
    }
}

#[tokio::test]
async fn a_count_that_makes_no_sense_costs_one_interval_at_most() {
    let redis = redis::shared().await;
    let gateway = gateways(&redis.url()).await.remove(0);
    let (future, nonsense) = (new_id(), new_id());
    // The year 2200: as if Redis' clock had been set back.
    redis.command(&format!("SET weft:limit:{future} 7258118400000000")).await;
    let refused = Decision::Refused { retry_after: Duration::from_secs(10) };
    assert_eq!(gateway.admit(&future, Rate { per_minute: 6 }).await, refused);
    redis.command(&format!("SET weft:limit:{nonsense} nonsense")).await;
    let admitted = Decision::Admitted { remaining: 59, reset: Duration::from_secs(1) };
    assert_eq!(gateway.admit(&nonsense, Rate { per_minute: 60 }).await, admitted);
}

#[tokio::test]
async fn a_dropped_cache_closes_its_connection() {
    let redis = redis::Redis::start().await;
    let connections = async || redis.command("CLIENT LIST").await.matches("laddr=").count();
    let gateways = gateways(&redis.url()).await;
    assert_eq!(connections().await, gateways.len() + 1);
    drop(gateways);
    eventually("only our own connection", Duration::from_secs(5), || async { connections().await == 1 }).await;
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_refused_without_repeating_it() {
    for url in ["", "redis", "http://:secret@localhost:1", "redis://:secret@localhost:port", "redis://:secret@"] {
        let Err(error) = Cache::redis(url, 1, Clock::System).await else { panic!("{url:?} was taken") };
        assert!(matches!(error, CacheError::InvalidUrl), "{url:?}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_url_with_tls_is_taken() {
    let cache = Cache::redis("rediss://user:password@127.0.0.1:1/2", 2, Clock::System).await.unwrap();
    assert!(cache.admit(&new_id(), Rate { per_minute: 2 }).await.is_admitted());
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_the_start() {
    let url = redis::shared().await.url().replace("redis://", "redis://nobody:wrong@");
    let refused = Cache::redis(&url, 1, Clock::System).await.err();
    assert!(matches!(refused, Some(CacheError::CredentialsRefused(_))), "{refused:?}");
}
