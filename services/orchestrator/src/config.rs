//! Configuration from the environment. Every limit has a name and a default.
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use weft_core::Clock;
use weft_runtime::config::{ConfigErrors, positive, url};

use crate::error::Error;
use crate::models::Models;

/// Where OpenAI itself is.
const OPENAI: &str = "https://api.openai.com/v1";

/// The orchestrator's configuration; each field is the environment variable of the same name in upper case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `OPENAI_API_KEY`: key of the model's provider. With neither key nor base URL the built-in `offline` model answers.
    pub openai_api_key: Option<SecretString>,
    /// `OPENAI_BASE_URL`: any provider that speaks the OpenAI dialect, ending in `/v1`. Default: OpenAI itself.
    #[serde(deserialize_with = "url")]
    pub openai_base_url: Option<String>,
    /// `WEFT_CHAT_MESSAGE_BYTES`: longest message, 32768 bytes.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_message_bytes: usize,
    /// `WEFT_CHAT_CONTEXT_BYTES`: largest context as encoded in the request, 262144 bytes.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_context_bytes: usize,
    /// `WEFT_CHAT_DOCUMENTS`: most documents in a context, 100.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_documents: usize,
    /// `WEFT_CHAT_TASKS`: most tasks in a context, 500.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_tasks: usize,
    /// `WEFT_CHAT_TURNS`: most turns of conversation in a context, 100.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_turns: usize,
    /// `WEFT_CHAT_TOTAL_MS`: longest time for an answer with all its rounds, 120000 ms. A caller's earlier deadline counts.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_total_ms: u64,
    /// `WEFT_CLASSIFIER_MS`: longest time for the choice of an agent, 3000 ms; after it the default agent answers.
    #[serde(deserialize_with = "positive")]
    pub weft_classifier_ms: u64,
    /// `WEFT_MODEL_OUTPUT_TOKENS`: most tokens a model may say in a round, 2048.
    #[serde(deserialize_with = "positive")]
    pub weft_model_output_tokens: u32,
    /// `WEFT_MODEL_CONNECT_MS`: longest time to connect to the provider, 2000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_connect_ms: u64,
    /// `WEFT_MODEL_FIRST_BYTE_MS`: longest wait for the first byte of a streamed answer, 20000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_first_byte_ms: u64,
    /// `WEFT_MODEL_IDLE_MS`: longest silence within a streamed answer, 30000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_idle_ms: u64,
    /// `WEFT_MODEL_PLAIN_MS`: longest wait for an answer that is not streamed, 25000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_plain_ms: u64,
    /// `WEFT_MODEL_RESPONSE_BYTES`: largest answer of the provider, 4194304 bytes.
    #[serde(deserialize_with = "positive")]
    pub weft_model_response_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            openai_api_key: None,
            openai_base_url: None,
            weft_chat_message_bytes: 32_768,
            weft_chat_context_bytes: 262_144,
            weft_chat_documents: 100,
            weft_chat_tasks: 500,
            weft_chat_turns: 100,
            weft_chat_total_ms: 120_000,
            weft_classifier_ms: 3_000,
            weft_model_output_tokens: 2_048,
            weft_model_connect_ms: 2_000,
            weft_model_first_byte_ms: 20_000,
            weft_model_idle_ms: 30_000,
            weft_model_plain_ms: 25_000,
            weft_model_response_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Config {
    /// What the values' own rules do not tell: whether a client for the provider can be made of them.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if let Err(Error::Config { key, problem }) = Models::new(self, Clock::System) {
            errors.push(key, problem);
        }
        errors.or(())
    }

    /// The provider's base URL without a slash at its end and its key; none of them set: no provider.
    /// A variable that is set to nothing counts as not set.
    pub(crate) fn provider(&self) -> Option<(String, Option<SecretString>)> {
        let key = self.openai_api_key.clone().filter(|key| !key.expose_secret().trim().is_empty());
        let url = self.openai_base_url.as_deref().map(str::trim).filter(|url| !url.is_empty());
        if key.is_none() && url.is_none() {
            return None;
        }
        Some((url.unwrap_or(OPENAI).trim_end_matches('/').to_owned(), key))
    }

    /// Longest time for an answer.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.weft_chat_total_ms)
    }
}

/// Whether a model's provider can be at this URL.
pub(crate) fn is_usable(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_key_and_url_there_is_no_provider() {
        assert!(Config::default().provider().is_none());
        let empty =
            Config { openai_api_key: Some("".into()), openai_base_url: Some(" ".to_owned()), ..Config::default() };
        assert!(empty.provider().is_none());
    }

    #[test]
    fn a_key_alone_means_openai_and_a_url_alone_needs_no_key() {
        let keyed = Config { openai_api_key: Some("k".into()), ..Config::default() };
        assert_eq!(keyed.provider().unwrap().0, OPENAI);
        let local = Config { openai_base_url: Some("http://127.0.0.1:1/v1/".to_owned()), ..Config::default() };
        let (url, key) = local.provider().unwrap();
        assert_eq!(url, "http://127.0.0.1:1/v1");
        assert!(key.is_none());
    }

    #[test]
    fn the_environment_is_read_and_checked() {
        let load =
            |key: &str, value: &str| weft_runtime::config::load_from::<Config>([(key.to_owned(), value.to_owned())]);
        assert_eq!(load("WEFT_CHAT_TURNS", "7").unwrap().weft_chat_turns, 7);
        assert!(load("OPENAI_BASE_URL", "").unwrap().provider().is_none());
        let wrong = load("OPENAI_API_KEY", "a\nb").unwrap().check().unwrap_err().to_string();
        assert_eq!(wrong, "OPENAI_API_KEY: holds a character that no key has");
        assert!(load("OPENAI_API_KEY", "k").unwrap().check().is_ok());
        for (key, value) in
            [("OPENAI_BASE_URL", "localhost:11434/v1"), ("WEFT_MODEL_IDLE_MS", "0"), ("WEFT_CHAT_TASKS", "many")]
        {
            assert!(load(key, value).unwrap_err().to_string().contains(key), "{key}");
        }
    }

    #[test]
    fn the_key_is_not_in_the_debug_text() {
        let keyed = Config { openai_api_key: Some("CANARY".into()), ..Config::default() };
        assert!(!format!("{keyed:?}").contains("CANARY"));
    }
}
