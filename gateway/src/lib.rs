//! The edge: JSON, gRPC, grpc-web, SSE and WebSockets in, gRPC out.
//!
//! There is no code for any RPC here. Paths come from `google.api.http`, policies from `weft.options.v1.policy`,
//! both read from the descriptors; an operator's own services join with a descriptor set and a URL. A request
//! finds its way through [`edge`] (which protocol), [`admit`] (who, for which product, how often), [`rest`],
//! [`websocket`] or [`grpc`] (from and to the client's protocol), [`call`] and [`upstream`] (to the service and
//! back), and [`relay`] if the answer is a stream.
mod accept;
mod admit;
mod body;
mod call;
mod config;
mod cors;
mod edge;
mod error;
mod exchange;
mod frames;
mod grpc;
mod headers;
mod health;
mod http_rule;
mod link;
mod meters;
mod methods;
mod operator;
mod path;
mod rates;
mod relay;
mod rest;
mod routes;
mod setup;
mod socket;
mod template;
mod transcode;
mod upstream;
mod visit;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DescriptorPool;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tonic::service::Routes;
use weft_auth::{Guard, Policies, Policy};
use weft_cache::Cache;
use weft_product::Products;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_runtime::{Mesh, MeshConfig, Neighbours, with_reflection};

pub use crate::config::Config;
pub use crate::error::Error;

use crate::admit::{Door, Rules};
use crate::body::BodyLimit;
use crate::edge::{Edge, Limits};
use crate::exchange::Exchange;
use crate::health::{Health, OWN_PATHS};
use crate::methods::Methods;
use crate::operator::Operator;
use crate::rates::Rates;
use crate::upstream::Upstream;
use crate::websocket::{Seats, Sockets};

