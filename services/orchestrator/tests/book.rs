//! A billing that keeps a real book, as strict as the real one: nothing is reserved that is not there, a hold ends
//! once, and the same key is the same thing.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::{Request, Response, Status};
use weft_core::{Reason, new_id};
use weft_proto::billing::v1::usage_service_server::UsageService;
use weft_proto::billing::v1::wallet_service_server::WalletService;
use weft_proto::billing::v1::{
    AccountUsage, Balance, BeginUsageRequest, BeginUsageResponse, CountDailyRequest, DailyCount, DailyUsage,
    DebitRequest, DebitResponse, GetAccountUsageRequest, GetBalanceRequest, GetDailyUsageRequest,
    GetProductUsageRequest, GetStatementRequest, GrantRequest, GrantResponse, Hold, HoldState, ListKeySpendingRequest,
    ListKeySpendingResponse, ListTransactionsRequest, ListTransactionsResponse, MarkProgressRequest, ProductUsage,
    RecordActivityRequest, RecordActivityResponse, RecordUsageRequest, ReserveRequest, SettleRequest,
    SpendCreditsRequest, SpendCreditsResponse, Statement, TransferRequest, TransferResponse, UsageRecord, VoidRequest,
};

/// The book. Clones share it.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    /// What accounts can spend; who is not here has no credits.
    balances: HashMap<String, i64>,
    holds: Vec<Hold>,
    /// Hold of a key.
    reserved: HashMap<String, String>,
    usage: Vec<RecordUsageRequest>,
    /// Tokens that a day of an account has, and the calls that are running.
    day: HashMap<String, i64>,
    running: HashMap<String, i64>,
    /// So many answers are lost on their way back.
    lost: usize,
}

impl Book {
    /// Gives an account so many micro-credits.
    pub fn give(&self, account: &str, credits: i64) {
        *self.pages().balances.entry(account.to_owned()).or_default() += credits;
    }

    /// What an account can spend.
    pub fn balance(&self, account: &str) -> i64 {
        self.pages().balances.get(account).copied().unwrap_or_default()
    }

    /// Gives an account's day so many tokens.
    pub fn limit(&self, account: &str, tokens: i64) {
        self.pages().day.insert(account.to_owned(), tokens);
    }

    /// The next so many changes happen, but their answers are lost.
    pub fn lose(&self, answers: usize) {
        self.pages().lost = answers;
    }

    /// Every open hold runs out: what was marked is charged.
    pub fn run_out(&self) {
        let mut pages = self.pages();
        let Pages { holds, balances, .. } = &mut *pages;
        for hold in holds.iter_mut().filter(|hold| hold.state() == HoldState::Open) {
            hold.set_state(HoldState::Expired);
            hold.charged = hold.progress;
            *balances.entry(hold.user_id.clone()).or_default() += hold.amount - hold.charged;
        }
    }

    /// Every hold so far, oldest first.
    pub fn holds(&self) -> Vec<Hold> {
        self.pages().holds.clone()
    }

    /// How many holds stand like this.
    pub fn count(&self, state: HoldState) -> usize {
        self.pages().holds.iter().filter(|hold| hold.state() == state).count()
    }

    /// Every call that was recorded, oldest first.
    pub fn usage(&self) -> Vec<RecordUsageRequest> {
        self.pages().usage.clone()
    }

    /// How many calls are counted as running.
    pub fn running(&self) -> usize {
        self.pages().running.len()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<M>(&self, answer: M) -> Result<Response<M>, Status> {
        let mut pages = self.pages();
        if pages.lost > 0 {
            pages.lost -= 1;
            return Err(Reason::Unavailable.status("the answer was lost"));
        }
        Ok(Response::new(answer))
    }

    /// Ends a hold, or says how it ended.
    fn end(&self, id: &str, state: HoldState, amount: i64) -> Result<Response<Hold>, Status> {
        let hold = {
            let mut pages = self.pages();
            let Some(at) = pages.holds.iter().position(|hold| hold.id == id) else {
                return Err(Reason::NotFound.status("no such hold"));
            };
            let charged = amount.min(pages.holds[at].amount);
            let hold = &mut pages.holds[at];
            match hold.state() {
                HoldState::Open => {
                    hold.set_state(state);
                    (hold.charged, hold.capped) = (charged, amount > hold.amount);
                    let (account, back) = (hold.user_id.clone(), hold.amount - charged);
                    *pages.balances.entry(account).or_default() += back;
                }
                same if same == state && hold.charged == charged => {}
                _ => return Err(Reason::FailedPrecondition.status("it has ended otherwise")),
            }
            pages.holds[at].clone()
        };
        self.answer(hold)
    }
}

#[tonic::async_trait]
impl WalletService for Book {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<Hold>, Status> {
        let request = request.into_inner();
        assert!(request.amount >= 0 && !request.idempotency_key.is_empty() && request.ttl_ms >= 1_000);
        let hold = {
            let mut pages = self.pages();
            let known = pages.reserved.get(&request.idempotency_key).cloned();
            if let Some(hold) = known.and_then(|id| pages.holds.iter().find(|hold| hold.id == id).cloned()) {
                hold
            } else {
                let balance = pages.balances.entry(request.user_id.clone()).or_default();
                if *balance < request.amount {
                    return Err(Reason::InsufficientCredits.status("not enough credits; buy some"));
                }
                *balance -= request.amount;
                let hold = Hold {
                    id: new_id(),
                    product: request.product,
                    user_id: request.user_id,
                    amount: request.amount,
                    state: HoldState::Open.into(),
                    reference: request.reference,
                    ..Hold::default()
                };
                pages.reserved.insert(request.idempotency_key, hold.id.clone());
                pages.holds.push(hold.clone());
                hold
            }
        };
        self.answer(hold)
    }

