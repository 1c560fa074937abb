//! Services of the mesh that only answer: for tests of what stands beside them.
#![expect(clippy::panic, reason = "a test bench that cannot be set up ends the test")]
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weft_proto::billing::v1::entitlement_service_server::{EntitlementService, EntitlementServiceServer};
use weft_proto::billing::v1::{
    CheckFeatureRequest, CheckFeatureResponse, CheckQuotaRequest, CheckQuotaResponse, Entitlements,
    GetEntitlementsRequest, GetRateLimitRequest, RateLimit,
};
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{
    GetJwksRequest, Jwk, Jwks, ListRevocationsRequest, ListRevocationsResponse, ReportUseRequest, ReportUseResponse,
    Revocation,
};

/// A running fake on a free port, which also says that it is healthy; it ends with this value.
pub struct FakeService {
    routes: Routes,
    address: SocketAddr,
    /// A runtime of its own: with that, every connection goes away at once. None while it is away.
    running: Mutex<Option<Runtime>>,
}

impl FakeService {
    /// An identity that has one key and never ends a session.
    pub fn identity(key: Jwk) -> FakeService {
        FakeService::identity_with(key, Arc::default())
    }

    /// An identity that has one key and lists these ended sessions and withdrawn tokens.
    pub fn identity_with(key: Jwk, revocations: Arc<Mutex<Vec<Revocation>>>) -> FakeService {
        FakeService::identity_and(key, revocations, |routes| routes)
    }

    /// The same with further services of identity's.
    pub fn identity_and(
        key: Jwk,
        revocations: Arc<Mutex<Vec<Revocation>>>,
        further: impl FnOnce(Routes) -> Routes,
    ) -> FakeService {
        FakeService::start(further(Routes::new(KeyServiceServer::new(OneKey { key, revocations }))))
    }

    /// A billing that allows each user what `allowed` says of their id. It knows no features to check.
    pub fn billing(allowed: impl Fn(&str) -> Entitlements + Send + Sync + 'static) -> FakeService {
        FakeService::start(Routes::new(EntitlementServiceServer::new(Allowed(allowed))))
    }

    /// The same with further services of billing's.
    pub fn billing_and(
        allowed: impl Fn(&str) -> Entitlements + Send + Sync + 'static,
        further: impl FnOnce(Routes) -> Routes,
    ) -> FakeService {
        FakeService::start(further(Routes::new(EntitlementServiceServer::new(Allowed(allowed)))))
    }

    /// `http://127.0.0.1:…`; stays the same over [`FakeService::come_back`].
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it as a crash would.
    pub fn go_away(&self) {
        if let Some(running) = self.running().take() {
            running.shutdown_background();
        }
    }

    /// Starts it again where it was.
    pub fn come_back(&self) {
        self.go_away();
        *self.running() = Some(serve(self.routes.clone(), self.address).1);
    }

    fn start(routes: Routes) -> FakeService {
        let (_, health) = tonic_health::server::health_reporter();
        let routes = routes.add_service(health);
        let (address, running) = serve(routes.clone(), (Ipv4Addr::LOCALHOST, 0).into());
        FakeService { routes, address, running: Mutex::new(Some(running)) }
    }

    fn running(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn serve(routes: Routes, address: SocketAddr) -> (SocketAddr, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("a runtime: {error}"));
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _entered = runtime.enter();
        Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
    };
    let (address, listener) = listen().unwrap_or_else(|error: std::io::Error| panic!("{address}: {error}"));
    runtime.spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
    (address, runtime)
}

struct OneKey {
    key: Jwk,
    revocations: Arc<Mutex<Vec<Revocation>>>,
}

#[tonic::async_trait]
impl KeyService for OneKey {
    async fn get_jwks(&self, _request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        Ok(Response::new(Jwks { keys: vec![self.key.clone()] }))
    }

    async fn list_revocations(
        &self,
        _request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        let revocations = self.revocations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Response::new(ListRevocationsResponse { revocations, next_page_token: "0".to_owned() }))
    }

    async fn report_use(&self, _request: Request<ReportUseRequest>) -> Result<Response<ReportUseResponse>, Status> {
        Ok(Response::new(ReportUseResponse {}))
    }
}

struct Allowed<F>(F);

#[tonic::async_trait]
impl<F: Fn(&str) -> Entitlements + Send + Sync + 'static> EntitlementService for Allowed<F> {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let GetEntitlementsRequest { product, user_id } = request.into_inner();
        let allowed = self.0(&user_id);
        Ok(Response::new(Entitlements { product, user_id, ..allowed }))
    }

    async fn check_feature(
        &self,
        _request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        Err(Status::unimplemented("the fake billing checks no features"))
    }

    async fn get_rate_limit(&self, request: Request<GetRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        let Entitlements { requests_per_minute, organization_requests_per_minute, payer_id, .. } =
            self.0(&request.into_inner().user_id);
        Ok(Response::new(RateLimit { requests_per_minute, organization_requests_per_minute, payer_id }))
    }

    async fn check_quota(&self, _request: Request<CheckQuotaRequest>) -> Result<Response<CheckQuotaResponse>, Status> {
        Err(Status::unimplemented("the fake billing checks no quotas"))
    }
}
