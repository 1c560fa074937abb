//! Counts and times of calls, for Prometheus.
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tonic::Code;
use weft_core::status_name;

use crate::methods::{Method, methods};
use crate::telemetry;

/// gRPC has the codes 0 to 16.
const CODES: usize = 17;

/// Which end of a call is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// `weft_rpc_server_…`.
    Server,
    /// `weft_rpc_client_…`.
    Client,
}

/// The counters and histograms of one service: registered when first needed, then only incremented.
pub(crate) struct RpcMetrics {
    side: Side,
    service: &'static str,
    cells: Box<[[OnceLock<Cell>; CODES]]>,
}

struct Cell {
    requests: Counter,
    seconds: Histogram,
}

impl RpcMetrics {
    /// For calls that `service` answers, or makes.
    pub fn new(side: Side, service: &'static str) -> Self {
        // A handle registered before the recorder would count for nobody.
        telemetry::recorder();
        let cells = std::iter::repeat_with(|| [const { OnceLock::new() }; CODES]).take(methods().len()).collect();
        RpcMetrics { side, service, cells }
    }

    /// The service whose calls these are.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Counts one call.
    pub fn record(&self, method: &Method, code: Code, took: Duration) {
        let cell = self.cells.get(method.index).and_then(|codes| codes.get(code as usize));
        if let Some(cell) = cell {
            let cell = cell.get_or_init(|| self.register(method, code));
            cell.requests.increment(1);
            cell.seconds.record(took.as_secs_f64());
        }
    }

    fn register(&self, method: &Method, code: Code) -> Cell {
        let (requests, seconds) = match self.side {
            Side::Server => ("weft_rpc_server_requests_total", "weft_rpc_server_seconds"),
            Side::Client => ("weft_rpc_client_requests_total", "weft_rpc_client_seconds"),
        };
        let labels = [
            ("service", self.service.to_owned()),
            ("rpc", method.name.clone()),
            ("code", status_name(code).to_owned()),
        ];
        Cell { requests: counter!(requests, &labels), seconds: histogram!(seconds, &labels) }
    }
}
