//! The end of a call, told to billing by a task of its own.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Code, Response, Status};
use weft_proto::billing::v1::{Hold, MarkProgressRequest, RecordUsageRequest, SettleRequest, VoidRequest};

use super::books::{Books, HOLD_TTL, Opened, Payer, ms};
use super::figures::{Figures, price};
use super::tab::Tab;
use crate::models::Meter;

/// What was delivered is told this often, if there is more.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// A hold hears at least this often that its call still runs.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Billing answers one attempt in this time.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(2);
/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Usage that billing has not taken in this time is lost, and told to operators.
const RECORDED_WITHIN: Duration = Duration::from_secs(600);

/// A call that runs.
pub struct Running {
    /// Who pays.
    pub payer: Payer,
    /// What billing gave for it.
    pub opened: Opened,
    /// The session that it is a part of; empty: none.
    pub session_id: String,
    /// The agent or `classifier`.
    pub role: String,
    /// The model, as the product names it.
    pub model: String,
    /// What it uses.
    pub meter: Meter,
    /// What its prompt probably is, in tokens.
    pub likely: i64,
    /// The most tokens that it can use.
    pub most: i64,
}

/// How a call ended.
#[derive(Default)]
struct Ended {
    figures: Option<Figures>,
    failed: bool,
    ms: i64,
}

/// What billing knows of a call that runs.
#[derive(Clone, Copy)]
struct Heard {
    /// Micro-credits that were marked.
    marked: i64,
    /// When.
    at: Instant,
}

/// Lives in the call: whatever ends that, drops this, and dropping it ends the call at billing.
pub struct Guard {
    meter: Meter,
    likely: i64,
    rate: i64,
    held: i64,
    tab: Arc<Tab>,
    begun: Instant,
    failed: bool,
    told: Option<oneshot::Sender<Ended>>,
}

impl Guard {
    /// The call has its answer.
    pub fn succeed(mut self) {
        self.failed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let figures = Figures::of(&self.meter, self.likely);
        if let Some(used) = figures {
            self.tab.add(used, price(used.total(), self.rate).min(self.held));
        }
        if let Some(told) = self.told.take() {
            // Where the task is gone the sweeper ends the hold.
            let _gone = told.send(Ended { figures, failed: self.failed, ms: ms(self.begun.elapsed()) });
        }
    }
}

impl Running {
    /// Follows the call in a task of its own until billing has its end.
    pub fn follow(self, books: &Books, tab: &Arc<Tab>) -> Guard {
        let (told, ended) = oneshot::channel();
        let (settled, hears) = oneshot::channel();
        tab.open(hears);
        let guard = Guard {
            meter: self.meter.clone(),
            likely: self.likely,
            rate: self.payer.rate.unwrap_or(0),
            held: self.opened.hold.as_ref().map_or(0, |hold| hold.amount),
            tab: Arc::clone(tab),
            begun: Instant::now(),
            failed: true,
            told: Some(told),
        };
        let books_there = books.clone();
        books.tasks.spawn("settle", async move {
            let (ended, heard) = self.accompany(&books_there, ended).await;
            self.alarm_if_over(&books_there, &ended);
            let charged = self.settle(&books_there, &ended, heard).await;
            let recorded = self.record(&books_there, &ended, charged);
            // The next call has to find this one's tokens where those of the day are limited; else nobody waits for it.
            if self.payer.is_limited {
                recorded.await;
                drop(settled);
            } else {
                drop(settled);
                tokio::time::sleep_until(books_there.next_round()).await;
                recorded.await;
            }
        });
        guard
    }

