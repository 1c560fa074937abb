//! What accounts may do.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_core::Clock;
use weft_db::Db;
use weft_product::{Product, Products};
use weft_proto::billing::v1::entitlement_service_server::EntitlementService;
use weft_proto::billing::v1::{
    CheckFeatureRequest, CheckFeatureResponse, CheckQuotaRequest, CheckQuotaResponse, Entitlements,
    GetEntitlementsRequest, GetRateLimitRequest, RateLimit,
};

use crate::activity::Activity;
use crate::domain::day::day_of;
use crate::domain::entitlement::Entitled;
use crate::error::Error;
use crate::store::entitlement::entitled;

/// Answers from the tables, at each call: a changed number holds from the next call on.
pub struct EntitlementApi {
    /// Plans and accounts.
    pub db: Db,
    /// Which products, features and limits there are.
    pub products: Arc<Products>,
    /// What day it is.
    pub clock: Clock,
    /// Remembers who was here.
    pub activity: Activity,
}

impl EntitlementApi {
    fn product(&self, slug: &str) -> Result<&Arc<Product>, Error> {
        self.products.get(slug).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }

    async fn entitled(&self, product: &Product, user_id: &str) -> Result<Entitled, Error> {
        let (entitled, active_day) = entitled(&self.db, product, user_id).await?;
        let now_ms = self.clock.now_ms();
        if active_day < day_of(now_ms) {
            self.activity.note(&product.slug, user_id, now_ms);
        }
        Ok(entitled)
    }
}

#[tonic::async_trait]
impl EntitlementService for EntitlementApi {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let GetEntitlementsRequest { product, user_id } = request.into_inner();
        let entitled = self.entitled(self.product(&product)?, &user_id).await?;
        Ok(Response::new(Entitlements {
            product,
            user_id,
            plan: entitled.plan,
            features: entitled.features.into_iter().collect(),
            limits: entitled.limits.into_iter().collect(),
            requests_per_minute: entitled.requests_per_minute,
            organization_requests_per_minute: entitled.organization_requests_per_minute,
            payer_id: entitled.payer_id,
            plan_version: version_number(entitled.version),
            micro_credits_per_token: entitled.credits.map(|credits| credits.micro_credits_per_token),
            override_models: entitled.override_models.into_iter().collect(),
            default_models: entitled.default_models.into_iter().collect(),
            allowed_models: entitled.allowed_models,
        }))
    }

    async fn check_feature(
        &self,
        request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        let CheckFeatureRequest { product, user_id, feature } = request.into_inner();
        let entitled = self.entitled(self.product(&product)?, &user_id).await?;
        entitled.check(&feature)?;
        Ok(Response::new(CheckFeatureResponse { plan: entitled.plan }))
    }

    async fn get_rate_limit(&self, request: Request<GetRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        let GetRateLimitRequest { product, user_id } = request.into_inner();
        let entitled = self.entitled(self.product(&product)?, &user_id).await?;
        Ok(Response::new(RateLimit {
            requests_per_minute: entitled.requests_per_minute,
            organization_requests_per_minute: entitled.organization_requests_per_minute,
            payer_id: entitled.payer_id,
        }))
    }

    async fn check_quota(&self, request: Request<CheckQuotaRequest>) -> Result<Response<CheckQuotaResponse>, Status> {
        let CheckQuotaRequest { product, user_id, limit: name, used, growth } = request.into_inner();
        let entitled = self.entitled(self.product(&product)?, &user_id).await?;
        let remaining = entitled.quota(self.product(&product)?, &name, used, growth)?;
        let limit = entitled.limits.get(&name).copied();
        Ok(Response::new(CheckQuotaResponse { plan: entitled.plan, limit, remaining }))
    }
}

/// The number of a version on the wire; there are never that many.
pub fn version_number(version: i64) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}
