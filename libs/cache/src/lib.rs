//! Rate limits and short-lived state: in process, or shared over Redis.
//!
//! Everything here can be rebuilt: emptying Redis loses nothing that was promised. What must last longer or be
//! counted exactly (quotas, credits, a day's tokens) lives in a database.
//!
//! **Limits** follow GCRA: a key that has been idle may do `per_minute` things at once and then one every
//! `60 / per_minute` seconds. Over Redis all replicas share one count, taken by Redis' own clock. When Redis is
//! away or slower than [`RedisOptions::patience`], a replica goes on with its share, `per_minute / replicas`.
//!
//! **State** is bytes under a key for a while. In process the least recently used values go first once
//! [`LOCAL_STATE_BYTES`] are held.
//!
//! **Journals** are what one replica writes while others read it. They are in Redis only: who is alone has nobody to write
//! one for.
mod error;
mod journal;
mod limit;
mod local;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weft_core::Clock;

use crate::limit::CLOSED;

pub use error::{CacheError, Source};
pub use journal::{Heard, Journal, Seen, Turn};
pub use limit::{Binding, Decision, Rate};
pub use local::{LOCAL_STATE_BYTES, Local};
pub use redis::{Redis, RedisOptions};

/// Longest value.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Longest key of a value.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest time to live: what should stay longer belongs in a database.
pub const MAX_TTL: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// Rate limits and short-lived state. A clone is the same cache.
#[derive(Clone)]
pub enum Cache {
    /// In this process only.
    Local(Arc<Local>),
    /// Shared by all replicas.
    Redis(Arc<Redis>),
}

impl Cache {
    /// Whether a URL can be one of Redis. Nothing is connected.
    ///
    /// # Errors
    /// [`CacheError::InvalidUrl`].
    pub fn check_url(url: &str) -> Result<(), CacheError> {
        redis::read_url(url).map(drop)
    }

    /// A cache of this process, whose time is `clock`'s.
    pub fn local(clock: Clock) -> Cache {
        Cache::Local(Arc::new(Local::new(clock)))
    }

    /// A cache shared by `replicas` processes over the Redis at `url`; see [`Cache::redis_with`].
    pub async fn redis(url: &str, replicas: u32, clock: Clock) -> Result<Cache, CacheError> {
        Cache::redis_with(RedisOptions::new(url, replicas), clock).await
    }

    /// A cache shared over Redis. `clock` is used for the replica's own share only; shared limits and times to
    /// live go by Redis' clock. A Redis that is away is not an error: the cache starts without it and takes it
    /// up when it comes.
    ///
    /// # Errors
    /// [`CacheError::InvalidUrl`] and [`CacheError::CredentialsRefused`].
    pub async fn redis_with(options: RedisOptions, clock: Clock) -> Result<Cache, CacheError> {
        Ok(Cache::Redis(Arc::new(Redis::connect(options, clock).await?)))
    }

    /// Counts one request of `key` against `rate`. Never fails and never waits longer than
    /// [`RedisOptions::patience`].
    pub async fn admit(&self, key: &str, rate: Rate) -> Decision {
        let binding = self.admit_all(&[(key, rate)]).await;
        binding.map_or(CLOSED, |binding| binding.decision)
    }

    /// Counts one request against several limits in one step: against each of them if all admit it, against none if one
    /// refuses it. The answer is that of the limit that binds; None if there are no limits. The keys have to differ.
    /// Never fails and never waits longer than [`RedisOptions::patience`].
    pub async fn admit_all(&self, limits: &[(&str, Rate)]) -> Option<Binding> {
        match self {
            Cache::Local(local) => local.admit(limits),
            Cache::Redis(redis) => redis.admit(limits).await,
        }
    }

