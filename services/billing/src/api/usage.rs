//! What was used.
use std::future::Future;
use std::sync::Arc;

use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::{Clock, new_id};
use weft_db::{Db, Tx};
use weft_product::{Product, Products};
use weft_proto::billing::v1::usage_service_server::UsageService;
use weft_proto::billing::v1::{
    AccountUsage, BeginUsageRequest, BeginUsageResponse, CountDailyRequest, DailyCount, DailyUsage,
    GetAccountUsageRequest, GetDailyUsageRequest, GetProductUsageRequest, ProductUsage, RecordActivityRequest,
    RecordActivityResponse, RecordUsageRequest, UsageGroup, UsageRecord, UsageTotals,
};

use crate::activity::Activity;
use crate::domain::day::{begins_at, day_of, first_of_month, monday_of};
use crate::domain::idempotency::{Key, key_of, key_required};
use crate::domain::usage::{
    self, MAX_COUNT, TOKENS_PER_DAY, cost_microdollars, daily_limit, daily_limits, exceeded, total_tokens,
};
use crate::error::Error;
use crate::recorder::Recorder;
use crate::store::activity::activity_add;
use crate::store::calls::Ended;
use crate::store::entitlement::entitled;
use crate::store::idempotency::{idempotency_find, idempotency_store};
use crate::store::usage::{
    CallRow, Reservation, TotalsRow, account_groups, account_totals, calls_before, counter_add, counters, limit_now,
    product_by_model, product_totals, reservation_begin,
};

/// Calls on a page if the caller does not say.
const DEFAULT_PAGE: i32 = 50;
/// The most calls on a page.
const MAX_PAGE: i32 = 1000;

/// Counts in the database, in transactions of its own: what was answered is there after a crash.
pub struct UsageApi {
    /// Counters and calls.
    pub db: Db,
    /// Which products, limits and prices of models there are.
    pub products: Arc<Products>,
    /// When a day begins.
    pub clock: Clock,
    /// Remembers who was here.
    pub activity: Activity,
    /// Records calls that have ended.
    pub recorder: Recorder,
}

/// Why a transaction was not kept.
enum Undone {
    /// The key had its answer already.
    Before,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Undone {
    fn from(error: E) -> Undone {
        Undone::Failed(error.into())
    }
}

impl UsageApi {
    fn product(&self, slug: &str) -> Result<&Product, Error> {
        self.products.get(slug).map(Arc::as_ref).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }

