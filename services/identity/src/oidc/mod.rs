//! Providers of OpenID Connect: their discovery documents, their token endpoints, and what their id tokens say.
//!
//! A provider is the operator's, or whatever an organisation says it is. The second kind is asked through a client that
//! reaches nothing inside, over https, and believed in nothing but what it says of itself.
mod document;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use reqwest::{RequestBuilder, Response, Url};
use secrecy::SecretString;
use tokio::time::timeout;
use weft_auth::{ExternalClaims, ExternalError, ExternalKeys, Fetched, Rules};
use weft_core::Clock;
use weft_runtime::outbound::{self, Networks, OutboundError, Reach};

pub use document::Provider;

use crate::domain::provider::LoginSecrets;

/// How long a connection to a provider may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How long everything that is asked of a provider for one call may take, so that the caller has an answer within 5 s.
const TIMEOUT: Duration = Duration::from_millis(4_500);
/// How long a discovery document is believed.
const DOCUMENT_AGE: Duration = Duration::from_secs(10 * 60);
/// Most documents, and lists of keys, that are kept.
const MOST_KEPT: u64 = 1_000;
/// Largest discovery document in bytes.
const DOCUMENT_BYTES: usize = 64 * 1024;
/// Largest list of keys in bytes.
const KEYS_BYTES: usize = 256 * 1024;

/// Why a provider is of no use. Nothing of what it said is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It cannot be reached, or not now.
    #[error("the identity provider cannot be asked")]
    Away,
    /// Its address may not be asked.
    #[error("the address of the identity provider is not public")]
    Inside,
    /// It is no provider, or not this one; in words what is wrong.
    #[error("{0}")]
    Wrong(&'static str),
    /// It did not vouch for who wants to sign in.
    #[error("the identity provider refused the login: {0}")]
    Refused(&'static str),
}

/// Ourselves at a provider.
pub struct Registration {
    /// Who named the provider.
    pub reach: Reach,
    /// The issuer, exactly.
    pub issuer: String,
    /// Our client id there.
    pub client_id: String,
    /// Our client secret there; none for a public client.
    pub client_secret: Option<SecretString>,
    /// Its keys; none: those that its discovery document names.
    pub keys: Option<ExternalKeys>,
}

/// What a provider sent the browser back with.
pub struct Answer<'a> {
    /// `code`.
    pub code: &'a str,
    /// `iss`, or empty.
    pub issuer: &'a str,
    /// Where to.
    pub redirect_uri: &'a str,
    /// What belongs to its state.
    pub secrets: &'a LoginSecrets,
}

/// All providers that are asked.
pub struct Providers {
    clock: Clock,
    allowed: Networks,
    operators: outbound::Client,
    public: outbound::Client,
    documents: Cache<(bool, String), Arc<Provider>>,
    keys: Cache<(bool, String), ExternalKeys>,
}

impl Providers {
    /// `allowed` are the networks that providers of organisations may be in besides public ones.
    ///
    /// Errors: [`OutboundError::Client`].
    pub fn new(clock: Clock, allowed: Networks) -> Result<Providers, OutboundError> {
        let client = |reach| {
            let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
            outbound::client(reach, &allowed, builder)
        };
        let kept = || Cache::builder().max_capacity(MOST_KEPT);
        Ok(Providers {
            clock,
            operators: client(Reach::Operator)?,
            public: client(Reach::Public)?,
            documents: kept().time_to_live(DOCUMENT_AGE).build(),
            keys: Cache::new(MOST_KEPT),
            allowed,
        })
    }

    /// Which networks providers of organisations may be in besides public ones.
    pub fn allowed(&self) -> &Networks {
        &self.allowed
    }

    /// What a provider says of itself; at most 10 minutes old, concurrent callers share one request.
    ///
    /// Errors: all but [`ProviderError::Refused`].
    pub async fn find(&self, reach: Reach, issuer: &str) -> Result<Arc<Provider>, ProviderError> {
        let key = (reach == Reach::Operator, issuer.to_owned());
        let found = self.documents.try_get_with(key, async { self.fetch(reach, issuer).await.map(Arc::new) });
        within(TIMEOUT, async { found.await.map_err(|error| *error) }).await
    }

