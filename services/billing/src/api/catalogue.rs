//! `CatalogueService`.
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_db::{On, Tx};
use weft_product::Product;
use weft_proto::billing::v1::catalogue_service_server::CatalogueService;
use weft_proto::billing::v1::{
    CreatePlanVersionRequest, CreditPackage, ListMarketProductsRequest, ListMarketProductsResponse, ListPlansRequest,
    ListPlansResponse, MigrateSubscribersRequest, MigrateSubscribersResponse, Plan, PlanCredits, Price,
    UpdatePlanRequest,
};

use super::entitlement::version_number;
use crate::domain::catalogue::{self, NewPrice};
use crate::domain::entitlement::{Entitled, Standing};
use crate::domain::plan::{PlanModel, PlanValue};
use crate::error::Error;
use crate::payments::apply::Books;
use crate::store::entitlement::{EntitlementRow, found};
use crate::store::plan::{
    VersionRow, number_list, plan_current_any, plan_lock, plan_model_set, plan_rename, plan_value_set, version_copy,
    version_exists, version_list, version_put, version_seeded,
};
use crate::store::price::{PriceRow, package_list, price_insert, price_list, price_owner, prices_of_version};
use crate::subscribers::{subscriber_migrate, subscribers_migrate};

/// What the product sells, and what its plans allow.
pub struct CatalogueApi {
    /// Plans, prices and packages, what products there are, and the payments of subscribers.
    pub books: Books,
}

#[tonic::async_trait]
impl CatalogueService for CatalogueApi {
    async fn list_market_products(
        &self,
        request: Request<ListMarketProductsRequest>,
    ) -> Result<Response<ListMarketProductsResponse>, Status> {
        let product = self.product(&request)?;
        let packages = package_list(&self.books.db, &product.slug).await.map_err(Error::from)?;
        let mut subscriptions = plans(&self.books.db, product, None, false).await?;
        subscriptions.retain(|plan| !plan.retired && (plan.is_default || !plan.prices.is_empty()));
        let packages = packages.into_iter().map(|row| CreditPackage {
            id: row.id,
            credits: row.credits,
            amount_minor: row.amount_minor,
            currency: row.currency,
            label: row.label,
        });
        Ok(Response::new(ListMarketProductsResponse { packages: packages.collect(), subscriptions }))
    }

    async fn list_plans(&self, request: Request<ListPlansRequest>) -> Result<Response<ListPlansResponse>, Status> {
        let product = self.product(&request)?;
        let plans = plans(&self.books.db, product, None, request.get_ref().all_versions).await?;
        Ok(Response::new(ListPlansResponse { plans }))
    }

    async fn update_plan(&self, request: Request<UpdatePlanRequest>) -> Result<Response<Plan>, Status> {
        let product = self.product(&request)?;
        Ok(Response::new(self.update(product, request.into_inner()).await?))
    }

    async fn create_plan_version(&self, request: Request<CreatePlanVersionRequest>) -> Result<Response<Plan>, Status> {
        let product = self.product(&request)?;
        Ok(Response::new(self.create_version(product, request.into_inner()).await?))
    }

    async fn migrate_subscribers(
        &self,
        request: Request<MigrateSubscribersRequest>,
    ) -> Result<Response<MigrateSubscribersResponse>, Status> {
        let product = self.product(&request)?;
        let MigrateSubscribersRequest { id, user_id, all } = request.into_inner();
        let version = plan_current_any(&self.books.db, &product.slug, &id).await.map_err(Error::from)?;
        let version = version.ok_or(Error::NotFound("plan"))?;
        let migrated = match (user_id.is_empty(), all) {
            (false, false) => subscriber_migrate(&self.books, &product.slug, &user_id, &id, version).await?,
            (true, true) => subscribers_migrate(&self.books, &product.slug, &id, version).await?,
            _ => return Err(Error::Invalid("send either user_id or all".to_owned()).into()),
        };
        Ok(Response::new(MigrateSubscribersResponse { migrated }))
    }
}

impl CatalogueApi {
    /// The product that a request is for.
    fn product<T>(&self, request: &Request<T>) -> Result<&Product, Status> {
        let slug = Caller::of(request)?.product;
        let product = self.books.products.get(&slug).map(Arc::as_ref);
        Ok(product.ok_or_else(|| Error::UnknownProduct(slug.to_string()))?)
    }

