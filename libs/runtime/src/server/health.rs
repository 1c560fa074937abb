//! Whether a server is fit to be called, over grpc.health.v1.
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

use crate::Mesh;

/// Answers whether the service can work.
pub(super) type ReadyCheck = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// How often the service is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long it may take to answer. No answer is a no.
const CAP: Duration = Duration::from_secs(1);

/// The health service of a server with the services `names`. It reports what `ready` answers from now on, and
/// from the shutdown on that nobody should come any more.
pub(super) async fn start(
    mesh: &Mesh,
    names: Vec<&'static str>,
    ready: Option<ReadyCheck>,
) -> HealthServer<impl Health + use<>> {
    let (reporter, server) = tonic_health::server::health_reporter();
    let first = if ready.is_some() { ServingStatus::NotServing } else { ServingStatus::Serving };
    let mut board = Board { reporter, names, shown: first };
    board.write(first).await;
    let shutdown = mesh.shutdown().clone();
    mesh.tasks().spawn("health", async move {
        let ask = async {
            while let Some(ready) = &ready {
                board.show(is_ready(ready).await).await;
                sleep(EVERY).await;
            }
            // Nobody to ask: fit as long as it runs.
            std::future::pending::<()>().await;
        };
        shutdown.token().run_until_cancelled(ask).await;
        board.close().await;
    });
    server
}

async fn is_ready(check: &ReadyCheck) -> bool {
    let asked = timeout(CAP, AssertUnwindSafe(async { check().await }).catch_unwind()).await;
    matches!(asked, Ok(Ok(true)))
}

struct Board {
    reporter: HealthReporter,
    names: Vec<&'static str>,
    shown: ServingStatus,
}

impl Board {
    async fn show(&mut self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        if status != self.shown {
            tracing::info!(%status, "readiness changed");
            self.write(status).await;
        }
    }

    /// For the server as a whole, whose name is empty, and for each service.
    async fn write(&mut self, status: ServingStatus) {
        for name in self.names.iter().chain(&[""]) {
            self.reporter.set_service_status(name, status).await;
        }
        self.shown = status;
    }

    /// Says the last word, and ends the streams of those who watch: they would keep the drain waiting.
    async fn close(&mut self) {
        self.write(ServingStatus::NotServing).await;
        for name in self.names.iter().chain(&[""]) {
            self.reporter.clear_service_status(name).await;
        }
    }
}
