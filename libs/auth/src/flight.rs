//! One fetch at a time, and not too many of them, for whoever needs what it brings.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::moment::Moment;

/// The last fetch, if there was one.
#[derive(Default)]
pub(crate) struct Flights(Mutex<Option<Flight>>);

/// A fetch, under way or over. Shared: whoever waits drives it, so a caller who leaves stops nothing.
struct Flight {
    began: Moment,
    /// The fetch before this one failed: the source is away, nobody who can do without should wait.
    retry: bool,
    done: Shared<BoxFuture<'static, bool>>,
}

/// Who waits for a fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The caller cannot go on without it.
    Always,
    /// The caller waits unless the source is known to be away.
    UnlessAway,
    /// The caller waits only if it began the fetch.
    OnlyOwn,
}

impl Flights {
    /// Joins the fetch that is under way, or begins one if the last began `pause` ago or longer. It says whether it
    /// succeeded.
    pub(crate) async fn join(
        &self,
        now: Moment,
        pause: Duration,
        wait: Wait,
        begin: impl FnOnce() -> BoxFuture<'static, bool>,
    ) {
        let (done, joins) = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(flight) if now.since(flight.began) < pause => {
                    let joins = wait == Wait::Always || (wait == Wait::UnlessAway && !flight.retry);
                    (flight.done.clone(), joins)
                }
                before => {
                    let retry = before.as_ref().is_some_and(|flight| flight.done.peek() == Some(&false));
                    let done = begin().shared();
                    *last = Some(Flight { began: now, retry, done: done.clone() });
                    (done, true)
                }
            }
        };
        if joins {
            done.await;
        }
    }
}