/// Serves the edge until the mesh shuts down, then lets calls finish for at most the mesh's drain time.
///
/// # Errors
/// [`Error`] before the first connection is accepted: a setting that cannot be used, routes that contradict each
/// other.
pub async fn serve(config: Config, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Error> {
    let edge = Arc::new(build(&config, &mesh, products).await?);
    let drain_cap = mesh.config().drain_cap();
    accept::accept(edge, &config, listener, mesh.shutdown().token(), drain_cap).await;
    mesh.tasks().drain(drain_cap).await;
    Ok(())
}

async fn build(config: &Config, mesh: &Mesh, products: Arc<Products>) -> Result<Edge, Error> {
    config.check_depth()?;
    let origins = config.origins()?;
    let operator = Operator::read(config, Duration::from_millis(mesh.config().weft_connect_timeout_ms))?;
    let Contracts { services, methods, policies, reflection } = contracts(mesh.config(), mesh.neighbours(), &operator)?;
    // The mesh's own guard knows our contracts only; this one knows the operator's too.
    let guard = Guard::new(Arc::new(policies), mesh.verifier().at_edge()).with_entitlements(mesh.entitlements());
    let cache = cache(config, mesh).await?;
    let rules = Rules {
        default_product: config.weft_default_product.clone(),
        anonymous_per_minute: config.weft_edge_anonymous_per_minute,
        logins_per_minute: config.weft_edge_logins_per_minute,
        webhooks_per_minute: config.weft_edge_webhooks_per_minute,
        trusted_proxies: config.weft_edge_trusted_proxies,
        unary_timeout: mesh.config().request_timeout(),
        long_timeout: mesh.config().long_request_timeout(),
        stream_limit: Duration::from_millis(config.weft_edge_stream_limit_ms),
    };
    let rates = Rates::new(mesh.entitlements(), products.clone(), mesh.tasks().clone());
    let exchange = Exchange::new(AuthServiceClient::new(mesh.channel("identity")), mesh.clock().clone());
    let door = Door::new(guard, exchange, rates, cache, products, rules)
        .map_err(|problem| Error::Config { key: "WEFT_DEFAULT_PRODUCT", problem })?;
    let upstreams = services.into_iter().chain(operator.upstreams).map(|(_, upstream)| upstream).collect();
    let health = Health::new(mesh, upstreams, reflection).await;
    let sockets = Sockets {
        seats: Seats::new(config.weft_edge_max_sockets),
        ping_every: Duration::from_millis(config.weft_edge_ping_ms),
        age: Duration::from_millis(config.weft_edge_connection_age_ms),
    };
    Ok(Edge { door, methods, origins, health, limits: limits(config), sockets, mesh: mesh.clone() })
}

/// What the descriptors say, ours and the operator's.
struct Contracts {
    services: Vec<(String, Arc<Upstream>)>,
    methods: Methods,
    policies: Policies,
    reflection: Routes,
}

fn contracts(mesh: &MeshConfig, neighbours: &Neighbours, operator: &Operator) -> Result<Contracts, Error> {
    let wrong = |error: &dyn std::error::Error| match error.source() {
        Some(cause) => Error::Descriptors(format!("{error}: {cause}")),
        None => Error::Descriptors(error.to_string()),
    };
    let ours = weft_proto::descriptors();
    let services = our_services(mesh, neighbours, ours)?;
    let methods = methods(ours, &services, operator)?;
    let foreign = Policies::with_default(&operator.pool, Policy::user()).map_err(|error| wrong(&error))?;
    let policies = Policies::of(ours).map_err(|error| wrong(&error))?.merged_with(foreign);
    // A request is let in before its body says which of the two answers; only how long that may take may differ.
    let policy_of = |rpc: &str| policies.get(rpc).map(|policy| Policy { is_long: false, ..policy.clone() });
    if let Some((rpc, sibling)) = methods.siblings().iter().find(|(rpc, sibling)| policy_of(rpc) != policy_of(sibling))
    {
        return Err(Error::Descriptors(format!(
            "{rpc} is streamed_by {sibling} and has another policy, give both the same"
        )));
    }
    // What may be begun may be stopped, and stopping opens nothing else.
    let kind = |rpc: &str| policies.get(rpc).map(|policy| (policy.access, &policy.feature, &policy.scope));
    if let Some((rpc, stop)) = methods.stops().iter().find(|(rpc, stop)| kind(rpc) != kind(stop)) {
        return Err(Error::Descriptors(format!(
            "{rpc} is stopped_by {stop}, which others may call, give both the same access, feature and scope"
        )));
    }
    let names: Vec<String> =
        ours.services().chain(operator.pool.services()).map(|one| one.full_name().to_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| methods.serves(name)).collect();
    let others: &[&[u8]] = if operator.encoded.is_empty() { &[] } else { &[&operator.encoded] };
    let reflection = with_reflection(Routes::default(), &names, others).map_err(|error| wrong(&error))?;
    Ok(Contracts { services, methods, policies, reflection })
}

fn limits(config: &Config) -> Limits {
    let body = BodyLimit {
        bytes: config.weft_edge_max_json_bytes,
        within: Duration::from_millis(config.weft_edge_body_timeout_ms),
        patience: Duration::from_millis(config.weft_edge_header_timeout_ms),
    };
    Limits {
        json_bytes: config.weft_edge_max_json_bytes,
        message_bytes: config.weft_edge_max_message_bytes,
        response_bytes: config.weft_edge_max_response_bytes,
        json_depth: config.weft_edge_max_json_depth,
        body,
    }
}

/// The services of the mesh that our contracts speak of: `weft.billing.v1` is answered by `billing`.
fn our_services(
    mesh: &MeshConfig,
    neighbours: &Neighbours,
    pool: &DescriptorPool,
) -> Result<Vec<(String, Arc<Upstream>)>, Error> {
    let connect_timeout = Duration::from_millis(mesh.weft_connect_timeout_ms);
    let mut services: Vec<(String, Arc<Upstream>)> = Vec::new();
    for service in pool.services() {
        let Some(area) = area(service.full_name()) else { continue };
        if services.iter().any(|(known, _)| known == area) {
            continue;
        }
        let url = mesh.url_of(area);
        let url = url.ok_or_else(|| Error::Descriptors(format!("there is no URL for the service {area}")))?;
        let upstream =
            Upstream::new(area, url, connect_timeout, true).map_err(|error| Error::Descriptors(error.to_string()))?;
        services.push((area.to_owned(), Arc::new(upstream.beside(neighbours.find(area)))));
    }
    Ok(services)
}

/// `billing` of `weft.billing.v1.WalletService`.
fn area(full_name: &str) -> Option<&str> {
    full_name.strip_prefix("weft.")?.split('.').next()
}

fn methods(ours: &DescriptorPool, services: &[(String, Arc<Upstream>)], operator: &Operator) -> Result<Methods, Error> {
    let mut methods = Methods::default();
    let our_upstream = |service: &str| {
        services.iter().find(|(name, _)| area(service) == Some(name)).map(|(_, upstream)| upstream.clone())
    };
    methods.add(ours, our_upstream).map_err(Error::Descriptors)?;
    methods.add(&operator.pool, |service| operator.upstream_of(service)).map_err(Error::Descriptors)?;
    match methods.routes.taken(&OWN_PATHS) {
        Some((path, rpc)) => Err(Error::Descriptors(format!("{rpc} claims {path}, which is the edge's own"))),
        None => Ok(methods),
    }
}

async fn cache(config: &Config, mesh: &Mesh) -> Result<Cache, Error> {
    match &config.redis_url {
        None => Ok(Cache::local(mesh.clock().clone())),
        Some(url) => Cache::redis(url.expose_secret(), config.weft_edge_replicas, mesh.clock().clone())
            .await
            .map_err(Error::Cache),
    }
}
