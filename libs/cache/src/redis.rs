//! Limits and state shared over Redis, and what a replica does without it.
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, FredResult, KeysInterface, LuaInterface};
use fred::types::config::{Config, ConnectionConfig, Options, ReconnectPolicy, TcpConfig, UnresponsiveConfig};
use fred::types::{ConnectHandle, Expiration, FromValue, SetOptions, Value};
use tokio::time::{Instant, timeout};
use weft_core::{Clock, Seldom};

use crate::error::CacheError;
use crate::journal::Scripts;
use crate::limit::{Binding, CLOSED, Limiter, Pace, Rate, verdict};

/// How long a limit may wait for Redis before this replica decides alone.
const LIMIT_PATIENCE: Duration = Duration::from_millis(250);
/// Turns in which a wait is counted. While this process itself is too busy to read an answer that is there, its turns
/// take longer and Redis is not blamed: a limit that is decided alone is not shared.
const TURNS: u32 = 10;
/// How long state may wait for Redis before it is UNAVAILABLE.
const STATE_PATIENCE: Duration = Duration::from_millis(400);
/// How long to wait for a first connection before starting without one.
const START_PATIENCE: Duration = Duration::from_millis(500);
/// After an answer that did not come in time Redis is asked once in this time until it is well again. More than
/// twice [`SILENCE`], because the client counts silence from its last write.
const PROBE_EVERY: Duration = Duration::from_millis(1000);
/// A connection on which nothing is heard for this long after a write is closed and made anew.
const SILENCE: Duration = Duration::from_millis(400);
/// First and longest pause between attempts to connect, in ms, for as long as it takes.
const RECONNECT_MS: (u32, u32) = (20, 500);
/// Commands that may wait for the connection's task; beyond, Redis counts as away.
const MAX_QUEUED: usize = 8 * 1024;

/// The limiter in Redis.
const LIMIT_SCRIPT: &str = include_str!("limit.lua");
/// Setting what is still as it was seen.
const REPLACE_SCRIPT: &str = include_str!("replace.lua");

/// Which Redis, and how it is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://`, with credentials and database if need be. One server, not a cluster: limits that are
    /// counted together have keys in different slots.
    pub url: String,
    /// How many processes share it: without Redis each admits its part of a limit. 0 counts as 1.
    pub replicas: u32,
    /// How long a limit may wait for Redis before this replica decides alone. Default 250 ms.
    pub patience: Duration,
}

impl RedisOptions {
    /// The usual patience.
    pub fn new(url: impl Into<String>, replicas: u32) -> Self {
        RedisOptions { url: url.into(), replicas, patience: LIMIT_PATIENCE }
    }
}

/// A script and the name that Redis has for it.
pub(crate) struct Script {
    text: &'static str,
    sha1: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Script {
        Script { text, sha1: fred::util::sha1_hash(text) }
    }
}

/// The cache shared over Redis.
pub struct Redis {
    client: WithOptions<Client>,
    connection: ConnectHandle,
    limiter: Script,
    replacer: Script,
    pub(crate) journals: Scripts,
    patience: Duration,
    limits: Gate,
    state: Gate,
    replicas: u32,
    share: Limiter,
    clock: Clock,
    fallbacks: Seldom,
}

impl Redis {
    pub(crate) async fn connect(options: RedisOptions, clock: Clock) -> Result<Redis, CacheError> {
        let mut config = read_url(&options.url)?;
        // Start without Redis, and keep trying.
        config.fail_fast = false;
        let (first, longest) = RECONNECT_MS;
        let mut reconnect = ReconnectPolicy::new_exponential(0, first, longest, 2);
        reconnect.set_jitter(first);
        let client = Client::new(config, None, Some(connection_config()), Some(reconnect));

        let mut errors = client.error_rx();
        // From here on dropping ends the connection's task.
        let redis = Redis {
            connection: client.connect(),
            client: client.with_options(&Options { fail_fast: true, max_attempts: Some(1), ..Options::default() }),
            limiter: Script::new(LIMIT_SCRIPT),
            replacer: Script::new(REPLACE_SCRIPT),
            journals: Scripts::new(),
            patience: options.patience,
            limits: Gate::new(),
            state: Gate::new(),
            replicas: options.replicas.max(1),
            share: Limiter::new(),
            clock,
            fallbacks: Seldom::default(),
        };
        let begun = Instant::now();
        while !redis.client.is_connected() && begun.elapsed() < START_PATIENCE {
            match timeout(Duration::from_millis(5), errors.recv()).await {
                Ok(Ok((error, _))) if *error.kind() == ErrorKind::Auth => {
                    return Err(CacheError::CredentialsRefused(error.into()));
                }
                Ok(_) => break,
                Err(_) => {}
            }
        }
        Ok(redis)
    }

