//! One request: which of the edge's protocols it speaks, and what every answer has in common.
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tonic::Status;
use weft_auth::{REQUEST_ID_HEADER, is_open};
use weft_core::Reason;
use weft_runtime::Mesh;

use crate::admit::Door;
use crate::body::{BodyLimit, EdgeBody, drain};
use crate::cors::{self, Origins};
use crate::error::{Style, error_response, trailers_only};
use crate::grpc::{self, Dialect, grpc};
use crate::headers::request_id;
use crate::health::{COUNTED_PATHS, Health, OWN_PATHS};
use crate::methods::Methods;
use crate::rest::{self, rest};
use crate::routes::Found;
use crate::visit::Visit;
use crate::websocket::{self, Sockets};

/// Header fields of a request at most.
const MAX_HEADERS: usize = 100;

/// Everything that a request may need.
pub struct Edge {
    /// Who is let in.
    pub door: Door,
    /// Every RPC and route.
    pub methods: Methods,
    /// Which pages may call.
    pub origins: Origins,
    /// The edge's own paths and services.
    pub health: Health,
    /// How much is taken.
    pub limits: Limits,
    /// WebSockets.
    pub sockets: Sockets,
    /// Clock, background work, shutdown.
    pub mesh: Mesh,
}

/// How much is taken of one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// JSON body, in bytes.
    pub json_bytes: usize,
    /// One gRPC message, or a raw body, in bytes.
    pub message_bytes: usize,
    /// An answer that is turned into something else, in bytes.
    pub response_bytes: usize,
    /// Objects and arrays inside each other.
    pub json_depth: u32,
    /// Time of a body; its bytes are set where it is read.
    pub body: BodyLimit,
}

/// What the connection knows of a request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The other end.
    pub peer: SocketAddr,
    /// What is wrong with the request's framing.
    pub fault: Option<&'static str>,
    /// The connection ends with this request.
    pub last: bool,
}

impl Edge {
    /// Answers one request. Whatever is wrong is in the answer.
    pub async fn handle(self: &Arc<Self>, request: Request<Incoming>, arrival: Arrival) -> Response<EdgeBody> {
        let (mut parts, body) = request.into_parts();
        let version = parts.version;
        let mut body = Some(body);
        let id = request_id(&mut parts.headers);
        let id_header = parts.headers.get(REQUEST_ID_HEADER).cloned();
        let origin = parts
            .headers
            .get(ORIGIN)
            .filter(|origin| origin.to_str().is_ok_and(|origin| self.origins.allow(origin)))
            .cloned();
        let visit = Visit::new(arrival.peer);
        let mut response = match fault(&parts, arrival.fault) {
            Some(fault) => {
                let refusal = Reason::InvalidArgument.status(fault);
                let mut response = self.refuse(&parts, &visit, refusal, &id).await;
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                response
            }
            None => self.dispatch(parts, &mut body, &visit, id, origin.is_some()).await,
        };
        let unread = body.filter(|body| !hyper::body::Body::is_end_stream(body));
        if let Some(body) = unread.filter(|_body| version < Version::HTTP_2) {
            self.mesh.tasks().spawn("drain", drain(body));
        }
        let headers = response.headers_mut();
        if let Some(id) = id_header {
            headers.insert(REQUEST_ID_HEADER, id);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        visit.tell(headers);
        if let Some(origin) = origin {
            cors::expose(headers, origin);
        }
        if arrival.last && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        parts: Parts,
        body: &mut Option<Incoming>,
        visit: &Visit,
        id: Arc<str>,
        allowed_origin: bool,
    ) -> Response<EdgeBody> {
        if parts.method == Method::OPTIONS
            && parts.headers.contains_key(ORIGIN)
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return preflight(allowed_origin, &id);
        }
        match parts.headers.get(CONTENT_TYPE).and_then(Dialect::of) {
            Some(Ok(dialect)) => return self.grpc(dialect, parts, body, visit, id).await,
            Some(Err(status)) => return self.refuse(&parts, visit, status, &id).await,
            None => {}
        }
        // A path without a stream answers as if nobody had asked for a socket.
        if websocket::is_asked_for(&parts)
            && let Found::Binding(binding, segments) = self.methods.routes.find(&Method::POST, parts.uri.path())
            && let Some(binding) = binding.talks()
        {
            let call = rest::Call { binding, segments, visit, request_id: id };
            return websocket::open(self, call, parts, allowed_origin).await;
        }
        if COUNTED_PATHS.contains(&parts.uri.path())
            && let Err(status) = self.door.count(&parts.headers, visit).await
        {
            return error_response(&status, &id, Style::Weft);
        }
        if let Some(response) = self.health.answer(&parts, &self.mesh).await {
            return response;
        }
        match self.methods.routes.find(&parts.method, parts.uri.path()) {
            Found::Binding(binding, segments) => {
                let call = rest::Call { binding, segments, visit, request_id: id.clone() };
                let style = binding.method.style;
                rest(self, call, parts, body).await.unwrap_or_else(|status| error_response(&status, &id, style))
            }
            Found::WrongVerb(allowed) => self.wrong_verb(&parts, visit, &allowed, &id).await,
            Found::Nothing if OWN_PATHS.contains(&parts.uri.path()) => {
                self.wrong_verb(&parts, visit, &[Method::GET, Method::HEAD], &id).await
            }
            Found::Nothing => self.refuse(&parts, visit, Reason::NotFound.status("there is no such path"), &id).await,
            Found::Bad(bad) => self.refuse(&parts, visit, Reason::InvalidArgument.status(bad.to_string()), &id).await,
        }
    }

