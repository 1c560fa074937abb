//! Who is let in, for which product, and how often.
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_auth::{Access, Caller, Entitlements, Guard, PRODUCT_HEADER, TIMEOUT_HEADER, grpc_timeout};
use weft_cache::{Cache, Decision, Rate};
use weft_core::Reason;
use weft_product::{Limit, Products};
use weft_runtime::Tasks;

use crate::headers::{check_headers, strip_identity};
use crate::methods::Method;

/// How long the last known limit of a user serves while billing is away.
const REMEMBER: Duration = Duration::from_secs(600);
/// How long a call of a user whose limit was known waits for billing.
const BILLING_WITHIN: Duration = Duration::from_millis(100);
/// How long billing is not asked after it did not answer, so that not every call waits.
const BILLING_AWAY: Duration = Duration::from_millis(500);
/// Users whose limit is remembered.
const REMEMBERED_USERS: u64 = 100_000;

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
    /// When billing last did not answer.
    billing_failed: Mutex<Option<Instant>>,
    tasks: Tasks,
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
    /// A door. The error is what [`default_product`] says.
    pub fn new(
        guard: Guard,
        entitlements: Entitlements,
        cache: Cache,
        products: Arc<Products>,
        rules: Rules,
        tasks: Tasks,
    ) -> Result<Self, String> {
        Ok(Door {
            default_product: default_product(&products, &rules.default_product)?,
            anonymous_per_minute: rules.anonymous_per_minute,
            trusted_proxies: rules.trusted_proxies,
            unary_timeout: rules.unary_timeout,
            stream_limit: rules.stream_limit,
            last_known: moka::sync::Cache::builder().max_capacity(REMEMBERED_USERS).time_to_live(REMEMBER).build(),
            billing_failed: Mutex::default(),
            guard,
            entitlements,
            cache,
            products,
            tasks,
        })
    }

    /// Lets a call of an RPC in and says until when it may take, or why it is not let in. The headers are then such
    /// that they may go inward: the product and the time are in them, and nothing that only the inside may say.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unknown product or headers that can be read in two ways; what [`Guard::admit`] says;
    /// `rate_limited`.
    pub async fn admit(&self, method: &Method, parts: &mut Parts, peer: SocketAddr) -> Result<Instant, Status> {
        let address = self.address(&parts.headers, peer);
        let deadline = self.time(method, &mut parts.headers);
        match self.look(method, parts, address).await {
            Ok(caller) => self.limit(method, &caller, address).await?,
            Err(refusal) => return Err(self.refuse_from(address, refusal).await),
        }
        Ok(deadline)
    }

    /// Who is calling.
    async fn look(&self, method: &Method, parts: &mut Parts, address: IpAddr) -> Result<Caller, Status> {
        check_headers(&parts.headers)?;
        self.name_product(parts)?;
        strip_identity(&mut parts.headers, address);
        self.guard.admit(&method.path, &parts.headers).await
    }

    /// Counts a request that is not of an RPC against the limit of its address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn count(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<(), Status> {
        self.count_from(self.address(headers, peer)).await
    }

    /// What a request that is refused is told: that its address asks too often, once it does. Guessing tokens, paths
    /// and products costs us as much as a call.
    pub async fn refuse(&self, headers: &HeaderMap, peer: SocketAddr, refusal: Status) -> Status {
        self.refuse_from(self.address(headers, peer), refusal).await
    }

    async fn refuse_from(&self, address: IpAddr, refusal: Status) -> Status {
        // What is our fault is not the caller's.
        if matches!(refusal.code(), Code::Unavailable | Code::Internal) {
            return refusal;
        }
        self.count_from(address).await.err().unwrap_or(refusal)
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
        let asked = grpc_timeout(headers);
        let streaming = method.client_streaming || method.server_streaming;
        let default = if streaming { self.stream_limit } else { self.unary_timeout };
        let time = asked.unwrap_or(default).min(self.stream_limit);
        if let Ok(value) = HeaderValue::try_from(format!("{}m", time.as_millis().min(99_999_999))) {
            headers.insert(TIMEOUT_HEADER, value);
        }
        Instant::now() + time
    }

    async fn limit(&self, method: &Method, caller: &Caller, address: IpAddr) -> Result<(), Status> {
        // Where anybody may call, being somebody opens no second allowance.
        let policy = self.guard.policies().get(&method.path);
        if caller.user.is_none() || policy.is_none_or(|policy| policy.access == Access::Public) {
            self.count_from(address).await?;
        }
        let Some(user) = &caller.user else { return Ok(()) };
        let key = format!("edge/{}/{}", user.prd, user.sub);
        match self.rate(&key, &user.prd, &user.sub).await {
            Some(per_minute) => self.spend(&key, per_minute).await,
            None => Ok(()),
        }
    }

    async fn count_from(&self, address: IpAddr) -> Result<(), Status> {
        self.spend(&format!("edge/anonymous/{}", network(address)), self.anonymous_per_minute).await
    }

    async fn spend(&self, key: &str, per_minute: u32) -> Result<(), Status> {
        match self.cache.admit(key, Rate { per_minute }).await {
            Decision::Admitted { .. } => Ok(()),
            Decision::Refused { retry_after } => {
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                let message =
                    format!("more than {per_minute} requests a minute, come back in {} ms", retry_after.as_millis());
                Err(Reason::RateLimited.status_with(message, details))
            }
        }
    }

    /// Requests a minute of a user; None is unlimited. While billing is away or slow the last known number serves,
    /// then that of the product's default plan: never unlimited, never an error.
    async fn rate(&self, key: &str, product: &str, user: &str) -> Option<u32> {
        let known = self.last_known.get(key);
        let fallback = || known.unwrap_or_else(|| self.default_rate(product));
        if self.billing_failed_just_now() {
            return fallback();
        }
        let patience = if known.is_some() { BILLING_WITHIN } else { Duration::MAX };
        match timeout(patience, self.entitlements.of(product, user)).await {
            Ok(Ok(plan)) => {
                let rate = plan.requests_per_minute.map(number);
                if known != Some(rate) {
                    self.last_known.insert(key.to_owned(), rate);
                }
                rate
            }
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), "a user's plan is not known, the last known limit serves");
                if status.code() == Code::Unavailable {
                    self.remember_failure();
                }
                fallback()
            }
            Err(_elapsed) => {
                self.remember_failure();
                self.ask_on(key, product, user);
                fallback()
            }
        }
    }

    /// Goes on asking: a billing that is always slow would otherwise never be heard.
    fn ask_on(&self, key: &str, product: &str, user: &str) {
        let (entitlements, last_known) = (self.entitlements.clone(), self.last_known.clone());
        let (key, product, user) = (key.to_owned(), product.to_owned(), user.to_owned());
        self.tasks.spawn("rate", async move {
            if let Ok(plan) = entitlements.of(&product, &user).await {
                last_known.insert(key, plan.requests_per_minute.map(number));
            }
        });
    }

    fn billing_failed_just_now(&self) -> bool {
        let failed = *self.billing_failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < BILLING_AWAY)
    }

    fn remember_failure(&self) {
        *self.billing_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn default_rate(&self, product: &str) -> Option<u32> {
        let product = self.products.get(product)?;
        match product.plan(&product.default_plan)?.requests_per_minute {
            Limit::Unlimited => None,
            Limit::At(limit) => Some(number(limit)),
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

/// The slug of the product of requests that name none, as a header. The error is a sentence about it.
pub fn default_product(products: &Products, slug: &str) -> Result<HeaderValue, String> {
    let known = products.get(slug).and_then(|product| HeaderValue::from_str(&product.slug).ok());
    known.ok_or_else(|| format!("there is no product `{slug}`"))
}

/// A limit of a plan as a rate.
fn number(limit: i64) -> u32 {
    u32::try_from(limit.max(0)).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_limit() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::3"), network("2001:db8:1:3::3"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
