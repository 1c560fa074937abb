//! Requests to servers outside of the mesh.
//!
//! Where users may say who is asked, nobody inside may be asked. Every address is checked in the moment of the
//! connection, and the connection goes to the checked address: a name cannot first show one address and then another.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, IntoUrl, Method, RequestBuilder, Url, redirect};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Whom a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Who the operator named, inside or outside.
    Operator,
    /// Who a user named: only what the internet knows, and what the operator allows besides.
    Public,
}

/// Why a request cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The client could not be built.
    #[error("the http client could not be built")]
    Client(#[source] reqwest::Error),
    /// The text is no URL.
    #[error("the URL cannot be used: write https://host/path")]
    Url(#[source] reqwest::Error),
    /// The URL's host is an address that may not be asked.
    #[error(
        "the URL leads to an address that is not public; use one that is, or allow it with WEFT_ALLOW_PRIVATE_ADDRESSES"
    )]
    Inside,
}

/// A client that follows no redirect, takes no proxy from the environment and asks only whom it may.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// None: anybody.
    allowed: Option<Networks>,
}

/// Makes a client of a builder that has the times and headers. `allowed` is
/// [`MeshConfig::weft_allow_private_addresses`](crate::MeshConfig::weft_allow_private_addresses).
///
/// # Errors
/// [`OutboundError::Client`].
pub fn client(reach: Reach, allowed: &Networks, builder: ClientBuilder) -> Result<Client, OutboundError> {
    client_over(reach, allowed, builder, Arc::new(System))
}

fn client_over(
    reach: Reach,
    allowed: &Networks,
    builder: ClientBuilder,
    names: Arc<dyn Resolve>,
) -> Result<Client, OutboundError> {
    // The process normally installs it; a test may not have.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let builder = builder.redirect(redirect::Policy::none()).no_proxy();
    let allowed = (reach == Reach::Public).then(|| allowed.clone());
    let builder = match &allowed {
        Some(allowed) => builder.dns_resolver(Arc::new(Checked { names, allowed: allowed.clone() })),
        None => builder,
    };
    Ok(Client { http: builder.build().map_err(OutboundError::Client)?, allowed })
}

impl Client {
    /// A GET request.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn get(&self, url: impl IntoUrl) -> Result<RequestBuilder, OutboundError> {
        self.request(Method::GET, url)
    }

    /// A POST request.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn post(&self, url: impl IntoUrl) -> Result<RequestBuilder, OutboundError> {
        self.request(Method::POST, url)
    }

    /// A request. A name in the URL is checked when it is sent: then it fails as a connection does.
    ///
    /// # Errors
    /// [`OutboundError::Url`], [`OutboundError::Inside`].
    pub fn request(&self, method: Method, url: impl IntoUrl) -> Result<RequestBuilder, OutboundError> {
        let url = url.into_url().map_err(OutboundError::Url)?;
        if let Some(allowed) = &self.allowed
            && !allowed.may_name(&url)
        {
            return Err(OutboundError::Inside);
        }
        Ok(self.http.request(method, url))
    }
}

/// Whether a failed request never left because its name led inside.
pub fn led_inside(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<LeadsInside>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[derive(Debug, thiserror::Error)]
#[error("the name has no address that is public")]
struct LeadsInside;

/// Gives only addresses that may be asked.
struct Checked {
    names: Arc<dyn Resolve>,
    allowed: Networks,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, allowed) = (self.names.resolve(name), self.allowed.clone());
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = found.await?.filter(|address| allowed.may_ask(address.ip())).collect();
            if addresses.is_empty() {
                return Err(LeadsInside.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The names as the machine knows them.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Networks that may be asked although they are not public: `10.1.0.0/16,::1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Arc<[Network]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    prefix: u32,
}

/// What is not public of IPv4 (RFC 6890 and its registry).
const INSIDE_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// All that is public of IPv6.
const OUTSIDE_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// What is not public of that: protocols' own (with Teredo), documentation twice.
const INSIDE_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

impl Networks {
    /// Whether a URL may be used: it has a name, which is checked later, or an address that may be asked.
    pub fn may_name(&self, url: &Url) -> bool {
        match address_of(url) {
            Some(address) => self.may_ask(address),
            None => url.host_str().is_some(),
        }
    }

    /// Whether an address is public or allowed.
    pub fn may_ask(&self, address: IpAddr) -> bool {
        is_public(address) || self.allows(address)
    }

    /// Whether the address, or the one that it stands for, is in one of the networks.
    pub fn allows(&self, address: IpAddr) -> bool {
        let stands_for = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded(address).map(IpAddr::V4),
        };
        let among = |address: IpAddr| self.0.iter().any(|network| network.has(address));
        among(address) || stands_for.is_some_and(among)
    }
}

/// The address in a URL that has one instead of a name, however it is written.
pub fn address_of(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => within_v6(address, OUTSIDE_V6) && !INSIDE_V6.iter().any(|inside| within_v6(address, *inside)),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !INSIDE_V4.iter().any(|(base, prefix)| Network { base: IpAddr::V4(*base), prefix: *prefix }.has(address.into()))
}

fn within_v6(address: Ipv6Addr, (base, prefix): (Ipv6Addr, u32)) -> bool {
    Network { base: base.into(), prefix }.has(address.into())
}

/// The IPv4 address that an IPv6 one leads to: mapped (`::ffff:…`), NAT64 (`64:ff9b::…`), 6to4 (`2002:…`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differ = base.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = "must be networks with commas between them, such as 10.1.0.0/16,::1";
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base: IpAddr = base.parse().map_err(|_| problem)?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).ok().filter(|prefix| *prefix <= most).ok_or(problem)?;
        Ok(Network { base, prefix })
    }
}

impl FromStr for Networks {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<Vec<_>, _>>().map(|networks| Networks(networks.into()))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
