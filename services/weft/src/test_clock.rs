//! The clock of a process under test: with `ENV=test` and `WEFT_TEST_LISTEN` a port of its own can move it.
//!
//! `GET /clock` tells the time, `PUT /clock {"now_ms"}` sets it, `POST /clock/advance {"ms"}` moves it on; each
//! answers `{"now_ms"}`. Only on loopback: whoever reaches it decides which tokens have expired.
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use weft_core::Clock;
use weft_runtime::Environment as Stage;

use crate::config::BinaryConfig;
use crate::exit::Failure;
use crate::serve::bind;

/// A time.
#[derive(Deserialize, Serialize)]
struct Time {
    /// ms since 1970.
    now_ms: i64,
}

/// How far to move on.
#[derive(Deserialize)]
struct Step {
    ms: u64,
}

/// The clock that a process goes by, and in a test the port that moves it.
///
/// # Errors
/// `WEFT_TEST_LISTEN` outside of a test, or an address that cannot be had.
pub async fn clock(binary: &BinaryConfig, stage: Stage) -> Result<Clock, Failure> {
    let Some(address) = &binary.weft_test_listen else { return Ok(Clock::System) };
    if stage != Stage::Test {
        return Err(Failure::config("WEFT_TEST_LISTEN: is for ENV=test only, it lets others move the clock"));
    }
    let loopback = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if !loopback {
        return Err(Failure::config("WEFT_TEST_LISTEN: must be an address on loopback, such as 127.0.0.1:9100"));
    }
    let listener = bind(address, "WEFT_TEST_LISTEN").await?;
    let clock = Clock::shifted();
    let routes = Router::new()
        .route("/clock", get(tell).put(set))
        .route("/clock/advance", post(advance))
        .with_state(clock.clone());
    #[expect(clippy::disallowed_methods, reason = "ends with the process, there is nothing to drain")]
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the clock's port is closed");
        }
    });
    tracing::warn!(%address, "the clock can be moved, this is a test");
    Ok(clock)
}

async fn tell(State(clock): State<Clock>) -> Json<Time> {
    Json(Time { now_ms: clock.now_ms() })
}

async fn set(State(clock): State<Clock>, Json(time): Json<Time>) -> Json<Time> {
    clock.set(time.now_ms);
    tell(State(clock)).await
}

async fn advance(State(clock): State<Clock>, Json(step): Json<Step>) -> Json<Time> {
    clock.advance(Duration::from_millis(step.ms));
    tell(State(clock)).await
}
