//! Waiting for something to become true, without fixed sleeps.
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Asks every 20 ms until `check` says true; panics with `what` after `patience`.
pub async fn eventually<F>(what: &str, patience: Duration, mut check: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < patience, "{what} did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
