//! A billing on which everybody has the same plan.
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weft_proto::billing::v1::entitlement_service_server::{EntitlementService, EntitlementServiceServer};
use weft_proto::billing::v1::{CheckFeatureRequest, CheckFeatureResponse, Entitlements, GetEntitlementsRequest};

/// The plan that everybody is on.
pub const PLAN: &str = "the-plan";

/// A running billing. It has a runtime of its own: with that, every connection goes away at once.
pub struct Billing {
    address: SocketAddr,
    running: Mutex<Option<Runtime>>,
}

impl Billing {
    pub fn start() -> Billing {
        let (address, running) = serve("127.0.0.1:0".parse().unwrap());
        Billing { address, running: Mutex::new(Some(running)) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it as a crash would.
    pub fn go_away(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.shutdown_background();
        }
    }

    /// Starts it again where it was.
    pub fn come_back(&self) {
        *self.running.lock().unwrap() = Some(serve(self.address).1);
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn serve(address: SocketAddr) -> (SocketAddr, Runtime) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
        Server::builder()
            .add_service(EntitlementServiceServer::new(OnePlan))
            .serve_with_incoming(listener)
            .await
            .unwrap();
    });
    (address, runtime)
}

struct OnePlan;

#[tonic::async_trait]
impl EntitlementService for OnePlan {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let GetEntitlementsRequest { product, user_id } = request.into_inner();
        Ok(Response::new(Entitlements { product, user_id, plan: PLAN.to_owned(), ..Entitlements::default() }))
    }

    async fn check_feature(
        &self,
        _request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        Err(Status::unimplemented("identity does not ask for features"))
    }
}
