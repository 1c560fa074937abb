//! Who is let in, for which product, and how often.
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_auth::{Access, Caller, Claims, Guard, PRODUCT_HEADER, RateClass, TIMEOUT_HEADER, grpc_timeout};
use weft_cache::{Binding, Cache, Decision, Rate};
use weft_core::Reason;
use weft_product::Products;

use crate::exchange::{Exchange, Foreign};
use crate::headers::{check_headers, strip_identity};
use crate::methods::Method;
use crate::rates::Rates;
use crate::visit::Visit;

/// How long an admitted call may take.
pub struct Term {
    /// Until then.
    pub deadline: Instant,
    admitted: Instant,
    /// What the client asked for.
    asked: Option<Duration>,
    user: Option<Arc<Claims>>,
    guard: Guard,
}

impl Term {
    /// Ends when the caller's session does or their account is suspended, and says which; never for who is not signed
    /// in. For streams, which go on long after the caller was looked at.
    pub fn until_over(&self) -> Over {
        let (user, guard) = (self.user.clone(), self.guard.clone());
        Box::pin(async move {
            match user {
                Some(user) => guard.until_over(&user).await,
                None => std::future::pending().await,
            }
        })
    }
}

/// See [`Term::until_over`].
pub type Over = Pin<Box<dyn Future<Output = Status> + Send>>;

/// Who opens a WebSocket.
pub struct Greeted {
    /// As [`Term::until_over`].
    pub over: Over,
    /// When their token expires, in s since 1970; an API key says nothing.
    pub expires: Option<i64>,
    /// Whose it is: an account, or an address.
    pub holder: String,
}

/// What decides who is let in.
pub struct Door {
    guard: Guard,
    exchange: Exchange,
    rates: Rates,
    cache: Cache,
    products: Arc<Products>,
    default_product: HeaderValue,
    rules: Rules,
}

/// One limit that a call has to keep.
struct Limit {
    key: String,
    per_minute: u32,
    /// What is counted, for a sentence: `more than 30 … a minute`.
    of: &'static str,
}

/// What the door is told.
pub struct Rules {
    /// `WEFT_DEFAULT_PRODUCT`.
    pub default_product: String,
    /// `WEFT_EDGE_ANONYMOUS_PER_MINUTE`.
    pub anonymous_per_minute: u32,
    /// `WEFT_EDGE_LOGINS_PER_MINUTE`.
    pub logins_per_minute: u32,
    /// `WEFT_EDGE_WEBHOOKS_PER_MINUTE`.
    pub webhooks_per_minute: u32,
    /// `WEFT_EDGE_TRUSTED_PROXIES`.
    pub trusted_proxies: usize,
    /// Deadline of a unary call whose client names none.
    pub unary_timeout: Duration,
    /// The same where its policy says that it may take longer.
    pub long_timeout: Duration,
    /// Deadline of a stream, and the longest a client may ask for.
    pub stream_limit: Duration,
}

impl Door {
    /// A door. The error is what [`default_product`] says.
    pub fn new(
        guard: Guard,
        exchange: Exchange,
        rates: Rates,
        cache: Cache,
        products: Arc<Products>,
        rules: Rules,
    ) -> Result<Self, String> {
        let default_product = default_product(&products, &rules.default_product)?;
        Ok(Door { guard, exchange, rates, cache, products, default_product, rules })
    }

    /// Lets a call of an RPC in and says how long it may take, or why it is not let in. The headers are then such
    /// that they may go inward: the product and the time are in them, and nothing that only the inside may say.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an unknown product or headers that can be read in two ways; what [`Guard::admit`] says;
    /// `rate_limited`.
    pub async fn admit(&self, method: &Method, parts: &mut Parts, visit: &Visit) -> Result<Term, Status> {
        let address = self.address(&parts.headers, visit.peer);
        let (admitted, asked) = (Instant::now(), grpc_timeout(&parts.headers));
        match self.look(method, parts, address, visit).await {
            Ok(caller) => {
                self.limit(method, &caller, address, visit).await?;
                let mut term =
                    Term { deadline: admitted, admitted, asked, user: caller.user, guard: self.guard.clone() };
                self.time(method, &mut term, &mut parts.headers);
                Ok(term)
            }
            Err(refusal) => Err(self.refuse_from(address, refusal, visit).await),
        }
    }