    /// The same, asked now.
    ///
    /// Errors: all but [`ProviderError::Refused`].
    pub async fn find_now(&self, reach: Reach, issuer: &str) -> Result<Arc<Provider>, ProviderError> {
        self.documents.invalidate(&(reach == Reach::Operator, issuer.to_owned())).await;
        self.find(reach, issuer).await
    }

    /// What the provider says of who signs in, for the code that it gave.
    ///
    /// Errors: all but [`ProviderError::Inside`], which is [`ProviderError::Away`] by then.
    pub async fn claims(
        &self,
        registration: &Registration,
        answer: &Answer<'_>,
    ) -> Result<ExternalClaims, ProviderError> {
        within(TIMEOUT, async {
            let provider = self.find(registration.reach, &registration.issuer).await?;
            provider.check_issuer(answer.issuer)?;
            let client = self.client(registration.reach);
            let id_token = tokens::exchange(client, &provider, registration, answer).await?;
            let keys = match &registration.keys {
                Some(keys) => keys.clone(),
                None => self.keys_of(registration.reach, &provider.keys).await,
            };
            let rules = Rules {
                issuer: registration.issuer.clone(),
                audiences: vec![registration.client_id.clone()],
                authorized_parties: Vec::new(),
            };
            let claims = keys.verify(&id_token, &rules).await.map_err(|error| match error {
                ExternalError::NotValid => ProviderError::Refused("the id token is not valid"),
                ExternalError::Unavailable => ProviderError::Away,
            })?;
            tokens::check(&claims, registration, answer.secrets)?;
            Ok(claims)
        })
        .await
    }

    fn client(&self, reach: Reach) -> &outbound::Client {
        if reach == Reach::Operator { &self.operators } else { &self.public }
    }

    async fn fetch(&self, reach: Reach, issuer: &str) -> Result<Provider, ProviderError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let bytes = get(self.client(reach), &url, DOCUMENT_BYTES).await?;
        Provider::read(&bytes, reach, issuer, &self.allowed)
    }

    async fn keys_of(&self, reach: Reach, url: &Url) -> ExternalKeys {
        let make = async {
            let (client, from) = (self.client(reach).clone(), url.clone());
            ExternalKeys::new(url.as_str(), self.clock.clone(), move || fetched(client.clone(), from.clone()))
        };
        self.keys.get_with((reach == Reach::Operator, url.to_string()), make).await
    }
}

fn fetched(client: outbound::Client, url: Url) -> Fetched {
    Box::pin(async move { get(&client, url.as_str(), KEYS_BYTES).await.map_err(|error| error.to_string()) })
}

/// A body of at most `most` bytes.
async fn get(client: &outbound::Client, url: &str, most: usize) -> Result<Vec<u8>, ProviderError> {
    let response = send(client.get(url)).await?;
    match response.status().as_u16() {
        200 => body(response, most).await,
        408 | 429 | 500.. => Err(ProviderError::Away),
        _ => Err(ProviderError::Wrong("the issuer has no discovery document, check its URL")),
    }
}

/// What came of a request. What went wrong on the way is told by its kind only: URLs may have secrets.
async fn send(request: Result<RequestBuilder, OutboundError>) -> Result<Response, ProviderError> {
    let request = request.map_err(|error| match error {
        OutboundError::Inside => ProviderError::Inside,
        _ => ProviderError::Wrong("the URL cannot be used"),
    })?;
    let request = request.header("accept", "application/json");
    request.send().await.map_err(|error| {
        tracing::warn!(error = %error.without_url(), "an identity provider could not be asked");
        ProviderError::Away
    })
}

async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, ProviderError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| ProviderError::Away)? {
        if bytes.len() + chunk.len() > most {
            return Err(ProviderError::Wrong("the issuer's answer is too long"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    timeout(time, work).await.unwrap_or(Err(ProviderError::Away))
}
