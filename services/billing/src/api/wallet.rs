//! Credits: what an account has, and every movement of it.
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::Clock;
use weft_db::Db;
use weft_proto::billing::v1::wallet_service_server::WalletService;
use weft_proto::billing::v1::{
    Balance, Bucket as WireBucket, DebitRequest, DebitResponse, GetBalanceRequest, GetStatementRequest, GrantRequest,
    GrantResponse, Hold, KeyBudget as WireKeyBudget, KeySpending, ListKeySpendingRequest, ListKeySpendingResponse,
    ListTransactionsRequest, ListTransactionsResponse, MarkProgressRequest, ReserveRequest, SettleRequest,
    SpendCreditsRequest, SpendCreditsResponse, Statement, StatementLine, Transaction, TransferRequest,
    TransferResponse, VoidRequest,
};

use super::page::{Pages, page_size};
use crate::domain::amount::{micro_credits, micro_credits_or_none};
use crate::domain::day::DAY_MS;
use crate::domain::idempotency::{Key, key_of, key_required};
use crate::domain::ledger::{Bucket, Kind};
use crate::domain::spending::KeyBudget;
use crate::error::Error;
use crate::ledger::{Act, Done, Ledger, Op};
use crate::store::ledger::{EntryRow, SumRow, entry_list, entry_moment, entry_sums};
use crate::store::spending::spending_list;
use crate::store::wallet::wallet_find;

/// Longest reference, in characters.
const MAX_REFERENCE: usize = 200;
/// Longest account id, in bytes.
const MAX_USER_ID: usize = 255;
/// Longest id of an API key, in bytes.
const MAX_KEY_ID: usize = 64;
/// Most API keys that are asked about at once.
const MAX_KEYS: usize = 100;
/// How long a hold lives without a sign of life, in ms: if the caller does not say, at least, at most.
const TTL_MS: (i64, i64, i64) = (60_000, 1_000, 3_600_000);
/// A statement's period if the caller does not say.
const STATEMENT_MS: i64 = 30 * DAY_MS;
/// The longest period of a statement: a quarter, so that what is added up is bounded.
const MAX_STATEMENT_MS: i64 = 92 * DAY_MS;

/// Answers from the ledger.
pub struct WalletApi {
    /// Wallets and movements.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Where credits move.
    pub ledger: Ledger,
    /// Signs page tokens.
    pub pages: Pages,
}

/// Product and account of a signed-in user.
fn owner<M>(request: &Request<M>) -> Result<(String, String), Status> {
    let caller = Caller::of(request)?;
    let user = caller.user()?;
    Ok((user.prd.clone(), user.sub.clone()))
}

/// An account id as a service names it.
pub(super) fn account_id(user_id: String) -> Result<String, Error> {
    match user_id.len() {
        0 => Err(Error::NoUser),
        1..=MAX_USER_ID => Ok(user_id),
        _ => Err(Error::Invalid(format!("user_id must have at most {MAX_USER_ID} bytes"))),
    }
}

/// What something is for.
pub(super) fn reference(text: String) -> Result<String, Error> {
    if text.chars().count() <= MAX_REFERENCE {
        return Ok(text);
    }
    Err(Error::Invalid(format!("reference must have at most {MAX_REFERENCE} characters")))
}

/// Where given credits go.
pub(super) fn paid_bucket(bucket: i32) -> Result<Bucket, Error> {
    match WireBucket::try_from(bucket) {
        Ok(WireBucket::Unspecified | WireBucket::Bonus) => Ok(Bucket::Bonus),
        Ok(WireBucket::Purchased) => Ok(Bucket::Purchased),
        _ => Err(Error::Invalid("bucket must be BUCKET_BONUS or BUCKET_PURCHASED".to_owned())),
    }
}

/// The key of a call that moves credits. `request` is the message with its key taken out.
pub(super) fn key<M: Message>(
    method: &'static str,
    (product, user_id): (&str, &str),
    field: &str,
    metadata: &MetadataMap,
    request: &M,
) -> Result<Key, Error> {
    key_required(key_of(method, product, user_id, field, metadata, &request.encode_to_vec())?)
}

fn ttl_ms(asked: i64, default: i64) -> Result<i64, Error> {
    let (_, least, most) = TTL_MS;
    match asked {
        0 => Ok(default),
        asked if (least..=most).contains(&asked) => Ok(asked),
        _ => Err(Error::Invalid(format!("ttl_ms must be {least} to {most}, or 0"))),
    }
}

fn key_id(id: String) -> Result<String, Error> {
    match id.len() {
        1..=MAX_KEY_ID => Ok(id),
        _ => Err(Error::Invalid(format!("key_id must have 1 to {MAX_KEY_ID} bytes"))),
    }
}

fn key_budget(budget: Option<WireKeyBudget>) -> Result<Option<KeyBudget>, Error> {
    let Some(WireKeyBudget { key_id: id, limit }) = budget else { return Ok(None) };
    let limit = limit.map(|limit| not_negative(limit, "key_budget.limit")).transpose()?;
    Ok(Some(KeyBudget { key_id: key_id(id)?, limit }))
}

