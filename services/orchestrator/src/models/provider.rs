//! A provider, asked over HTTP in its dialect.
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, Url};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};
use weft_runtime::outbound::{self, Client, Networks, Reach};

use crate::config::{Account, Config};
use crate::error::Error;
use crate::keys::OwnKey;
use crate::models::assembly::Assembly;
use crate::models::body::{bounded, by_lines, collect};
use crate::models::dialect::Dialect;
use crate::models::embedding::{self, Texts};
use crate::models::event::Event;
use crate::models::openai::Cap;
use crate::models::vendor::Vendor;
use crate::models::{Break, Call, Completion, Meter, ModelError, Piece, Speaker, refusal};

/// Vectors are there in this time or not at all: who asks for them waits 30 s.
const EMBEDDED_WITHIN: Duration = Duration::from_secs(25);
/// Pauses before the retries, where the provider does not say how long.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];
/// Longest pause that a provider may ask for; for more the caller is told to come back.
const RETRY_PAUSE_MOST: Duration = Duration::from_secs(2);
/// So much of a refusal is read.
const REFUSAL_BYTES: usize = 16 * 1024;
/// A reader has left: what has already arrived is still counted. It is all here when nothing comes for this long …
const ARRIVED_SILENCE: Duration = Duration::from_millis(20);
/// … or after this time, whatever still comes.
const ARRIVED_MOST: Duration = Duration::from_millis(500);

/// Largest answer with vectors, for each text: as many numbers as a vector may have, each written out.
const VECTOR_BYTES_MOST: usize = embedding::DIMENSIONS_MOST as usize * 32;
/// What is around them.
const VECTORS_AROUND_BYTES: usize = 64 * 1024;

/// A provider.
pub struct Provider {
    vendor: &'static Vendor,
    dialect: Dialect,
    http: Client,
    headers: HeaderMap,
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
        let headers = dialect.headers(key).ok_or(unsendable)?;
        let http = outbound::client(Reach::Operator, &Networks::default(), client_builder(config))?;
        Ok(Provider::made(vendor, dialect, (http, headers), dialect.versioned(base), takes_any_model, config))
    }

    /// A client that goes over a key of a user's. They may have said whom to ask, who then is asked over `public`; else
    /// it is whom the operator asks (`operators`), or the vendor.
    ///
    /// # Errors
    /// [`ModelError::RefusedOwnKey`] for a key that cannot be sent.
    pub fn own(
        vendor: &'static Vendor,
        key: &OwnKey,
        public: &Client,
        operators: Option<&Provider>,
        config: &Config,
    ) -> Result<Provider, ModelError> {
        let headers = |dialect: Dialect| {
            dialect.headers(Some(key.secret.expose_secret().trim())).ok_or(ModelError::RefusedOwnKey)
        };
        if let (None, Some(Provider { dialect, http, base, takes_any_model, .. })) = (&key.base_url, operators) {
            let sent = (http.clone(), headers(*dialect)?);
            return Ok(Provider::made(vendor, *dialect, sent, base.clone(), *takes_any_model, config));
        }
        let base = key.base_url.clone().or_else(|| Url::parse(vendor.home).ok()).ok_or(ModelError::UnknownModel)?;
        let dialect = vendor.dialect;
        let sent = (public.clone(), headers(dialect)?);
        Ok(Provider::made(vendor, dialect, sent, dialect.versioned(base), key.base_url.is_some(), config))
    }

    fn made(
        vendor: &'static Vendor,
        dialect: Dialect,
        (http, headers): (Client, HeaderMap),
        base: Url,
        takes_any_model: bool,
        config: &Config,
    ) -> Provider {
        Provider {
            vendor,
            dialect,
            http,
            headers,
            base,
            takes_any_model,
            first_byte: Duration::from_millis(config.weft_model_first_byte_ms),
            idle: Duration::from_millis(config.weft_model_idle_ms),
            plain: Duration::from_millis(config.weft_model_plain_ms),
            response_bytes: config.weft_model_response_bytes,
        }
    }

    /// The vendor's name.
    pub fn name(&self) -> &'static str {
        self.vendor.name
    }

    /// What it speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
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
            let left = speaker.left();
            let sent = tokio::select! {
                biased;
                () = left.cancelled() => return Err(ModelError::Left),
                sent = self.send(url.clone(), body.clone(), streamed, first) => sent,
            };
            let response = match sent {
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
                let whole = tokio::select! {
                    biased;
                    () = left.cancelled() => return Err(ModelError::Left),
                    whole = collect(bytes) => whole?,
                };
                read_whole(self.dialect, &whole, speaker).await
            };
        }
    }

    /// Makes vectors of texts with the model that the provider calls `model`.
    ///
    /// # Errors
    /// Why there are none; [`ModelError::UnknownModel`] if nobody who speaks this dialect makes any.
    pub async fn embed(&self, texts: Texts<'_>, model: &str, meter: &Meter) -> Result<Vec<Vec<f32>>, ModelError> {
        let until = Instant::now() + self.plain.min(EMBEDDED_WITHIN);
        let body = embedding::body(self.dialect, texts, model).map(Bytes::from);
        let (url, body) = self.dialect.embedding_url(&self.base, model).zip(body).ok_or(ModelError::UnknownModel)?;
        let mut pauses = RETRY_PAUSES.into_iter();
        let response = loop {
            match self.send(url.clone(), body.clone(), false, until).await {
                Ok(response) => break response,
                Err(error) => match pauses.next().and_then(|usual| pause(&error, usual)) {
                    Some(pause) if Instant::now() + pause < until => tokio::time::sleep(pause).await,
                    _ => return Err(error),
                },
            }
        };
        meter.begin();
        let most = VECTORS_AROUND_BYTES + texts.texts.len() * VECTOR_BYTES_MOST;
        let bytes = collect(bounded(response, until, None, most)).await?;
        let answer = embedding::read(self.dialect, &bytes, texts.texts.len())?;
        meter.set(answer.usage);
        Ok(answer.vectors)
    }

    /// One request; the answer's body is not read yet.
    async fn send(&self, url: Url, body: Bytes, streamed: bool, first: Instant) -> Result<Response, ModelError> {
        let accept = if streamed { "text/event-stream, application/json" } else { "application/json" };
        // An address inside is nobody that can be reached.
        let request = self.http.post(url).map_err(|_| ModelError::Unreachable)?;
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, accept);
        let request = request.headers(self.headers.clone()).body(body);
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

