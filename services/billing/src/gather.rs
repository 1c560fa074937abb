//! Work that is done together: whatever waits is one group, one group after the other.
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
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

    /// The same, and what comes within `patience`, unless one of them is urgent.
    pub async fn larger_group(&mut self, patience: Duration, is_urgent: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        let mut group = self.group().await?;
        let until = Instant::now() + patience;
        let mut is_hurried = group.iter().any(&is_urgent);
        while !is_hurried
            && group.len() < MAX_GROUP
            && let Ok(Some(next)) = timeout_at(until, self.queue.recv()).await
        {
            is_hurried = is_urgent(&next);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_larger_group_waits_for_more_but_not_with_one_that_is_urgent() {
        let (sender, mut waiting) = Waiting::new(&Shutdown::new());
        sender.send(1).await.unwrap();
        let more = async {
            tokio::task::yield_now().await;
            sender.send(2).await.unwrap();
            sender.send(3).await.unwrap();
        };
        let hour = Duration::from_secs(3600);
        let (group, ()) = tokio::join!(waiting.larger_group(hour, |number| *number == 3), more);
        assert_eq!(group, Some(vec![1, 2, 3]));
        sender.send(4).await.unwrap();
        assert_eq!(waiting.larger_group(Duration::from_millis(1), |_| false).await, Some(vec![4]));
    }
}
