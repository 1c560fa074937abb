//! The bounded pool in which passwords are hashed.
//!
//! A hash takes some 20 ms of a core and 19 MiB; one that an account brought along, up to a second and 128 MiB. So many
//! run at once as there are threads, so many more may wait, and whoever comes then is told at once to come back: a flood of
//! logins must not starve the other calls.
//!
//! The threads are our own, and each keeps its 19 MiB from hash to hash: given back to the allocator by ever other
//! threads, they would stay with the process several times over (600 MB after a minute of logins).
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::password::{self, Checked};
use crate::error::Error;

type Job = Box<dyn FnOnce() + Send>;

/// Where passwords are hashed.
pub struct Hashing {
    places: Arc<Semaphore>,
    jobs: Sender<Job>,
}

impl Hashing {
    /// `threads` hashes at once (at least one), `queue` more may wait. The threads end with the pool.
    pub fn new(threads: usize, queue: usize) -> Result<Hashing, Error> {
        let threads = threads.clamp(1, Semaphore::MAX_PERMITS / 2);
        let places = threads + queue.min(Semaphore::MAX_PERMITS / 2);
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            let thread = thread::Builder::new().name("password-hash".to_owned());
            thread.spawn(move || work(&waiting)).map_err(Error::HashThread)?;
        }
        Ok(Hashing { places: Arc::new(Semaphore::new(places)), jobs })
    }

    /// A place in the queue, for one hash; [`Error::Busy`] if there is none. Taken before anything else is done for
    /// a login, so that a flood does not reach the database either.
    pub fn place(&self) -> Result<Place, Error> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!("weft_identity_password_hashes_shed_total").increment(1);
            return Err(Error::Busy);
        };
        Ok(Place { place, jobs: self.jobs.clone() })
    }
}

/// One thread's life: a job after the other, until nobody can send any more.
fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The panic has been logged, its caller learns that the hash was lost, and the thread goes on.
        let _panicked = catch_unwind(AssertUnwindSafe(job));
    }
}

/// The right to one hash.
pub struct Place {
    place: OwnedSemaphorePermit,
    jobs: Sender<Job>,
}

impl Place {
    /// The hash of a new password.
    pub async fn hash(self, password: SecretString) -> Result<String, Error> {
        self.run(move || password::hash(password.expose_secret())).await?
    }

    /// Whether this is the password; without `stored` the answer is no after the same work. `shapes` are what other
    /// accounts of the product may have, see [`password::verify`].
    pub async fn verify(
        self,
        password: SecretString,
        stored: Option<String>,
        shapes: Vec<String>,
    ) -> Result<Checked, Error> {
        self.run(move || password::verify(password.expose_secret(), stored.as_deref(), &shapes)).await?
    }

    /// Whether this is the password of somebody who is signed in already.
    pub async fn verify_own(self, password: SecretString, stored: String) -> Result<bool, Error> {
        Ok(self.verify(password, Some(stored), Vec::new()).await?.right)
    }

    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let place = self.place;
        metrics::counter!("weft_identity_password_hashes_total").increment(1);
        let job = Box::new(move || {
            // A caller who has gone meanwhile does not take the result.
            let _gone = done.send(work());
            drop(place);
        });
        self.jobs.send(job).map_err(|_| Error::HashLost)?;
        result.await.map_err(|_| Error::HashLost)
    }
}