fn not_negative(amount: i64, field: &str) -> Result<i64, Error> {
    if amount < 0 { Err(Error::Invalid(format!("{field} must not be negative"))) } else { Ok(amount) }
}

/// The hold of an answer about one.
fn hold(done: Done) -> Result<Response<Hold>, Status> {
    Ok(Response::new(done.hold.ok_or(Error::NotFound("hold"))?))
}

impl WalletApi {
    async fn submit(
        &self,
        (product, user_id): (String, String),
        key: Option<Key>,
        reference: String,
        act: Act,
    ) -> Result<Done, Error> {
        self.ledger.submit(Op { product, user_id, key, reference, act }).await
    }

    /// An operation on a hold.
    async fn on_hold(&self, product: String, user_id: String, act: Act) -> Result<Response<Hold>, Status> {
        let id = (product, account_id(user_id)?);
        hold(self.submit(id, None, String::new(), act).await?)
    }

    /// A page of movements before a number, the newest first, and the number that the next page is before.
    pub(super) async fn transactions(
        db: &Db,
        product: &str,
        user_id: &str,
        before: i64,
        size: i64,
    ) -> Result<(Vec<Transaction>, Option<i64>), Error> {
        let rows = entry_list(db, product, user_id, before, size).await?;
        let next = rows.last().map(|row| row.seq).filter(|seq| *seq > 1);
        Ok((rows.into_iter().map(transaction).collect(), next))
    }

    async fn statement(&self, product: &str, user_id: &str, from: i64, to: i64) -> Result<Statement, Error> {
        let last = wallet_find(&self.db, product, user_id).await?.map_or(0, |wallet| wallet.seq);
        let first = self.first_since(product, user_id, from, last).await?;
        let end = self.first_since(product, user_id, to, last).await?;
        let after = async |seq: i64| -> Result<i64, Error> {
            Ok(entry_moment(&self.db, product, user_id, seq).await?.map_or(0, |(_, balance)| balance))
        };
        let lines = entry_sums(&self.db, product, user_id, first, end).await?;
        let line =
            |row: SumRow| StatementLine { kind: row.kind, bucket: row.bucket, amount: row.amount, count: row.count };
        Ok(Statement {
            from,
            to,
            opening: after(first - 1).await?,
            closing: after(end - 1).await?,
            lines: lines.into_iter().map(line).collect(),
        })
    }