    /// Lets a client open a WebSocket for an RPC, whose calls are let in one by one later. The handshake counts against the
    /// limit of its address, not against a plan. The headers are then such that they may go inward.
    ///
    /// # Errors
    /// As [`Door::admit`].
    pub async fn greet(&self, method: &Method, parts: &mut Parts, visit: &Visit) -> Result<Greeted, Status> {
        let address = self.address(&parts.headers, visit.peer);
        let foreign = Foreign::of(&parts.headers);
        let caller = match self.look(method, parts, address, visit).await {
            Ok(caller) => caller,
            Err(refusal) => return Err(self.refuse_from(address, refusal, visit).await),
        };
        self.count_from(address, visit).await?;
        let holder = match &caller.user {
            Some(user) => format!("{}/{}", user.prd, user.sub),
            None => network(address),
        };
        // The token that goes inward in the place of another one is renewed as long as that one is good.
        let expires = match (&caller.user, foreign) {
            (Some(_user), Some(foreign)) => foreign.expires(),
            (user, _) => user.as_ref().map(|user| user.exp),
        };
        let now = Instant::now();
        let term = Term { deadline: now, admitted: now, asked: None, user: caller.user, guard: self.guard.clone() };
        Ok(Greeted { over: term.until_over(), expires, holder })
    }

    /// Who is calling.
    async fn look(&self, method: &Method, parts: &mut Parts, address: IpAddr, visit: &Visit) -> Result<Caller, Status> {
        check_headers(&parts.headers)?;
        self.name_product(parts)?;
        strip_identity(&mut parts.headers, address);
        match Foreign::of(&parts.headers) {
            Some(foreign) => self.look_foreign(method, &mut parts.headers, &foreign, (address, visit)).await,
            None => self.guard.admit(&method.path, &parts.headers).await,
        }
    }

    /// Who is calling with a token of another issuer or an API key. Only a token of ours goes inward.
    async fn look_foreign(
        &self,
        method: &Method,
        headers: &mut HeaderMap,
        foreign: &Foreign,
        (address, visit): (IpAddr, &Visit),
    ) -> Result<Caller, Status> {
        let public = self.guard.policies().get(&method.path).is_none_or(|policy| policy.access == Access::Public);
        // An API key is nobody there, and is not asked about.
        if public && foreign.is_key() {
            headers.remove(AUTHORIZATION);
            return self.guard.admit(&method.path, headers).await;
        }
        let mut tried = None;
        loop {
            let may_ask = self.count_asking(address, visit);
            let ours = match self.exchange.token(foreign, headers, tried.as_ref(), may_ask).await {
                Ok(ours) => ours,
                Err(_refusal) if public => {
                    headers.remove(AUTHORIZATION);
                    return self.guard.admit(&method.path, headers).await;
                }
                Err(refusal) => return Err(refusal),
            };
            ours.replace(headers);
            let admitted = self.guard.admit(&method.path, headers).await;
            let refused = match &admitted {
                Ok(caller) => caller.user.is_none(),
                Err(status) => status.code() == Code::Unauthenticated,
            };
            // Withdrawn, because roles changed for instance: the issuer's word may be good for another one.
            if !refused || tried.is_some() {
                return admitted;
            }
            tried = Some(ours);
        }
    }

