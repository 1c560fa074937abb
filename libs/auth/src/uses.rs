//! Which access tokens and API keys were used in this process, until identity has been told.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Uses that are kept while identity is away; then the oldest are dropped. One takes about 60 bytes.
const MOST: usize = 10_000;

/// Ids of tokens that were found valid, oldest first.
#[derive(Default)]
pub(crate) struct Uses(Mutex<VecDeque<String>>);

impl Uses {
    /// Notes that the token with this id was used.
    pub(crate) fn note(&self, jti: &str) {
        let mut pending = self.pending();
        if pending.len() >= MOST {
            pending.pop_front();
        }
        pending.push_back(jti.to_owned());
    }

    /// Takes out the oldest, at most `most`.
    pub(crate) fn take(&self, most: usize) -> Vec<String> {
        let mut pending = self.pending();
        let count = pending.len().min(most);
        pending.drain(..count).collect()
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_taken_oldest_first_and_the_oldest_make_room() {
        let uses = Uses::default();
        for number in 0..=MOST {
            uses.note(&number.to_string());
        }
        assert_eq!(uses.take(2), ["1", "2"], "0 made room for the last");
        assert_eq!(uses.take(usize::MAX).len(), MOST - 2);
        assert!(uses.take(1).is_empty());
    }
}
