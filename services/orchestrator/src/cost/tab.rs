//! What an answer has used so far, over all its calls.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use weft_proto::orchestrator::v1::ChatUsage;

use super::figures::Figures;

/// So long an answer waits until billing has its calls, so that who reads the balance next sees them in it.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

/// What was used.
#[derive(Default)]
pub struct Tab(Mutex<Written>);

#[derive(Default)]
struct Written {
    used: Figures,
    charged: i64,
    /// One for each call that billing may not have yet.
    open: Vec<oneshot::Receiver<()>>,
}

impl Tab {
    /// A call begins; the receiver hears when billing has it.
    pub fn open(&self, settled: oneshot::Receiver<()>) {
        self.lock().open.push(settled);
    }

    /// A call ended with so many tokens and micro-credits.
    pub fn add(&self, used: Figures, charged: i64) {
        let mut written = self.lock();
        written.used.prompt = written.used.prompt.saturating_add(used.prompt);
        written.used.completion = written.used.completion.saturating_add(used.completion);
        written.used.estimated |= used.estimated;
        written.charged = written.charged.saturating_add(charged);
    }

    /// Waits until billing has every call that ended, but not long: it gets them anyway.
    pub async fn settled(&self) {
        let until = Instant::now() + SETTLED_WITHIN;
        let open = std::mem::take(&mut self.lock().open);
        for settled in open {
            let _heard = timeout_at(until, settled).await;
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> i64 {
        self.lock().used.total()
    }

    /// What the caller is told.
    pub fn usage(&self) -> ChatUsage {
        let written = self.lock();
        ChatUsage {
            prompt_tokens: written.used.prompt,
            completion_tokens: written.used.completion,
            total_tokens: written.used.total(),
            credits: written.charged,
            estimated: written.used.estimated,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
