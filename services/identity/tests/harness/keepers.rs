//! Billing and the orchestrator as far as they keep data of accounts.
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use weft_auth::PRODUCT_HEADER;
use weft_core::Reason;
use weft_proto::billing::v1 as billing;
use weft_proto::billing::v1::personal_data_service_server as of_billing;
use weft_proto::orchestrator::v1 as orchestrator;
use weft_proto::orchestrator::v1::personal_data_service_server as of_orchestrator;

/// What both were asked, and which of them is away.
#[derive(Clone, Default)]
pub struct Keepers(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    erased: Vec<String>,
    away: Vec<&'static str>,
}

impl Keepers {
    /// Adds the services of both.
    pub fn serve(&self, routes: Routes) -> Routes {
        routes
            .add_service(of_billing::PersonalDataServiceServer::new(Keeper(self.clone(), "billing")))
            .add_service(of_orchestrator::PersonalDataServiceServer::new(Keeper(self.clone(), "orchestrator")))
    }

    /// Each erasure that was asked for, as `service product account`.
    pub fn erased(&self) -> Vec<String> {
        self.0.lock().unwrap().erased.clone()
    }

    /// One of them does not answer any more.
    pub fn go_away(&self, service: &'static str) {
        self.0.lock().unwrap().away.push(service);
    }

    /// All of them answer again.
    pub fn come_back(&self) {
        self.0.lock().unwrap().away.clear();
    }
}

struct Keeper(Keepers, &'static str);

impl Keeper {
    fn check(&self) -> Result<(), Status> {
        let away = self.0.0.lock().unwrap().away.contains(&self.1);
        if away { Err(Reason::Unavailable.status("away")) } else { Ok(()) }
    }

    fn export(&self, metadata: &MetadataMap, account_id: &str) -> Result<(String, String), Status> {
        self.check()?;
        Ok(("kept".to_owned(), format!("{{\"of\": \"{}\"}}", whose(metadata, account_id))))
    }

    fn erase(&self, metadata: &MetadataMap, account_id: &str) -> Result<(), Status> {
        self.check()?;
        self.0.0.lock().unwrap().erased.push(format!("{} {}", self.1, whose(metadata, account_id)));
        Ok(())
    }
}

fn whose(metadata: &MetadataMap, account_id: &str) -> String {
    format!("{} {account_id}", metadata.get(PRODUCT_HEADER).unwrap().to_str().unwrap())
}

macro_rules! keeper {
    ($server:ident, $messages:ident) => {
        #[tonic::async_trait]
        impl $server::PersonalDataService for Keeper {
            type ExportAccountStream = BoxStream<'static, Result<$messages::ExportedPart, Status>>;

            async fn export_account(
                &self,
                request: Request<$messages::ExportAccountRequest>,
            ) -> Result<Response<Self::ExportAccountStream>, Status> {
                let (name, json) = self.export(request.metadata(), &request.get_ref().account_id)?;
                Ok(Response::new(stream::iter([Ok($messages::ExportedPart { name, json })]).boxed()))
            }

            async fn erase_account(
                &self,
                request: Request<$messages::EraseAccountRequest>,
            ) -> Result<Response<$messages::EraseAccountResponse>, Status> {
                self.erase(request.metadata(), &request.get_ref().account_id)?;
                Ok(Response::new($messages::EraseAccountResponse { ok: true }))
            }
        }
    };
}

keeper!(of_billing, billing);
keeper!(of_orchestrator, orchestrator);
