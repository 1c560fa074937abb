//! What billing knows of accounts: `pro`, and 42 tokens today.
use std::sync::{Arc, Mutex};

use tonic::{Request, Response, Status};
use weft_proto::billing::v1::account_service_server::{AccountService, AccountServiceServer};
use weft_proto::billing::v1::{
    Account, AssignSeatRequest, BatchGetAccountsRequest, BatchGetAccountsResponse, GetAccountRequest, GetSeatsRequest,
    ReleaseSeatRequest, Seats, UpdateAccountRequest,
};

/// Tokens that everybody used today.
pub const TOKENS_TODAY: i64 = 42;

/// What was asked of it: one entry a call.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Vec<BatchGetAccountsRequest>>>);

impl Known {
    pub fn server(&self) -> AccountServiceServer<Known> {
        AccountServiceServer::new(self.clone())
    }

    pub fn asked(&self) -> Vec<BatchGetAccountsRequest> {
        self.0.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl AccountService for Known {
    async fn batch_get_accounts(
        &self,
        request: Request<BatchGetAccountsRequest>,
    ) -> Result<Response<BatchGetAccountsResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().unwrap().push(request.clone());
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

    async fn assign_seat(&self, _: Request<AssignSeatRequest>) -> Result<Response<Seats>, Status> {
        Err(Status::unimplemented("not asked by identity"))
    }

    async fn release_seat(&self, _: Request<ReleaseSeatRequest>) -> Result<Response<Seats>, Status> {
        Err(Status::unimplemented("not asked by identity"))
    }

    async fn get_seats(&self, _: Request<GetSeatsRequest>) -> Result<Response<Seats>, Status> {
        Err(Status::unimplemented("not asked by identity"))
    }
}
