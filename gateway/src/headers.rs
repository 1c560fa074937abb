//! Headers: which go inward, which go outward, and which are refused.
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use weft_auth::{PRODUCT_HEADER, REQUEST_ID_HEADER, SERVICE_TOKEN_HEADER};
use weft_core::{Reason, new_id};

/// Refuses what would be read in one way here and in another behind, and binary metadata that is not base64.
pub fn check_headers(headers: &HeaderMap) -> Result<(), Status> {
    for name in [AUTHORIZATION.as_str(), PRODUCT_HEADER] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Reason::InvalidArgument.status(format!("the header {name} is sent twice, send it once")));
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().ends_with("-bin")) {
        let values = value.as_bytes().split(|byte| *byte == b',');
        for one in values.map(<[u8]>::trim_ascii) {
            let digits = one.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
            if STANDARD_NO_PAD.decode(&one[..digits]).is_err() {
                return Err(Reason::InvalidArgument.status(format!("the metadata {name} is not base64")));
            }
        }
    }
    Ok(())
}

/// The last event that a client of a stream has, in our header and as metadata alike.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Bytes of it.
const MAX_EVENT_ID_BYTES: usize = 128;

/// Lets `Last-Event-ID` go inward where answers stream, and nowhere else.
///
/// # Errors
/// INVALID_ARGUMENT for one that is too long, no visible ASCII, or there twice.
pub fn check_last_event_id(headers: &mut HeaderMap, streams: bool) -> Result<(), Status> {
    if !streams {
        headers.remove(LAST_EVENT_ID);
    }
    let wrong = |what: &str| Err(Reason::InvalidArgument.status(format!("the header last-event-id {what}")));
    let mut all = headers.get_all(LAST_EVENT_ID).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) => wrong("is sent twice, send it once"),
        (Some(id), None) if id.len() > MAX_EVENT_ID_BYTES => {
            wrong(&format!("is over the limit of {MAX_EVENT_ID_BYTES} bytes"))
        }
        (Some(id), None) if !id.as_bytes().iter().all(u8::is_ascii_graphic) => wrong("is no id of an event"),
        (Some(id), None) if id.is_empty() => {
            headers.remove(LAST_EVENT_ID);
            Ok(())
        }
        (Some(_), None) => Ok(()),
    }
}

/// Nothing that only the inside may say comes from outside.
pub fn strip_identity(headers: &mut HeaderMap, address: IpAddr) {
    headers.remove(SERVICE_TOKEN_HEADER);
    if let Ok(value) = HeaderValue::try_from(address.to_string()) {
        headers.insert("x-forwarded-for", value);
    }
    if let Some(bearer) = headers.get_mut(AUTHORIZATION) {
        bearer.set_sensitive(true);
    }
}

/// Whether a header from outside is passed on to a service.
pub fn goes_inward(name: &str) -> bool {
    match name {
        // Of this connection, of this body, or of the browser's business.
        "host"
        | "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authorization"
        | "transfer-encoding"
        | "upgrade"
        | "trailer"
        | "te"
        | "expect"
        | "content-length"
        | "content-type"
        | "content-encoding"
        | "accept"
        | "accept-encoding"
        | "cookie"
        | "origin"
        | "referer"
        | "cache-control"
        | "pragma"
        | "date"
        | "via"
        | "forwarded"
        | "x-real-ip"
        | "x-tier"
        | "x-grpc-web"
        | "grpc-encoding"
        | "grpc-accept-encoding"
        | "grpc-status"
        | "grpc-message" => false,
        "x-forwarded-for" | PRODUCT_HEADER => true,
        _ => {
            // Identity is what the edge found out, never what somebody says. An underscore may be read as a dash.
            let forbidden = ["x-weft-", "x-user-", "x-forwarded-", "grpc-metadata-", "sec-", "access-control-"];
            !forbidden.iter().any(|prefix| name.starts_with(prefix)) && !name.contains('_')
        }
    }
}

/// Whether a header of a service's answer is passed on to the client.
pub fn goes_outward(name: &str) -> bool {
    !matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "trailer"
            | "te"
            | "content-length"
            | "content-type"
            | "date"
            | "server"
            | "grpc-encoding"
            | "grpc-accept-encoding"
    ) && !name.starts_with("x-weft-")
        && !name.starts_with("access-control-")
}

/// The id of a request: what the client calls it, if that is harmless, else a new one. It is in the headers then.
pub fn request_id(headers: &mut HeaderMap) -> Arc<str> {
    let id: Arc<str> = weft_auth::request_id(headers).map_or_else(|| new_id().into(), Arc::from);
    if let Ok(mut value) = HeaderValue::from_str(&id) {
        // Different every time: not worth a place in the header compression's table.
        value.set_sensitive(true);
        headers.insert(REQUEST_ID_HEADER, value);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_from_outside_stays_outside() {
        for name in [
            "x-weft-service-token",
            "x-weft-user",
            "x-user-id",
            "x-tier",
            "grpc-metadata-x-user-id",
            "x-forwarded-host",
            "x-real-ip",
            "x_user_id",
            "cookie",
            "connection",
        ] {
            assert!(!goes_inward(name), "{name}");
        }
        for name in [
            "authorization",
            "x-request-id",
            "idempotency-key",
            "traceparent",
            "stripe-signature",
            "x-weft-product",
            "user-agent",
        ] {
            assert!(goes_inward(name), "{name}");
        }
    }

    #[test]
    fn a_strange_request_id_is_replaced() {
        let mut headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(REQUEST_ID_HEADER),
            HeaderValue::from_static("<script>"),
        )]);
        let id = request_id(&mut headers);
        assert_eq!(id.len(), 36);
        assert_eq!(headers[REQUEST_ID_HEADER], *id);
        assert_eq!(request_id(&mut headers), id, "and then kept");
    }
}
