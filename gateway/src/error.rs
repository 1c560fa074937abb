//! The one shape of an error: `{"error":{"code","message","status","request_id","details"}}`.
//!
//! `code` is our reason in lower case, or the gRPC code's; clients match on it. The HTTP status comes from the
//! same table. gRPC callers get the same error as `grpc-status`, `grpc-message` and `grpc-status-details-bin`.
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use weft_core::{Reason, http_status, status_name};

use crate::body::EdgeBody;
use crate::visit;

/// What OpenAI's SDKs believe before they look at the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

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

/// Whose habits the errors and streams of a path follow (`weft.options.v1.style`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Ours.
    #[default]
    Weft,
    /// Those of OpenAI's API: errors have `type` and `param` besides, answers say whether to try again, and streams end
    /// with `data: [DONE]`.
    OpenAi,
}

impl Style {
    /// Of a path that no RPC has: where OpenAI's SDKs look, they are told in their way.
    pub fn of_path(path: &str) -> Style {
        if path.starts_with("/v1/") { Style::OpenAi } else { Style::Weft }
    }
}

/// The body of an error.
pub fn error_json(status: &Status, request_id: &str, style: Style) -> Vec<u8> {
    let name = status_name(status.code());
    let code = Reason::of(status).map_or(name, Reason::as_str).to_ascii_lowercase();
    let mut error = json!({"error": {"code": code, "message": status.message(), "status": name, "request_id": request_id, "details": details(status)}});
    if style == Style::OpenAi {
        error["error"]["type"] = Value::from(kind(status));
        error["error"]["param"] = status
            .get_details_bad_request()
            .and_then(|bad| bad.field_violations.into_iter().next())
            .map_or(Value::Null, |violation| Value::from(violation.field));
    }
    error.to_string().into_bytes()
}

/// The `type` of an error as OpenAI's SDKs know it.
fn kind(status: &Status) -> &'static str {
    match Reason::of(status) {
        Some(
            Reason::InsufficientCredits
            | Reason::KeyBudgetExceeded
            | Reason::QuotaExceeded
            | Reason::DailyTokensExceeded,
        ) => "insufficient_quota",
        _ => match http_status(status).as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=498 => "invalid_request_error",
            _ => "api_error",
        },
    }
}

/// Whether the same request may go well later. OpenAI's SDKs would repeat every 409 and 5xx.
fn should_retry(status: &Status) -> bool {
    match http_status(status) {
        StatusCode::CONFLICT => status.code() == Code::Aborted,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED => false,
        other => other.is_server_error(),
    }
}

/// An error as an HTTP answer.
pub fn error_response(status: &Status, request_id: &str, style: Style) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from(error_json(status, request_id, style))));
    *response.status_mut() = http_status(status);
    if style == Style::OpenAi {
        let told = if should_retry(status) { "true" } else { "false" };
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(told));
    }
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
