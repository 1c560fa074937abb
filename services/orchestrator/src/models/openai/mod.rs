//! A provider that speaks the OpenAI dialect: OpenAI itself, or whatever `OPENAI_BASE_URL` names.
mod assembly;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use self::assembly::Assembly;
use self::wire::{Answer, Refusal};
use crate::config::{Config, is_usable};
use crate::error::Error;
use crate::models::{Break, Call, Completion, ModelError, Speaker};

/// Pause before the one retry.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest `retry-after` that is passed on.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3_600);
/// So much of a refusal is read.
const REFUSAL_BYTES: usize = 16 * 1024;

/// A provider.
pub struct OpenAi {
    http: reqwest::Client,
    url: Url,
    first_byte: Duration,
    idle: Duration,
    plain: Duration,
    response_bytes: usize,
}

impl OpenAi {
    /// A client for the provider at this base URL. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL or key that cannot be used, [`Error::Client`] if TLS cannot be set up.
    pub fn new(base: &str, key: Option<SecretString>, config: &Config) -> Result<OpenAi, Error> {
        let unusable = || Error::Config {
            key: "OPENAI_BASE_URL",
            problem: "must be an http or https URL, such as https://api.openai.com/v1",
        };
        let url =
            Url::parse(&format!("{base}/chat/completions")).ok().filter(|_| is_usable(base)).ok_or_else(unusable)?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret().trim()))
                .map_err(|_| Error::Config { key: "OPENAI_API_KEY", problem: "holds a character that no key has" })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // The process normally installs it; a test may not have.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(config.weft_model_connect_ms))
            .default_headers(headers)
            // A redirect would carry the user's words somewhere the operator did not name.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Client)?;
        Ok(OpenAi {
            http,
            url,
            first_byte: Duration::from_millis(config.weft_model_first_byte_ms),
            idle: Duration::from_millis(config.weft_model_idle_ms),
            plain: Duration::from_millis(config.weft_model_plain_ms),
            response_bytes: config.weft_model_response_bytes,
        })
    }

    /// Asks; tries once more if the provider failed before it said anything. Streamed if somebody listens, so
    /// that silence is noticed early; else plain, which costs both sides less.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn ask(&self, call: &Call<'_>, speaker: &mut Speaker) -> Result<Completion, ModelError> {
        let streamed = speaker.is_telling();
        let body = serde_json::to_vec(&wire::request(call, streamed))
            .map_err(|_| ModelError::Interrupted(Break::Malformed))?;
        let body = Bytes::from(body);
        let mut begun = false;
        match self.attempt(body.clone(), streamed, speaker, &mut begun).await {
            Err(error) if !begun && error.is_worth_a_retry() => {
                tracing::debug!(?error, "asking the model's provider once more");
                tokio::time::sleep(RETRY_PAUSE).await;
                self.attempt(body, streamed, speaker, &mut begun).await
            }
            outcome => outcome,
        }
    }

    /// One request. `begun` tells whether any of the answer had come when it failed.
    async fn attempt(
        &self,
        body: Bytes,
        streamed: bool,
        speaker: &mut Speaker,
        begun: &mut bool,
    ) -> Result<Completion, ModelError> {
        let first = Instant::now() + if streamed { self.first_byte } else { self.plain };
        let accept = if streamed { "text/event-stream, application/json" } else { "application/json" };
        let request =
            self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json").header(ACCEPT, accept).body(body);
        let response = match timeout_at(first, request.send()).await {
            Err(_) => return Err(ModelError::TimedOut),
            Ok(Err(error)) => return Err(unsent(&error)),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            return Err(self.refusal(response, first).await);
        }
        // What came counts, not what was asked for: some providers never stream, some always do.
        if is_event_stream(&response) {
            read_events(bounded(response, first, Some(self.idle), self.response_bytes), speaker, begun).await
        } else {
            self.plain(response, first, speaker, begun).await
        }
    }

    async fn plain(
        &self,
        response: Response,
        first: Instant,
        speaker: &mut Speaker,
        begun: &mut bool,
    ) -> Result<Completion, ModelError> {
        let body = collect(bounded(response, first, None, self.response_bytes)).await?;
        let mut assembly = Assembly::default();
        let text = assembly.add_whole(chunk(&body)?)?;
        *begun = true;
        let whole = assembly.complete()?;
        speaker.say(&text).await?;
        Ok(whole)
    }

    /// What an HTTP error means. Of its body only the code is read.
    async fn refusal(&self, response: Response, first: Instant) -> ModelError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let body = collect(bounded(response, first, None, REFUSAL_BYTES)).await.unwrap_or_default();
        let code =
            serde_json::from_slice::<Refusal>(&body).ok().and_then(|refusal| refusal.error.word().map(str::to_owned));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ModelError::RefusedKey,
            StatusCode::TOO_MANY_REQUESTS => ModelError::Busy { retry_after },
            StatusCode::REQUEST_TIMEOUT => ModelError::TimedOut,
            StatusCode::PAYLOAD_TOO_LARGE => ModelError::TooLong,
            _ if code.as_deref() == Some("context_length_exceeded") => ModelError::TooLong,
            status if status.is_server_error() => ModelError::Failed { status: status.as_u16() },
            status => ModelError::Rejected { status: status.as_u16(), code: code.unwrap_or_default() },
        }
    }
}

