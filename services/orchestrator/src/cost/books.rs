//! Billing, as a call of a model sees it.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status};
use weft_auth::KeyClaim;
use weft_core::{Clock, Reason, Seldom, new_id};
use weft_proto::Channel;
use weft_proto::billing::v1::usage_service_client::UsageServiceClient;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::{BeginUsageRequest, Entitlements, Hold, KeyBudget, ReserveRequest, VoidRequest};
use weft_runtime::Tasks;

use super::figures::price;
use super::settle::repeated;
use super::tokens::Likely;
use crate::error::Error;

/// Billing answers a call's beginning in this time, both questions together, or nothing is asked.
const BEGUN_WITHIN: Duration = Duration::from_millis(1_800);
/// How long a hold lives without a sign of life. Its call gives several in that time.
pub const HOLD_TTL: Duration = Duration::from_secs(30);
/// So long a hold that is perhaps there is asked for, to give it back; then it ends by itself.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// After this time a call whose end was never told is not running any more.
const USAGE_TTL: Duration = Duration::from_secs(600);
/// So often usage that nobody waits for is recorded.
const RECORD_EVERY: Duration = Duration::from_millis(10);
/// The plan's limit on tokens.
const TOKENS_PER_DAY: &str = "max_tokens_per_day";

/// Who pays for an answer, and how.
#[derive(Clone)]
pub struct Payer {
    /// Product slug.
    pub product: String,
    /// Account id.
    pub account: String,
    /// Micro-credits a token; None: the product has no credits.
    pub rate: Option<i64>,
    /// The plan limits the tokens of a day.
    pub is_limited: bool,
    /// The API key that asks, and what it may spend.
    pub key: Option<KeyBudget>,
}

impl Payer {
    /// The account that these are the entitlements of; `key` is its API key that asks, if one does.
    pub fn of(product: &str, account: &str, key: Option<&KeyClaim>, plan: &Entitlements) -> Payer {
        Payer {
            product: product.to_owned(),
            account: account.to_owned(),
            rate: plan.micro_credits_per_token,
            is_limited: plan.limits.contains_key(TOKENS_PER_DAY),
            key: key.map(|key| KeyBudget { key_id: key.id.clone(), limit: key.limit }),
        }
    }
}

/// Billing's clients, and the tasks that end what was begun there. Cheap to clone.
#[derive(Clone)]
pub struct Books {
    pub(super) wallet: WalletServiceClient<Channel>,
    pub(super) usage: UsageServiceClient<Channel>,
    pub(super) tasks: Tasks,
    pub(super) likely: Arc<Likely>,
    clock: Clock,
    over_hold: Arc<Seldom>,
    begun: Instant,
}

/// A call that may begin.
pub struct Opened {
    /// The call at billing: the key of all that is booked for it.
    pub call_id: String,
    /// What is set aside, for a product with credits.
    pub hold: Option<Hold>,
    /// Counts as running until it is recorded; empty: nobody counts.
    pub usage_id: String,
}

impl Books {
    /// Books at this channel to billing.
    pub fn new(channel: Channel, tasks: Tasks, clock: Clock) -> Books {
        let (wallet, usage) = (WalletServiceClient::new(channel.clone()), UsageServiceClient::new(channel));
        Books { wallet, usage, tasks, likely: Arc::default(), clock, over_hold: Arc::default(), begun: Instant::now() }
    }

    /// When usage that nobody waits for is recorded next: that of several calls at once, and not between an answer and the
    /// next call of who got it.
    pub(super) fn next_round(&self) -> Instant {
        let rounds = self.begun.elapsed().as_millis() / RECORD_EVERY.as_millis();
        self.begun + RECORD_EVERY * u32::try_from(rounds + 1).unwrap_or(0)
    }

    /// Sets aside what so many tokens cost, and asks whether the day has room for them.
    ///
    /// # Errors
    /// [`Error::Refused`] with billing's own reason if the account has not enough of either, [`Error::NoBilling`] if that
    /// is not known in time: what may be set aside then is given back.
    pub async fn open(&self, payer: &Payer, tokens: i64, reference: &str) -> Result<Opened, Error> {
        let until = Instant::now() + BEGUN_WITHIN;
        let call_id = new_id();
        let hold = match payer.rate {
            Some(rate) => Some(self.reserve(payer, price(tokens, rate), &call_id, reference, until).await?),
            None => None,
        };
        match self.begin(payer, tokens, &call_id, until).await {
            Ok(usage_id) => Ok(Opened { call_id, hold, usage_id }),
            Err(refused) => {
                if let Some(hold) = hold {
                    self.give_back(payer.product.clone(), payer.account.clone(), hold.id);
                }
                Err(refused)
            }
        }
    }

