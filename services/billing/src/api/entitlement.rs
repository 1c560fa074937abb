//! What accounts may do.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_db::Db;
use weft_product::Products;
use weft_proto::billing::v1::entitlement_service_server::EntitlementService;
use weft_proto::billing::v1::{CheckFeatureRequest, CheckFeatureResponse, Entitlements, GetEntitlementsRequest};

use crate::domain::entitlement::Entitled;
use crate::error::Error;
use crate::store::entitlement::entitlement_numbers;

/// Answers from the tables, at each call: a changed number holds from the next call on.
pub struct EntitlementApi {
    /// Plans and accounts.
    pub db: Db,
    /// Which products, features and limits there are.
    pub products: Arc<Products>,
}

impl EntitlementApi {
    async fn entitled(&self, product: &str, user_id: &str) -> Result<Entitled, Error> {
        let product = self.products.get(product).ok_or_else(|| Error::UnknownProduct(product.to_owned()))?;
        if user_id.is_empty() {
            return Err(Error::NoUser);
        }
        let default = &product.default_plan;
        match entitlement_numbers(&self.db, &product.slug, user_id, default).await? {
            Some((plan, numbers)) => Entitled::new(product, plan, &numbers),
            None => Err(Error::NoPlan { product: product.slug.clone(), plan: default.clone() }),
        }
    }
}

#[tonic::async_trait]
impl EntitlementService for EntitlementApi {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let GetEntitlementsRequest { product, user_id } = request.into_inner();
        let entitled = self.entitled(&product, &user_id).await?;
        Ok(Response::new(Entitlements {
            product,
            user_id,
            plan: entitled.plan,
            features: entitled.features.into_iter().collect(),
            limits: entitled.limits.into_iter().collect(),
            requests_per_minute: entitled.requests_per_minute,
        }))
    }

    async fn check_feature(
        &self,
        request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        let CheckFeatureRequest { product, user_id, feature } = request.into_inner();
        let entitled = self.entitled(&product, &user_id).await?;
        entitled.check(&feature)?;
        Ok(Response::new(CheckFeatureResponse { plan: entitled.plan }))
    }
}
