//! `AccountService`.
use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::Clock;
use weft_db::{Db, Tx};
use weft_product::{Product, Products};
use weft_proto::billing::v1::account_service_server::AccountService;
use weft_proto::billing::v1::{
    Account, AssignSeatRequest, BatchGetAccountsRequest, BatchGetAccountsResponse, GetAccountRequest, GetSeatsRequest,
    ReleaseSeatRequest, Seats, UpdateAccountRequest,
};

use super::entitlement::version_number;
use crate::domain::catalogue::{self, UNLIMITED};
use crate::domain::day::day_of;
use crate::domain::plan::REQUESTS_PER_MINUTE;
use crate::domain::usage::TOKENS_PER_DAY;
use crate::error::Error;
use crate::store::account::{BATCH, StandingRow, account_assign_plan, account_standings};
use crate::store::overrides::{OverrideRow, override_clear, override_list, override_set, used_on};
use crate::store::plan::{plan_current, plan_current_any};
use crate::store::seat::{
    MAX_SEATS, SeatedRow, seat_assign, seat_list, seat_payer, seat_release, seated_lock, seats_taken, seats_total,
};

/// Most accounts of one call.
const ACCOUNTS_MAX: usize = 1000;
/// The longest id of an account, in bytes.
const ID_MAX: usize = 200;
/// Most names of overrides that one call takes back.
const CLEAR_MAX: usize = 1000;
/// The limit that counts sessions.
const SESSIONS_PER_DAY: &str = "max_sessions_per_day";

/// What billing knows of accounts.
pub struct AccountApi {
    /// Accounts.
    pub db: Db,
    /// Which products, limits and roles there are.
    pub products: Arc<Products>,
    /// What day it is.
    pub clock: Clock,
}

#[tonic::async_trait]
impl AccountService for AccountApi {
    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<Account>, Status> {
        let product = self.product(&Caller::of(&request)?.product)?;
        let user_id = account_id(request.into_inner().user_id)?;
        Ok(Response::new(self.one(product, user_id).await?))
    }

    async fn update_account(&self, request: Request<UpdateAccountRequest>) -> Result<Response<Account>, Status> {
        let product = self.product(&Caller::of(&request)?.product)?;
        Ok(Response::new(self.update(product, request.into_inner()).await?))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<BatchGetAccountsRequest>,
    ) -> Result<Response<BatchGetAccountsResponse>, Status> {
        let BatchGetAccountsRequest { product, user_ids } = request.into_inner();
        let product = self.product(&product)?;
        if user_ids.len() > ACCOUNTS_MAX {
            return Err(Error::Invalid(format!("user_ids has more than {ACCOUNTS_MAX} ids, ask in parts")).into());
        }
        let mut accounts = Vec::with_capacity(user_ids.len());
        for ids in user_ids.chunks(BATCH) {
            accounts.extend(self.read(product, ids).await?);
        }
        Ok(Response::new(BatchGetAccountsResponse { accounts }))
    }

    async fn assign_seat(&self, request: Request<AssignSeatRequest>) -> Result<Response<Seats>, Status> {
        let AssignSeatRequest { product, payer_id, user_id } = request.into_inner();
        let product = self.product(&product)?.slug.as_str();
        let (payer_id, user_id) = (account_id(payer_id)?, account_id(user_id)?);
        self.assign(product, &payer_id, &user_id).await?;
        Ok(Response::new(self.seats(product, &payer_id).await?))
    }

    async fn release_seat(&self, request: Request<ReleaseSeatRequest>) -> Result<Response<Seats>, Status> {
        let ReleaseSeatRequest { product, payer_id, user_id } = request.into_inner();
        let product = self.product(&product)?.slug.as_str();
        let (payer_id, user_id) = (account_id(payer_id)?, account_id(user_id)?);
        seat_release(&self.db, product, &payer_id, &user_id).await.map_err(Error::from)?;
        Ok(Response::new(self.seats(product, &payer_id).await?))
    }

    async fn get_seats(&self, request: Request<GetSeatsRequest>) -> Result<Response<Seats>, Status> {
        let GetSeatsRequest { product, payer_id } = request.into_inner();
        let product = self.product(&product)?.slug.as_str();
        Ok(Response::new(self.seats(product, &account_id(payer_id)?).await?))
    }
}

impl AccountApi {
    fn product(&self, slug: &str) -> Result<&Product, Error> {
        self.products.get(slug).map(Arc::as_ref).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }

    async fn one(&self, product: &Product, user_id: String) -> Result<Account, Error> {
        self.read(product, &[user_id]).await?.pop().ok_or(Error::NotFound("account"))
    }

    /// At most [`BATCH`] accounts, in their order.
    async fn read(&self, product: &Product, user_ids: &[String]) -> Result<Vec<Account>, Error> {
        let (slug, default) = (product.slug.as_str(), product.default_plan.as_str());
        let Some(version) = plan_current_any(&self.db, slug, default).await? else {
            return Err(Error::NoPlan { product: slug.to_owned(), plan: default.to_owned() });
        };
        let mut accounts: HashMap<String, Account> = HashMap::with_capacity(user_ids.len());
        for row in account_standings(&self.db, slug, user_ids, default).await? {
            accounts.insert(row.user_id.clone(), of_standing(row));
        }
        for user_id in user_ids {
            accounts.entry(user_id.clone()).or_insert_with(|| Account {
                user_id: user_id.clone(),
                plan: default.to_owned(),
                plan_version: version_number(version),
                plan_source: "default".to_owned(),
                ..Account::default()
            });
        }
        for row in override_list(&self.db, slug, user_ids).await? {
            if let Some(account) = accounts.get_mut(&row.user_id) {
                add_override(account, row);
            }
        }
        for row in used_on(&self.db, slug, day_of(self.clock.now_ms()), user_ids).await? {
            match (accounts.get_mut(&row.user_id), row.name.as_str()) {
                (Some(account), TOKENS_PER_DAY) => account.tokens_today = row.used,
                (Some(account), SESSIONS_PER_DAY) => account.sessions_today = row.used,
                _ => {}
            }
        }
        Ok(user_ids.iter().filter_map(|user_id| accounts.get(user_id).cloned()).collect())
    }

