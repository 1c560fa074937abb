//! Calls about credits of the product `companion`.
use tonic::{Response, Status};
use weft_proto::billing::v1::ledger_service_client::LedgerServiceClient;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::{
    Balance, Bucket, DebitRequest, DebitResponse, GetBalanceRequest, GrantRequest, GrantResponse, Hold, KeyBudget,
    KeySpending, ListKeySpendingRequest, ListTransactionsRequest, MarkProgressRequest, ReserveRequest, SettleRequest,
    Transaction, TransferRequest, TransferResponse, VerifyLedgerRequest, VerifyLedgerResponse, VoidRequest,
};

use super::node::Outcome;
use super::{Headers, Node, World, reason};

/// Where the tests' wallets are: its free plan gives 10 credits a day.
pub const COMPANION: &str = "companion";
/// A credit, in micro-credits.
pub const CREDIT: i64 = 1_000_000;
/// A day, in ms.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

fn outcome<T>(answer: Result<Response<T>, Status>) -> Outcome<T> {
    answer.map(Response::into_inner).map_err(|status| reason(&status))
}

fn service() -> Headers {
    Headers::of_service("marketplace")
}

impl Node {
    pub fn wallets(&self) -> WalletServiceClient<tonic::transport::Channel> {
        WalletServiceClient::new(self.channel())
    }

    pub fn ledgers(&self) -> LedgerServiceClient<tonic::transport::Channel> {
        LedgerServiceClient::new(self.channel())
    }

    pub async fn debit(&self, user_id: &str, amount: i64, key: &str) -> Outcome<DebitResponse> {
        let (product, user_id, idempotency_key) = (COMPANION.into(), user_id.into(), key.into());
        let message = DebitRequest { product, user_id, amount, idempotency_key, reference: "a run".into() };
        outcome(self.wallets().debit(service().around(message)).await)
    }

    pub async fn grant(&self, user_id: &str, bucket: Bucket, amount: i64, key: &str) -> Outcome<GrantResponse> {
        let (product, user_id, idempotency_key) = (COMPANION.into(), user_id.into(), key.into());
        let bucket = bucket.into();
        let message = GrantRequest { product, user_id, amount, bucket, idempotency_key, reference: "a gift".into() };
        outcome(self.wallets().grant(service().around(message)).await)
    }

    pub async fn reserve(&self, user_id: &str, amount: i64, key: &str) -> Outcome<Hold> {
        self.reserve_with(user_id, amount, key, None).await
    }

    /// For an API key with a limit.
    pub async fn reserve_for(
        &self,
        user_id: &str,
        amount: i64,
        key: &str,
        (key_id, limit): (&str, Option<i64>),
    ) -> Outcome<Hold> {
        self.reserve_with(user_id, amount, key, Some(KeyBudget { key_id: key_id.into(), limit })).await
    }

    async fn reserve_with(
        &self,
        user_id: &str,
        amount: i64,
        key: &str,
        key_budget: Option<KeyBudget>,
    ) -> Outcome<Hold> {
        let (product, user_id, idempotency_key) = (COMPANION.into(), user_id.into(), key.into());
        let reference = "a call".into();
        let message =
            ReserveRequest { product, user_id, amount, idempotency_key, ttl_ms: 60_000, reference, key_budget };
        outcome(self.wallets().reserve(service().around(message)).await)
    }

    /// What API keys have spent, as identity asks.
    pub async fn try_key_spending(&self, user_id: &str, key_ids: &[&str]) -> Outcome<Vec<KeySpending>> {
        let key_ids = key_ids.iter().map(|id| (*id).to_owned()).collect();
        let message = ListKeySpendingRequest { product: COMPANION.into(), user_id: user_id.into(), key_ids };
        let request = Headers::of_service("identity").around(message);
        outcome(self.wallets().list_key_spending(request).await).map(|answer| answer.spending)
    }

    pub async fn key_spending(&self, user_id: &str, key_ids: &[&str]) -> Vec<KeySpending> {
        self.try_key_spending(user_id, key_ids).await.unwrap()
    }

    pub async fn progress(&self, hold: &Hold, progress: i64) -> Outcome<Hold> {
        let Hold { product, user_id, id: hold_id, .. } = hold.clone();
        let message = MarkProgressRequest { product, user_id, hold_id, progress, ttl_ms: 0 };
        outcome(self.wallets().mark_progress(service().around(message)).await)
    }

    pub async fn settle(&self, hold: &Hold, amount: i64) -> Outcome<Hold> {
        let Hold { product, user_id, id: hold_id, .. } = hold.clone();
        let message = SettleRequest { product, user_id, hold_id, amount, estimated: false };
        outcome(self.wallets().settle(service().around(message)).await)
    }

    pub async fn void(&self, hold: &Hold) -> Outcome<Hold> {
        let Hold { product, user_id, id: hold_id, .. } = hold.clone();
        outcome(self.wallets().void(service().around(VoidRequest { product, user_id, hold_id })).await)
    }

    pub async fn transfer(&self, from: &str, to: &str, amount: i64, key: &str) -> Outcome<TransferResponse> {
        let (from_user_id, to_user_id, reference) = (from.into(), to.into(), "a sale".into());
        let (product, idempotency_key) = (COMPANION.into(), key.into());
        let message = TransferRequest { product, from_user_id, to_user_id, amount, idempotency_key, reference };
        outcome(self.wallets().transfer(service().around(message)).await)
    }

    pub async fn balance(&self, world: &World, user_id: &str) -> Balance {
        let headers = world.user(COMPANION, user_id);
        outcome(self.wallets().get_balance(headers.around(GetBalanceRequest {})).await).unwrap()
    }

    /// The last 1000 movements, the newest first.
    pub async fn movements(&self, world: &World, user_id: &str) -> Vec<Transaction> {
        let message = ListTransactionsRequest { page_size: 1000, ..ListTransactionsRequest::default() };
        let headers = world.user(COMPANION, user_id);
        outcome(self.wallets().list_transactions(headers.around(message)).await).unwrap().transactions
    }

    /// The movements as (kind, bucket, amount), the oldest first.
    pub async fn story(&self, world: &World, user_id: &str) -> Vec<(String, String, i64)> {
        let movements = self.movements(world, user_id).await;
        movements.into_iter().rev().map(|it| (it.kind, it.bucket, it.amount)).collect()
    }

    pub async fn verify(&self, world: &World) -> VerifyLedgerResponse {
        let message = VerifyLedgerRequest { user_id: String::new() };
        outcome(self.ledgers().verify_ledger(world.admin(COMPANION).around(message)).await).unwrap()
    }

    /// Fails unless nothing is wrong with the ledger.
    pub async fn verified(&self, world: &World) {
        let report = self.verify(world).await;
        assert!(report.ok && report.sum == 0, "{report:?}");
    }
}

impl World {
    /// A signed-in user.
    pub fn user(&self, product: &str, user_id: &str) -> Headers {
        Headers { access_token: Some(self.access_token(product, user_id, &[])), service_token: None }
    }
}

/// A movement of [`Node::story`].
pub fn moved(kind: &str, bucket: &str, amount: i64) -> (String, String, i64) {
    (kind.into(), bucket.into(), amount)
}
