//! `weft.orchestrator.v1.PlanService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_proto::orchestrator::v1 as proto;
use weft_proto::orchestrator::v1::plan_service_server::PlanService;
use weft_proto::orchestrator::v1::{GetPlaybookRequest, ListPlaybooksRequest, ListPlaybooksResponse};

use crate::api::account::Account;
use crate::api::chat::Parts;
use crate::api::work::bounds;
use crate::domain::agent::Reach;
use crate::error::Error;
use crate::plans::{PLAYBOOKS, Playbook};

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct PlanApi {
    parts: Arc<Parts>,
}

impl PlanApi {
    /// A service of these parts.
    pub fn new(parts: Arc<Parts>) -> PlanApi {
        PlanApi { parts }
    }

    /// The caller's playbooks out of these.
    async fn of<'a>(
        &self,
        caller: &Caller,
        wanted: impl Iterator<Item = &'a Playbook>,
    ) -> Result<Vec<proto::Playbook>, Error> {
        let parts = &self.parts;
        let account = Account::of(caller)?;
        let product = account.product(&parts.products)?;
        let registry = parts.registries.of(&product.slug).ok_or(Error::NoAgent)?;
        let plan = account.plan(&parts.entitlements).await?;
        let callable = Reach::of(product, &plan).callable(|name| registry.get(name).is_some());
        let callable: Vec<String> = callable.into_iter().map(str::to_owned).collect();
        let bounds = bounds(product, &plan, &callable);
        let told = |playbook: &Playbook| {
            let plan = playbook.plan(&bounds).ok()?;
            let (id, description) = (playbook.id.to_owned(), playbook.description.to_owned());
            Some(proto::Playbook { id, description, agent: plan.agent, steps: plan.steps })
        };
        Ok(wanted.filter_map(told).collect())
    }
}

#[tonic::async_trait]
impl PlanService for PlanApi {
    async fn list_playbooks(
        &self,
        request: Request<ListPlaybooksRequest>,
    ) -> Result<Response<ListPlaybooksResponse>, Status> {
        let playbooks = self.of(&Caller::of(&request)?, PLAYBOOKS.iter()).await?;
        Ok(Response::new(ListPlaybooksResponse { playbooks }))
    }

    async fn get_playbook(&self, request: Request<GetPlaybookRequest>) -> Result<Response<proto::Playbook>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().plan_id;
        // One that the plan does not have is told like one that does not exist.
        let found = self.of(&caller, PLAYBOOKS.iter().filter(|playbook| playbook.id == id)).await?;
        Ok(Response::new(found.into_iter().next().ok_or(Error::NotFound("playbook"))?))
    }
}