    async fn update(&self, product: &Product, request: UpdateAccountRequest) -> Result<Account, Error> {
        let user_id = account_id(request.user_id.clone())?;
        if request.clear.len() > CLEAR_MAX {
            return Err(Error::Invalid(format!("clear has more than {CLEAR_MAX} names")));
        }
        let rows = overrides(product, &user_id, &request)?;
        let slug = product.slug.as_str();
        let known = |name: &String| {
            name == REQUESTS_PER_MINUTE || product.limits.contains_key(name) || product.models.roles.contains_key(name)
        };
        self.db
            .write("update_account", async |tx: Tx| {
                if let Some(plan) = &request.plan {
                    if !plan.is_empty() && plan_current(&tx, slug, plan).await?.is_none() {
                        return Err(Error::Invalid(format!("the product has no plan {plan:?}, check plan")));
                    }
                    account_assign_plan(&tx, slug, &user_id, Some(plan.as_str()).filter(|plan| !plan.is_empty()))
                        .await?;
                }
                for name in &request.clear {
                    if !override_clear(&tx, slug, &user_id, name).await? && !known(name) {
                        return Err(Error::Invalid(format!("the product has no limit or role {name:?}, check clear")));
                    }
                }
                for row in &rows {
                    override_set(&tx, slug, row).await?;
                }
                Ok(())
            })
            .await?;
        tracing::info!(product = slug, user_id, "an account was changed by an administrator");
        self.one(product, user_id).await
    }

    /// Seats are counted while the payer's row is locked: of many who ask at once no more get one than there are.
    async fn assign(&self, product: &str, payer_id: &str, user_id: &str) -> Result<(), Error> {
        let other = || Error::NotNow("the person has a seat of somebody else, who has to release it first".to_owned());
        self.db
            .write("assign_seat", async |tx: Tx| {
                let Some(SeatedRow { plan, seats }) = seated_lock(&tx, product, payer_id).await? else {
                    return Err(Error::NotNow("the payer has no subscription with seats, buy one first".to_owned()));
                };
                match seat_payer(&tx, product, user_id).await? {
                    Some(payer) if payer == payer_id => return Ok(()),
                    Some(_) => return Err(other()),
                    None => {}
                }
                let limit = seats.min(MAX_SEATS);
                if seats_taken(&tx, product, payer_id).await? >= limit {
                    return Err(Error::QuotaExceeded { plan, limit, name: "seats".to_owned() });
                }
                match seat_assign(&tx, product, payer_id, user_id).await? {
                    true => Ok(()),
                    false => Err(other()),
                }
            })
            .await
    }

    async fn seats(&self, product: &str, payer_id: &str) -> Result<Seats, Error> {
        let total = seats_total(&self.db, product, payer_id).await?;
        Ok(Seats { total, user_ids: seat_list(&self.db, product, payer_id).await? })
    }
}

pub(super) fn account_id(id: String) -> Result<String, Error> {
    match id.len() {
        0 => Err(Error::NoUser),
        1..=ID_MAX => Ok(id),
        _ => Err(Error::Invalid(format!("an account's id has at most {ID_MAX} bytes"))),
    }
}

fn of_standing(row: StandingRow) -> Account {
    Account {
        user_id: row.user_id,
        plan: row.plan,
        plan_version: version_number(row.version),
        plan_source: row.source,
        subscription_status: row.status,
        created_at: row.created_at,
        ..Account::default()
    }
}

fn add_override(account: &mut Account, row: OverrideRow) {
    let OverrideRow { kind, name, value, model, .. } = row;
    match (kind.as_str(), model) {
        (_, Some(model)) => drop(account.override_models.insert(name, model)),
        ("rate", None) => account.override_requests_per_minute = Some(value.unwrap_or(UNLIMITED)),
        (_, None) => drop(account.override_limits.insert(name, value.unwrap_or(UNLIMITED))),
    }
}

/// What to set, checked.
fn overrides(product: &Product, user_id: &str, request: &UpdateAccountRequest) -> Result<Vec<OverrideRow>, Error> {
    let row = |kind: &str, name: String, value, model| OverrideRow {
        user_id: user_id.to_owned(),
        kind: kind.to_owned(),
        name,
        value,
        model,
    };
    let mut values = catalogue::limits(product, request.override_limits.clone())?;
    if let Some(rate) = request.override_requests_per_minute {
        values.push(catalogue::rate(rate)?);
    }
    let models = catalogue::role_models(product, request.override_models.clone(), false)?;
    let numbers = values.into_iter().map(|value| row(value.kind.as_str(), value.name, value.value, None));
    let models = models.into_iter().map(|model| row("model", model.name, None, model.value));
    Ok(numbers.chain(models).collect())
}
