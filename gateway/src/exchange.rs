//! Tokens of other issuers, and API keys, as bearers: identity gives a token of ours for each, and only that one goes
//! inward.
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::policy::EvictionPolicy;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use weft_auth::{PRODUCT_HEADER, REQUEST_ID_HEADER, bearer, claimed, is_api_key, may_be_api_key, not_valid};
use weft_core::{Clock, Reason};
use weft_proto::Channel;
use weft_proto::identity::v1::ExchangeTokenRequest;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;

/// Exchanged tokens that are remembered. One takes about 1 KiB.
const MAX_KNOWN: u64 = 20_000;
/// Refused tokens that are remembered; apart, so that a flood of them displaces no good one.
const MAX_REFUSED: u64 = 10_000;
/// How long a token that was refused is not asked about again.
const REFUSED_FOR: Duration = Duration::from_secs(3);
/// So long before a token of ours expires another one is asked for, if the issuer's lives longer, in ms.
const MARGIN_MS: i64 = 5_000;
/// How long identity may take: at a first login it fetches the issuer's keys.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What identity hears of a call besides the token.
const HEADERS: [HeaderName; 4] = [
    HeaderName::from_static(PRODUCT_HEADER),
    HeaderName::from_static(REQUEST_ID_HEADER),
    HeaderName::from_static("x-forwarded-for"),
    USER_AGENT,
];

/// Where tokens of other issuers are exchanged.
pub struct Exchange {
    identity: AuthServiceClient<Channel>,
    clock: Clock,
    known: moka::future::Cache<[u8; 32], Known>,
    refused: moka::sync::Cache<[u8; 32], Status>,
}

/// A token of another issuer, or an API key.
pub struct Foreign {
    token: String,
    /// Of the product and the token.
    digest: [u8; 32],
    /// When it expires by its own word, in s since 1970; an API key says nothing.
    expires: Option<i64>,
}

/// A token of ours for one of another issuer, as a header.
#[derive(Clone)]
pub struct Known {
    header: Arc<HeaderValue>,
    /// Until when it is used, in ms since 1970.
    until_ms: i64,
}

impl Foreign {
    /// The bearer of these headers, if it is a token of another issuer or an API key.
    pub fn of(headers: &HeaderMap) -> Option<Foreign> {
        let token = bearer(headers.get(AUTHORIZATION)?.to_str().ok()?)?;
        let expires = if is_api_key(token) { None } else { Some(claimed(token)?.expires) };
        let product = headers.get(PRODUCT_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
        let digest = Sha256::new().chain_update(product).chain_update([0]).chain_update(token).finalize().into();
        Some(Foreign { token: token.to_owned(), digest, expires })
    }

    /// When it expires by its own word, in s since 1970; None: an API key.
    pub fn expires(&self) -> Option<i64> {
        self.expires
    }

    /// Whether it is an API key, which is nobody where anybody may call.
    pub fn is_key(&self) -> bool {
        is_api_key(&self.token)
    }
}

impl Known {
    /// Puts it in the place of what came.
    pub fn replace(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.header.as_ref().clone());
    }
}

impl Exchange {
    /// Asks this identity.
    pub fn new(identity: AuthServiceClient<Channel>, clock: Clock) -> Exchange {
        let known =
            moka::future::Cache::builder().max_capacity(MAX_KNOWN).eviction_policy(EvictionPolicy::lru()).build();
        let refused = moka::sync::Cache::builder().max_capacity(MAX_REFUSED).time_to_live(REFUSED_FOR).build();
        Exchange { identity, clock, known, refused }
    }

    /// A token of ours; another one than `tried`, which turned out to be withdrawn. Calls with one token at once share
    /// one question. `may_ask` is only awaited where identity has to be asked.
    ///
    /// # Errors
    /// What `may_ask` says; UNAUTHENTICATED, the same as for any bad token; PERMISSION_DENIED (`account_suspended`);
    /// UNAVAILABLE if identity cannot be asked.
    pub async fn token(
        &self,
        foreign: &Foreign,
        headers: &HeaderMap,
        tried: Option<&Known>,
        may_ask: impl Future<Output = Result<(), Status>>,
    ) -> Result<Known, Status> {
        if foreign.is_key() && !may_be_api_key(&foreign.token) {
            return Err(not_valid());
        }
        if let Some(known) = self.known.get(&foreign.digest).await {
            let withdrawn = tried.is_some_and(|tried| Arc::ptr_eq(&tried.header, &known.header));
            if !withdrawn && self.clock.now_ms() < known.until_ms {
                return Ok(known);
            }
            self.known.invalidate(&foreign.digest).await;
        }
        if let Some(refusal) = self.refused.get(&foreign.digest) {
            return Err(refusal);
        }
        // Here, and not in the question: others who share it may be at other addresses.
        may_ask.await?;
        let asked = self.known.try_get_with(foreign.digest, self.ask(foreign, headers)).await;
        asked.map_err(|status| {
            let refusal = Status::clone(&status);
            if Reason::of(&refusal) != Some(Reason::Unavailable) {
                self.refused.insert(foreign.digest, refusal.clone());
            }
            refusal
        })
    }

    async fn ask(&self, foreign: &Foreign, headers: &HeaderMap) -> Result<Known, Status> {
        let mut request = Request::new(ExchangeTokenRequest { token: foreign.token.clone() });
        let told = HEADERS.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        *request.metadata_mut() = MetadataMap::from_headers(told.collect());
        request.set_timeout(TIMEOUT);
        let answer = match timeout(TIMEOUT, self.identity.clone().exchange_token(request)).await {
            Ok(answer) => answer.map_err(|status| refusal(&status))?.into_inner(),
            Err(_elapsed) => return Err(unavailable()),
        };
        let mut header = HeaderValue::try_from(format!("Bearer {}", answer.access_token)).map_err(|_| unavailable())?;
        header.set_sensitive(true);
        // A token that ends with the issuer's is used to its end: there is no longer one to be had.
        let last = foreign.expires.is_some_and(|expires| answer.expires_at >= expires.saturating_mul(1000));
        let early = answer.expires_at - MARGIN_MS;
        // Nor if there is no time left to ask for another one in.
        let until_ms = if last || early <= self.clock.now_ms() { answer.expires_at } else { early };
        Ok(Known { header: Arc::new(header), until_ms })
    }
}

/// What of identity's answer a client learns.
fn refusal(status: &Status) -> Status {
    match Reason::of(status) {
        Some(Reason::Unauthenticated) => not_valid(),
        Some(Reason::AccountSuspended) => Reason::AccountSuspended.status(status.message()),
        _ => {
            tracing::warn!(code = ?status.code(), "identity did not exchange a token");
            unavailable()
        }
    }
}

fn unavailable() -> Status {
    Reason::Unavailable.status("tokens cannot be checked right now, try again")
}
