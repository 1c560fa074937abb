//! The edge: JSON, gRPC, grpc-web and SSE in, gRPC out.
//!
//! There is no code for any RPC here. Paths come from `google.api.http`, policies from `weft.options.v1.policy`,
//! both read from the descriptors; an operator's own services join with a descriptor set and a URL. A request
//! finds its way through [`edge`] (which protocol), [`admit`] (who, for which product, how often), [`rest`] or
//! [`grpc`] (from and to the client's protocol), [`call`] and [`upstream`] (to the service and back), and
//! [`relay`] if the answer is a stream.
mod accept;
mod admit;
mod body;
mod call;
mod config;
mod cors;
mod edge;
mod error;
mod frames;
mod grpc;
mod health;
mod http_rule;
mod meters;
mod methods;
mod operator;
mod path;
mod relay;
mod rest;
mod routes;
mod socket;
mod template;
mod transcode;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DescriptorPool;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use weft_auth::{Entitlements, Guard, Keys, Policies, Policy, Revocations, Verifier, follow};
use weft_cache::Cache;
use weft_product::Products;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_runtime::Mesh;

pub use crate::config::Config;
pub use crate::error::Error;

use crate::admit::{Door, Rules};
use crate::body::BodyLimit;
use crate::cors::Origins;
use crate::edge::{Edge, Limits};
use crate::health::{Health, OWN_PATHS};
use crate::methods::Methods;
use crate::operator::Operator;
use crate::upstream::Upstream;

/// Levels of JSON that the parser itself can take, with room for what wraps them.
const MOST_JSON_DEPTH: u32 = 100;

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
    if config.weft_edge_max_json_depth > MOST_JSON_DEPTH {
        let problem = format!("is at most {MOST_JSON_DEPTH}");
        return Err(Error::Config { key: "WEFT_EDGE_MAX_JSON_DEPTH", problem });
    }
    let connect_timeout = Duration::from_millis(mesh.config().weft_connect_timeout_ms);
    let origins =
        Origins::parse(&config.cors_origins).map_err(|problem| Error::Config { key: "CORS_ORIGINS", problem })?;
    let operator = Operator::read(config, connect_timeout).await?;
    let ours = weft_proto::descriptors();
    let services = our_services(mesh, ours, connect_timeout)?;
    let methods = methods(ours, &services, &operator)?;
    let policies = Policies::with_default(&operator.pool, Policy::user())
        .map_err(|error| Error::Descriptors(error.to_string()))?;
    let policies = Policies::clone(&mesh.policies()).merged_with(policies);
    let entitlements = Entitlements::new(EntitlementServiceClient::new(mesh.channel("billing")), mesh.clock().clone());
    let guard = guard(mesh, policies, entitlements.clone());
    let cache = cache(config, mesh).await?;
    let rules = Rules {
        default_product: config.weft_default_product.clone(),
        anonymous_per_minute: config.weft_edge_anonymous_per_minute,
        trusted_proxies: config.weft_edge_trusted_proxies,
        unary_timeout: mesh.config().request_timeout(),
        stream_limit: Duration::from_millis(config.weft_edge_stream_limit_ms),
    };
    let door = Door::new(guard, entitlements, cache, products, rules)
        .map_err(|problem| Error::Config { key: "WEFT_DEFAULT_PRODUCT", problem })?;
    let upstreams = services.iter().chain(&operator.upstreams).map(|(_, upstream)| upstream.clone()).collect();
    let sets: &[&[u8]] = if operator.encoded.is_empty() {
        &[weft_proto::DESCRIPTOR_SET]
    } else {
        &[weft_proto::DESCRIPTOR_SET, &operator.encoded]
    };
    let health = Health::new(upstreams, sets).await.map_err(Error::Descriptors)?;
    Ok(Edge { door, methods, origins, health, limits: limits(config), mesh: mesh.clone() })
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
    mesh: &Mesh,
    pool: &DescriptorPool,
    connect_timeout: Duration,
) -> Result<Vec<(String, Arc<Upstream>)>, Error> {
    let mut services: Vec<(String, Arc<Upstream>)> = Vec::new();
    for service in pool.services() {
        let Some(area) = area(service.full_name()) else { continue };
        if services.iter().any(|(known, _)| known == area) {
            continue;
        }
        let url = mesh
            .config()
            .url_of(area)
            .ok_or_else(|| Error::Descriptors(format!("there is no URL for the service {area}")))?;
        let upstream =
            Upstream::new(area, url, connect_timeout, true).map_err(|error| Error::Descriptors(error.to_string()))?;
        services.push((area.to_owned(), Arc::new(upstream)));
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

/// The mesh's own guard knows our contracts only; this one knows the operator's too.
fn guard(mesh: &Mesh, policies: Policies, entitlements: Entitlements) -> Guard {
    let keys = KeyServiceClient::new(mesh.channel("identity"));
    let revocations = Revocations::new();
    mesh.tasks()
        .spawn("revocations", follow(keys.clone(), revocations.clone(), mesh.clock().clone(), mesh.shutdown().token()));
    Guard::new(Arc::new(policies), Verifier::new(Keys::remote(keys), revocations, mesh.clock().clone()))
        .with_entitlements(entitlements)
}

async fn cache(config: &Config, mesh: &Mesh) -> Result<Cache, Error> {
    match &config.redis_url {
        None => Ok(Cache::local(mesh.clock().clone())),
        Some(url) => Cache::redis(url.expose_secret(), config.weft_edge_replicas, mesh.clock().clone())
            .await
            .map_err(Error::Cache),
    }
}
