//! Waiting for something to become true, without fixed sleeps.
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Asks every 20 ms until `check` says true. Panics with `what` if one that was begun after `patience` says false: on a
/// slow machine a check may take long, and what it says is of when it began.
pub async fn eventually<F>(what: &str, patience: Duration, mut check: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let begun = Instant::now();
    loop {
        let is_last = begun.elapsed() >= patience;
        if check().await {
            return;
        }
        assert!(!is_last, "{what} did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
