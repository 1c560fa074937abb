//! Who may call an RPC, as its `.proto` says.
use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

/// Full name of the option that holds a policy.
const OPTION: &str = "weft.options.v1.policy";
/// The service that probes ask, open to everybody.
pub const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
/// The services that tools ask for contracts, the newer first, open to everybody.
pub const REFLECTION_SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, signed in or not.
    Public,
    /// A signed-in user of the request's product.
    User,
    /// A signed-in user with the role `admin` in the request's product.
    Admin,
    /// Another service of the mesh.
    Service,
}

/// Which of the edge's limits counts an RPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateClass {
    /// The caller's plan, or the limit on calls without a user.
    #[default]
    Plan,
    /// Signing in: few a minute from one address.
    Login,
    /// Events of an outside party: many a minute from one address.
    Webhook,
}

/// The policy of one RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who may call it.
    pub access: Access,
    /// The services that may call it; only with [`Access::Service`].
    pub callers: Vec<String>,
    /// A feature that the caller's plan must include; only with [`Access::User`].
    pub feature: Option<String>,
    /// Whether a client that does not know if a call arrived may send it again.
    pub retry_safe: bool,
    /// Which of the edge's limits counts it; [`RateClass::Plan`] with [`Access::Service`].
    pub rate_class: RateClass,
    /// The scope that an API key needs to call it; none: no API key may. Only with [`Access::User`].
    pub scope: Option<String>,
    /// Whether it may take longer than usual.
    pub is_long: bool,
}

impl Policy {
    /// The policy of RPCs that state none, for descriptors of others: a signed-in user, no repetition.
    pub fn user() -> Policy {
        Policy {
            access: Access::User,
            callers: Vec::new(),
            feature: None,
            retry_safe: false,
            rate_class: RateClass::Plan,
            scope: None,
            is_long: false,
        }
    }
}

/// A contract without a policy that can be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An RPC does not say who may call it.
    #[error("rpc {rpc} has no policy, add option (weft.options.v1.policy) to it")]
    Missing {
        /// `package.Service/Method`.
        rpc: String,
    },
    /// An RPC says something that cannot be meant.
    #[error("the policy of rpc {rpc} is wrong: {problem}")]
    Wrong {
        /// `package.Service/Method`.
        rpc: String,
        /// What is wrong and what to do.
        problem: &'static str,
    },
}

/// The policies of every RPC, by path.
#[derive(Clone, Debug, Default)]
pub struct Policies(HashMap<String, Policy>);

impl Policies {
    /// The policies that the descriptors state. Every RPC must state one.
    pub fn of(pool: &DescriptorPool) -> Result<Policies, PolicyError> {
        Policies::read(pool, None)
    }

    /// The policies that the descriptors state, and `default` for RPCs that state none: for the contracts of
    /// others.
    pub fn with_default(pool: &DescriptorPool, default: Policy) -> Result<Policies, PolicyError> {
        Policies::read(pool, Some(&default))
    }

    fn read(pool: &DescriptorPool, default: Option<&Policy>) -> Result<Policies, PolicyError> {
        let mut policies = HashMap::new();
        let services = pool.services().filter(|service| !is_open_service(service.full_name()));
        for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let rpc = format!("{}/{}", method.parent_service().full_name(), method.name());
            let policy = match (stated(&method), default) {
                (Some(option), _) => {
                    parse(&method, &option).map_err(|problem| PolicyError::Wrong { rpc: rpc.clone(), problem })?
                }
                (None, Some(default)) => default.clone(),
                (None, None) => return Err(PolicyError::Missing { rpc }),
            };
            policies.insert(format!("/{rpc}"), policy);
        }
        Ok(Policies(policies))
    }

    /// These and `others`. Where both speak of an RPC, these hold: a foreign contract cannot loosen ours.
    #[must_use]
    pub fn merged_with(self, others: Policies) -> Policies {
        let mut policies = others.0;
        policies.extend(self.0);
        Policies(policies)
    }

    /// The policy of the RPC at `path`, such as `/weft.billing.v1.EntitlementService/CheckFeature`.
    pub fn get(&self, path: &str) -> Option<&Policy> {
        self.0.get(path)
    }

    /// Every path that has a policy, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whether a path is of the health or a reflection service. Every gRPC server may have them, no policy speaks of
/// them, and probes and tools must reach them.
pub fn is_open(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
    service.is_some_and(is_open_service)
}

fn is_open_service(name: &str) -> bool {
    name == HEALTH_SERVICE || REFLECTION_SERVICES.contains(&name)
}

/// The option of a method, if it has one.
fn stated(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let extension = method.parent_pool().get_extension_by_name(OPTION)?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message().cloned()
}

fn parse(method: &MethodDescriptor, option: &DynamicMessage) -> Result<Policy, &'static str> {
    let number = |name: &str| option.get_field_by_name(name).and_then(|value| value.as_enum_number()).unwrap_or(0);
    let access = match number("access") {
        1 => Access::Public,
        2 => Access::User,
        3 => Access::Admin,
        4 => Access::Service,
        _ => return Err("it states no access, choose one"),
    };
    let callers: Vec<String> = option
        .get_field_by_name("callers")
        .and_then(|value| Some(value.as_list()?.iter().filter_map(|name| name.as_str().map(Into::into)).collect()))
        .unwrap_or_default();
    let text = |name: &str| {
        let text = option.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned));
        text.filter(|text| !text.is_empty())
    };
    let (feature, scope) = (text("feature"), text("scope"));
    let rate_class = match number("rate_class") {
        0 => RateClass::Plan,
        1 => RateClass::Login,
        2 => RateClass::Webhook,
        _ => return Err("its rate_class is not known, choose one of RateClass"),
    };
    if access == Access::Service && rate_class != RateClass::Plan {
        return Err("rate_class is for calls from outside, leave it out with ACCESS_SERVICE");
    }
    if access != Access::User && scope.is_some() {
        return Err("scope needs ACCESS_USER");
    }
    let is_long = option.get_field_by_name("long").and_then(|value| value.as_bool()).unwrap_or(false);
    if is_long && (method.is_client_streaming() || method.is_server_streaming()) {
        return Err("long is for calls without streams, which may last anyway");
    }
    match (access, callers.is_empty(), feature.is_some()) {
        (Access::Service, true, _) => Err("nobody could call it, name the services in callers"),
        (Access::Public | Access::User | Access::Admin, false, _) => Err("callers needs ACCESS_SERVICE"),
        (Access::Public | Access::Admin | Access::Service, _, true) => Err("feature needs ACCESS_USER"),
        _ => Ok(Policy { access, callers, feature, retry_safe: number("retry") == 1, rate_class, scope, is_long }),
    }
}
