//! WebSockets: the same streams as server-sent events, on a connection that stays for the next request.
//!
//! A socket belongs to one path that answers a JSON body with a stream. Every text frame is such a body, and is let in
//! like a request of its own; the answer comes as text frames, see [`words`]. Browsers cannot set headers on a
//! WebSocket, so a token and a product may also come as subprotocols.
mod answer;
mod end;
mod progress;
mod seats;
mod stop;
mod talk;
mod wishes;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant as Begun};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::time::timeout;
use tonic::Status;
use weft_auth::PRODUCT_HEADER;
use weft_core::{Reason, internal_status};

use crate::body::EdgeBody;
use crate::edge::Edge;
use crate::error::error_response;
use crate::meters::{Entry, Protocol};
use crate::rest::Call;

pub use seats::Seats;
use talk::Line;
use words::Dialect;

/// The version of RFC 6455, the only one there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What RFC 6455 puts behind a client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a client's key.
const KEY_BYTES: usize = 16;
/// A subprotocol that is an access token, in front of it.
const BEARER_PREFIX: &str = "weft.bearer.";
/// A subprotocol that is a product, in front of its slug.
const PRODUCT_PREFIX: &str = "weft.product.";
/// How long the answer to a handshake may take to leave.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);

/// Limits of sockets, and how many there are.
pub struct Sockets {
    /// Who has how many.
    pub seats: Seats,
    /// How often a client is asked whether it is there.
    pub ping_every: Duration,
    /// After this time an idle socket is closed.
    pub age: Duration,
}

/// Whether a request asks for a WebSocket.
pub fn is_asked_for(parts: &Parts) -> bool {
    parts.method == Method::GET && parts.version == Version::HTTP_11 && lists(&parts.headers, &UPGRADE, "websocket")
}

/// Answers a handshake on a path that has a stream.
pub async fn open(edge: &Arc<Edge>, call: Call<'_>, parts: Parts, allowed_origin: bool) -> Response<EdgeBody> {
    let (method, id, visit) = (call.binding.method.clone(), call.request_id.clone(), call.visit);
    let begun = Begun::now();
    let wrong_version = parts.headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION);
    let headers = parts.headers.clone();
    let refused = match check(&parts, allowed_origin) {
        Ok(accept) => match accepted(edge, call, parts).await {
            Ok(protocol) => return switch(accept, protocol),
            Err(status) => status,
        },
        Err(fault) => edge.door.refuse(&headers, visit, fault).await,
    };
    Entry::new(method.clone(), Protocol::WebSocket, id.clone(), begun).ended(refused.code());
    let mut response = error_response(&refused, &id, method.style);
    if wrong_version && response.status() == StatusCode::BAD_REQUEST {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
        response.headers_mut().insert(UPGRADE, WEBSOCKET);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}

/// Checks the handshake itself; what the server answers to the client's key.
fn check(parts: &Parts, allowed_origin: bool) -> Result<HeaderValue, Status> {
    let wrong = |what: &str| Reason::InvalidArgument.status(what);
    let headers = &parts.headers;
    if headers.get_all(SEC_WEBSOCKET_VERSION).iter().ne([&VERSION]) {
        return Err(wrong("a websocket needs sec-websocket-version 13"));
    }
    if headers.contains_key(http::header::ORIGIN) && !allowed_origin {
        return Err(Reason::PermissionDenied.status("pages of this origin may not call"));
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return Err(wrong("a websocket needs the header connection: upgrade"));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => return Err(wrong("a websocket needs one sec-websocket-key")),
    };
    if !STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
        return Err(wrong("the sec-websocket-key is not 16 bytes in base64"));
    }
    let empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !empty || headers.contains_key(TRANSFER_ENCODING) {
        return Err(wrong("a handshake has no body, send the request as the first frame"));
    }
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        // A token would be read in the logs of everything in between.
        return Err(wrong("a websocket has no query: a token belongs into the header or a subprotocol"));
    }
    let salted = [key, KEY_SUFFIX].concat();
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &salted));
    HeaderValue::try_from(accept).map_err(|_error| internal_status())
}