    /// The product and a key for an account in it.
    fn keyed(
        &self,
        (method, product, user_id): (&'static str, &str, &str),
        field: &str,
        metadata: &MetadataMap,
        request: &impl Message,
    ) -> Result<(&Product, Key), Error> {
        let found = self.product(product)?;
        if user_id.is_empty() {
            return Err(Error::NoUser);
        }
        let key = key_of(method, product, user_id, field, metadata, &request.encode_to_vec())?;
        Ok((found, key_required(key)?))
    }

    /// One limit of the account by the tables, none if it is unlimited, and its plan. Notes that the account was here.
    async fn limit(
        &self,
        product: &Product,
        user_id: &str,
        name: &str,
        now_ms: i64,
    ) -> Result<(Option<i64>, String), Error> {
        let Some(row) = limit_now(&self.db, product, user_id, name).await? else {
            return Err(Error::NoPlan { product: product.slug.clone(), plan: product.default_plan.clone() });
        };
        if row.active_day < day_of(now_ms) {
            self.activity.note(&product.slug, user_id, now_ms);
        }
        Ok((row.limit(), row.plan))
    }

    /// Does something once for each key: `work` answers in a transaction, which is kept if the key is new.
    ///
    /// The key is looked up only when something came in the way. So a call that comes for the first time pays for
    /// no look-up, and one that is repeated gets its answer even if there is no room for another one.
    async fn once<A, F>(&self, key: &Key, now_ms: i64, work: impl Fn(Arc<Tx>) -> F) -> Result<A, Error>
    where
        A: Message + Default,
        F: Future<Output = Result<A, Error>>,
    {
        let work = &work;
        let done: Result<A, Undone> = self
            .db
            .write(key.method, async |tx: Tx| {
                let tx = Arc::new(tx);
                let answer = work(Arc::clone(&tx)).await?;
                match idempotency_store(&tx, key, &answer.encode_to_vec(), now_ms).await? {
                    true => Ok(answer),
                    false => Err(Undone::Before),
                }
            })
            .await;
        let ended = match done {
            Ok(answer) => return Ok(answer),
            Err(ended) => ended,
        };
        match (self.answered(key).await?, ended) {
            (Some(answer), _) => Ok(answer),
            (None, Undone::Failed(error)) => Err(error),
            (None, Undone::Before) => Err(Error::Busy),
        }
    }

    /// What was answered to the key before.
    async fn answered<A: Message + Default>(&self, key: &Key) -> Result<Option<A>, Error> {
        let answer = idempotency_find(&self.db, key).await?;
        Ok(answer.and_then(|answer| A::decode(answer.as_slice()).ok()))
    }

    async fn begin(&self, metadata: &MetadataMap, request: BeginUsageRequest) -> Result<BeginUsageResponse, Error> {
        let (field, request) =
            (request.idempotency_key.clone(), BeginUsageRequest { idempotency_key: String::new(), ..request });
        let of = ("BeginUsage", request.product.as_str(), request.user_id.as_str());
        let (product, key) = self.keyed(of, &field, metadata, &request)?;
        let tokens = usage::reserved_tokens(request.tokens)?;
        let ttl_ms = usage::ttl_ms(request.ttl_ms)?;
        let now = self.clock.now_ms();
        let limit = match product.limits.contains_key(TOKENS_PER_DAY) {
            true => self.limit(product, &request.user_id, TOKENS_PER_DAY, now).await?.0,
            false => None,
        };
        let (product, user_id) = (product.slug.as_str(), request.user_id.as_str());
        let begun = async |tx: Arc<Tx>| {
            // Locks the day's counter to the end: calls that begin or end at the same time wait for each other.
            let used = match limit {
                Some(_) => counter_add(&*tx, product, user_id, (day_of(now), TOKENS_PER_DAY), 0, i64::MAX).await?,
                None => None,
            };
            let room = limit.map_or(i64::MAX, |limit| limit.saturating_sub(used.unwrap_or_default()));
            let id = new_id();
            let expires_at = now.saturating_add(ttl_ms);
            let call = Reservation { product, user_id, id: &id, tokens, expires_at };
            match (reservation_begin(&tx, &call, room, now).await?, limit) {
                (Some(running), limit) => {
                    let remaining = limit.map(|_| room.saturating_sub(running).saturating_sub(tokens).max(0));
                    Ok(BeginUsageResponse { usage_id: id, remaining })
                }
                (None, limit) => Err(Error::DailyTokensExceeded { limit: limit.unwrap_or(i64::MAX) }),
            }
        };
        self.once(&key, now, begun).await
    }

    async fn record(&self, metadata: &MetadataMap, request: RecordUsageRequest) -> Result<UsageRecord, Error> {
        let (field, request) =
            (request.idempotency_key.clone(), RecordUsageRequest { idempotency_key: String::new(), ..request });
        let of = ("RecordUsage", request.product.as_str(), request.user_id.as_str());
        let (product, key) = self.keyed(of, &field, metadata, &request)?;
        let now = self.clock.now_ms();
        let call = call(product, &request, now)?;
        let answer = record_of(call.clone(), 0);
        self.recorder.record(Ended { key, call, usage_id: request.usage_id, answer }).await
    }

    async fn count(&self, metadata: &MetadataMap, request: CountDailyRequest) -> Result<DailyCount, Error> {
        let (field, request) =
            (request.idempotency_key.clone(), CountDailyRequest { idempotency_key: String::new(), ..request });
        let of = ("CountDaily", request.product.as_str(), request.user_id.as_str());
        let (product, key) = self.keyed(of, &field, metadata, &request)?;
        daily_limit(product, &request.limit)?;
        let amount = usage::count("amount", request.amount)?;
        let now = self.clock.now_ms();
        let (limit, plan) = self.limit(product, &request.user_id, &request.limit, now).await?;
        let (product, name) = (product.slug.as_str(), request.limit.as_str());
        let counted = async |tx: Arc<Tx>| {
            let room = limit.unwrap_or(i64::MAX).saturating_sub(amount);
            let used = match room {
                ..0 => None,
                room => counter_add(&*tx, product, &request.user_id, (day_of(now), name), amount, room).await?,
            };
            let used = used.ok_or_else(|| exceeded(plan.clone(), name, limit.unwrap_or(i64::MAX)))?;
            Ok(daily_count(name, used, limit, now))
        };
        self.once(&key, now, counted).await
    }

    async fn note(&self, metadata: &MetadataMap, request: RecordActivityRequest) -> Result<(), Error> {
        let (field, request) =
            (request.idempotency_key.clone(), RecordActivityRequest { idempotency_key: String::new(), ..request });
        let of = ("RecordActivity", request.product.as_str(), request.user_id.as_str());
        let (product, key) = self.keyed(of, &field, metadata, &request)?;
        usage::kind(&request.kind)?;
        let events = usage::count("count", request.count)?;
        let now = self.clock.now_ms();
        let noted = async |tx: Arc<Tx>| {
            let day = (day_of(now), request.kind.as_str());
            match activity_add(&tx, &product.slug, &request.user_id, day, events, MAX_COUNT).await? {
                true => Ok(RecordActivityResponse {}),
                false => Err(Error::Invalid(format!("a day has at most {MAX_COUNT} events of a kind, check count"))),
            }
        };
        self.once(&key, now, noted).await.map(|RecordActivityResponse {}| ())
    }

    /// The caller's limits of the day, each with what is counted.
    async fn today(&self, product: &str, user_id: &str) -> Result<DailyUsage, Error> {
        let product = self.product(product)?;
        let now = self.clock.now_ms();
        let (entitled, _) = entitled(&self.db, product, user_id).await?;
        let found = counters(&self.db, &product.slug, user_id, day_of(now)).await?;
        let used = |name: &str| found.iter().find(|row| row.name == name).map_or(0, |row| row.used);
        let count = |name: &String| daily_count(name, used(name), entitled.limits.get(name).copied(), now);
        Ok(DailyUsage { counts: daily_limits(product).map(count).collect() })
    }

    async fn of_product(&self, product: &str) -> Result<ProductUsage, Error> {
        let product = self.product(product)?.slug.as_str();
        let day = day_of(self.clock.now_ms());
        let since = async |from: i64| product_totals(&self.db, product, from, day).await;
        let groups = product_by_model(&self.db, product, first_of_month(day), day).await?;
        Ok(ProductUsage {
            today: Some(totals(&since(day).await?)),
            week: Some(totals(&since(monday_of(day)).await?)),
            month: Some(totals(&since(first_of_month(day)).await?)),
            by_model: groups.into_iter().map(group).collect(),
        })
    }

    async fn of_account(&self, product: &str, request: GetAccountUsageRequest) -> Result<AccountUsage, Error> {
        let product = self.product(product)?.slug.as_str();
        let GetAccountUsageRequest { user_id, page_size, page_token } = request;
        if user_id.is_empty() {
            return Err(Error::NoUser);
        }
        let most = match page_size {
            0 => DEFAULT_PAGE,
            1..=MAX_PAGE => page_size,
            _ => return Err(Error::Invalid(format!("page_size must be between 1 and {MAX_PAGE}"))),
        };
        let before = position(&page_token)?;
        let day = day_of(self.clock.now_ms());
        let since = async |from: i64| account_totals(&self.db, product, &user_id, from, day).await;
        let mut calls = calls_before(&self.db, product, &user_id, before, i64::from(most) + 1).await?;
        let more = calls.len() > most as usize;
        calls.truncate(most as usize);
        let last = calls.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| format!("{}.{}", last.created_at, last.id));
        let groups = account_groups(&self.db, product, &user_id, first_of_month(day), day).await?;
        Ok(AccountUsage {
            today: Some(totals(&since(day).await?)),
            week: Some(totals(&since(monday_of(day)).await?)),
            month: Some(totals(&since(first_of_month(day)).await?)),
            breakdown: groups.into_iter().map(group).collect(),
            // What the day's tokens were after a call long ago is not kept.
            calls: calls.into_iter().map(|call| record_of(call, 0)).collect(),
            next_page_token,
            user_id,
        })
    }
}

#[tonic::async_trait]
impl UsageService for UsageApi {
    async fn begin_usage(&self, request: Request<BeginUsageRequest>) -> Result<Response<BeginUsageResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(self.begin(&metadata, request).await?))
    }

    async fn record_usage(&self, request: Request<RecordUsageRequest>) -> Result<Response<UsageRecord>, Status> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(self.record(&metadata, request).await?))
    }

    async fn count_daily(&self, request: Request<CountDailyRequest>) -> Result<Response<DailyCount>, Status> {
        let (metadata, _, request) = request.into_parts();
        Ok(Response::new(self.count(&metadata, request).await?))
    }

    async fn record_activity(
        &self,
        request: Request<RecordActivityRequest>,
    ) -> Result<Response<RecordActivityResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.note(&metadata, request).await?;
        Ok(Response::new(RecordActivityResponse {}))
    }

    async fn get_daily_usage(&self, request: Request<GetDailyUsageRequest>) -> Result<Response<DailyUsage>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.today(&caller.product, &caller.user()?.sub).await?))
    }

    async fn get_product_usage(
        &self,
        request: Request<GetProductUsageRequest>,
    ) -> Result<Response<ProductUsage>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.of_product(&caller.product).await?))
    }

    async fn get_account_usage(
        &self,
        request: Request<GetAccountUsageRequest>,
    ) -> Result<Response<AccountUsage>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.of_account(&caller.product, request.into_inner()).await?))
    }
}