    /// Counts a request that is not of an RPC against the limit of its address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn count(&self, headers: &HeaderMap, visit: &Visit) -> Result<(), Status> {
        self.count_from(self.address(headers, visit.peer), visit).await
    }

    /// What a request that is refused is told: that its address asks too often, once it does. Guessing tokens, paths
    /// and products costs us as much as a call.
    pub async fn refuse(&self, headers: &HeaderMap, visit: &Visit, refusal: Status) -> Status {
        self.refuse_from(self.address(headers, visit.peer), refusal, visit).await
    }

    async fn refuse_from(&self, address: IpAddr, refusal: Status, visit: &Visit) -> Status {
        // What is our fault is not the caller's.
        if matches!(refusal.code(), Code::Unavailable | Code::Internal) {
            return refusal;
        }
        self.count_from(address, visit).await.err().unwrap_or(refusal)
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

    /// Sets until when an admitted call may take, which the service hears as `grpc-timeout`. Also where another RPC with
    /// the same policy answers than the one that was admitted.
    pub fn time(&self, method: &Method, term: &mut Term, headers: &mut HeaderMap) {
        let streaming = method.client_streaming || method.server_streaming;
        let is_long = || self.guard.policies().get(&method.path).is_some_and(|policy| policy.is_long);
        let default = match streaming {
            true => self.rules.stream_limit,
            false if is_long() => self.rules.long_timeout,
            false => self.rules.unary_timeout,
        };
        let time = term.asked.unwrap_or(default).min(self.rules.stream_limit);
        if let Ok(value) = HeaderValue::try_from(format!("{}m", time.as_millis().min(99_999_999))) {
            headers.insert(TIMEOUT_HEADER, value);
        }
        term.deadline = term.admitted + time;
    }

    /// Counts an admitted call in one step against all limits that speak of it.
    async fn limit(&self, method: &Method, caller: &Caller, address: IpAddr, visit: &Visit) -> Result<(), Status> {
        let policy = self.guard.policies().get(&method.path);
        let class = policy.map_or(RateClass::Plan, |policy| policy.rate_class);
        let product = &caller.product;
        let mut limits = Vec::with_capacity(4);
        match class {
            RateClass::Login => limits.push(Limit {
                key: format!("edge/{product}/login/{}", network(address)),
                per_minute: self.rules.logins_per_minute,
                of: "logins from one address",
            }),
            RateClass::Webhook => limits.push(Limit {
                // By address too: a stranger who sends forgeries must not use up what the outside party needs.
                key: format!("edge/{product}/webhook/{}", network(address)),
                per_minute: self.rules.webhooks_per_minute,
                of: "events from one address",
            }),
            RateClass::Plan => {}
        }
        // Where anybody may call, being somebody opens no second allowance. An outside party sends from few addresses.
        let public = policy.is_none_or(|policy| policy.access == Access::Public);
        if class != RateClass::Webhook && (caller.user.is_none() || public) {
            limits.push(self.anonymous(address));
        }
        if let Some(user) = &caller.user {
            let rates = self.rates.of(&user.prd, &user.sub).await;
            limits.extend(rates.user.map(|per_minute| Limit {
                key: format!("edge/{}/{}", user.prd, user.sub),
                per_minute,
                of: "requests",
            }));
            limits.extend(rates.organization.map(|(payer, per_minute)| Limit {
                key: format!("edge/{}/org/{payer}", user.prd),
                per_minute,
                of: "requests of the organization",
            }));
        }
        self.spend(&limits, visit).await
    }

    /// Counts a request whose token identity has to be asked about, once. Before it is: a guess must cost its guesser more
    /// than identity.
    async fn count_asking(&self, address: IpAddr, visit: &Visit) -> Result<(), Status> {
        if visit.has_asked() {
            return Ok(());
        }
        let asking = Visit::new(visit.peer);
        let outcome = self.count_from(address, &asking).await;
        visit.asked(asking);
        outcome
    }

    async fn count_from(&self, address: IpAddr, visit: &Visit) -> Result<(), Status> {
        if visit.has_asked() {
            return Ok(());
        }
        self.spend(&[self.anonymous(address)], visit).await
    }

    fn anonymous(&self, address: IpAddr) -> Limit {
        let key = format!("edge/anonymous/{}", network(address));
        Limit { key, per_minute: self.rules.anonymous_per_minute, of: "requests" }
    }

    async fn spend(&self, limits: &[Limit], visit: &Visit) -> Result<(), Status> {
        let rates: Vec<(&str, Rate)> =
            limits.iter().map(|limit| (&*limit.key, Rate { per_minute: limit.per_minute })).collect();
        let Some(Binding { limit, decision }) = self.cache.admit_all(&rates).await else { return Ok(()) };
        let Some(Limit { per_minute, of, .. }) = limits.get(limit) else { return Ok(()) };
        visit.counted(*per_minute, decision);
        match decision {
            Decision::Admitted { .. } => Ok(()),
            Decision::Refused { retry_after } => {
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                let message =
                    format!("more than {per_minute} {of} a minute, come back in {} ms", retry_after.as_millis());
                Err(Reason::RateLimited.status_with(message, details))
            }
        }
    }

    /// The client's address: what the outermost trusted proxy saw, else the other end of the connection.
    fn address(&self, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if self.rules.trusted_proxies == 0 {
            return peer;
        }
        let seen: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .collect();
        let place = seen.len().checked_sub(self.rules.trusted_proxies);
        let seen = place.and_then(|place| seen[place].trim().parse::<IpAddr>().ok());
        seen.map_or(peer, |address| address.to_canonical())
    }
}

/// The slug of the product of requests that name none, as a header. The error is a sentence about it.
pub fn default_product(products: &Products, slug: &str) -> Result<HeaderValue, String> {
    let known = products.get(slug).and_then(|product| HeaderValue::from_str(&product.slug).ok());
    known.ok_or_else(|| format!("there is no product `{slug}`"))
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