/// Looks who it is, and talks with them behind the handshake. The subprotocol that was chosen.
async fn accepted(edge: &Arc<Edge>, call: Call<'_>, mut parts: Parts) -> Result<Option<HeaderValue>, Status> {
    let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(internal_status)?;
    let offer = match offered(&mut parts.headers) {
        Ok(offer) => offer,
        Err(fault) => return Err(edge.door.refuse(&parts.headers, call.visit, fault).await),
    };
    // Of the handshake alone, not of the requests that follow.
    let handshake = [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_EXTENSIONS];
    let once = ["idempotency-key", "last-event-id"].map(HeaderName::from_static);
    for name in handshake.into_iter().chain(once) {
        parts.headers.remove(name);
    }
    let method = &call.binding.method;
    let greeted = edge.door.greet(method, &mut parts.clone(), call.visit).await?;
    let seat = edge.sockets.seats.take(greeted.holder.clone())?;
    let line = Line {
        edge: edge.clone(),
        binding: call.binding.clone(),
        segments: call.segments,
        parts,
        peer: call.visit.peer,
        dialect: offer.as_ref().map_or(Dialect::Plain, |(dialect, _)| *dialect),
        request_id: call.request_id,
    };
    edge.mesh.tasks().spawn("websocket", async move {
        if let Ok(Ok(stream)) = timeout(UPGRADE_WITHIN, upgrade).await {
            line.talk(stream, greeted).await;
        }
        drop(seat);
    });
    Ok(offer.map(|(_, protocol)| protocol))
}

/// What the subprotocols say: the first that we speak; a token and a product move to where they belong.
fn offered(headers: &mut HeaderMap) -> Result<Option<(Dialect, HeaderValue)>, Status> {
    let wrong = |what: &str| Reason::InvalidArgument.status(what);
    let mut chosen = None;
    let lists: Vec<HeaderValue> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    for list in lists {
        let list = list.to_str().map_err(|_error| wrong("a subprotocol is no token"))?;
        for name in list.split(',').map(str::trim) {
            if let Some(token) = name.strip_prefix(BEARER_PREFIX) {
                let bearer = HeaderValue::try_from(format!("Bearer {token}"));
                let mut bearer = bearer.map_err(|_error| wrong("the subprotocol weft.bearer is no token"))?;
                bearer.set_sensitive(true);
                if headers.insert(AUTHORIZATION, bearer).is_some() {
                    return Err(wrong("the access token is sent twice, send it once"));
                }
            } else if let Some(slug) = name.strip_prefix(PRODUCT_PREFIX) {
                let slug = HeaderValue::try_from(slug);
                let slug = slug.map_err(|_error| wrong("the subprotocol weft.product is no product"))?;
                if headers.insert(PRODUCT_HEADER, slug).is_some() {
                    return Err(wrong("the product is sent twice, send it once"));
                }
            } else if let (None, Some(dialect)) = (&chosen, Dialect::of(name)) {
                chosen = Some((dialect, HeaderValue::from_static(dialect.name())));
            }
        }
    }
    Ok(chosen)
}

/// The answer that makes a connection a WebSocket.
fn switch(accept: HeaderValue, protocol: Option<HeaderValue>) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Whether a header that is a list has this element, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, element: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(element))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri("/v1/talk");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_key_is_answered_as_in_rfc_6455() {
        let parts = handshake(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        assert!(is_asked_for(&parts));
        assert_eq!(check(&parts, false).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn tokens_and_products_leave_the_subprotocols() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("weft.bearer.a.b-c_d, other, weft.events.v1"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("weft.v1,weft.product.adiuva"));
        let (dialect, protocol) = offered(&mut headers).unwrap().unwrap();
        assert_eq!((dialect, protocol.to_str().unwrap()), (Dialect::Events, "weft.events.v1"));
        assert_eq!(
            (headers[AUTHORIZATION].as_bytes(), headers[PRODUCT_HEADER].as_bytes()),
            (&b"Bearer a.b-c_d"[..], &b"adiuva"[..])
        );
        assert!(headers[AUTHORIZATION].is_sensitive() && headers.len() == 2);
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("weft.bearer.another"));
        assert!(offered(&mut headers).is_err(), "not a second token");
    }
}
