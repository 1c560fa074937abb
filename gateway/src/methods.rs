//! Every RPC behind the edge: ours and the operator's, by path.
use std::collections::HashMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::http_rule::http_rules;
use crate::meters::Meters;
use crate::routes::{Binding, Routes};
use crate::transcode::{MessageId, Tables};
use crate::upstream::Upstream;

/// One RPC.
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    /// `package.Service/Method`, for logs and metrics.
    pub rpc: String,
    /// Where it is answered.
    pub upstream: Arc<Upstream>,
    /// Its full URI there.
    pub uri: Uri,
    /// The messages of its pool.
    pub tables: Arc<Tables>,
    /// Request message.
    pub input: MessageId,
    /// Response message.
    pub output: MessageId,
    /// Whether requests stream.
    pub client_streaming: bool,
    /// Whether responses stream.
    pub server_streaming: bool,
    /// Of a successful JSON answer.
    pub http_status: StatusCode,
    /// What is counted of it.
    pub meters: Meters,
}

/// Every RPC and every route.
#[derive(Default)]
pub struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    /// Where JSON arrives.
    pub routes: Routes,
}

impl Methods {
    /// Adds every method of a pool whose service is answered by an upstream; `upstream_of` is asked with the
    /// service's full name. The error is a sentence about the descriptors.
    pub fn add(
        &mut self,
        pool: &DescriptorPool,
        upstream_of: impl Fn(&str) -> Option<Arc<Upstream>>,
    ) -> Result<(), String> {
        let tables = Arc::new(Tables::new(pool)?);
        for service in pool.services() {
            let Some(upstream) = upstream_of(service.full_name()) else { continue };
            for method in service.methods() {
                self.add_method(&method, &tables, &upstream)?;
            }
        }
        Ok(())
    }

    fn add_method(
        &mut self,
        descriptor: &MethodDescriptor,
        tables: &Arc<Tables>,
        upstream: &Arc<Upstream>,
    ) -> Result<(), String> {
        let rpc = format!("{}/{}", descriptor.parent_service().full_name(), descriptor.name());
        let message =
            |name: &str| tables.id(name).ok_or_else(|| format!("{rpc}: its message {name} is not in the descriptors"));
        let path = format!("/{rpc}");
        let method = Arc::new(Method {
            uri: upstream.uri(PathAndQuery::try_from(path.as_str()).map_err(|error| format!("{rpc}: {error}"))?),
            upstream: upstream.clone(),
            tables: tables.clone(),
            input: message(descriptor.input().full_name())?,
            output: message(descriptor.output().full_name())?,
            client_streaming: descriptor.is_client_streaming(),
            server_streaming: descriptor.is_server_streaming(),
            http_status: http_status(descriptor).ok_or_else(|| format!("{rpc}: its http_status is not 200 to 299"))?,
            meters: Meters::new(&rpc),
            path,
            rpc,
        });
        for rule in http_rules(descriptor)? {
            let (binding, template) = Binding::new(method.clone(), &rule)?;
            self.routes.add(rule.verb, binding, &template)?;
        }
        match self.by_path.insert(method.path.clone(), method) {
            Some(twice) => Err(format!("{} is described twice", twice.rpc)),
            None => Ok(()),
        }
    }

    /// Whether an RPC of this service can be called, by the service's full name.
    pub fn serves(&self, service: &str) -> bool {
        self.by_path.values().any(|method| method.rpc.strip_prefix(service).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The RPC with this path.
    pub fn get(&self, path: &str) -> Option<&Arc<Method>> {
        self.by_path.get(path)
    }
}

/// What `weft.options.v1.http_status` says of an RPC; None if it is no success.
fn http_status(descriptor: &MethodDescriptor) -> Option<StatusCode> {
    let stated = descriptor.parent_pool().get_extension_by_name("weft.options.v1.http_status");
    let options = descriptor.options();
    let stated = stated.filter(|option| options.has_extension(option));
    let Some(number) = stated.and_then(|option| options.get_extension(&option).as_u32()) else {
        return Some(StatusCode::OK);
    };
    StatusCode::from_u16(u16::try_from(number).ok()?).ok().filter(StatusCode::is_success)
}