    /// How many were left out of the log before, if a call that used more than it could is to be logged now.
    pub(super) fn over_hold(&self) -> Option<u64> {
        self.over_hold.turn(self.clock.now_ms())
    }

    async fn reserve(
        &self,
        payer: &Payer,
        amount: i64,
        call_id: &str,
        reference: &str,
        until: Instant,
    ) -> Result<Hold, Error> {
        let request = ReserveRequest {
            product: payer.product.clone(),
            user_id: payer.account.clone(),
            amount,
            idempotency_key: call_id.to_owned(),
            ttl_ms: ms(HOLD_TTL),
            reference: reference.to_owned(),
            key_budget: payer.key.clone(),
        };
        let mut wallet = self.wallet.clone();
        let reserved = timeout_at(until, wallet.reserve(before(until, request.clone()))).await;
        if is_unknown(&reserved) {
            self.take_back(request);
        }
        match answer(reserved) {
            // How much the account has is not for who has only a key of it.
            Err(Error::Refused(status))
                if payer.key.is_some() && Reason::of(&status) == Some(Reason::InsufficientCredits) =>
            {
                let text = "the account has not enough credits for this call";
                Err(Error::Refused(Box::new(Reason::InsufficientCredits.status(text))))
            }
            answered => answered,
        }
    }

    /// Gives back what may have been set aside for a call that nobody waits for any more. Asked again with the same key,
    /// billing says which hold that is.
    fn take_back(&self, request: ReserveRequest) {
        let books = self.clone();
        self.tasks.spawn("take back", async move {
            let until = Instant::now() + TAKEN_BACK_WITHIN;
            let reserved = repeated(until, || {
                let (mut wallet, request) = (books.wallet.clone(), request.clone());
                async move { wallet.reserve(request).await }
            });
            if let Ok(hold) = reserved.await {
                books.give_back(request.product, request.user_id, hold.id);
            }
        });
    }

    async fn begin(&self, payer: &Payer, tokens: i64, call_id: &str, until: Instant) -> Result<String, Error> {
        if !payer.is_limited {
            return Ok(String::new());
        }
        let request = BeginUsageRequest {
            product: payer.product.clone(),
            user_id: payer.account.clone(),
            tokens,
            idempotency_key: call_id.to_owned(),
            ttl_ms: ms(USAGE_TTL),
        };
        let mut usage = self.usage.clone();
        Ok(answer(timeout_at(until, usage.begin_usage(before(until, request))).await)?.usage_id)
    }

    fn give_back(&self, product: String, user_id: String, hold_id: String) {
        let (wallet, request) = (self.wallet.clone(), VoidRequest { product, user_id, hold_id });
        self.tasks.spawn("give back", async move {
            let until = Instant::now() + HOLD_TTL;
            let _expires = repeated(until, || {
                let (mut wallet, request) = (wallet.clone(), request.clone());
                async move { wallet.void(request).await }
            })
            .await;
        });
    }
}

/// A duration as billing's messages have it.
pub fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn before<M>(until: Instant, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(until.saturating_duration_since(Instant::now()));
    request
}

fn answer<T>(answered: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>) -> Result<T, Error> {
    match answered {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if is_refusal(&status) => Err(Error::Refused(Box::new(status))),
        Ok(Err(status)) => {
            tracing::warn!(code = ?status.code(), "billing could not begin a call");
            Err(Error::NoBilling)
        }
        Err(_) => {
            tracing::warn!("billing took too long to begin a call");
            Err(Error::NoBilling)
        }
    }
}

/// Whether it may have happened although nobody said so.
fn is_unknown<T>(answered: &Result<Result<T, Status>, tokio::time::error::Elapsed>) -> bool {
    match answered {
        Ok(answered) => answered.as_ref().is_err_and(|status| status.code() == Code::DeadlineExceeded),
        Err(_elapsed) => true,
    }
}

/// Whether billing said no, and not that it cannot say.
fn is_refusal(status: &Status) -> bool {
    let said = Reason::of(status);
    let refusals = [
        Reason::InsufficientCredits,
        Reason::KeyBudgetExceeded,
        Reason::RateLimited,
        Reason::DailyTokensExceeded,
        Reason::AccountSuspended,
    ];
    said.is_some_and(|said| refusals.contains(&said)) || status.code() == Code::NotFound
}
