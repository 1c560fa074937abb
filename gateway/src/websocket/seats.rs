//! How many sockets are open, in all and of whom.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;
use weft_core::Reason;

/// Sockets of one account at once, or of one address without an account.
pub const MAX_OF_ONE: usize = 64;

/// The places of all sockets. `weft_edge_sockets` says how many are taken.
#[derive(Clone)]
pub struct Seats {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_holder: HashMap<String, usize>,
}

/// The place of one socket, free again when it is dropped.
pub struct Seat {
    seats: Seats,
    holder: String,
}

impl Seats {
    /// So many places.
    pub fn new(most: usize) -> Seats {
        Seats { most, taken: Arc::default() }
    }

    /// A place for one more socket of this account or address.
    ///
    /// # Errors
    /// `rate_limited` if it has too many, UNAVAILABLE if all are taken.
    pub fn take(&self, holder: String) -> Result<Seat, Status> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_holder.get(&holder).is_some_and(|count| *count >= MAX_OF_ONE) {
            return Err(Reason::RateLimited.status(format!("{MAX_OF_ONE} websockets are open already, close one")));
        }
        if taken.all >= self.most {
            return Err(Reason::Unavailable.status("too many websockets are open, try again"));
        }
        taken.all += 1;
        *taken.by_holder.entry(holder.clone()).or_default() += 1;
        metrics::gauge!("weft_edge_sockets").increment(1.0);
        Ok(Seat { seats: self.clone(), holder })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.by_holder.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
        metrics::gauge!("weft_edge_sockets").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each_and_free_again() {
        let seats = Seats::new(MAX_OF_ONE + 1);
        let mut held: Vec<Seat> = (0..MAX_OF_ONE).map(|_| seats.take("ana".to_owned()).unwrap()).collect();
        let refused = |holder: &str| Reason::of(&seats.take(holder.to_owned()).err().unwrap());
        assert_eq!(refused("ana"), Some(Reason::RateLimited));
        let other = seats.take("bob".to_owned()).unwrap();
        assert_eq!(refused("cleo"), Some(Reason::Unavailable));
        held.pop();
        drop(other);
        held.push(seats.take("ana".to_owned()).unwrap());
        drop(held);
        let taken = seats.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_holder.is_empty());
    }
}
