//! What every service of the mesh reads from the environment.
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::config::{ConfigErrors, positive, secret, url};
use crate::outbound::Networks;

/// What every service of the mesh reads from the environment; the key of a field is its name in upper case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct MeshConfig {
    /// `ENV` or `ENVIRONMENT`: `dev` (default), `staging`, `prod` or `test`.
    pub env: Environment,
    /// `WEFT_LISTEN`: address and port to listen on. Default: the service's own.
    pub weft_listen: Option<String>,
    /// `WEFT_SERVICE_SECRET`: what services prove themselves to each other with, the same for all of a mesh,
    /// at least 32 bytes. Without it no service of another process believes this one.
    #[serde(deserialize_with = "secret")]
    pub weft_service_secret: Option<SecretString>,
    /// `JWT_SECRET`: signs and checks access tokens, at least 32 random bytes, the same for all of a mesh. Whoever has it
    /// can mint tokens. Default: none, identity makes a key pair.
    #[serde(deserialize_with = "secret")]
    pub jwt_secret: Option<SecretString>,
    /// `JWT_ALGORITHM`: `HS256`, which needs `JWT_SECRET`, or `EdDSA`, which does not use it. No token of the other
    /// algorithm is believed. Default: `HS256` with a `JWT_SECRET`, else `EdDSA`.
    pub jwt_algorithm: Option<JwtAlgorithm>,
    /// `WEFT_IDENTITY_URL`: where identity is. Default `http://127.0.0.1:9001`.
    #[serde(deserialize_with = "url")]
    pub weft_identity_url: String,
    /// `WEFT_BILLING_URL`: where billing is. Default `http://127.0.0.1:9002`.
    #[serde(deserialize_with = "url")]
    pub weft_billing_url: String,
    /// `WEFT_ORCHESTRATOR_URL`: where the orchestrator is. Default `http://127.0.0.1:9003`.
    #[serde(deserialize_with = "url")]
    pub weft_orchestrator_url: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: where traces go, OTLP over gRPC (`http://jaeger:4317`). Default: nowhere.
    #[serde(deserialize_with = "url")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// `WEFT_LOG_FORMAT`: `json`, `pretty`, or `auto` (default): pretty on a terminal, else JSON.
    pub weft_log_format: LogFormat,
    /// `RUST_LOG`: what is logged, as tracing's `EnvFilter` reads it. Default `info`.
    pub rust_log: String,
    /// `WEFT_REQUEST_TIMEOUT_MS`: a unary call has ended, and a stream has begun, after at most this long.
    /// Default 30000.
    #[serde(deserialize_with = "positive")]
    pub weft_request_timeout_ms: u64,
    /// `WEFT_LONG_REQUEST_TIMEOUT_MS`: the same for calls that may take longer by their policy, such as whole answers of
    /// models. Default 600000.
    #[serde(deserialize_with = "positive")]
    pub weft_long_request_timeout_ms: u64,
    /// `WEFT_MAX_MESSAGE_BYTES`: largest message that a service takes; a service gives it to its generated
    /// servers (`max_decoding_message_size`). Default 4194304.
    #[serde(deserialize_with = "positive")]
    pub weft_max_message_bytes: u64,
    /// `WEFT_MAX_IN_FLIGHT`: calls that a service works on at once, streams included; more are refused at
    /// once with UNAVAILABLE. Default 1024.
    #[serde(deserialize_with = "positive")]
    pub weft_max_in_flight: u64,
    /// `WEFT_DRAIN_MS`: how long calls and background work may take to end after a signal. Default 20000.
    pub weft_drain_ms: u64,
    /// `WEFT_CONNECT_TIMEOUT_MS`: how long a connection to another service may take. Default 500.
    #[serde(deserialize_with = "positive")]
    pub weft_connect_timeout_ms: u64,
    /// `WEFT_ALLOW_PRIVATE_ADDRESSES`: networks, with commas between them, that URLs of users may lead to although they
    /// are not public. Default: none.
    pub weft_allow_private_addresses: Networks,
}

impl Default for MeshConfig {
    fn default() -> Self {
        MeshConfig {
            env: Environment::Dev,
            weft_listen: None,
            weft_service_secret: None,
            jwt_secret: None,
            jwt_algorithm: None,
            weft_identity_url: "http://127.0.0.1:9001".to_owned(),
            weft_billing_url: "http://127.0.0.1:9002".to_owned(),
            weft_orchestrator_url: "http://127.0.0.1:9003".to_owned(),
            otel_exporter_otlp_endpoint: None,
            weft_log_format: LogFormat::Auto,
            rust_log: "info".to_owned(),
            weft_request_timeout_ms: 30_000,
            weft_long_request_timeout_ms: 600_000,
            weft_max_message_bytes: 4 * 1024 * 1024,
            weft_max_in_flight: 1024,
            weft_drain_ms: 20_000,
            weft_connect_timeout_ms: 500,
            weft_allow_private_addresses: Networks::default(),
        }
    }
}

impl MeshConfig {
    /// The URL of a service of the mesh, by its name.
    pub fn url_of(&self, service: &str) -> Option<&str> {
        match service {
            "identity" => Some(&self.weft_identity_url),
            "billing" => Some(&self.weft_billing_url),
            "orchestrator" => Some(&self.weft_orchestrator_url),
            _ => None,
        }
    }

    /// What one key alone does not show.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        if self.jwt_algorithm == Some(JwtAlgorithm::HS256) && self.jwt_secret.is_none() {
            errors.push("JWT_SECRET", "is not set, but JWT_ALGORITHM=HS256 needs it");
        }
        errors.or(())
    }

    /// The secret that signs and checks access tokens; none if identity's key pairs do.
    pub fn shared_secret(&self) -> Option<&SecretString> {
        self.jwt_secret.as_ref().filter(|_| self.jwt_algorithm != Some(JwtAlgorithm::EdDSA))
    }

    /// [`MeshConfig::weft_request_timeout_ms`].
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.weft_request_timeout_ms)
    }

    /// [`MeshConfig::weft_long_request_timeout_ms`].
    pub fn long_request_timeout(&self) -> Duration {
        Duration::from_millis(self.weft_long_request_timeout_ms)
    }

    /// [`MeshConfig::weft_max_message_bytes`], as generated servers take it.
    pub fn max_message_bytes(&self) -> usize {
        usize::try_from(self.weft_max_message_bytes).unwrap_or(usize::MAX)
    }

    /// [`MeshConfig::weft_drain_ms`].
    pub fn drain_cap(&self) -> Duration {
        Duration::from_millis(self.weft_drain_ms)
    }
}

/// Where a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// On somebody's own machine.
    #[default]
    #[serde(alias = "development")]
    Dev,
    /// Like production, without its users.
    Staging,
    /// For real.
    #[serde(alias = "production")]
    Prod,
    /// In a test, which may move the clock.
    Test,
}

/// What access tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 under one secret that all of a mesh has.
    HS256,
    /// Ed25519; only identity has what signs.
    EdDSA,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For eyes.
    Pretty,
}
