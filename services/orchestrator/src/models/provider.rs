//! A provider, asked over HTTP in its dialect.
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Response, Url};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};

use crate::config::{Account, Config};
use crate::error::Error;
use crate::models::assembly::Assembly;
use crate::models::body::{bounded, collect};
use crate::models::dialect::Dialect;
use crate::models::event::Event;
use crate::models::openai::Cap;
use crate::models::vendor::Vendor;
use crate::models::{Break, Call, Completion, ModelError, Speaker, refusal};

/// Pauses before the retries, where the provider does not say how long.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];
/// Longest pause that a provider may ask for; for more the caller is told to come back.
const RETRY_PAUSE_MOST: Duration = Duration::from_secs(2);
/// So much of a refusal is read.
const REFUSAL_BYTES: usize = 16 * 1024;

/// A provider.
pub struct Provider {
    vendor: &'static Vendor,
    dialect: Dialect,
    http: reqwest::Client,
    base: Url,
    takes_any_model: bool,
    first_byte: Duration,
    idle: Duration,
    plain: Duration,
    response_bytes: usize,
}

impl Provider {
    /// A client for the vendor, or for who stands in for it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL or key that cannot be used, [`Error::Client`] if TLS cannot be set up.
    pub fn new(vendor: &'static Vendor, account: Account, config: &Config) -> Result<Provider, Error> {
        let takes_any_model = account.url.is_some();
        let dialect = match vendor.dialect {
            Dialect::OpenAi(_) if takes_any_model => Dialect::OpenAi(Cap::MaxTokens),
            dialect => dialect,
        };
        let unusable =
            Error::Config { key: vendor.url, problem: "must be an http or https URL, such as https://host/v1" };
        let base = Url::parse(account.url.as_deref().unwrap_or(vendor.home)).ok();
        let base = base.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(unusable)?;
        let key = account.key.as_ref().map(|key| key.expose_secret().trim());
        let unsendable = Error::Config { key: vendor.key, problem: "holds a character that no key has" };
        // The process normally installs it; a test may not have.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(config.weft_model_connect_ms))
            .default_headers(dialect.headers(key).ok_or(unsendable)?)
            // A redirect would carry the user's words somewhere the operator did not name.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Client)?;
        Ok(Provider {
            vendor,
            dialect,
            http,
            base: dialect.versioned(base),
            takes_any_model,
            first_byte: Duration::from_millis(config.weft_model_first_byte_ms),
            idle: Duration::from_millis(config.weft_model_idle_ms),
            plain: Duration::from_millis(config.weft_model_plain_ms),
            response_bytes: config.weft_model_response_bytes,
        })
    }

    /// The vendor's name.
    pub fn name(&self) -> &'static str {
        self.vendor.name
    }

    /// Whether the operator has set its URL: only they know its models.
    pub fn takes_any_model(&self) -> bool {
        self.takes_any_model
    }

    /// Asks for the model that the provider calls `model`. Streamed if somebody listens, so that silence is noticed
    /// early; else plain, which costs both sides less. Tries again only if the provider did not take the request: what
    /// it has begun to answer, it may charge for.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn ask(&self, call: &Call<'_>, model: &str, speaker: &mut Speaker) -> Result<Completion, ModelError> {
        let streamed = speaker.is_telling();
        // All attempts share the time for the first byte.
        let first = Instant::now() + if streamed { self.first_byte } else { self.plain };
        let url = self.dialect.url(&self.base, model, streamed);
        let body = self.dialect.body(call, model, streamed).map_err(|_| ModelError::Interrupted(Break::Malformed))?;
        let body = Bytes::from(body);
        let mut pauses = RETRY_PAUSES.into_iter();
        loop {
            let response = match self.send(url.clone(), body.clone(), streamed, first).await {
                Ok(response) => response,
                Err(error) => match pauses.next().and_then(|usual| pause(&error, usual)) {
                    Some(pause) if Instant::now() + pause < first => {
                        tracing::debug!(?error, provider = self.vendor.name, "asking the model's provider once more");
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            speaker.meter().begin();
            // What came counts, not what was asked for: some providers never stream, some always do.
            return if is_event_stream(&response) {
                let bytes = bounded(response, first, Some(self.idle), self.response_bytes);
                read_events(self.dialect, bytes, speaker).await
            } else {
                let bytes = bounded(response, first, None, self.response_bytes);
                read_whole(self.dialect, &collect(bytes).await?, speaker).await
            };
        }
    }

    /// One request; the answer's body is not read yet.
    async fn send(&self, url: Url, body: Bytes, streamed: bool, first: Instant) -> Result<Response, ModelError> {
        let accept = if streamed { "text/event-stream, application/json" } else { "application/json" };
        let request = self.http.post(url).header(CONTENT_TYPE, "application/json").header(ACCEPT, accept).body(body);
        let response = match timeout_at(first, request.send()).await {
            Err(_) => return Err(ModelError::TimedOut),
            Ok(Err(error)) if error.is_connect() => return Err(ModelError::Unreachable),
            // It may have been read, and begun.
            Ok(Err(_)) => return Err(ModelError::Interrupted(Break::Cut)),
            Ok(Ok(response)) => response,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = collect(bounded(response, first, None, REFUSAL_BYTES)).await.unwrap_or_default();
        Err(refusal::read(status, &headers, &body, self.vendor.key))
    }
}

/// How long to wait before the same request may go better; None: it will not, or not soon.
fn pause(error: &ModelError, usual: Duration) -> Option<Duration> {
    match error {
        ModelError::Unreachable | ModelError::Failed { .. } => Some(usual),
        ModelError::Busy { retry_after } => {
            Some(retry_after.unwrap_or(usual)).filter(|pause| *pause <= RETRY_PAUSE_MOST)
        }
        // A time-out would only double the wait.
        _ => None,
    }
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("text/event-stream"))
}

async fn read_whole(dialect: Dialect, body: &[u8], speaker: &mut Speaker) -> Result<Completion, ModelError> {
    let mut assembly = Assembly::default();
    for event in dialect.whole(body)? {
        assembly.add(event)?;
    }
    speaker.meter().set(assembly.usage());
    let whole = assembly.complete()?;
    speaker.say(&whole.text).await?;
    Ok(whole)
}

/// Reads server-sent events as they come.
async fn read_events(
    dialect: Dialect,
    bytes: impl Stream<Item = Result<Bytes, ModelError>>,
    speaker: &mut Speaker,
) -> Result<Completion, ModelError> {
    let mut events = std::pin::pin!(bytes.eventsource());
    let mut assembly = Assembly::default();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            // The answer was complete; only its formal end is missing.
            Err(_) if assembly.is_finished() => break,
            Err(EventStreamError::Transport(error)) => return Err(error),
            Err(_) => return Err(ModelError::Interrupted(Break::Malformed)),
        };
        let mut is_end = false;
        for event in dialect.chunk(event.data.as_bytes())? {
            is_end |= matches!(event, Event::End);
            let text = assembly.add(event)?;
            speaker.meter().set(assembly.usage());
            speaker.say(&text).await?;
        }
        if is_end {
            break;
        }
    }
    assembly.complete()
}

#[cfg(test)]
mod tests;