    /// The value of a key, if it is there and its time is not over.
    ///
    /// # Errors
    /// [`CacheError::KeyTooLong`], [`CacheError::Unavailable`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        check_key(key)?;
        match self {
            Cache::Local(local) => Ok(local.get(key)),
            Cache::Redis(redis) => redis.get(key).await,
        }
    }

    /// Sets the value of a key for `ttl`, whatever was there.
    ///
    /// # Errors
    /// Any of [`CacheError`]'s but those of connecting.
    pub async fn set(&self, key: &str, value: impl Into<Bytes>, ttl: Duration) -> Result<(), CacheError> {
        let (value, ttl_ms) = check_value(key, value.into(), ttl)?;
        match self {
            Cache::Local(local) => local.set(key, value, ttl_ms),
            Cache::Redis(redis) => redis.set(key, value, ttl_ms).await?,
        }
        Ok(())
    }

    /// Sets the value of a key for `ttl` if it has none; true when it did. Of several callers at once exactly
    /// one gets true.
    ///
    /// # Errors
    /// Any of [`CacheError`]'s but those of connecting.
    pub async fn set_if_absent(&self, key: &str, value: impl Into<Bytes>, ttl: Duration) -> Result<bool, CacheError> {
        let (value, ttl_ms) = check_value(key, value.into(), ttl)?;
        match self {
            Cache::Local(local) => Ok(local.set_if_absent(key, value, ttl_ms)),
            Cache::Redis(redis) => redis.set_if_absent(key, value, ttl_ms).await,
        }
    }

    /// Sets the value of a key for `ttl` if it still is the one that was seen; true when it did. Of several callers that saw
    /// the same exactly one gets true.
    ///
    /// # Errors
    /// Any of [`CacheError`]'s but those of connecting.
    pub async fn replace(
        &self,
        key: &str,
        seen: &[u8],
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<bool, CacheError> {
        let (value, ttl_ms) = check_value(key, value.into(), ttl)?;
        match self {
            Cache::Local(local) => Ok(local.replace(key, seen, value, ttl_ms)),
            Cache::Redis(redis) => redis.replace(key, seen, value, ttl_ms).await,
        }
    }

    /// Removes a key; fine if it is not there.
    ///
    /// # Errors
    /// [`CacheError::KeyTooLong`], [`CacheError::Unavailable`].
    pub async fn delete(&self, key: &str) -> Result<(), CacheError> {
        check_key(key)?;
        match self {
            Cache::Local(local) => local.delete(key),
            Cache::Redis(redis) => redis.delete(key).await?,
        }
        Ok(())
    }

    /// Removes a key and says what it held. Of several callers at once exactly one gets the value.
    ///
    /// # Errors
    /// [`CacheError::KeyTooLong`], [`CacheError::Unavailable`].
    pub async fn take(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        check_key(key)?;
        match self {
            Cache::Local(local) => Ok(local.take(key)),
            Cache::Redis(redis) => redis.take(key).await,
        }
    }

    /// The journal of a key, where there are others to read it; None in process. Nothing is asked yet.
    ///
    /// # Errors
    /// [`CacheError::KeyTooLong`].
    pub fn journal(&self, key: &str) -> Result<Option<Journal>, CacheError> {
        match self {
            Cache::Local(_) => Ok(None),
            Cache::Redis(redis) => Journal::new(Arc::clone(redis), key).map(Some),
        }
    }

    /// Whether the store answers, for health pages.
    ///
    /// # Errors
    /// [`CacheError::Unavailable`].
    pub async fn ping(&self) -> Result<(), CacheError> {
        match self {
            Cache::Local(_) => Ok(()),
            Cache::Redis(redis) => redis.ping().await,
        }
    }
}

fn check_key(key: &str) -> Result<(), CacheError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(CacheError::KeyTooLong { bytes: key.len() });
    }
    Ok(())
}

/// The value and its time to live in ms, if all of it is within the limits.
fn check_value(key: &str, value: Bytes, ttl: Duration) -> Result<(Bytes, i64), CacheError> {
    check_key(key)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(CacheError::ValueTooLarge { bytes: value.len() });
    }
    if ttl > MAX_TTL {
        return Err(CacheError::InvalidTtl);
    }
    match i64::try_from(ttl.as_millis()) {
        Ok(ttl_ms) if ttl_ms > 0 => Ok((value, ttl_ms)),
        _ => Err(CacheError::InvalidTtl),
    }
}
