//! What billing knows of accounts: `pro`, and 42 tokens today; and the seats that payers have bought.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tonic::{Request, Response, Status};
use weft_core::Reason;
use weft_proto::billing::v1::account_service_server::{AccountService, AccountServiceServer};
use weft_proto::billing::v1::{
    Account, AssignSeatRequest, BatchGetAccountsRequest, BatchGetAccountsResponse, GetAccountRequest, GetSeatsRequest,
    ReleaseSeatRequest, Seats, UpdateAccountRequest,
};

/// Tokens that everybody used today.
pub const TOKENS_TODAY: i64 = 42;

/// What was asked of it: one entry a call.
#[derive(Clone, Default)]
pub struct Known {
    asked: Arc<Mutex<Vec<BatchGetAccountsRequest>>>,
    seats: Arc<Mutex<Sold>>,
    /// Whose plan lacks single sign-on.
    without_sso: Arc<Mutex<Vec<String>>>,
    /// Answers to AssignSeat wait here while it is closed.
    slow: Arc<tokio::sync::Mutex<()>>,
}

/// By the rules of the real one: a person has one seat, a payer as many as were bought.
#[derive(Default)]
struct Sold {
    /// By payer.
    total: BTreeMap<String, usize>,
    /// Who sits on whose seat.
    payers: BTreeMap<String, String>,
}

impl Known {
    pub fn server(&self) -> AccountServiceServer<Known> {
        AccountServiceServer::new(self.clone())
    }

    pub fn asked(&self) -> Vec<BatchGetAccountsRequest> {
        self.asked.lock().unwrap().clone()
    }

    /// Whether the plan of an account includes single sign-on.
    pub fn has_sso(&self, user_id: &str) -> bool {
        !self.without_sso.lock().unwrap().iter().any(|without| without == user_id)
    }

    /// Gives an account a plan without single sign-on.
    pub fn take_sso(&self, user_id: &str) {
        self.without_sso.lock().unwrap().push(user_id.to_owned());
    }

    /// Sells seats to an account.
    pub fn sell(&self, payer_id: &str, total: usize) {
        self.seats.lock().unwrap().total.insert(payer_id.to_owned(), total);
    }

    /// Gives a seat, as a call would whose caller crashed afterwards.
    pub fn seat(&self, payer_id: &str, user_id: &str) {
        self.seats.lock().unwrap().payers.insert(user_id.to_owned(), payer_id.to_owned());
    }

    /// Takes a seat back, whoever pays for it.
    pub fn unseat(&self, user_id: &str) {
        self.seats.lock().unwrap().payers.remove(user_id);
    }

    /// Keeps the answers to AssignSeat back, which has happened by then, for as long as what it gives is kept.
    pub async fn hold_back(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.slow).lock_owned().await
    }

    /// Who sits on a payer's seats, by id.
    pub fn seated(&self, payer_id: &str) -> Vec<String> {
        self.seats.lock().unwrap().of(payer_id).user_ids
    }
}

impl Sold {
    fn of(&self, payer_id: &str) -> Seats {
        let sits = self.payers.iter().filter(|(_, payer)| *payer == payer_id);
        let total = self.total.get(payer_id).copied().unwrap_or(0);
        Seats { total: total as i64, user_ids: sits.map(|(user, _)| user.clone()).collect() }
    }

    fn assign(&mut self, payer_id: String, user_id: String) -> Result<Seats, Status> {
        let Seats { total, user_ids } = self.of(&payer_id);
        match self.payers.get(&user_id) {
            _ if total == 0 => return Err(Reason::FailedPrecondition.status("no seats")),
            Some(payer) if *payer != payer_id => return Err(Reason::FailedPrecondition.status("seated elsewhere")),
            Some(_) => {}
            None if user_ids.len() as i64 >= total => return Err(Reason::QuotaExceeded.status("every seat is taken")),
            None => drop(self.payers.insert(user_id, payer_id.clone())),
        }
        Ok(self.of(&payer_id))
    }
}

#[tonic::async_trait]
impl AccountService for Known {
    async fn batch_get_accounts(
        &self,
        request: Request<BatchGetAccountsRequest>,
    ) -> Result<Response<BatchGetAccountsResponse>, Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let account =
            |user_id| Account { user_id, plan: "pro".to_owned(), tokens_today: TOKENS_TODAY, ..Account::default() };
        let accounts = request.user_ids.into_iter().map(account).collect();
        Ok(Response::new(BatchGetAccountsResponse { accounts }))
    }

    async fn get_account(&self, _: Request<GetAccountRequest>) -> Result<Response<Account>, Status> {
        Err(Status::unimplemented("not asked by identity"))
    }

    async fn update_account(&self, _: Request<UpdateAccountRequest>) -> Result<Response<Account>, Status> {
        Err(Status::unimplemented("not asked by identity"))
    }

    async fn assign_seat(&self, request: Request<AssignSeatRequest>) -> Result<Response<Seats>, Status> {
        let AssignSeatRequest { payer_id, user_id, .. } = request.into_inner();
        let answer = self.seats.lock().unwrap().assign(payer_id, user_id);
        let _answers_go_out = self.slow.lock().await;
        answer.map(Response::new)
    }

    async fn release_seat(&self, request: Request<ReleaseSeatRequest>) -> Result<Response<Seats>, Status> {
        let ReleaseSeatRequest { payer_id, user_id, .. } = request.into_inner();
        let mut sold = self.seats.lock().unwrap();
        if sold.payers.get(&user_id) == Some(&payer_id) {
            sold.payers.remove(&user_id);
        }
        Ok(Response::new(sold.of(&payer_id)))
    }

    async fn get_seats(&self, request: Request<GetSeatsRequest>) -> Result<Response<Seats>, Status> {
        Ok(Response::new(self.seats.lock().unwrap().of(&request.into_inner().payer_id)))
    }
}