    /// The number of the first movement at or after a moment. Movements of a wallet are in the order of their time, so
    /// it is found in a few steps however many there are.
    async fn first_since(&self, product: &str, user_id: &str, moment: i64, last: i64) -> Result<i64, Error> {
        let (mut low, mut high) = (1, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = entry_moment(&self.db, product, user_id, middle).await?;
            if at.is_some_and(|(created_at, _)| created_at < moment) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

#[tonic::async_trait]
impl WalletService for WalletApi {
    async fn get_balance(&self, request: Request<GetBalanceRequest>) -> Result<Response<Balance>, Status> {
        let (product, user_id) = owner(&request)?;
        Ok(Response::new(self.ledger.balance(&product, &user_id).await?))
    }

    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        let (product, user_id) = owner(&request)?;
        let ListTransactionsRequest { page_size: size, page_token, page, limit } = request.into_inner();
        let size = page_size(size, limit)?;
        let scope = ["ListTransactions", product.as_str(), user_id.as_str()];
        let before = match (page_token.as_str(), page) {
            ("", 0) => i64::MAX,
            // Numbers have no gaps, so a page is found without counting what comes before it.
            ("", 1..) => {
                let last = wallet_find(&self.db, &product, &user_id).await.map_err(Error::from)?;
                let skipped = i64::from(page - 1) * size;
                last.map_or(0, |wallet| wallet.seq) + 1 - skipped
            }
            (token, 0) => self.pages.read(&scope, token)?,
            _ => return Err(Error::Invalid("page must be from 1, without page_token".to_owned()).into()),
        };
        let (transactions, next) = WalletApi::transactions(&self.db, &product, &user_id, before, size).await?;
        let next_page_token = next.map_or_else(String::new, |next| self.pages.sign(&scope, next));
        Ok(Response::new(ListTransactionsResponse { transactions, next_page_token }))
    }

    async fn get_statement(&self, request: Request<GetStatementRequest>) -> Result<Response<Statement>, Status> {
        let (product, user_id) = owner(&request)?;
        let GetStatementRequest { from, to } = request.into_inner();
        let to = if to == 0 { self.clock.now_ms() } else { to };
        let from = if from == 0 { to.saturating_sub(STATEMENT_MS) } else { from };
        if from > to || to.saturating_sub(from) > MAX_STATEMENT_MS {
            let text = "to must not be before from, nor more than 92 days after it".to_owned();
            return Err(Error::Invalid(text).into());
        }
        Ok(Response::new(self.statement(&product, &user_id, from, to).await?))
    }

    async fn spend_credits(
        &self,
        request: Request<SpendCreditsRequest>,
    ) -> Result<Response<SpendCreditsResponse>, Status> {
        let (product, user_id) = owner(&request)?;
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("SpendCredits", (&product, &user_id), &field, &metadata, &request)?;
        let act = Act::Debit { amount: micro_credits(request.amount)?, kind: Kind::Spend };
        let done = self.submit((product, user_id), Some(key), reference(request.reference)?, act).await?;
        Ok(Response::new(SpendCreditsResponse { transaction_id: done.transaction_id, balance: Some(done.balance) }))
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<Hold>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("Reserve", (&request.product, &request.user_id), &field, &metadata, &request)?;
        let ttl_ms = ttl_ms(request.ttl_ms, TTL_MS.0)?;
        let key_budget = key_budget(request.key_budget)?;
        let act = Act::Reserve { amount: micro_credits_or_none(request.amount)?, ttl_ms, key: key_budget };
        let id = (request.product, account_id(request.user_id)?);
        hold(self.submit(id, Some(key), reference(request.reference)?, act).await?)
    }

    async fn mark_progress(&self, request: Request<MarkProgressRequest>) -> Result<Response<Hold>, Status> {
        let MarkProgressRequest { product, user_id, hold_id, progress, ttl_ms: ttl } = request.into_inner();
        let progress = not_negative(progress, "progress")?;
        let act = Act::Progress { hold_id, progress, ttl_ms: ttl_ms(ttl, 0)? };
        self.on_hold(product, user_id, act).await
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<Hold>, Status> {
        let SettleRequest { product, user_id, hold_id, amount, estimated } = request.into_inner();
        let amount = not_negative(amount, "amount")?;
        if estimated {
            metrics::counter!("weft_billing_estimated_total", "product" => product.clone()).increment(1);
            tracing::info!(hold_id, amount, "a call's cost was estimated");
        }
        self.on_hold(product, user_id, Act::Settle { hold_id, amount }).await
    }

    async fn void(&self, request: Request<VoidRequest>) -> Result<Response<Hold>, Status> {
        let VoidRequest { product, user_id, hold_id } = request.into_inner();
        self.on_hold(product, user_id, Act::Void { hold_id }).await
    }

    async fn list_key_spending(
        &self,
        request: Request<ListKeySpendingRequest>,
    ) -> Result<Response<ListKeySpendingResponse>, Status> {
        let ListKeySpendingRequest { product, user_id, key_ids } = request.into_inner();
        let user_id = account_id(user_id)?;
        if key_ids.len() > MAX_KEYS {
            return Err(Error::Invalid(format!("key_ids must be at most {MAX_KEYS}")).into());
        }
        let key_ids: Vec<String> = key_ids.into_iter().map(key_id).collect::<Result<_, _>>()?;
        let key_ids = serde_json::Value::from(key_ids).to_string();
        let rows = spending_list(&self.db, &product, &user_id, &key_ids, MAX_KEYS as i64).await.map_err(Error::from)?;
        let spending = rows.into_iter().map(|row| KeySpending { key_id: row.key_id, spent: row.spent, held: row.held });
        Ok(Response::new(ListKeySpendingResponse { spending: spending.collect() }))
    }

    async fn debit(&self, request: Request<DebitRequest>) -> Result<Response<DebitResponse>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("Debit", (&request.product, &request.user_id), &field, &metadata, &request)?;
        let act = Act::Debit { amount: micro_credits(request.amount)?, kind: Kind::Usage };
        let id = (request.product, account_id(request.user_id)?);
        let done = self.submit(id, Some(key), reference(request.reference)?, act).await?;
        Ok(Response::new(DebitResponse { transaction_id: done.transaction_id, balance: Some(done.balance) }))
    }

    async fn grant(&self, request: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("Grant", (&request.product, &request.user_id), &field, &metadata, &request)?;
        let (bucket, amount) = (paid_bucket(request.bucket)?, micro_credits(request.amount)?);
        let act = Act::Grant { bucket, amount, kind: Kind::Grant };
        let id = (request.product, account_id(request.user_id)?);
        let done = self.submit(id, Some(key), reference(request.reference)?, act).await?;
        Ok(Response::new(GrantResponse { transaction_id: done.transaction_id, balance: Some(done.balance) }))
    }

    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<TransferResponse>, Status> {
        let (metadata, _, mut request) = request.into_parts();
        let field = std::mem::take(&mut request.idempotency_key);
        let key = key("Transfer", (&request.product, &request.from_user_id), &field, &metadata, &request)?;
        let act = Act::Transfer { to: account_id(request.to_user_id)?, amount: micro_credits(request.amount)? };
        let id = (request.product, account_id(request.from_user_id)?);
        let done = self.submit(id, Some(key), reference(request.reference)?, act).await?;
        Ok(Response::new(TransferResponse { transaction_id: done.transaction_id, balance: Some(done.balance) }))
    }
}

fn transaction(row: EntryRow) -> Transaction {
    Transaction {
        id: row.id,
        amount: row.amount,
        bucket: row.bucket,
        kind: row.kind,
        balance_after: row.balance_after,
        reference: row.reference,
        created_at: row.created_at,
    }
}
