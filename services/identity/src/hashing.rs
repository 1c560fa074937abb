//! The bounded pool in which passwords are hashed.
//!
//! A hash takes some 20 ms of a core and 19 MiB. So many run at once as there are threads for, so many more may
//! wait, and whoever comes then is told at once to come back: a flood of logins must not starve the other calls.
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::domain::password;
use crate::error::Error;

/// Where passwords are hashed.
pub struct Hashing {
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

impl Hashing {
    /// `threads` hashes at once (at least one), `queue` more may wait.
    pub fn new(threads: usize, queue: usize) -> Hashing {
        let threads = threads.clamp(1, Semaphore::MAX_PERMITS / 2);
        let places = threads + queue.min(Semaphore::MAX_PERMITS / 2);
        Hashing { places: Arc::new(Semaphore::new(places)), threads: Arc::new(Semaphore::new(threads)) }
    }

    /// A place in the queue, for one hash; [`Error::Busy`] if there is none. Taken before anything else is done for
    /// a login, so that a flood does not reach the database either.
    pub fn place(&self) -> Result<Place, Error> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!("weft_identity_password_hashes_shed_total").increment(1);
            return Err(Error::Busy);
        };
        Ok(Place { place, threads: Arc::clone(&self.threads) })
    }
}

/// The right to one hash.
pub struct Place {
    place: OwnedSemaphorePermit,
    threads: Arc<Semaphore>,
}

impl Place {
    /// The hash of a new password.
    pub async fn hash(self, password: SecretString) -> Result<String, Error> {
        self.run(move || password::hash(password.expose_secret())).await?
    }

    /// Whether this is the password; without `stored` the answer is no after the same work.
    pub async fn verify(self, password: SecretString, stored: Option<String>) -> Result<bool, Error> {
        self.run(move || password::verify(password.expose_secret(), stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let thread = self.threads.acquire_owned().await.map_err(|_| Error::Busy)?;
        metrics::counter!("weft_identity_password_hashes_total").increment(1);
        let hashed = spawn_blocking(move || {
            // Both are held until the work is done, also when the caller has gone meanwhile.
            let _held = (self.place, thread);
            work()
        });
        hashed.await.map_err(Error::HashLost)
    }
}
