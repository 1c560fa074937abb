//! One billing server and calls to it.
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use weft_auth::SERVICE_TOKEN_HEADER;
use weft_billing::{Config, Error};
use weft_core::Reason;
use weft_product::Products;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::billing::v1::{
    CheckFeatureRequest, CheckQuotaRequest, Entitlements, GetEntitlementsRequest, GetRateLimitRequest, RateLimit,
};
use weft_runtime::{Mesh, Shutdown};
use weft_testing::eventually;

use super::service;

/// What a call came to: an answer, or why not.
pub type Outcome<T> = Result<T, Reason>;

/// A running server.
pub struct Node {
    channel: Channel,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), Error>>,
}

impl Node {
    pub async fn start(config: Config, mesh: Mesh, products: Products) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let shutdown = mesh.shutdown().clone();
        #[expect(clippy::disallowed_methods, reason = "joined in stop, or ends with the test")]
        let serving = tokio::spawn(weft_billing::serve(config, mesh, Arc::new(products), listener));
        let node = Node { channel: endpoint.connect_lazy(), shutdown, serving };
        eventually("the server's first answer", Duration::from_secs(20), async || {
            assert!(!node.serving.is_finished(), "the server ended");
            node.get("adiuva", "nobody").await.is_ok()
        })
        .await;
        node
    }

    /// Shuts it down and waits for its end.
    pub async fn stop(self) {
        drop(self.channel);
        self.shutdown.trigger();
        self.serving.await.unwrap().unwrap();
    }

    /// What an account may do, asked by a service that is allowed to.
    pub async fn get(&self, product: &str, user_id: &str) -> Outcome<Entitlements> {
        let answer = self.get_as(&Headers::of_service("gateway"), product, user_id).await;
        answer.map_err(|status| reason(&status))
    }

    /// One limit of an account; none if it is unlimited.
    pub async fn limit(&self, product: &str, user_id: &str, name: &str) -> Option<i64> {
        self.get(product, user_id).await.unwrap().limits.get(name).copied()
    }

    /// The plan that includes the feature, asked by a service that is allowed to.
    pub async fn check(&self, product: &str, user_id: &str, feature: &str) -> Outcome<String> {
        let answer = self.check_as(&Headers::of_service("storage"), product, user_id, feature).await;
        answer.map_err(|status| reason(&status))
    }

    pub async fn get_as(&self, headers: &Headers, product: &str, user_id: &str) -> Result<Entitlements, Status> {
        let message = GetEntitlementsRequest { product: product.into(), user_id: user_id.into() };
        Ok(self.client().get_entitlements(headers.around(message)).await?.into_inner())
    }

    pub async fn check_as(
        &self,
        headers: &Headers,
        product: &str,
        user_id: &str,
        feature: &str,
    ) -> Result<String, Status> {
        let message = CheckFeatureRequest { product: product.into(), user_id: user_id.into(), feature: feature.into() };
        Ok(self.client().check_feature(headers.around(message)).await?.into_inner().plan)
    }

    /// How often an account may call.
    pub async fn rate(&self, product: &str, user_id: &str) -> Outcome<RateLimit> {
        let message = GetRateLimitRequest { product: product.into(), user_id: user_id.into() };
        let answer = self.client().get_rate_limit(Headers::of_service("gateway").around(message)).await;
        answer.map(Response::into_inner).map_err(|status| reason(&status))
    }

    /// Whether something may grow: the limit and what is left.
    pub async fn quota(
        &self,
        product: &str,
        user_id: &str,
        limit: &str,
        used: i64,
        growth: i64,
    ) -> Outcome<(Option<i64>, Option<i64>)> {
        let (product, user_id, limit) = (product.into(), user_id.into(), limit.into());
        let message = CheckQuotaRequest { product, user_id, limit, used, growth };
        let answer = self.client().check_quota(Headers::of_service("storage").around(message)).await;
        let answer = answer.map_err(|status| reason(&status))?.into_inner();
        Ok((answer.limit, answer.remaining))
    }

    /// For the clients of other services of billing.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn client(&self) -> EntitlementServiceClient<Channel> {
        EntitlementServiceClient::new(self.channel.clone())
    }
}

/// Why a call failed, for clients.
pub fn reason(status: &Status) -> Reason {
    Reason::of(status).unwrap_or_else(|| panic!("a status without a reason: {status:?}"))
}

/// What a caller shows of itself.
#[derive(Default)]
pub struct Headers {
    pub service_token: Option<String>,
    pub access_token: Option<String>,
}

impl Headers {
    /// A service of the mesh.
    pub fn of_service(name: &'static str) -> Headers {
        Headers { service_token: Some(service(name).mint("billing")), access_token: None }
    }

    /// A message from this caller.
    pub fn around<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(token) = &self.service_token {
            request.metadata_mut().insert(SERVICE_TOKEN_HEADER, token.parse().unwrap());
        }
        if let Some(token) = &self.access_token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    }
}