/// The call as it is logged, with its price.
fn call(product: &Product, request: &RecordUsageRequest, now_ms: i64) -> Result<CallRow, Error> {
    if request.model.is_empty() {
        return Err(Error::Invalid("model is required".into()));
    }
    for (field, given) in
        [("model", &request.model), ("agent_role", &request.agent_role), ("session_id", &request.session_id)]
    {
        usage::name(field, given)?;
    }
    let (input_tokens, output_tokens) = (request.input_tokens, request.output_tokens);
    let total_tokens = total_tokens(input_tokens, output_tokens)?;
    if !(0..=crate::domain::amount::MAX_MICRO_CREDITS).contains(&request.charged) {
        return Err(Error::Invalid("charged must be an amount of micro-credits from 0".into()));
    }
    let price = product.model_prices.get(&request.model);
    if price.is_none() {
        metrics::counter!("weft_usage_unpriced_total", "product" => product.slug.clone()).increment(1);
        tracing::warn!(product = product.slug, model = request.model, "a model without a price was used");
    }
    let cost = price.map(|price| cost_microdollars(*price, input_tokens, output_tokens));
    Ok(CallRow {
        id: new_id(),
        user_id: request.user_id.clone(),
        session_id: request.session_id.clone(),
        agent_role: request.agent_role.clone(),
        model_used: request.model.clone(),
        input_tokens,
        output_tokens,
        total_tokens,
        cost_microdollars: match cost {
            Some(cost) => cost.ok_or_else(|| Error::Invalid("the call costs more than 64 bits hold".into()))?,
            None => 0,
        },
        priced: price.is_some(),
        charged: request.charged,
        estimated: request.estimated,
        latency_ms: usage::latency_ms(request.latency_ms)?,
        failed: request.failed,
        created_at: now_ms,
    })
}