    async fn update(&self, product: &Product, request: UpdatePlanRequest) -> Result<Plan, Error> {
        let edits = edits(product, &request)?;
        let name = request.name.map(catalogue::plan_name).transpose()?;
        let (slug, id) = (product.slug.as_str(), request.id.as_str());
        let wanted = i64::from(request.version);
        let version = self
            .books
            .db
            .write("update_plan", async |tx: Tx| {
                let current = plan_lock(&tx, slug, id).await?.ok_or(Error::NotFound("plan"))?;
                let version = if wanted == 0 { current } else { wanted };
                if !version_exists(&tx, slug, id, version).await? {
                    return Err(Error::NotFound("version of the plan"));
                }
                if let Some(name) = &name {
                    plan_rename(&tx, slug, id, name).await?;
                }
                edits.store(&tx, slug, id, version).await?;
                Ok::<_, Error>(version)
            })
            .await?;
        tracing::info!(product = slug, plan = id, version, "a plan was changed");
        self.one(product, id, version).await
    }

    async fn create_version(&self, product: &Product, request: CreatePlanVersionRequest) -> Result<Plan, Error> {
        let CreatePlanVersionRequest { id, prices, limits, features } = request;
        let mut values = catalogue::limits(product, limits)?;
        values.extend(catalogue::features(product, features)?);
        let edits = Edits { values, models: Vec::new() };
        let prices = prices.map(|list| list.prices.into_iter().map(new_price).collect());
        let prices = prices.map(|prices| catalogue::prices(product, &id, prices)).transpose()?;
        let (slug, id, now_ms) = (product.slug.as_str(), id.as_str(), self.books.clock.now_ms());
        let version = self
            .books
            .db
            .write("create_plan_version", async |tx: Tx| {
                let current = plan_lock(&tx, slug, id).await?.ok_or(Error::NotFound("plan"))?;
                let version = current + 1;
                let seeded = version_seeded(&tx, slug, id, current).await?;
                version_put(&tx, slug, id, version, seeded.as_deref(), now_ms).await?;
                let rows = match &prices {
                    Some(prices) => self.rows(&tx, product, id, version, prices).await?,
                    None => prices_of_version(&tx, slug, id, current).await?,
                };
                for (position, price) in (0..).zip(rows) {
                    price_insert(&tx, slug, position, &PriceRow { version, ..price }).await?;
                }
                version_copy(&tx, slug, id, current, version).await?;
                edits.store(&tx, slug, id, version).await?;
                Ok::<_, Error>(version)
            })
            .await?;
        tracing::info!(product = slug, plan = id, version, "a version of a plan was made");
        self.one(product, id, version).await
    }

    /// New prices as rows. No id may mean two things: clients buy by the id of a price or the slug of a plan.
    async fn rows(
        &self,
        tx: &Tx,
        product: &Product,
        plan: &str,
        version: i64,
        prices: &[NewPrice],
    ) -> Result<Vec<PriceRow>, Error> {
        let mut rows = Vec::new();
        for price in prices {
            let taken = plan_current_any(tx, &product.slug, &price.id).await?.is_some()
                || price_owner(tx, &product.slug, plan, &price.id).await?.is_some();
            if taken {
                return Err(Error::Invalid(format!("the id {:?} is taken by another plan, choose another", price.id)));
            }
            let NewPrice { id, amount_minor, currency, period, per_seat, bonus_credits } = price.clone();
            let plan = plan.to_owned();
            rows.push(PriceRow { plan, version, id, amount_minor, currency, period, per_seat, bonus_credits });
        }
        Ok(rows)
    }

    async fn one(&self, product: &Product, plan: &str, version: i64) -> Result<Plan, Error> {
        let plans = plans(&self.books.db, product, Some(plan), true).await?;
        let version = version_number(version);
        plans.into_iter().find(|plan| plan.version == version).ok_or(Error::NotFound("plan"))
    }
}

/// What to set in a version.
struct Edits {
    values: Vec<PlanValue>,
    models: Vec<PlanModel>,
}

