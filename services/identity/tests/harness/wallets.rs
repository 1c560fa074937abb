//! What billing says that API keys have spent.
use std::sync::{Arc, Mutex};

use tonic::{Request, Response, Status};
use weft_proto::billing::v1::wallet_service_server::{WalletService, WalletServiceServer};
use weft_proto::billing::v1::{
    Balance, DebitRequest, DebitResponse, GetBalanceRequest, GetStatementRequest, GrantRequest, GrantResponse, Hold,
    KeySpending, ListKeySpendingRequest, ListKeySpendingResponse, ListTransactionsRequest, ListTransactionsResponse,
    MarkProgressRequest, ReserveRequest, SettleRequest, SpendCreditsRequest, SpendCreditsResponse, Statement,
    TransferRequest, TransferResponse, VoidRequest,
};

/// What was spent, by (account, key).
#[derive(Clone, Default)]
pub struct Wallets(Arc<Mutex<Vec<(String, KeySpending)>>>);

impl Wallets {
    pub fn server(&self) -> WalletServiceServer<Wallets> {
        WalletServiceServer::new(self.clone())
    }

    /// A key of an account has spent this.
    pub fn spend(&self, user_id: &str, key_id: &str, spent: i64) {
        let spending = KeySpending { key_id: key_id.to_owned(), spent, held: 1 };
        self.0.lock().unwrap().push((user_id.to_owned(), spending));
    }
}

/// Declares what identity never asks.
macro_rules! wallets {
    ($($method:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl WalletService for Wallets {
            async fn list_key_spending(
                &self,
                request: Request<ListKeySpendingRequest>,
            ) -> Result<Response<ListKeySpendingResponse>, Status> {
                let ListKeySpendingRequest { user_id, key_ids, .. } = request.into_inner();
                let known = self.0.lock().unwrap();
                let asked = known.iter().filter(|(user, key)| *user == user_id && key_ids.contains(&key.key_id));
                Ok(Response::new(ListKeySpendingResponse { spending: asked.map(|(_, key)| key.clone()).collect() }))
            }
            $(
                async fn $method(&self, _: Request<$request>) -> Result<Response<$answer>, Status> {
                    Err(Status::unimplemented("not asked by identity"))
                }
            )*
        }
    };
}

wallets! {
    get_balance(GetBalanceRequest) -> Balance;
    list_transactions(ListTransactionsRequest) -> ListTransactionsResponse;
    get_statement(GetStatementRequest) -> Statement;
    spend_credits(SpendCreditsRequest) -> SpendCreditsResponse;
    reserve(ReserveRequest) -> Hold;
    mark_progress(MarkProgressRequest) -> Hold;
    settle(SettleRequest) -> Hold;
    void(VoidRequest) -> Hold;
    debit(DebitRequest) -> DebitResponse;
    grant(GrantRequest) -> GrantResponse;
    transfer(TransferRequest) -> TransferResponse;
}