    pub(crate) async fn admit(&self, limits: &[(&str, Rate)]) -> Option<Binding> {
        if limits.is_empty() {
            return None;
        }
        let paces = match Pace::of_all(limits.iter().map(|(_, rate)| *rate)) {
            Ok(paces) => paces,
            Err(limit) => return Some(Binding { limit, decision: CLOSED }),
        };
        match self.limits.pass(self.patience, &self.client, self.run_script(limits)).await.and_then(read_answer) {
            Ok((true, ahead_us)) => verdict(&paces, Ok(&ahead_us)),
            Ok((false, wait_us)) => verdict(&paces, Err(&wait_us)),
            Err(error) => {
                self.note_fallback(&error);
                let share = |rate: Rate| Rate { per_minute: (rate.per_minute / self.replicas).max(1) };
                let shares: Vec<(&str, Rate)> = limits.iter().map(|(key, rate)| (*key, share(*rate))).collect();
                self.share.admit(&shares, self.clock.now_ms())
            }
        }
    }

    async fn run_script(&self, limits: &[(&str, Rate)]) -> FredResult<Vec<i64>> {
        let keys: Vec<String> = limits.iter().map(|(key, _)| format!("weft:limit:{key}")).collect();
        let rates = limits.iter().map(|(_, rate)| i64::from(rate.per_minute).into()).collect();
        self.eval(&self.limiter, keys, rates).await
    }

