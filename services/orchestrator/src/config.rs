//! Configuration from the environment. Every limit has a name and a default.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use weft_cache::Cache;
use weft_runtime::config::{ConfigErrors, positive, secret, url};

use crate::error::Error;
use crate::models::provider::Provider;
use crate::models::vendor::{ANTHROPIC, GEMINI, OPENAI, VENDORS, XAI};

/// The orchestrator's configuration; each field is the environment variable of the same name in upper case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:///absolute/path/orchestrator.db` or `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// `WEFT_ORCHESTRATOR_SECRET`: seals users' own keys of providers; at least 32 random bytes, the same on every
    /// replica. With another one the service refuses to start on this database.
    #[serde(deserialize_with = "secret")]
    pub weft_orchestrator_secret: Option<SecretString>,
    /// `WEFT_ORCHESTRATOR_DB_CONNECTIONS`: most connections to the database. Default 16.
    #[serde(deserialize_with = "positive")]
    pub weft_orchestrator_db_connections: u32,
    /// `REDIS_URL`: where tests of models are counted for all replicas together, streamed answers are sealed for readers at
    /// other replicas, and sessions are that live for a while only. Default: in process.
    pub redis_url: Option<SecretString>,
    /// `OPENAI_API_KEY`: key of OpenAI, or of the server at the base URL. With neither key nor base URL of any provider
    /// the built-in `offline` model answers.
    pub openai_api_key: Option<SecretString>,
    /// `OPENAI_BASE_URL`: any server that speaks the OpenAI dialect, ending in `/v1`. Default: OpenAI itself. A server
    /// that is set like this, or in one of the next settings, is also asked for models that no vendor is known for.
    #[serde(deserialize_with = "url")]
    pub openai_base_url: Option<String>,
    /// `ANTHROPIC_API_KEY`, also `CLAUDE_API_KEY`: key of Anthropic.
    pub anthropic_api_key: Option<SecretString>,
    /// `ANTHROPIC_BASE_URL`: who speaks Anthropic's dialect instead, with or without `/v1`.
    #[serde(deserialize_with = "url")]
    pub anthropic_base_url: Option<String>,
    /// `GEMINI_API_KEY`: key of Google's Gemini.
    pub gemini_api_key: Option<SecretString>,
    /// `GEMINI_BASE_URL`: who speaks Gemini's dialect instead, with or without `/v1beta`.
    #[serde(deserialize_with = "url")]
    pub gemini_base_url: Option<String>,
    /// `XAI_API_KEY`: key of xAI.
    pub xai_api_key: Option<SecretString>,
    /// `XAI_BASE_URL`: who has xAI's models instead, in the OpenAI dialect, ending in `/v1`.
    #[serde(deserialize_with = "url")]
    pub xai_base_url: Option<String>,
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
    /// `WEFT_CHAT_PROJECTS`: most projects in a context, 200.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_projects: usize,
    /// `WEFT_CHAT_CHECKPOINTS`: most checkpoints in a context, 500.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_checkpoints: usize,
    /// `WEFT_CHAT_NOTES`: most notes in a context, 200.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_notes: usize,
    /// `WEFT_PROMPTS_DIR`: folder with an operator's prompts, `<id>.txt`, that manifests name for their agents. Default:
    /// none.
    pub weft_prompts_dir: Option<PathBuf>,
    /// `WEFT_CHAT_TURNS`: most turns of conversation in a context, 100.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_turns: usize,
    /// `WEFT_CHAT_TOTAL_MS`: longest time for an answer with all its rounds, 300000 ms. A caller's earlier deadline counts.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_total_ms: u64,
    /// `WEFT_CHAT_RESUME_MS`: so long a streamed answer of a product that stops them goes on when its last reader is gone, in
    /// case one comes back, 5000 ms. 0: not at all.
    pub weft_chat_resume_ms: u64,
    /// `WEFT_CHAT_LOG_BYTES`: most of a streamed answer that is kept for readers who come back, 1048576 bytes; of a longer
    /// one the beginning is gone.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_log_bytes: usize,
    /// `WEFT_CHAT_LOGS_BYTES`: the same of all streamed answers of this replica, 134217728 bytes; those that ended first leave
    /// first.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_logs_bytes: usize,
    /// `WEFT_CHAT_SESSION_DAYS`: sessions of products that keep them are forgotten when nothing was said in them for so many
    /// days. 0, the default: never.
    pub weft_chat_session_days: u32,
    /// `WEFT_CHAT_RUN_TOKENS`: after so many tokens, in and out, an answer asks no model any more and says so, 400000.
    #[serde(deserialize_with = "positive")]
    pub weft_chat_run_tokens: u64,
    /// `ARCHITECT_MODEL`: model of the agents of this name where neither account nor plan says otherwise.
    pub architect_model: Option<String>,
    /// `CODER_MODEL`: the same.
    pub coder_model: Option<String>,
    /// `DEBUGGER_MODEL`: the same.
    pub debugger_model: Option<String>,
    /// `REVIEWER_MODEL`: the same.
    pub reviewer_model: Option<String>,
    /// `WEFT_CLASSIFIER_MS`: longest time for the choice of an agent, 3000 ms; after it the default agent answers.
    #[serde(deserialize_with = "positive")]
    pub weft_classifier_ms: u64,
    /// `WEFT_MODEL_OUTPUT_TOKENS`: most tokens a model may say in a round, 2048.
    #[serde(deserialize_with = "positive")]
    pub weft_model_output_tokens: u32,
    /// `WEFT_MODEL_CONNECT_MS`: longest time to connect to the provider, 2000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_connect_ms: u64,
    /// `WEFT_MODEL_FIRST_BYTE_MS`: longest wait for the first byte of a streamed answer, with all retries, 20000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_first_byte_ms: u64,
    /// `WEFT_MODEL_IDLE_MS`: longest silence within a streamed answer, 60000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_idle_ms: u64,
    /// `WEFT_MODEL_PLAIN_MS`: longest wait for an answer that is not streamed, with all retries, 90000 ms.
    #[serde(deserialize_with = "positive")]
    pub weft_model_plain_ms: u64,
    /// `WEFT_MODEL_RESPONSE_BYTES`: largest answer of the provider, 4194304 bytes.
    #[serde(deserialize_with = "positive")]
    pub weft_model_response_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            database_url: String::new(),
            weft_orchestrator_secret: None,
            weft_orchestrator_db_connections: 16,
            redis_url: None,
            openai_api_key: None,
            openai_base_url: None,
            anthropic_api_key: None,
            anthropic_base_url: None,
            gemini_api_key: None,
            gemini_base_url: None,
            xai_api_key: None,
            xai_base_url: None,
            weft_chat_message_bytes: 32_768,
            weft_chat_context_bytes: 262_144,
            weft_chat_documents: 100,
            weft_chat_tasks: 500,
            weft_chat_projects: 200,
            weft_chat_checkpoints: 500,
            weft_chat_notes: 200,
            weft_prompts_dir: None,
            weft_chat_turns: 100,
            weft_chat_total_ms: 300_000,
            weft_chat_resume_ms: 5_000,
            weft_chat_log_bytes: 1024 * 1024,
            weft_chat_logs_bytes: 128 * 1024 * 1024,
            weft_chat_session_days: 0,
            weft_chat_run_tokens: 400_000,
            architect_model: None,
            coder_model: None,
            debugger_model: None,
            reviewer_model: None,
            weft_classifier_ms: 3_000,
            weft_model_output_tokens: 2_048,
            weft_model_connect_ms: 2_000,
            weft_model_first_byte_ms: 20_000,
            weft_model_idle_ms: 60_000,
            weft_model_plain_ms: 90_000,
            weft_model_response_bytes: 4 * 1024 * 1024,
        }
    }
}