fn record_of(call: CallRow, tokens_today: i64) -> UsageRecord {
    UsageRecord {
        id: call.id,
        user_id: call.user_id,
        session_id: call.session_id,
        agent_role: call.agent_role,
        model_used: call.model_used,
        input_tokens: call.input_tokens,
        output_tokens: call.output_tokens,
        total_tokens: call.total_tokens,
        cost_microdollars: call.cost_microdollars,
        priced: call.priced,
        tokens_today,
        created_at: call.created_at,
    }
}

fn daily_count(name: &str, used: i64, limit: Option<i64>, now_ms: i64) -> DailyCount {
    DailyCount { name: name.to_owned(), used, limit, resets_at: begins_at(day_of(now_ms) + 1) }
}

fn totals(row: &TotalsRow) -> UsageTotals {
    UsageTotals {
        calls: row.calls,
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        total_tokens: row.input_tokens.saturating_add(row.output_tokens),
        cost_microdollars: row.cost_microdollars,
        users: row.users,
        failed: row.failed,
        latency_ms: row.latency_ms,
    }
}

fn group(row: TotalsRow) -> UsageGroup {
    let totals = Some(totals(&row));
    UsageGroup { model: row.model, agent_role: row.agent_role, totals }
}

/// The time and id in a page token: calls before them are on the page. It is no secret: administrators may see all
/// calls of their product, and of no other.
fn position(page_token: &str) -> Result<(i64, &str), Error> {
    match page_token {
        "" => Ok((i64::MAX, "")),
        text => {
            let parts = text.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id)));
            parts.ok_or_else(|| Error::Invalid("page_token is not known, begin without one".into()))
        }
    }
}
