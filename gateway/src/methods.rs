//! Every RPC behind the edge: ours and the operator's, by path.
use std::collections::HashMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

use crate::error::Style;
use crate::http_rule::http_rules;
use crate::meters::Meters;
use crate::routes::{Binding, Routes};
use crate::transcode::{Kind, Label, MessageId, Tables};
use crate::upstream::Upstream;

/// The field of a request to stop an answer that says which.
pub const RUN_ID_FIELD: &str = "run_id";

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
    /// Whose habits its JSON follows.
    pub style: Style,
    /// Path of the RPC that stops an answer of it, whose request has a `run_id`.
    pub stopped_by: Option<String>,
    /// What is counted of it.
    pub meters: Meters,
}

/// Every RPC and every route.
#[derive(Default)]
pub struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    siblings: Vec<(String, String)>,
    stops: Vec<(String, String)>,
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
            let mut made = Vec::new();
            for method in service.methods() {
                made.push((self.add_method(&method, &tables, &upstream)?, method));
            }
            for (method, descriptor) in &made {
                let sibling = sibling(method, descriptor, &made)?;
                self.add_routes(method, descriptor, sibling)?;
                self.add_stop(method)?;
            }
        }
        Ok(())
    }

    fn add_method(
        &mut self,
        descriptor: &MethodDescriptor,
        tables: &Arc<Tables>,
        upstream: &Arc<Upstream>,
    ) -> Result<Arc<Method>, String> {
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
            style: style(descriptor).ok_or_else(|| format!("{rpc}: its style is not known"))?,
            stopped_by: stopped_by(descriptor),
            meters: Meters::new(&rpc),
            path,
            rpc,
        });
        match self.by_path.insert(method.path.clone(), method.clone()) {
            Some(twice) => Err(format!("{} is described twice", twice.rpc)),
            None => Ok(method),
        }
    }

    fn add_routes(
        &mut self,
        method: &Arc<Method>,
        descriptor: &MethodDescriptor,
        sibling: Option<Arc<Method>>,
    ) -> Result<(), String> {
        let rules = http_rules(descriptor)?;
        if let Some(sibling) = &sibling {
            if !rules.iter().any(|rule| rule.body == "*") {
                return Err(format!("{}: streamed_by needs a path with body \"*\"", method.rpc));
            }
            self.siblings.push((method.path.clone(), sibling.path.clone()));
        }
        for rule in rules {
            let (mut binding, template) = Binding::new(method.clone(), &rule)?;
            if let Some(sibling) = sibling.as_ref().filter(|_sibling| rule.body == "*") {
                let (streamed, _) = Binding::new(sibling.clone(), &rule)?;
                binding.streamed_by = Some(Arc::new(streamed));
            }
            self.routes.add(rule.verb, binding, &template)?;
        }
        Ok(())
    }

    /// Checks who stops an RPC's answers.
    fn add_stop(&mut self, method: &Method) -> Result<(), String> {
        let Some(path) = &method.stopped_by else { return Ok(()) };
        let fits = self.by_path.get(path).is_some_and(|stop| {
            let run = stop.tables.path(stop.input, RUN_ID_FIELD).and_then(|run| stop.tables.at(stop.input, &run));
            let takes_run = matches!(run, Some((_, Kind::String, Label::Plain | Label::Optional)));
            takes_run && !stop.server_streaming && !stop.client_streaming
        });
        if !fits || !method.server_streaming || method.client_streaming {
            return Err(format!(
                "{}: stopped_by is for RPCs that stream answers alone, and names a unary one of its service whose request \
                 has the string {RUN_ID_FIELD}",
                method.rpc
            ));
        }
        self.stops.push((method.path.clone(), path.clone()));
        Ok(())
    }

    /// RPCs whose answers another one stops, and that one, by path.
    pub fn stops(&self) -> &[(String, String)] {
        &self.stops
    }

    /// RPCs that another one answers as a stream, and that one, by path.
    pub fn siblings(&self) -> &[(String, String)] {
        &self.siblings
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

/// The RPC that answers in the place of this one as a stream, if one does.
fn sibling(
    method: &Method,
    descriptor: &MethodDescriptor,
    all: &[(Arc<Method>, MethodDescriptor)],
) -> Result<Option<Arc<Method>>, String> {
    let name = option(descriptor, "weft.options.v1.streamed_by");
    let Some(name) = name.as_ref().and_then(Value::as_str) else { return Ok(None) };
    let found = all.iter().find(|(_, descriptor)| descriptor.name() == name);
    let Some((sibling, _)) = found else {
        return Err(format!("{}: streamed_by names `{name}`, which its service does not have", method.rpc));
    };
    let fits = sibling.server_streaming
        && !sibling.client_streaming
        && !method.server_streaming
        && !method.client_streaming
        && sibling.input == method.input;
    match fits {
        true => Ok(Some(sibling.clone())),
        false => Err(format!(
            "{}: streamed_by is for unary RPCs, and `{name}` has to stream answers to the same request",
            method.rpc
        )),
    }
}

/// Path of the RPC that `weft.options.v1.stopped_by` names, if it names one.
fn stopped_by(descriptor: &MethodDescriptor) -> Option<String> {
    let name = option(descriptor, "weft.options.v1.stopped_by")?;
    Some(format!("/{}/{}", descriptor.parent_service().full_name(), name.as_str()?))
}

/// What an option says of an RPC, if it says anything.
fn option(descriptor: &MethodDescriptor, name: &str) -> Option<Value> {
    let option = descriptor.parent_pool().get_extension_by_name(name)?;
    let options = descriptor.options();
    options.has_extension(&option).then(|| options.get_extension(&option).into_owned())
}

/// What `weft.options.v1.http_status` says of an RPC; None if it is no success.
fn http_status(descriptor: &MethodDescriptor) -> Option<StatusCode> {
    let Some(number) = option(descriptor, "weft.options.v1.http_status").and_then(|stated| stated.as_u32()) else {
        return Some(StatusCode::OK);
    };
    StatusCode::from_u16(u16::try_from(number).ok()?).ok().filter(StatusCode::is_success)
}

/// What `weft.options.v1.style` says of an RPC; None if it is one of a later version.
fn style(descriptor: &MethodDescriptor) -> Option<Style> {
    match option(descriptor, "weft.options.v1.style").and_then(|stated| stated.as_enum_number()) {
        None | Some(0) => Some(Style::Weft),
        Some(1) => Some(Style::OpenAi),
        Some(_) => None,
    }
}