impl Config {
    /// What the values' own rules do not tell: whether a client for each provider can be made of them.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| self.database_url.starts_with(scheme)) {
            errors.push("DATABASE_URL", "is not set: write sqlite:///path/to/file.db or postgres://…");
        }
        if self.weft_orchestrator_secret.is_none() {
            errors.push("WEFT_ORCHESTRATOR_SECRET", "is not set: at least 32 random bytes");
        }
        let redis = self.redis_url.as_ref().map_or(Ok(()), |url| Cache::check_url(url.expose_secret()));
        if redis.is_err() {
            errors.push("REDIS_URL", "cannot be used: write redis://host:port or rediss://host:port");
        }
        for (at, vendor) in VENDORS.iter().enumerate() {
            if let Some(account) = self.account(at)
                && let Err(Error::Config { key, problem }) = Provider::new(vendor, account, self)
            {
                errors.push(key, problem);
            }
        }
        errors.or(())
    }

    /// What the operator has at the vendor in this place of [`VENDORS`]; neither key nor URL: nothing. A variable that is set to nothing counts as
    /// not set.
    pub(crate) fn account(&self, vendor: usize) -> Option<Account> {
        let (key, url) = match vendor {
            OPENAI => (&self.openai_api_key, &self.openai_base_url),
            ANTHROPIC => (&self.anthropic_api_key, &self.anthropic_base_url),
            GEMINI => (&self.gemini_api_key, &self.gemini_base_url),
            XAI => (&self.xai_api_key, &self.xai_base_url),
            _ => return None,
        };
        let key = key.clone().filter(|key| !key.expose_secret().trim().is_empty());
        let url = url.as_deref().map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned);
        (key.is_some() || url.is_some()).then_some(Account { key, url })
    }

    /// The models that the environment gives to roles. A variable that is set to nothing counts as not set.
    pub(crate) fn role_models(&self) -> BTreeMap<&'static str, String> {
        let set = [
            ("architect", &self.architect_model),
            ("coder", &self.coder_model),
            ("debugger", &self.debugger_model),
            ("reviewer", &self.reviewer_model),
        ];
        let given = |model: &String| (!model.trim().is_empty()).then(|| model.trim().to_owned());
        set.into_iter().filter_map(|(role, model)| Some((role, model.as_ref().and_then(given)?))).collect()
    }

    /// Longest time for an answer.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.weft_chat_total_ms)
    }
}

