//! How a process ends: a signal, calls that finish, background work that finishes.
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

/// Tells every part of a process to end. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A process that is to go on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells everybody to end. Telling it again changes nothing.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether everybody was told to end.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when everybody was told to end.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// The same as a token, for parts that take one.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Ends with SIGINT or SIGTERM. Call it once, inside the runtime.
    pub fn on_signals(&self) {
        let shutdown = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "waits for the end of the process, so nothing could wait for it"
        )]
        tokio::spawn(async move {
            match signal().await {
                Ok(name) => tracing::info!(signal = name, "shutting down"),
                Err(error) => {
                    tracing::error!(%error, "signals cannot be heard; the process can only be killed");
                    return;
                }
            }
            shutdown.trigger();
        });
    }
}

async fn signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}

/// Background work of one service: tracked, so that the service does not end under it. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// No work yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` in the background. It has to end by itself some time after the shutdown; a panic in it is
    /// logged with its name and ends only this work.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let guarded = async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "background work panicked");
            }
        };
        self.0.spawn(guarded.instrument(tracing::info_span!("task", task = name)));
    }

    /// Counts as work, which somebody else does, until it is dropped.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.0.token()
    }

    /// How much work is running.
    pub fn running(&self) -> usize {
        self.0.len()
    }

    /// Waits until all work has ended, at most `cap`. Answers whether it has.
    pub async fn drain(&self, cap: Duration) -> bool {
        self.0.close();
        tokio::time::timeout(cap, self.0.wait()).await.is_ok()
    }
}
