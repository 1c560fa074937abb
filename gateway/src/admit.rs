//! Who is let in, for which product, and how often.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Status;
use tonic_types::ErrorDetails;
use weft_auth::{Caller, Entitlements, Guard, PRODUCT_HEADER, REQUEST_ID_HEADER, SERVICE_TOKEN_HEADER};
use weft_cache::{Cache, Decision, Rate};
use weft_core::{Reason, new_id};
use weft_product::{Limit, Products};

use crate::methods::Method;

/// How long the last known limit of a user serves while billing is away.
const REMEMBER: Duration = Duration::from_secs(600);
/// Users whose limit is remembered.
const REMEMBERED_USERS: u64 = 100_000;
/// Longest request id that is taken from outside.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What decides who is let in.
pub struct Door {
    guard: Guard,
    entitlements: Entitlements,
    cache: Cache,
    products: Arc<Products>,
    default_product: HeaderValue,
    anonymous_per_minute: u32,
    trusted_proxies: usize,
    unary_timeout: Duration,
    stream_limit: Duration,
    /// Requests a minute by user, for when billing is away; None is unlimited.
    last_known: moka::sync::Cache<String, Option<u32>>,
}

/// What the door is told.
pub struct Rules {
    /// `WEFT_DEFAULT_PRODUCT`.
    pub default_product: String,
    /// `WEFT_EDGE_ANONYMOUS_PER_MINUTE`.
    pub anonymous_per_minute: u32,
    /// `WEFT_EDGE_TRUSTED_PROXIES`.
    pub trusted_proxies: usize,
    /// Deadline of a unary call whose client names none.
    pub unary_timeout: Duration,
    /// Deadline of a stream, and the longest a client may ask for.
    pub stream_limit: Duration,
}

impl Door {
    /// A door. The error is a sentence about the default product.
    pub fn new(
        guard: Guard,
        entitlements: Entitlements,
        cache: Cache,
        products: Arc<Products>,
        rules: Rules,
    ) -> Result<Self, String> {
        let unknown = || format!("there is no product `{}`", rules.default_product);
        products.get(&rules.default_product).ok_or_else(unknown)?;
        Ok(Door {
            default_product: HeaderValue::from_str(&rules.default_product).map_err(|_error| unknown())?,
            anonymous_per_minute: rules.anonymous_per_minute,
            trusted_proxies: rules.trusted_proxies,
            unary_timeout: rules.unary_timeout,
            stream_limit: rules.stream_limit,
            last_known: moka::sync::Cache::builder().max_capacity(REMEMBERED_USERS).time_to_live(REMEMBER).build(),
            guard,
            entitlements,
            cache,
            products,
        })
    }

    /// Lets a call of an RPC in and says until when it may take, or why it is not let in. The headers are then such that they may go inward: the product
    /// and the time are in them, and nothing that only the inside may say.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unknown product; what [`Guard::admit`] says; `rate_limited`.
    pub async fn admit(&self, method: &Method, parts: &mut Parts, peer: SocketAddr) -> Result<Instant, Status> {
        let address = self.address(&parts.headers, peer);
        let deadline = self.time(method, &mut parts.headers);
        self.name_product(parts)?;
        strip_identity(&mut parts.headers, address);
        let caller = self.guard.admit(&method.path, &parts.headers).await?;
        self.limit(&caller, address).await?;
        Ok(deadline)
    }