/// Reads server-sent events as they come.
async fn read_events(
    bytes: impl Stream<Item = Result<Bytes, ModelError>>,
    speaker: &mut Speaker,
    begun: &mut bool,
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
        if event.data.trim() == "[DONE]" {
            break;
        }
        let text = assembly.add(chunk(event.data.as_bytes())?)?;
        *begun |= assembly.has_begun();
        speaker.say(&text).await?;
    }
    assembly.complete()
}

fn unsent(error: &reqwest::Error) -> ModelError {
    if error.is_timeout() && !error.is_connect() { ModelError::TimedOut } else { ModelError::Unreachable }
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("text/event-stream"))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MOST))
}

fn chunk(json: &[u8]) -> Result<Answer, ModelError> {
    // serde's own error could repeat a part of the text.
    serde_json::from_slice(json).map_err(|_| ModelError::Interrupted(Break::Malformed))
}

/// The body of an answer: the first bytes until `first`, later ones never more than `idle` apart (None: all of
/// them until `first`), at most `bytes` in all.
fn bounded(
    response: Response,
    first: Instant,
    idle: Option<Duration>,
    bytes: usize,
) -> impl Stream<Item = Result<Bytes, ModelError>> {
    let start = Some((response, first, bytes));
    stream::unfold(start, move |state| async move {
        let (mut response, deadline, left) = state?;
        let has_begun = left < bytes;
        let piece = match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(piece))) if piece.len() > left => Err(ModelError::Interrupted(Break::TooLarge)),
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Err(_)) => Err(ModelError::Interrupted(Break::Cut)),
            Err(_) if has_begun && idle.is_some() => Err(ModelError::Interrupted(Break::Silence)),
            Err(_) => Err(ModelError::TimedOut),
        };
        let next = piece.as_ref().ok().map(|piece| {
            let deadline = idle.map_or(deadline, |idle| Instant::now() + idle);
            (response, deadline, left - piece.len())
        });
        Some((piece, next))
    })
}

async fn collect(pieces: impl Stream<Item = Result<Bytes, ModelError>>) -> Result<Vec<u8>, ModelError> {
    let mut pieces = std::pin::pin!(pieces);
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{ToolCall, Usage};

    const STREAM: &str = concat!(
        ": a comment keeps the connection alive\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Olá, \"}}]}\n\n",
        "data:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ána ✓\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"t\",\"arguments\":\"{\\\"a\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
        "data: [DONE]\n\n",
    );

    async fn read(pieces: Vec<Bytes>) -> (Result<Completion, ModelError>, String, bool) {
        let (mut speaker, mut begun) = (Speaker::collecting(), false);
        let outcome = read_events(stream::iter(pieces.into_iter().map(Ok)), &mut speaker, &mut begun).await;
        (outcome, speaker.into_said(), begun)
    }

    fn whole() -> Completion {
        let calls = vec![ToolCall { id: "c".to_owned(), name: "t".to_owned(), arguments: "{\"a\":1}".to_owned() }];
        let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 4 });
        Completion { text: "Olá, Ána ✓".to_owned(), calls, usage, refused: false }
    }

    #[tokio::test]
    async fn a_stream_split_at_any_byte_is_read_the_same() {
        let bytes = Bytes::from_static(STREAM.as_bytes());
        for at in 0..=bytes.len() {
            let (outcome, said, _) = read(vec![bytes.slice(..at), bytes.slice(at..)]).await;
            assert_eq!((outcome.unwrap(), said), (whole(), whole().text), "split at {at}");
        }
        let (outcome, said, _) = read((0..bytes.len()).map(|at| bytes.slice(at..=at)).collect()).await;
        assert_eq!((outcome.unwrap(), said), (whole(), whole().text));
    }

    #[tokio::test]
    async fn a_stream_cut_at_any_byte_before_its_finish_is_no_answer() {
        let finish = STREAM.find("\"finish_reason\"").unwrap();
        for at in 0..finish {
            let (outcome, said, begun) = read(vec![Bytes::from_static(&STREAM.as_bytes()[..at])]).await;
            // In the middle of a character it looks malformed.
            assert!(matches!(outcome, Err(ModelError::Interrupted(Break::Cut | Break::Malformed))), "cut at {at}");
            assert!(whole().text.starts_with(&said));
            assert!(begun || said.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_not_the_dialect_is_malformed() {
        for text in ["data: {\"choices\":7}\n\n", "data: hello\n\n", "data: {\n\n"] {
            let (outcome, _, _) = read(vec![Bytes::from_static(text.as_bytes())]).await;
            assert_eq!(outcome, Err(ModelError::Interrupted(Break::Malformed)), "{text}");
        }
    }

    #[test]
    fn an_unusable_url_or_key_is_refused_at_start() {
        for url in ["127.0.0.1:80/v1", "ftp://example.test/v1", "http://", ""] {
            assert!(matches!(OpenAi::new(url, None, &Config::default()), Err(Error::Config { .. })), "{url}");
        }
        let key = Some(SecretString::from("a\nb"));
        let Err(refused) = OpenAi::new("http://127.0.0.1:1/v1", key, &Config::default()) else { panic!("accepted") };
        assert!(!refused.to_string().contains('\n'));
    }
}