    async fn eval<T: FromValue>(&self, script: &Script, keys: Vec<String>, arguments: Vec<Value>) -> FredResult<T> {
        match self.client.evalsha(script.sha1.as_str(), keys.clone(), arguments.clone()).await {
            // A Redis that has started anew does not know the script; this also teaches it.
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                self.client.eval(script.text, keys, arguments).await
            }
            answer => answer,
        }
    }

    /// Runs a script on state.
    pub(crate) async fn run<T: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<T, CacheError> {
        self.ask(self.eval(script, keys, arguments)).await
    }

    /// Sets a key, as it stands, to nothing for a while.
    pub(crate) async fn mark(&self, key: &str, ttl_ms: i64) -> Result<(), CacheError> {
        self.ask(self.client.set(key, "", Some(Expiration::PX(ttl_ms)), None, false)).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.ask(self.client.get(state_key(key))).await
    }

    pub(crate) async fn set(&self, key: &str, value: Bytes, ttl_ms: i64) -> Result<(), CacheError> {
        self.ask(self.client.set(state_key(key), value, Some(Expiration::PX(ttl_ms)), None, false)).await
    }

    pub(crate) async fn set_if_absent(&self, key: &str, value: Bytes, ttl_ms: i64) -> Result<bool, CacheError> {
        let set = self.client.set(state_key(key), value, Some(Expiration::PX(ttl_ms)), Some(SetOptions::NX), false);
        let done: Option<String> = self.ask(set).await?;
        Ok(done.is_some())
    }

    pub(crate) async fn replace(&self, key: &str, seen: &[u8], value: Bytes, ttl_ms: i64) -> Result<bool, CacheError> {
        let arguments = vec![Value::from(Bytes::copy_from_slice(seen)), Value::from(value), Value::from(ttl_ms)];
        let replaced: i64 = self.run(&self.replacer, vec![state_key(key)], arguments).await?;
        Ok(replaced > 0)
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), CacheError> {
        self.ask(self.client.del(state_key(key))).await
    }

    pub(crate) async fn take(&self, key: &str) -> Result<Option<Bytes>, CacheError> {
        self.ask(self.client.getdel(state_key(key))).await
    }

    pub(crate) async fn ping(&self) -> Result<(), CacheError> {
        let _: String = self.ask(self.client.ping(None)).await?;
        Ok(())
    }

    async fn ask<T>(&self, command: impl Future<Output = FredResult<T>>) -> Result<T, CacheError> {
        self.state
            .pass(STATE_PATIENCE, &self.client, command)
            .await
            .map_err(|error| CacheError::Unavailable(error.into()))
    }

    fn note_fallback(&self, error: &Error) {
        metrics::counter!("weft_cache_fallback_total").increment(1);
        if let Some(left_out) = self.fallbacks.turn(self.clock.now_ms()) {
            tracing::warn!(%error, left_out, replicas = self.replicas, "redis does not answer, this replica goes on with its share of each rate limit");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Lets commands through while Redis answers in time, and one in [`PROBE_EVERY`] while it does not: an outage
/// costs one caller the wait, not all of them.
struct Gate {
    since: Instant,
    /// ms after `since` at which to ask again; 0 while all is well.
    closed_until_ms: AtomicI64,
}

impl Gate {
    fn new() -> Self {
        Gate { since: Instant::now(), closed_until_ms: AtomicI64::new(0) }
    }

    async fn pass<T>(
        &self,
        patience: Duration,
        client: &Client,
        command: impl Future<Output = FredResult<T>>,
    ) -> FredResult<T> {
        if !client.is_connected() {
            return Err(Error::new(ErrorKind::IO, "not connected"));
        }
        if !self.is_open_for_me() {
            return Err(Error::new(ErrorKind::Timeout, "too slow a moment ago"));
        }
        let mut command = pin!(command);
        let mut answer = None;
        for _ in 0..TURNS {
            answer = timeout(patience / TURNS, command.as_mut()).await.ok();
            if answer.is_some() {
                break;
            }
        }
        let until_ms = if answer.is_some() { 0 } else { self.next_probe_ms() };
        self.closed_until_ms.store(until_ms, Ordering::Relaxed);
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Timeout, "no answer in time")))
    }

    fn is_open_for_me(&self) -> bool {
        let until_ms = self.closed_until_ms.load(Ordering::Relaxed);
        let probe = || {
            let next_ms = self.next_probe_ms();
            self.closed_until_ms.compare_exchange(until_ms, next_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        until_ms == 0 || (self.elapsed_ms() >= until_ms && probe())
    }

    fn next_probe_ms(&self) -> i64 {
        self.elapsed_ms() + PROBE_EVERY.as_millis() as i64
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// Whether the script admitted, and what it says of each key.
fn read_answer(answer: Vec<i64>) -> FredResult<(bool, Vec<i64>)> {
    match answer.split_first() {
        Some((admitted, us)) => Ok((*admitted == 1, us.to_vec())),
        None => Err(Error::new(ErrorKind::Protocol, "the limiter's script answered nothing")),
    }
}

/// What the client makes of a URL.
pub(crate) fn read_url(url: &str) -> Result<Config, CacheError> {
    // The client would take any scheme.
    if !url.starts_with("redis") && !url.starts_with("valkey") {
        return Err(CacheError::InvalidUrl);
    }
    Config::from_url(url).map_err(|_| CacheError::InvalidUrl)
}

fn connection_config() -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: SILENCE,
        internal_command_timeout: SILENCE,
        // A command that was on its way when the connection broke is not sent again: it may have been carried out.
        max_command_attempts: 1,
        max_command_buffer_len: MAX_QUEUED,
        unresponsive: UnresponsiveConfig { max_timeout: Some(SILENCE), interval: SILENCE / 8 },
        reconnect_on_auth_error: true,
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    }
}

fn state_key(key: &str) -> String {
    format!("weft:state:{key}")
}
