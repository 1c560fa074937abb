//! One account of Stripe's: how it is asked, how long, how often, and what its refusals mean.
//!
//! Requests are async-stripe's types. Answers are read by serde into the few fields that are of use: a field that
//! Stripe adds, moves or leaves out elsewhere breaks nothing.
use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use stripe::{Client, ClientBuilder, IdempotencyKey, RequestStrategy, StripeError, StripeRequest};
use stripe_client_core::{CustomizableStripeRequest, RequestBuilder};

use crate::error::Error;

const API_BASE: &str = "https://api.stripe.com";
/// Everything that one of our calls asks of Stripe, repetitions included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// One request, with its connection and its answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(4500);
/// Most requests for one call.
const ATTEMPTS: u32 = 6;
/// The wait before the second request; it doubles.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Stripe's own limit is 255 characters; a hash keeps what a key is made of out of Stripe's logs.
const KEY_PREFIX: &str = "weft-";

/// An account of Stripe's. Cheap to clone.
#[derive(Clone)]
pub struct Stripe {
    client: Client,
}

/// How often a request may have its effect.
#[derive(Clone, Copy, Debug)]
pub enum Once<'a> {
    /// It has none.
    Reads,
    /// Once: after an error of Stripe's own nobody knows whether it took place, and it is not tried again.
    Moves(&'a str),
    /// A second effect would do no harm: what is made is only used if it is answered.
    Makes(&'a str),
}

/// What Stripe refuses, for the log.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: String,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl Stripe {
    /// None: the key or the address cannot stand in a request.
    pub fn new(key: &SecretString, api_base: Option<&str>) -> Option<Stripe> {
        let base = api_base.unwrap_or(API_BASE).trim_end_matches('/');
        let client = ClientBuilder::new(key.expose_secret()).url(base).timeout(ATTEMPT_TIMEOUT).build().ok()?;
        Some(Stripe { client })
    }

    /// Asks, again if that is safe, for at most [`CALL_TIMEOUT`].
    ///
    /// # Errors
    /// [`Error::PaymentsUnavailable`] without a usable answer, [`Error::NotNow`] for a declined card,
    /// [`Error::PaymentsRefused`] for every other refusal. Stripe's words are logged here and stay here.
    pub async fn send<T: DeserializeOwned>(&self, request: &impl StripeRequest, once: Once<'_>) -> Result<T, Error> {
        self.send_built(|| request.build(), once).await
    }

    /// The same for a request that async-stripe has no type for.
    ///
    /// # Errors
    /// As [`Stripe::send`].
    pub async fn send_built<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> RequestBuilder,
        once: Once<'_>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.attempts(request, once)).await;
        let text = answer.unwrap_or(Err(StripeError::Timeout)).map_err(meaning)?;
        serde_json::from_str(&text).map_err(|error| Error::PaymentsUnavailable(error.into()))
    }

    /// The same with Stripe's own error, where more than its [`meaning`] matters.
    ///
    /// # Errors
    /// What Stripe answered, or that it did not.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        request: &impl StripeRequest,
        once: Once<'_>,
    ) -> Result<T, StripeError> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.attempts(|| request.build(), once)).await;
        let text = answer.unwrap_or(Err(StripeError::Timeout))?;
        serde_json::from_str(&text).map_err(|error| StripeError::JSONDeserialize(error.to_string()))
    }

    async fn attempts(&self, request: impl Fn() -> RequestBuilder, once: Once<'_>) -> Result<String, StripeError> {
        let (mut wait, mut generation) = (RETRY_AFTER, 1);
        let mut attempt = 1;
        loop {
            let error = match self.attempt(request(), once, generation).await {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            let again = match (&error, once) {
                // Stripe keeps this answer for the key; under another key it would be another request.
                (StripeError::Stripe(_, 500), Once::Makes(_)) => {
                    generation += 1;
                    true
                }
                (StripeError::Stripe(_, 500), Once::Moves(_)) => false,
                (StripeError::Stripe(_, status), _) => matches!(status, 409 | 424 | 429 | 500..=599),
                (StripeError::ClientError(_) | StripeError::Timeout | StripeError::JSONDeserialize(_), _) => true,
                (StripeError::ConfigError(_), _) => false,
            };
            // Somebody else's request with our key is waited for; a server that is away is given up on sooner.
            let most = if matches!(error, StripeError::Stripe(_, 409)) { ATTEMPTS } else { ATTEMPTS / 2 };
            if !again || attempt >= most {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
            wait *= 2;
        }
    }

    async fn attempt(&self, request: RequestBuilder, once: Once<'_>, generation: u32) -> Result<String, StripeError> {
        let strategy = match once {
            Once::Reads => RequestStrategy::Once,
            Once::Moves(key) | Once::Makes(key) => {
                let key = if generation == 1 { key.to_owned() } else { format!("{key}-{generation}") };
                let key = IdempotencyKey::new(key).map_err(|error| StripeError::ConfigError(error.to_string()))?;
                RequestStrategy::Idempotent(key)
            }
        };
        let request: CustomizableStripeRequest<miniserde::json::Value> = request.customize();
        let answer = request.request_strategy(strategy).send(&self.client).await?;
        Ok(miniserde::json::to_string(&answer))
    }
}

/// The key of a request that may have its effect once, from what makes it the same request.
pub fn key(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{KEY_PREFIX}{hash}")
}

/// Whether Stripe says that there is no such thing.
pub fn is_missing(error: &Error) -> bool {
    let Error::PaymentsRefused(source) = error else { return false };
    source.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == "resource_missing")
}

/// What an error of Stripe's is for our callers; logged here.
pub fn meaning(error: StripeError) -> Error {
    let StripeError::Stripe(told, status) = error else {
        tracing::warn!(%error, "Stripe does not answer");
        return Error::PaymentsUnavailable(error.into());
    };
    let refusal = Refusal {
        status,
        code: told.code.as_ref().map(|code| code.as_str().to_owned()).unwrap_or_default(),
        message: told.message.clone().unwrap_or_default(),
    };
    let param = told.param.as_deref().unwrap_or_default();
    match status {
        401 | 403 => {
            tracing::error!(%refusal, "Stripe does not accept the key, check STRIPE_SECRET_KEY");
            Error::PaymentsUnavailable(refusal.into())
        }
        402 => {
            tracing::info!(%refusal, "the card was declined");
            Error::NotNow("the payment was declined, use another payment method".to_owned())
        }
        409 | 424 | 429 | 500..=599 => {
            tracing::warn!(%refusal, "Stripe has trouble");
            Error::PaymentsUnavailable(refusal.into())
        }
        _ => {
            tracing::warn!(%refusal, param, "Stripe refuses");
            Error::PaymentsRefused(refusal.into())
        }
    }
}