impl Edits {
    async fn store(&self, tx: &Tx, product: &str, plan: &str, version: i64) -> Result<(), Error> {
        for value in &self.values {
            plan_value_set(tx, product, plan, version, value).await?;
        }
        for model in &self.models {
            plan_model_set(tx, product, plan, version, model).await?;
        }
        Ok(())
    }
}

fn edits(product: &Product, request: &UpdatePlanRequest) -> Result<Edits, Error> {
    let mut values = catalogue::limits(product, request.limits.clone())?;
    values.extend(catalogue::features(product, request.features.clone())?);
    if let Some(rate) = request.requests_per_minute {
        values.push(catalogue::rate(rate)?);
    }
    if let Some(daily) = request.daily_credits {
        values.push(catalogue::credits(product, "daily", daily)?);
    }
    if let Some(price) = request.micro_credits_per_token {
        values.push(catalogue::credits(product, "micro_credits_per_token", price)?);
    }
    let mut models = catalogue::role_models(product, request.default_models.clone(), true)?;
    if let Some(list) = &request.allowed_models {
        models.push(catalogue::allowed_models(product, list.models.clone())?);
    }
    Ok(Edits { values, models })
}

fn new_price(price: Price) -> NewPrice {
    let Price { id, amount_minor, currency, interval: period, per_seat, bonus_credits } = price;
    NewPrice { id, amount_minor, currency, period, per_seat, bonus_credits }
}

/// Plans of a product, or one, in the manifest's order with retired ones last; newest versions first within a plan.
async fn plans(on: &impl On, product: &Product, plan: Option<&str>, older: bool) -> Result<Vec<Plan>, Error> {
    let slug = product.slug.as_str();
    let mut versions = version_list(on, slug, plan, older).await?;
    let mut numbers: HashMap<(String, i64), Vec<EntitlementRow>> = HashMap::new();
    for row in number_list(on, slug, plan).await? {
        let number = EntitlementRow { own: false, kind: row.kind, name: row.name, value: row.value, model: row.model };
        numbers.entry((row.plan, row.version)).or_default().push(number);
    }
    let mut prices: HashMap<(String, i64), Vec<PriceRow>> = HashMap::new();
    for row in price_list(on, slug, plan).await? {
        prices.entry((row.plan.clone(), row.version)).or_default().push(row);
    }
    let place = |slug: &str| product.plans.iter().position(|plan| plan.slug == slug).unwrap_or(usize::MAX);
    versions.sort_by_cached_key(|row| (place(&row.slug), row.slug.clone(), Reverse(row.version)));
    let message = |row: VersionRow| {
        let key = (row.slug.clone(), row.version);
        let (numbers, prices) = (numbers.remove(&key).unwrap_or_default(), prices.remove(&key).unwrap_or_default());
        message(product, row, numbers, prices)
    };
    versions.into_iter().map(message).collect()
}

fn message(
    product: &Product,
    row: VersionRow,
    numbers: Vec<EntitlementRow>,
    prices: Vec<PriceRow>,
) -> Result<Plan, Error> {
    let standing = Standing { plan: row.slug, version: row.version, ..Standing::default() };
    let of = Entitled::new(product, standing, found(numbers))?;
    let price = |price: PriceRow| Price {
        id: price.id,
        amount_minor: price.amount_minor,
        currency: price.currency,
        interval: price.period,
        per_seat: price.per_seat,
        bonus_credits: price.bonus_credits,
    };
    Ok(Plan {
        is_default: of.plan == product.default_plan,
        id: of.plan,
        version: version_number(of.version),
        name: row.name,
        prices: prices.into_iter().map(price).collect(),
        features: of.features.into_iter().collect(),
        limits: of.limits.into_iter().collect(),
        requests_per_minute: of.requests_per_minute,
        requests_per_seat: of.requests_per_seat,
        credits: of.credits.map(|credits| PlanCredits {
            initial: credits.initial,
            daily: credits.daily,
            micro_credits_per_token: credits.micro_credits_per_token,
        }),
        default_models: of.default_models.into_iter().collect(),
        allowed_models: of.allowed_models,
        retired: row.retired,
        current: row.current,
    })
}
