//! What a test, or the whole process of a test, logs.
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Level};

/// A second subscriber beside the one of a test. With a single one, tracing takes its interest in a place of the
/// code from the thread that passes there first, which may be another test's.
static SECOND: OnceLock<Dispatch> = OnceLock::new();

/// Lines that were logged.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// From now on until the guard is dropped, what this thread logs at `level` and above, a JSON object a line.
    #[must_use]
    pub fn capture(level: Level) -> (Logs, DefaultGuard) {
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
        let logs = Logs::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || writer.clone());
        (logs, tracing::subscriber::set_default(subscriber.finish()))
    }

    /// From now on, what this whole process logs at every level.
    ///
    /// # Panics
    /// The second time in a process.
    #[must_use]
    pub fn of_process() -> Logs {
        let logs = Logs::default();
        let writer = logs.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(move || writer.clone());
        let set = tracing::subscriber::set_global_default(subscriber.finish());
        assert!(set.is_ok(), "logs of a process are taken once");
        logs
    }

    /// What was logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The same, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl Write for Logs {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
