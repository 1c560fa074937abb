//! The other services that keep data of accounts: each is asked for what it knows of one, and to forget it.
//!
//! A new service that keeps any is a variant here, with a `PersonalDataService` of its own.
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};
use weft_auth::PRODUCT_HEADER;
use weft_proto::Channel;
use weft_proto::billing::v1 as billing;
use weft_proto::billing::v1::personal_data_service_client::PersonalDataServiceClient as BillingClient;
use weft_proto::identity::v1::ExportedData;
use weft_proto::orchestrator::v1 as orchestrator;
use weft_proto::orchestrator::v1::personal_data_service_client::PersonalDataServiceClient as OrchestratorClient;
use weft_runtime::Mesh;

use crate::error::Error;

/// How long a service may take to forget an account.
const FORGET_WITHIN: Duration = Duration::from_secs(30);

/// Parts of an export.
pub type Parts = BoxStream<'static, Result<ExportedData, Status>>;

/// A service that keeps data of accounts.
#[derive(Clone)]
pub enum Keeper {
    /// Payments, credits, usage.
    Billing(BillingClient<Channel>),
    /// Keys of model providers, and calls over them.
    Orchestrator(OrchestratorClient<Channel>),
}

impl Keeper {
    /// All there are.
    pub fn all(mesh: &Mesh) -> Vec<Keeper> {
        vec![
            Keeper::Billing(BillingClient::new(mesh.channel("billing"))),
            Keeper::Orchestrator(OrchestratorClient::new(mesh.channel("orchestrator"))),
        ]
    }

    /// As it is called in exports.
    pub fn name(&self) -> &'static str {
        match self {
            Keeper::Billing(_) => "billing",
            Keeper::Orchestrator(_) => "orchestrator",
        }
    }

    /// What it knows of an account.
    ///
    /// Errors: [`Error::ExportUnavailable`], also later, in the parts.
    pub async fn export(&self, product: &str, account_id: &str) -> Result<Parts, Status> {
        let account_id = account_id.to_owned();
        let name = self.name();
        let away = move |status: Status| {
            tracing::warn!(service = name, code = ?status.code(), "a service could not be asked for an export");
            Status::from(Error::ExportUnavailable)
        };
        let part = move |name_of_part, json| ExportedData { service: name.to_owned(), name: name_of_part, json };
        Ok(match self {
            Keeper::Billing(client) => {
                let request = about(product, billing::ExportAccountRequest { account_id })?;
                let parts = client.clone().export_account(request).await.map_err(away)?.into_inner();
                parts.map_ok(move |given| part(given.name, given.json)).map_err(away).boxed()
            }
            Keeper::Orchestrator(client) => {
                let request = about(product, orchestrator::ExportAccountRequest { account_id })?;
                let parts = client.clone().export_account(request).await.map_err(away)?.into_inner();
                parts.map_ok(move |given| part(given.name, given.json)).map_err(away).boxed()
            }
        })
    }

    /// Has it forget an account.
    ///
    /// Errors: in words what came instead of its answer.
    pub async fn erase(&self, product: &str, account_id: &str) -> Result<(), String> {
        match timeout(FORGET_WITHIN, self.forget(product, account_id.to_owned())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(format!("{} answered {:?}", self.name(), status.code())),
            Err(_) => Err(format!("{} did not answer in time", self.name())),
        }
    }

    async fn forget(&self, product: &str, account_id: String) -> Result<(), Status> {
        match self {
            Keeper::Billing(client) => {
                let mut request = about(product, billing::EraseAccountRequest { account_id })?;
                request.set_timeout(FORGET_WITHIN);
                client.clone().erase_account(request).await.map(drop)
            }
            Keeper::Orchestrator(client) => {
                let mut request = about(product, orchestrator::EraseAccountRequest { account_id })?;
                request.set_timeout(FORGET_WITHIN);
                client.clone().erase_account(request).await.map(drop)
            }
        }
    }
}

/// A call about an account of this product.
fn about<M>(product: &str, message: M) -> Result<Request<M>, Status> {
    let product = MetadataValue::try_from(product).map_err(|_| Status::internal("a product's slug is no header"))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(PRODUCT_HEADER, product);
    Ok(request)
}