    /// Writes down which product the request is for.
    fn name_product(&self, parts: &mut Parts) -> Result<(), Status> {
        if let Some(named) = parts.headers.get(PRODUCT_HEADER) {
            let known = named.to_str().ok().and_then(|slug| self.products.get(slug));
            return match known {
                Some(_product) => Ok(()),
                None => Err(Reason::InvalidArgument.status("x-weft-product names no product of this server")),
            };
        }
        let host = parts.uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| parts.headers.get(HOST).and_then(|value| value.to_str().ok()));
        let product = match host.and_then(|host| self.products.by_host(host)) {
            Some(product) => HeaderValue::from_str(&product.slug).unwrap_or_else(|_error| self.default_product.clone()),
            None => self.default_product.clone(),
        };
        parts.headers.insert(PRODUCT_HEADER, product);
        Ok(())
    }

    /// Until when the call may take, which the service hears as `grpc-timeout`.
    fn time(&self, method: &Method, headers: &mut HeaderMap) -> Instant {
        let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(timeout);
        let streaming = method.client_streaming || method.server_streaming;
        let default = if streaming { self.stream_limit } else { self.unary_timeout };
        let time = asked.unwrap_or(default).min(self.stream_limit);
        if let Ok(value) = HeaderValue::try_from(format!("{}m", time.as_millis().min(99_999_999))) {
            headers.insert("grpc-timeout", value);
        }
        Instant::now() + time
    }

    async fn limit(&self, caller: &Caller, address: IpAddr) -> Result<(), Status> {
        let (key, per_minute) = match &caller.user {
            Some(user) => {
                let key = format!("edge/{}/{}", user.prd, user.sub);
                let rate = self.rate(&key, &user.prd, &user.sub).await;
                match rate {
                    Some(per_minute) => (key, per_minute),
                    None => return Ok(()),
                }
            }
            None => (format!("edge/anonymous/{}", network(address)), self.anonymous_per_minute),
        };
        match self.cache.admit(&key, Rate { per_minute }).await {
            Decision::Admitted { .. } => Ok(()),
            Decision::Refused { retry_after } => {
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                let message =
                    format!("more than {per_minute} requests a minute, come back in {} ms", retry_after.as_millis());
                Err(Reason::RateLimited.status_with(message, details))
            }
        }
    }

    /// Requests a minute of a user; None is unlimited. While billing is away the last known number serves, then
    /// that of the product's default plan: never unlimited, never an error.
    async fn rate(&self, key: &str, product: &str, user: &str) -> Option<u32> {
        let number = |limit: i64| u32::try_from(limit.max(0)).unwrap_or(u32::MAX);
        match self.entitlements.of(product, user).await {
            Ok(plan) => {
                let rate = plan.requests_per_minute.map(number);
                if self.last_known.get(key) != Some(rate) {
                    self.last_known.insert(key.to_owned(), rate);
                }
                rate
            }
            Err(status) => {
                tracing::debug!(code = ?status.code(), "a user's plan is not known, the last known limit serves");
                self.last_known.get(key).unwrap_or_else(|| self.default_rate(product).map(number))
            }
        }
    }

    fn default_rate(&self, product: &str) -> Option<i64> {
        let product = self.products.get(product)?;
        match product.plan(&product.default_plan)?.requests_per_minute {
            Limit::Unlimited => None,
            Limit::At(number) => Some(number),
        }
    }

    /// The client's address: what the outermost trusted proxy saw, else the other end of the connection.
    fn address(&self, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if self.trusted_proxies == 0 {
            return peer;
        }
        let seen: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .collect();
        let place = seen.len().checked_sub(self.trusted_proxies);
        place.and_then(|place| seen[place].trim().parse().ok()).unwrap_or(peer)
    }
}

/// Nothing that only the inside may say comes from outside.
fn strip_identity(headers: &mut HeaderMap, address: IpAddr) {
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
    let harmless = |text: &&str| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok()).filter(harmless);
    let id: Arc<str> = given.map_or_else(|| new_id().into(), Arc::from);
    if let Ok(mut value) = HeaderValue::from_str(&id) {
        // Different every time: not worth a place in the header compression's table.
        value.set_sensitive(true);
        headers.insert(REQUEST_ID_HEADER, value);
    }
    id
}

/// Who shares an anonymous limit: an IPv4 address, or the /64 that one IPv6 subscriber has.
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
    }
}

/// The value of `grpc-timeout`: at most 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
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
        for bad in ["", "a b", "x".repeat(129).as_str(), "<script>", "é"] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_ne!(&*request_id(&mut headers), bad);
        }
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID_HEADER, HeaderValue::from_static("abc-1.2_3"));
        assert_eq!(&*request_id(&mut headers), "abc-1.2_3");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_limit() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