    async fn mark_progress(&self, request: Request<MarkProgressRequest>) -> Result<Response<Hold>, Status> {
        let MarkProgressRequest { hold_id, progress, .. } = request.into_inner();
        let mut pages = self.pages();
        let hold = pages.holds.iter_mut().find(|hold| hold.id == hold_id && hold.state() == HoldState::Open);
        let Some(hold) = hold else { return Err(Reason::FailedPrecondition.status("the hold has ended")) };
        hold.progress = hold.progress.max(progress.min(hold.amount));
        Ok(Response::new(hold.clone()))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<Hold>, Status> {
        let SettleRequest { hold_id, amount, .. } = request.into_inner();
        self.end(&hold_id, HoldState::Settled, amount)
    }

    async fn void(&self, request: Request<VoidRequest>) -> Result<Response<Hold>, Status> {
        self.end(&request.into_inner().hold_id, HoldState::Voided, 0)
    }

    async fn get_balance(&self, _request: Request<GetBalanceRequest>) -> Result<Response<Balance>, Status> {
        Err(not_kept())
    }

    async fn list_transactions(
        &self,
        _request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        Err(not_kept())
    }

    async fn get_statement(&self, _request: Request<GetStatementRequest>) -> Result<Response<Statement>, Status> {
        Err(not_kept())
    }

    async fn list_key_spending(
        &self,
        _request: Request<ListKeySpendingRequest>,
    ) -> Result<Response<ListKeySpendingResponse>, Status> {
        Err(not_kept())
    }

    async fn spend_credits(
        &self,
        _request: Request<SpendCreditsRequest>,
    ) -> Result<Response<SpendCreditsResponse>, Status> {
        Err(not_kept())
    }

    async fn debit(&self, _request: Request<DebitRequest>) -> Result<Response<DebitResponse>, Status> {
        Err(not_kept())
    }

    async fn grant(&self, _request: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        Err(not_kept())
    }

    async fn transfer(&self, _request: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        Err(not_kept())
    }
}

#[tonic::async_trait]
impl UsageService for Book {
    async fn begin_usage(&self, request: Request<BeginUsageRequest>) -> Result<Response<BeginUsageResponse>, Status> {
        let request = request.into_inner();
        let mut pages = self.pages();
        let used: i64 = pages.usage.iter().map(|call| call.input_tokens + call.output_tokens).sum();
        let running: i64 = pages.running.values().sum();
        if pages.day.get(&request.user_id).is_some_and(|limit| used + running >= *limit) {
            return Err(Reason::DailyTokensExceeded.status("the day's tokens are used up; come back tomorrow"));
        }
        pages.running.insert(request.idempotency_key.clone(), request.tokens);
        Ok(Response::new(BeginUsageResponse { usage_id: request.idempotency_key, remaining: None }))
    }

    async fn record_usage(&self, request: Request<RecordUsageRequest>) -> Result<Response<UsageRecord>, Status> {
        let request = request.into_inner();
        {
            let mut pages = self.pages();
            pages.running.remove(&request.usage_id);
            if !pages.usage.iter().any(|call| call.idempotency_key == request.idempotency_key) {
                pages.usage.push(request);
            }
        }
        self.answer(UsageRecord::default())
    }

    async fn count_daily(&self, _request: Request<CountDailyRequest>) -> Result<Response<DailyCount>, Status> {
        Err(not_kept())
    }

    async fn record_activity(
        &self,
        _request: Request<RecordActivityRequest>,
    ) -> Result<Response<RecordActivityResponse>, Status> {
        Err(not_kept())
    }

    async fn get_daily_usage(&self, _request: Request<GetDailyUsageRequest>) -> Result<Response<DailyUsage>, Status> {
        Err(not_kept())
    }

    async fn get_product_usage(
        &self,
        _request: Request<GetProductUsageRequest>,
    ) -> Result<Response<ProductUsage>, Status> {
        Err(not_kept())
    }

    async fn get_account_usage(
        &self,
        _request: Request<GetAccountUsageRequest>,
    ) -> Result<Response<AccountUsage>, Status> {
        Err(not_kept())
    }
}

fn not_kept() -> Status {
    Status::unimplemented("this book does not know that")
}
