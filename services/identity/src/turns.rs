//! Calls about the same thing, one after the other.
//!
//! Many refreshes of one token at once (tabs, retries, somebody who tries) would each hold a connection while they
//! wait for the session's row, and a few such clients would leave none for anybody else. So they wait here first.
//! Nothing depends on it but the number of connections in use: the row's lock decides, across all replicas.
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Things that are told apart; others may wait for each other without need.
const STRIPES: usize = 256;
/// Who has waited this long goes on without a turn: the database is slow or away, and says so itself.
const LONGEST: Duration = Duration::from_millis(300);

/// A fixed number of queues.
pub struct Turns {
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Turns {
    /// Nobody waits.
    pub fn new() -> Turns {
        Turns { stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn of `key`; it lasts until it is dropped. None: it took too long, go on without.
    pub async fn take(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        let stripe = &self.stripes[self.hasher.hash_one(key) as usize % STRIPES];
        timeout(LONGEST, stripe.lock()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_too_long_goes_on_all_the_same() {
        let turns = Turns::new();
        let first = turns.take("token").await;
        assert!(first.is_some());
        assert!(turns.take("token").await.is_none());
        drop(first);
        assert!(turns.take("token").await.is_some());
    }
}
