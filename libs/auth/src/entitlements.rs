//! What the callers' plans allow, as billing says.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use tokio::time::timeout;
use tonic::{Code, Status};
use weft_core::{Clock, Reason};
use weft_proto::Channel;
use weft_proto::billing::v1 as billing;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;

use crate::moment::Moment;

/// No answer is served that was asked for longer ago than this: a change of plan, and billing's absence, is noticed
/// within a second, the next question included.
const MAX_AGE: Duration = Duration::from_millis(900);
/// How long billing may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Accounts that are remembered at once.
const MAX_ACCOUNTS: u64 = 10_000;

/// What the plans of accounts allow, at most a second old. Cheap to clone; clones share one cache.
#[derive(Clone)]
pub struct Entitlements {
    client: EntitlementServiceClient<Channel>,
    clock: Clock,
    answers: moka::future::Cache<(String, String), Answer>,
}

#[derive(Clone)]
struct Answer {
    asked: Moment,
    result: Result<Arc<billing::Entitlements>, Status>,
}

impl Entitlements {
    /// Entitlements from billing.
    pub fn new(client: EntitlementServiceClient<Channel>, clock: Clock) -> Entitlements {
        let answers = moka::future::Cache::builder()
            .max_capacity(MAX_ACCOUNTS)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(MAX_AGE)
            .build();
        Entitlements { client, clock, answers }
    }

    /// What the plan of an account allows. Concurrent calls for one account share one question to billing.
    ///
    /// Errors: NOT_FOUND if billing does not know the product; UNAVAILABLE if billing cannot be asked.
    pub async fn of(&self, product: &str, user_id: &str) -> Result<Arc<billing::Entitlements>, Status> {
        let key = (product.to_owned(), user_id.to_owned());
        let now = Moment::now(&self.clock);
        let old = |answer: &Answer| answer.result.is_err() || now.since(answer.asked) >= MAX_AGE;
        let entry = self.answers.entry_by_ref(&key).or_insert_with_if(self.ask(product, user_id, now), old).await;
        entry.into_value().result
    }

    async fn ask(&self, product: &str, user_id: &str, asked: Moment) -> Answer {
        let message = billing::GetEntitlementsRequest { product: product.into(), user_id: user_id.into() };
        let mut request = tonic::Request::new(message);
        request.set_timeout(TIMEOUT);
        let result = match timeout(TIMEOUT, self.client.clone().get_entitlements(request)).await {
            Ok(Ok(answer)) => Ok(Arc::new(answer.into_inner())),
            Ok(Err(status)) if status.code() == Code::NotFound => Err(status),
            Ok(Err(status)) => Err(unavailable(status)),
            Err(_) => Err(unavailable(Status::deadline_exceeded("billing did not answer in time"))),
        };
        Answer { asked, result }
    }
}

impl fmt::Debug for Entitlements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entitlements").finish_non_exhaustive()
    }
}

/// Whatever billing's trouble is, to the caller it is this one; the cause goes along for the log.
fn unavailable(cause: Status) -> Status {
    let mut status = Reason::Unavailable.status("the plan cannot be checked right now, try again");
    status.set_source(Arc::new(cause));
    status
}
