//! Work that is done together: whatever waits is one group, one group after the other.
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use weft_runtime::Shutdown;

/// The largest group.
const MAX_GROUP: usize = 256;
/// How many may wait.
const MAX_WAITING: usize = 4096;
/// It ends once the service is told to and nothing has come for this long.
const IDLE_AFTER_SHUTDOWN: Duration = Duration::from_millis(200);

/// The end of a queue where groups are taken.
pub struct Waiting<T> {
    queue: mpsc::Receiver<T>,
    shutdown: Shutdown,
}

impl<T> Waiting<T> {
    /// An empty queue, and where it is filled.
    pub fn new(shutdown: &Shutdown) -> (mpsc::Sender<T>, Waiting<T>) {
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        (sender, Waiting { queue, shutdown: shutdown.clone() })
    }

    /// All that waits, in the order in which it came. None once nobody can send any more, or nobody does after the
    /// shutdown.
    pub async fn group(&mut self) -> Option<Vec<T>> {
        let mut group = vec![self.next().await?];
        while group.len() < MAX_GROUP
            && let Ok(next) = self.queue.try_recv()
        {
            group.push(next);
        }
        Some(group)
    }

    async fn next(&mut self) -> Option<T> {
        tokio::select! {
            biased;
            next = self.queue.recv() => return next,
            () = self.shutdown.wait() => {}
        }
        match timeout(IDLE_AFTER_SHUTDOWN, self.queue.recv()).await {
            Ok(next) => next,
            Err(_) => {
                self.queue.close();
                self.queue.recv().await
            }
        }
    }
}