/// What every client of a provider is made of.
pub fn client_builder(config: &Config) -> reqwest::ClientBuilder {
    reqwest::Client::builder().connect_timeout(Duration::from_millis(config.weft_model_connect_ms))
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
    let mut answer = Answer::new(dialect, speaker.meter().clone());
    for event in dialect.whole(body)? {
        answer.add(event)?;
    }
    let Answer { assembly, told, .. } = answer;
    let whole = assembly.complete()?;
    for piece in told {
        speaker.tell(piece).await?;
    }
    Ok(whole)
}

/// Reads server-sent events as they come. What arrived before a reader left is counted, though nobody reads it.
async fn read_events(
    dialect: Dialect,
    bytes: impl Stream<Item = Result<Bytes, ModelError>>,
    speaker: &mut Speaker,
) -> Result<Completion, ModelError> {
    let mut events = std::pin::pin!(by_lines(bytes).eventsource());
    let mut answer = Answer::new(dialect, speaker.meter().clone());
    let left = speaker.left();
    let mut left = std::pin::pin!(left.cancelled());
    'reading: loop {
        let event = tokio::select! {
            biased;
            () = &mut left => None,
            event = events.next() => Some(event),
        };
        let Some(event) = event else { break };
        let goes_on = answer.next(event)?;
        for piece in answer.told.drain(..) {
            match speaker.tell(piece).await {
                Err(ModelError::Left) => break 'reading,
                said => said?,
            }
        }
        if !goes_on {
            return answer.assembly.complete();
        }
    }
    let until = Instant::now() + ARRIVED_MOST;
    while let Ok(event) = timeout_at(until.min(Instant::now() + ARRIVED_SILENCE), events.next()).await {
        if !answer.next(event)? {
            break;
        }
        answer.told.clear();
    }
    Err(ModelError::Left)
}

/// An answer that is being read, and counted as it is.
struct Answer {
    dialect: Dialect,
    assembly: Assembly,
    meter: Meter,
    /// What can be passed on and was not yet.
    told: Vec<Piece>,
}

/// What a stream of server-sent events gives.
type Sent = Option<Result<eventsource_stream::Event, EventStreamError<ModelError>>>;

impl Answer {
    fn new(dialect: Dialect, meter: Meter) -> Answer {
        Answer { dialect, assembly: Assembly::default(), meter, told: Vec::new() }
    }

    /// Reads the next event; false at the end.
    fn next(&mut self, event: Sent) -> Result<bool, ModelError> {
        let event = match event {
            None => return Ok(false),
            Some(Ok(event)) => event,
            // The answer was complete; only its formal end is missing.
            Some(Err(_)) if self.assembly.is_finished() => return Ok(false),
            Some(Err(EventStreamError::Transport(error))) => return Err(error),
            Some(Err(_)) => return Err(ModelError::Interrupted(Break::Malformed)),
        };
        for event in self.dialect.chunk(event.data.as_bytes())? {
            if matches!(event, Event::End) {
                return Ok(false);
            }
            self.add(event)?;
        }
        Ok(true)
    }

    fn add(&mut self, event: Event) -> Result<(), ModelError> {
        self.meter.deliver(event.tokens());
        let is_usage = matches!(event, Event::Usage(_));
        self.assembly.add(event, &mut self.told)?;
        if is_usage {
            self.meter.set(self.assembly.usage());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
