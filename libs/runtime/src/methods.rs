//! What is known about every RPC of the contracts, looked up once per call by its path.
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use weft_auth::{HEALTH_SERVICE, Policies, REFLECTION_SERVICES};

/// RPCs that every server has beside its own: service, method, and whether the answer is a stream.
const STANDARD: [(&str, &str, bool); 5] = [
    (HEALTH_SERVICE, "Check", false),
    (HEALTH_SERVICE, "List", false),
    (HEALTH_SERVICE, "Watch", true),
    (REFLECTION_SERVICES[0], "ServerReflectionInfo", true),
    (REFLECTION_SERVICES[1], "ServerReflectionInfo", true),
];

/// RPCs of ours that every process calls a few times a second.
const POLLED: [&str; 2] = ["/weft.identity.v1.KeyService/ListRevocations", "/weft.identity.v1.KeyService/ReportUse"];

/// One RPC.
#[derive(Debug)]
pub(crate) struct Method {
    /// Its place in tables of all RPCs.
    pub index: usize,
    /// `weft.billing.v1.EntitlementService/GetEntitlements`.
    pub name: String,
    /// Whether its answer is a stream, which may go on after the deadline of its beginning.
    pub answers_stream: bool,
    /// Whether it may be sent a second time: its policy says so and its request is one message.
    pub may_retry: bool,
    /// Whether it may take longer than usual, by its policy.
    pub is_long: bool,
    /// Whether it is of the contracts, of health or of reflection.
    pub is_known: bool,
    /// Whether it asks for health. A service that is busy is not ill.
    pub is_health: bool,
    /// Whether machines ask it all the time, so that its successes are of no interest in a log.
    pub is_quiet: bool,
}

/// Every RPC by its path.
pub(crate) struct Methods {
    by_path: HashMap<String, Method>,
    unknown: Method,
}

impl Methods {
    /// The RPC with this path; one and the same stand-in for all that are not known, so that strangers
    /// cannot fill the metrics with names.
    pub fn get(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }

    /// How many there are, the stand-in included.
    pub fn len(&self) -> usize {
        self.by_path.len() + 1
    }
}

/// The RPCs of the contracts, of health and of reflection.
pub(crate) fn methods() -> &'static Methods {
    static METHODS: OnceLock<Methods> = OnceLock::new();
    METHODS.get_or_init(|| {
        let mut by_path = HashMap::new();
        let services: Vec<_> = weft_proto::descriptors().services().collect();
        for method in services.iter().flat_map(|service| service.methods()) {
            let name = format!("{}/{}", method.parent_service().full_name(), method.name());
            let path = format!("/{name}");
            let policy = policies().get(&path);
            let retry_safe = policy.is_some_and(|policy| policy.retry_safe);
            let rpc = Method {
                index: by_path.len(),
                name,
                answers_stream: method.is_server_streaming(),
                may_retry: retry_safe && !method.is_client_streaming(),
                is_long: policy.is_some_and(|policy| policy.is_long),
                is_known: true,
                is_health: false,
                is_quiet: POLLED.contains(&path.as_str()),
            };
            by_path.insert(path, rpc);
        }
        for (service, method, answers_stream) in STANDARD {
            let (index, name, is_health) = (by_path.len(), format!("{service}/{method}"), service == HEALTH_SERVICE);
            let path = format!("/{name}");
            let rpc = Method {
                index,
                name,
                answers_stream,
                may_retry: false,
                is_long: false,
                is_known: true,
                is_health,
                is_quiet: is_health,
            };
            by_path.insert(path, rpc);
        }
        // Nothing is known of an unknown one: it may be a stream.
        let unknown = Method {
            index: by_path.len(),
            name: "unknown".to_owned(),
            answers_stream: true,
            may_retry: false,
            is_long: false,
            is_known: false,
            is_health: false,
            is_quiet: false,
        };
        Methods { by_path, unknown }
    })
}

/// The policies of the contracts.
pub(crate) fn policies() -> &'static Arc<Policies> {
    static POLICIES: OnceLock<Arc<Policies>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let policies = Policies::of(weft_proto::descriptors());
        Arc::new(policies.unwrap_or_else(|error| unreachable!("a test checks that every RPC has a policy: {error}")))
    })
}
