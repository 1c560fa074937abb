//! What is counted and logged of every call.
//!
//! `weft_edge_requests_total{rpc,protocol,code}` and `weft_edge_seconds{rpc,protocol}`; each answer on a WebSocket is a
//! request, and `weft_edge_sockets` says how many are open. The labels are bounded:
//! RPCs come from the descriptors, the rest from these enums. Counters are looked up once and then kept, because
//! looking one up costs more than a small call's parsing.
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use metrics::{Counter, Histogram};
use tonic::Code;
use weft_core::status_name;

use crate::methods::Method;

/// How a client talks to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// JSON, one answer.
    Json,
    /// JSON, a stream of events.
    Sse,
    /// Native gRPC.
    Grpc,
    /// grpc-web, binary or text.
    GrpcWeb,
    /// JSON, an answer on a WebSocket.
    WebSocket,
}

impl Protocol {
    const COUNT: usize = 5;

    fn name(self) -> &'static str {
        match self {
            Protocol::Json => "json",
            Protocol::Sse => "sse",
            Protocol::Grpc => "grpc",
            Protocol::GrpcWeb => "grpc_web",
            Protocol::WebSocket => "websocket",
        }
    }
}

/// gRPC codes, 0 to 16.
const CODES: usize = 17;

/// The meters of one RPC.
pub struct Meters {
    rpc: Arc<str>,
    requests: [[OnceLock<Counter>; CODES]; Protocol::COUNT],
    seconds: [OnceLock<Histogram>; Protocol::COUNT],
}

impl Meters {
    /// Meters that are registered when they are first used.
    pub fn new(rpc: &str) -> Self {
        Meters { rpc: rpc.into(), requests: Default::default(), seconds: Default::default() }
    }

    fn record(&self, protocol: Protocol, code: Code, seconds: f64) {
        let requests = &self.requests[protocol as usize][code as usize % CODES];
        let counter = || {
            let labels = [
                ("rpc", self.rpc.to_string()),
                ("protocol", protocol.name().to_owned()),
                ("code", status_name(code).to_owned()),
            ];
            metrics::counter!("weft_edge_requests_total", &labels)
        };
        requests.get_or_init(counter).increment(1);
        let histogram = || {
            let labels = [("rpc", self.rpc.to_string()), ("protocol", protocol.name().to_owned())];
            metrics::histogram!("weft_edge_seconds", &labels)
        };
        self.seconds[protocol as usize].get_or_init(histogram).record(seconds);
    }
}

/// One call, from its beginning to its last byte. Dropped without a code it was cancelled: the client left.
pub struct Entry {
    method: Arc<Method>,
    protocol: Protocol,
    request_id: Arc<str>,
    begun: Instant,
    code: Code,
}

impl Entry {
    /// A call that begins now.
    pub fn new(method: Arc<Method>, protocol: Protocol, request_id: Arc<str>, begun: Instant) -> Self {
        Entry { method, protocol, request_id, begun, code: Code::Cancelled }
    }

    /// Another RPC answers it than the one that was asked for.
    pub fn answered_by(&mut self, method: Arc<Method>, protocol: Protocol) {
        (self.method, self.protocol) = (method, protocol);
    }

    /// How it ended.
    pub fn ended(&mut self, code: Code) {
        self.code = code;
    }

    /// Whether it ended in any other way than well.
    pub fn failed(&self) -> bool {
        self.code != Code::Ok
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.method.meters.record(self.protocol, self.code, took.as_secs_f64());
        tracing::info!(
            request_id = &*self.request_id,
            rpc = self.method.rpc,
            protocol = self.protocol.name(),
            code = status_name(self.code),
            ms = took.as_micros() as f64 / 1000.0,
            "request"
        );
    }
}
