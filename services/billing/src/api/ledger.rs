//! What an administrator may do with wallets and the ledger of the product.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_db::Db;
use weft_product::Products;
use weft_proto::billing::v1::ledger_service_server::LedgerService;
use weft_proto::billing::v1::{
    AdjustWalletRequest, Balance, GetWalletRequest, LedgerFault, ListWalletTransactionsRequest,
    ListWalletTransactionsResponse, VerifyLedgerRequest, VerifyLedgerResponse,
};

use super::page::{Pages, page_size};
use super::wallet::{WalletApi, account_id, key, paid_bucket, reference};
use crate::domain::amount::micro_credits;
use crate::domain::ledger::Kind;
use crate::error::Error;
use crate::ledger::verify::verify;
use crate::ledger::{Act, Ledger, Op};

/// Answers from the ledger.
pub struct LedgerApi {
    /// Wallets and movements.
    pub db: Db,
    /// Which products there are.
    pub products: Arc<Products>,
    /// Where credits move.
    pub ledger: Ledger,
    /// Signs page tokens.
    pub pages: Pages,
}

impl LedgerApi {
    /// The product that the administrator is one of.
    fn product<M>(&self, request: &Request<M>) -> Result<String, Status> {
        let product = Caller::of(request)?.product.to_string();
        match self.products.get(&product) {
            Some(_) => Ok(product),
            None => Err(Error::UnknownProduct(product).into()),
        }
    }
}

#[tonic::async_trait]
impl LedgerService for LedgerApi {
    async fn verify_ledger(
        &self,
        request: Request<VerifyLedgerRequest>,
    ) -> Result<Response<VerifyLedgerResponse>, Status> {
        let product = self.product(&request)?;
        let user_id = request.into_inner().user_id;
        let report = verify(&self.db, &product, Some(user_id.as_str()).filter(|id| !id.is_empty())).await?;
        let fault = |fault: crate::ledger::verify::Fault| LedgerFault {
            user_id: fault.user_id,
            sequence: fault.sequence,
            transaction_id: fault.transaction_id,
            problem: fault.problem,
        };
        Ok(Response::new(VerifyLedgerResponse {
            ok: report.is_ok(),
            wallets: report.wallets,
            transactions: report.transactions,
            sum: report.sum,
            digest: report.digest,
            faults: report.faults.into_iter().map(fault).collect(),
        }))
    }

    async fn get_wallet(&self, request: Request<GetWalletRequest>) -> Result<Response<Balance>, Status> {
        let product = self.product(&request)?;
        let user_id = account_id(request.into_inner().user_id)?;
        Ok(Response::new(self.ledger.balance(&product, &user_id).await?))
    }

    async fn list_wallet_transactions(
        &self,
        request: Request<ListWalletTransactionsRequest>,
    ) -> Result<Response<ListWalletTransactionsResponse>, Status> {
        let product = self.product(&request)?;
        let ListWalletTransactionsRequest { user_id, page_size: size, page_token } = request.into_inner();
        let (user_id, size) = (account_id(user_id)?, page_size(size, 0)?);
        let scope = ["ListWalletTransactions", product.as_str(), user_id.as_str()];
        let before = if page_token.is_empty() { i64::MAX } else { self.pages.read(&scope, &page_token)? };
        let (transactions, next) = WalletApi::transactions(&self.db, &product, &user_id, before, size).await?;
        let next_page_token = next.map_or_else(String::new, |next| self.pages.sign(&scope, next));
        Ok(Response::new(ListWalletTransactionsResponse { transactions, next_page_token }))
    }

    async fn adjust_wallet(&self, request: Request<AdjustWalletRequest>) -> Result<Response<Balance>, Status> {
        let product = self.product(&request)?;
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("AdjustWallet", (&product, &request.user_id), &field, &metadata, &request)?;
        let bucket = paid_bucket(request.bucket)?;
        // The smallest number has no counterpart; it stays negative and is refused.
        let amount = micro_credits(request.amount.wrapping_abs())?;
        let act = if request.amount < 0 {
            Act::Debit { amount, kind: Kind::Adjustment }
        } else {
            Act::Grant { bucket, amount, kind: Kind::Adjustment }
        };
        if request.reason.is_empty() {
            return Err(Error::Invalid("reason is required, it is kept in the ledger".to_owned()).into());
        }
        let user_id = account_id(request.user_id)?;
        let op = Op { product, user_id, key: Some(key), reference: reference(request.reason)?, act };
        Ok(Response::new(self.ledger.submit(op).await?.balance))
    }
}
