//! The one shape of an error: `{"error":{"code","message","status","request_id","details"}}`.
//!
//! `code` is our reason in lower case, or the gRPC code's; clients match on it. The HTTP status comes from the
//! same table. gRPC callers get the same error as `grpc-status`, `grpc-message` and `grpc-status-details-bin`.
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic_types::StatusExt;
use weft_core::{Reason, http_status, status_name};

use crate::body::EdgeBody;
use crate::visit;

/// Why the edge cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("{key}: {problem}")]
    Config {
        /// The environment variable.
        key: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The annotations of the RPCs contradict each other.
    #[error("the descriptors cannot be served: {0}")]
    Descriptors(String),
    /// Redis is configured and cannot be used.
    #[error("the rate limits cannot be set up")]
    Cache(#[source] weft_cache::CacheError),
}

/// The body of an error.
pub fn error_json(status: &Status, request_id: &str) -> Vec<u8> {
    let name = status_name(status.code());
    let code = Reason::of(status).map_or(name, Reason::as_str).to_ascii_lowercase();
    let error = json!({"error": {"code": code, "message": status.message(), "status": name, "request_id": request_id, "details": details(status)}});
    error.to_string().into_bytes()
}

/// An error as an HTTP answer.
pub fn error_response(status: &Status, request_id: &str) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from(error_json(status, request_id))));
    *response.status_mut() = http_status(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after_s(status)
        && matches!(*response.status_mut(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An error for a caller that speaks gRPC, or grpc-web with its content type: no body, all in the headers.
pub fn trailers_only(status: &Status, content_type: HeaderValue) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A status as it stands in trailers.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_err() {
        // A message or metadata that cannot be a header; the code alone always can.
        trailers.clear();
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// In how many whole seconds to come back.
fn retry_after_s(status: &Status) -> Option<u64> {
    let delay = status.get_details_retry_info()?.retry_delay?;
    Some(visit::retry_after_s(delay))
}

/// The details that clients can use, as canonical JSON. Debug information stays inside.
fn details(status: &Status) -> Vec<Value> {
    let details = status.get_error_details();
    let mut shown = Vec::new();
    let mut show = |name: &str, fields: Value| {
        let mut detail =
            Map::from_iter([("@type".to_owned(), json!(format!("type.googleapis.com/google.rpc.{name}")))]);
        if let Value::Object(fields) = fields {
            detail.extend(fields);
        }
        shown.push(Value::Object(detail));
    };
    if let Some(info) = details.error_info() {
        show("ErrorInfo", json!({"reason": info.reason, "domain": info.domain, "metadata": info.metadata}));
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        show("RetryInfo", json!({"retry_delay": format!("{}s", delay.as_secs_f64())}));
    }
    if let Some(bad) = details.bad_request() {
        let fields: Vec<Value> = bad
            .field_violations
            .iter()
            .map(|one| json!({"field": one.field, "description": one.description}))
            .collect();
        show("BadRequest", json!({"field_violations": fields}));
    }
    if let Some(failure) = details.quota_failure() {
        let all: Vec<Value> = failure
            .violations
            .iter()
            .map(|one| json!({"subject": one.subject, "description": one.description}))
            .collect();
        show("QuotaFailure", json!({"violations": all}));
    }
    if let Some(failure) = details.precondition_failure() {
        let all: Vec<Value> = failure
            .violations
            .iter()
            .map(|one| json!({"type": one.r#type, "subject": one.subject, "description": one.description}))
            .collect();
        show("PreconditionFailure", json!({"violations": all}));
    }
    if let Some(info) = details.resource_info() {
        show(
            "ResourceInfo",
            json!({"resource_type": info.resource_type, "resource_name": info.resource_name, "description": info.description}),
        );
    }
    if let Some(help) = details.help() {
        let links: Vec<Value> =
            help.links.iter().map(|link| json!({"description": link.description, "url": link.url})).collect();
        show("Help", json!({"links": links}));
    }
    if let Some(message) = details.localized_message() {
        show("LocalizedMessage", json!({"locale": message.locale, "message": message.message}));
    }
    shown
}