/// What the operator has at a vendor of models.
pub(crate) struct Account {
    /// The key; a server of one's own may need none.
    pub(crate) key: Option<SecretString>,
    /// Who is asked instead of the vendor itself.
    pub(crate) url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Models;

    const NEEDED: [(&str, &str); 2] =
        [("DATABASE_URL", "sqlite:///x.db"), ("WEFT_ORCHESTRATOR_SECRET", "a secret of at least thirty-two bytes")];

    fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let owned = NEEDED.iter().chain(variables).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        weft_runtime::config::load_from(owned)
    }

    fn providers(config: &Config) -> Vec<&'static str> {
        Models::new(config, weft_core::Clock::System).unwrap().providers()
    }

    #[test]
    fn without_key_and_url_there_is_no_provider() {
        assert!(providers(&Config::default()).is_empty());
        let empty =
            Config { openai_api_key: Some("".into()), openai_base_url: Some(" ".to_owned()), ..Config::default() };
        assert!(providers(&empty).is_empty());
    }

    #[test]
    fn a_key_or_a_url_makes_a_provider() {
        for vendor in &VENDORS {
            for (name, value) in [(vendor.key, "k"), (vendor.url, "http://127.0.0.1:1/v1/")] {
                let config = load(&[(name, value)]).unwrap();
                assert!(config.check().is_ok(), "{name}");
                assert_eq!(providers(&config), [vendor.name], "{name}");
            }
        }
    }

    #[test]
    fn the_environment_is_read_and_checked() {
        assert_eq!(load(&[("WEFT_CHAT_TURNS", "7")]).unwrap().weft_chat_turns, 7);
        let wrong = load(&[("OPENAI_API_KEY", "a\nb"), ("GEMINI_API_KEY", "c\nd")]).unwrap().check().unwrap_err();
        let problem = "holds a character that no key has";
        assert_eq!(wrong.to_string(), format!("GEMINI_API_KEY: {problem}\nOPENAI_API_KEY: {problem}"));
        for (key, value) in [
            ("OPENAI_BASE_URL", "localhost:11434/v1"),
            ("ANTHROPIC_BASE_URL", "nowhere"),
            ("GEMINI_BASE_URL", "nowhere"),
            ("XAI_BASE_URL", "nowhere"),
            ("WEFT_MODEL_IDLE_MS", "0"),
            ("WEFT_CHAT_TASKS", "many"),
        ] {
            assert!(load(&[(key, value)]).unwrap_err().to_string().contains(key), "{key}");
        }
    }

    #[test]
    fn without_a_database_and_a_secret_nothing_starts() {
        let told = Config::default().check().unwrap_err().to_string();
        assert!(
            told.contains("DATABASE_URL: is not set") && told.contains("WEFT_ORCHESTRATOR_SECRET: is not set"),
            "{told}"
        );
        let wrong = load(&[("REDIS_URL", "http://127.0.0.1")]).unwrap().check().unwrap_err().to_string();
        assert!(wrong.contains("REDIS_URL: cannot"), "{wrong}");
        assert!(
            load(&[("WEFT_ORCHESTRATOR_SECRET", "short")])
                .unwrap_err()
                .to_string()
                .contains("WEFT_ORCHESTRATOR_SECRET")
        );
    }

    #[test]
    fn anthropics_key_has_two_names_that_may_not_differ() {
        assert_eq!(providers(&load(&[("CLAUDE_API_KEY", "k")]).unwrap()), ["anthropic"]);
        assert!(load(&[("CLAUDE_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")]).is_ok());
        let refused = load(&[("CLAUDE_API_KEY", "CANARY"), ("ANTHROPIC_API_KEY", "k")]).unwrap_err().to_string();
        assert!(refused.contains("ANTHROPIC_API_KEY and CLAUDE_API_KEY are two names"), "{refused}");
        assert!(!refused.contains("CANARY"));
    }

    #[test]
    fn no_key_is_in_the_debug_text() {
        let key = || Some(SecretString::from("CANARY"));
        let (openai_api_key, anthropic_api_key, gemini_api_key, xai_api_key) = (key(), key(), key(), key());
        let keyed = Config { openai_api_key, anthropic_api_key, gemini_api_key, xai_api_key, ..Config::default() };
        assert!(!format!("{keyed:?}").contains("CANARY"));
    }
}