    /// Marks what was delivered until the call ends. Says how it did, and what billing heard of it last.
    async fn accompany(&self, books: &Books, mut ended: oneshot::Receiver<Ended>) -> (Ended, Heard) {
        let mut ticks = interval(MARK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Heard { marked: 0, at: Instant::now() };
        loop {
            tokio::select! {
                biased;
                how = &mut ended => return (how.unwrap_or_default(), heard),
                _tick = ticks.tick() => {}
            }
            let (Some(hold), Some(rate)) = (&self.opened.hold, self.payer.rate) else { continue };
            let progress = Figures::of(&self.meter, self.likely).map_or(0, |used| price(used.total(), rate));
            if progress <= heard.marked && heard.at.elapsed() < BEAT_EVERY {
                continue;
            }
            let now = Instant::now();
            if let Ok(Ok(_hold)) = timeout(ATTEMPT_WITHIN, self.mark(books, hold, progress)).await {
                heard = Heard { marked: progress.min(hold.amount), at: now };
            }
        }
    }

    async fn mark(&self, books: &Books, hold: &Hold, progress: i64) -> Result<Response<Hold>, Status> {
        let request = MarkProgressRequest {
            product: self.payer.product.clone(),
            user_id: self.payer.account.clone(),
            hold_id: hold.id.clone(),
            progress,
            ttl_ms: ms(HOLD_TTL),
        };
        books.wallet.clone().mark_progress(request).await
    }

    /// Ends the hold, as long as it lives. What was charged.
    async fn settle(&self, books: &Books, ended: &Ended, heard: Heard) -> i64 {
        let until = heard.at + HOLD_TTL;
        let (Some(hold), Some(rate)) = (&self.opened.hold, self.payer.rate) else { return 0 };
        let (product, user_id) = (self.payer.product.clone(), self.payer.account.clone());
        let hold_id = hold.id.clone();
        let outcome = match ended.figures {
            None => {
                let request = VoidRequest { product, user_id, hold_id };
                repeated(until, || {
                    let (mut wallet, request) = (books.wallet.clone(), request.clone());
                    async move { wallet.void(request).await }
                })
                .await
            }
            Some(used) => {
                let amount = price(used.total(), rate);
                let request = SettleRequest { product, user_id, hold_id, amount, estimated: used.estimated };
                repeated(until, || {
                    let (mut wallet, request) = (books.wallet.clone(), request.clone());
                    async move { wallet.settle(request).await }
                })
                .await
            }
        };
        match outcome {
            Ok(hold) => hold.charged,
            Err(status) => {
                metrics::counter!("weft_calls_unsettled_total", "product" => self.payer.product.clone()).increment(1);
                tracing::error!(hold = hold.id, code = ?status.code(), "a hold was not settled; it ends by its last mark");
                heard.marked
            }
        }
    }

    fn alarm_if_over(&self, books: &Books, ended: &Ended) {
        let used = ended.figures.map_or(0, |used| used.total());
        if used <= self.most {
            return;
        }
        let labels = [("product", self.payer.product.clone()), ("model", self.model.clone())];
        metrics::counter!("weft_calls_over_hold_total", &labels).increment(1);
        if let Some(left_out) = books.over_hold() {
            tracing::error!(
                call = self.opened.call_id,
                model = self.model,
                used,
                most = self.most,
                left_out,
                "a provider reports more than its call could use; only what was held is charged"
            );
        }
    }

    async fn record(&self, books: &Books, ended: &Ended, charged: i64) {
        let used = ended.figures.unwrap_or_default().within(self.most);
        let request = RecordUsageRequest {
            product: self.payer.product.clone(),
            user_id: self.payer.account.clone(),
            session_id: self.session_id.clone(),
            agent_role: self.role.clone(),
            model: self.model.clone(),
            input_tokens: used.prompt,
            output_tokens: used.completion,
            idempotency_key: self.opened.call_id.clone(),
            usage_id: self.opened.usage_id.clone(),
            charged,
            estimated: used.estimated,
            latency_ms: ended.ms,
            failed: ended.failed,
        };
        let recorded = repeated(Instant::now() + RECORDED_WITHIN, || {
            let (mut usage, request) = (books.usage.clone(), request.clone());
            async move { usage.record_usage(request).await }
        });
        if let Err(status) = recorded.await {
            metrics::counter!("weft_usage_lost_total", "product" => self.payer.product.clone()).increment(1);
            tracing::error!(call = self.opened.call_id, code = ?status.code(), "the usage of a call is not recorded");
        }
    }
}

/// Asks billing the same again and again until it answers or the time is over.
pub async fn repeated<T, F>(until: Instant, mut ask: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut pause = PAUSES.0;
    loop {
        let status = match timeout(ATTEMPT_WITHIN, ask()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("billing did not answer in time"),
        };
        let answered = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::FailedPrecondition,
            Code::PermissionDenied,
            Code::AlreadyExists,
        ];
        if answered.contains(&status.code()) || Instant::now() + pause >= until {
            return Err(status);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
