//! Which sessions are in use, for operators.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A session is in use for so long after its latest message.
const ACTIVE_MS: i64 = 5 * 60 * 1_000;
/// Sessions that are counted at most.
const SESSIONS_MOST: usize = 100_000;

/// The sessions that got messages at this replica lately: by product, then by id, when.
#[derive(Default)]
pub struct Active(Mutex<HashMap<String, HashMap<String, i64>>>);

impl Active {
    /// A session got a message.
    pub fn note(&self, product: &str, id: &str, now_ms: i64) {
        let mut active = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = active.values().map(HashMap::len).sum::<usize>() >= SESSIONS_MOST;
        let sessions = active.entry(product.to_owned()).or_default();
        if !is_full || sessions.contains_key(id) {
            sessions.insert(id.to_owned(), now_ms);
        }
    }

    /// How many are in use, by product; those that were in use before are told with 0.
    pub fn count(&self, now_ms: i64) -> Vec<(String, usize)> {
        let mut active = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sessions in active.values_mut() {
            sessions.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < ACTIVE_MS);
        }
        active.iter().map(|(product, sessions)| (product.clone(), sessions.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_in_use_for_a_while() {
        let active = Active::default();
        for (id, now_ms) in [("a", 0), ("b", 1), ("a", 2)] {
            active.note("p", id, now_ms);
        }
        assert_eq!(active.count(ACTIVE_MS), [("p".to_owned(), 2)]);
        assert_eq!(active.count(ACTIVE_MS + 1), [("p".to_owned(), 1)]);
        assert_eq!(active.count(ACTIVE_MS + 2), [("p".to_owned(), 0)]);
    }
}