    async fn grpc(
        &self,
        dialect: Dialect,
        parts: Parts,
        body: &mut Option<Incoming>,
        visit: &Visit,
        id: Arc<str>,
    ) -> Response<EdgeBody> {
        if parts.method != Method::POST {
            return self.wrong_verb(&parts, visit, &[Method::POST], &id).await;
        }
        if dialect == Dialect::Native {
            if parts.version < Version::HTTP_2 {
                let status =
                    Reason::UnsupportedMediaType.status("gRPC needs HTTP/2; use grpc-web or JSON over HTTP/1.1");
                return self.refuse(&parts, visit, status, &id).await;
            }
            if is_open(parts.uri.path()) {
                return self.own_service(parts, body, visit).await;
            }
        }
        grpc(self, grpc::Request { dialect, visit, request_id: id }, parts, body).await
    }

    /// Health, which may be asked at any rate, or reflection.
    async fn own_service(&self, parts: Parts, body: &mut Option<Incoming>, visit: &Visit) -> Response<EdgeBody> {
        let content_type = Dialect::Native.content_type();
        if !Health::is_check(parts.uri.path())
            && let Err(status) = self.door.count(&parts.headers, visit).await
        {
            return trailers_only(&status, content_type);
        }
        let Some(body) = body.take() else {
            return trailers_only(&Status::internal(""), content_type);
        };
        self.health.grpc(Request::from_parts(parts, body)).await
    }

    /// A refusal that counts against the limit of the caller's address.
    async fn refuse(&self, parts: &Parts, visit: &Visit, refusal: Status, id: &str) -> Response<EdgeBody> {
        let refusal = self.door.refuse(&parts.headers, visit, refusal).await;
        error_response(&refusal, id, Style::of_path(parts.uri.path()))
    }

    /// The path exists, but with these methods only.
    async fn wrong_verb(&self, parts: &Parts, visit: &Visit, allowed: &[Method], id: &str) -> Response<EdgeBody> {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let refusal = Reason::MethodNotAllowed.status(format!("use {}", names.join(" or ")));
        let mut response = self.refuse(parts, visit, refusal, id).await;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Ok(value) = HeaderValue::try_from(names.join(", "))
        {
            response.headers_mut().insert(ALLOW, value);
        }
        response
    }
}

/// What makes a request unfit for any protocol.
fn fault(parts: &Parts, framing: Option<&'static str>) -> Option<&'static str> {
    if framing.is_some() {
        return framing;
    }
    if parts.headers.len() > MAX_HEADERS {
        return Some("the request has too many headers");
    }
    if !parts.uri.path().starts_with('/') || parts.method == Method::CONNECT {
        return Some("the request names no path");
    }
    None
}

/// A browser asks whether it may call.
fn preflight(allowed: bool, id: &str) -> Response<EdgeBody> {
    if !allowed {
        return error_response(&Reason::PermissionDenied.status("pages of this origin may not call"), id, Style::Weft);
    }
    let mut response = Response::new(EdgeBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    cors::preflight(response.headers_mut());
    response
}

/// A small JSON answer of the edge itself.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    response
}
