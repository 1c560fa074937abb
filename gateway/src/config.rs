//! What the edge reads from the environment.
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use weft_cache::Cache;
use weft_product::Products;
use weft_runtime::config::{ConfigErrors, positive};
use weft_runtime::{MeshConfig, Neighbours};

use crate::admit::default_product;
use crate::contracts;
use crate::cors::Origins;
use crate::error::Error;
use crate::operator::Operator;

/// Levels of JSON that the parser itself can take, with room for what wraps them.
const MOST_JSON_DEPTH: u32 = 100;

/// Identity lists an ended session for at least this long after its last token, in ms: a stream that lasted longer
/// could miss it.
const MOST_STREAM_MS: u64 = 600_000;

/// What the edge reads from the environment; the key of a field is its name in upper case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `WEFT_DEFAULT_PRODUCT`: slug of the product of requests that name none by header or host. Default `adiuva`.
    pub weft_default_product: String,
    /// `CORS_ORIGINS`: origins that browsers may call from, separated by commas. A `*` may stand for the port
    /// (`http://localhost:*`) or for the whole host of an app's own scheme (`app://*`).
    /// Default `app://*,http://localhost:*`.
    pub cors_origins: String,
    /// `WEFT_EDGE_UPSTREAMS`: an operator's own gRPC services, `package.prefix=http://host:port`, separated by
    /// commas. Default: none.
    pub weft_edge_upstreams: String,
    /// `WEFT_EDGE_DESCRIPTORS`: file with the encoded descriptor set (with imports) of those services. Default: none.
    pub weft_edge_descriptors: Option<PathBuf>,
    /// `REDIS_URL`: where rate limits are counted for all replicas together. Default: in process.
    pub redis_url: Option<SecretString>,
    /// `WEFT_EDGE_REPLICAS`: how many edges share the limits; each one's share when Redis is away. Default 1.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_replicas: u32,
    /// `WEFT_EDGE_ANONYMOUS_PER_MINUTE`: calls a minute without a signed-in user, by address. Default 600.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_anonymous_per_minute: u32,
    /// `WEFT_EDGE_LOGINS_PER_MINUTE`: logins and registrations a minute, by product and address, besides the limit on
    /// calls without a user. Default 30.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_logins_per_minute: u32,
    /// `WEFT_EDGE_WEBHOOKS_PER_MINUTE`: events a minute that an outside party sends, by product and address, instead
    /// of the limit on calls without a user. Default 6000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_webhooks_per_minute: u32,
    /// `WEFT_EDGE_TRUSTED_PROXIES`: how many proxies stand in front of the edge, each adding the address it was
    /// called from to `X-Forwarded-For`. Default 0: the header is not believed.
    pub weft_edge_trusted_proxies: usize,
    /// `WEFT_EDGE_MAX_JSON_BYTES`: largest JSON body. Default 1048576.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_json_bytes: usize,
    /// `WEFT_EDGE_MAX_MESSAGE_BYTES`: largest gRPC message, and largest raw body. Default 4194304.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_message_bytes: usize,
    /// `WEFT_EDGE_MAX_RESPONSE_BYTES`: largest answer that is turned into JSON. Default 16777216.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_response_bytes: usize,
    /// `WEFT_EDGE_MAX_JSON_DEPTH`: objects and arrays inside each other, at most 100. Default 64.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_json_depth: u32,
    /// `WEFT_EDGE_MAX_HEADER_BYTES`: request line and headers together. Default 16384.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_header_bytes: u32,
    /// `WEFT_EDGE_MAX_CONNECTIONS`: clients beyond them wait to be accepted. Default 10000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_connections: usize,
    /// `WEFT_EDGE_MAX_STREAMS`: calls at once on one HTTP/2 connection. Default 100.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_streams: u32,
    /// `WEFT_EDGE_MAX_SOCKETS`: WebSockets at once; 64 of them for one account. Default 10000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_max_sockets: usize,
    /// `WEFT_EDGE_PING_MS`: how often the client of a WebSocket is asked whether it is there; one that answers neither of
    /// two pings is given up with the third. Default 30000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_ping_ms: u64,
    /// `WEFT_EDGE_HEADER_TIMEOUT_MS`: from the first byte of a request, or from the last one's answer, to the end
    /// of its headers. Default 10000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_header_timeout_ms: u64,
    /// `WEFT_EDGE_BODY_TIMEOUT_MS`: how long a unary call's body may take; one that trickles is given up sooner.
    /// Default 30000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_body_timeout_ms: u64,
    /// `WEFT_EDGE_WRITE_TIMEOUT_MS`: how long a client may take nothing of what it is sent. Default 30000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_write_timeout_ms: u64,
    /// `WEFT_EDGE_CONNECTION_AGE_MS`: after this time a connection takes no new requests, so that clients spread
    /// over the replicas; an idle WebSocket is closed. Default 3600000.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_connection_age_ms: u64,
    /// `WEFT_EDGE_STREAM_LIMIT_MS`: longest stream, and longest deadline that a client may ask for. At most and by
    /// default 600000: for that long a stream hears that its session is over.
    #[serde(deserialize_with = "positive")]
    pub weft_edge_stream_limit_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            weft_default_product: "adiuva".to_owned(),
            cors_origins: "app://*,http://localhost:*".to_owned(),
            weft_edge_upstreams: String::new(),
            weft_edge_descriptors: None,
            redis_url: None,
            weft_edge_replicas: 1,
            weft_edge_anonymous_per_minute: 600,
            weft_edge_logins_per_minute: 30,
            weft_edge_webhooks_per_minute: 6_000,
            weft_edge_trusted_proxies: 0,
            weft_edge_max_json_bytes: 1024 * 1024,
            weft_edge_max_message_bytes: 4 * 1024 * 1024,
            weft_edge_max_response_bytes: 16 * 1024 * 1024,
            weft_edge_max_json_depth: 64,
            weft_edge_max_header_bytes: 16 * 1024,
            weft_edge_max_connections: 10_000,
            weft_edge_max_streams: 100,
            weft_edge_max_sockets: 10_000,
            weft_edge_ping_ms: 30_000,
            weft_edge_header_timeout_ms: 10_000,
            weft_edge_body_timeout_ms: 30_000,
            weft_edge_write_timeout_ms: 30_000,
            weft_edge_connection_age_ms: 3_600_000,
            weft_edge_stream_limit_ms: 600_000,
        }
    }
}

impl Config {
    /// What the values' own rules do not tell: origins, the default product, an operator's services,
    /// Redis.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn check(&self, products: &Products) -> Result<(), ConfigErrors> {
        // Which URLs our own services have does not matter to whether an operator's fit beside them.
        let operator = Operator::read(self, Duration::ZERO)
            .and_then(|operator| contracts(&MeshConfig::default(), &Neighbours::default(), &operator).map(drop));
        let default_product = default_product(products, &self.weft_default_product)
            .map(drop)
            .map_err(|problem| Error::Config { key: "WEFT_DEFAULT_PRODUCT", problem });
        let mut errors = ConfigErrors::default();
        let redis = self.redis_url.as_ref().map_or(Ok(()), |url| Cache::check_url(url.expose_secret()));
        let redis = redis.map_err(|error| Error::Config { key: "REDIS_URL", problem: error.to_string() });
        for outcome in
            [self.check_depth(), self.check_stream_limit(), self.origins().map(drop), default_product, operator, redis]
        {
            match outcome {
                Ok(()) => {}
                Err(Error::Config { key, problem }) => errors.push(key, &problem),
                Err(error) => errors.push("WEFT_EDGE_DESCRIPTORS", &error.to_string()),
            }
        }
        errors.or(())
    }

    /// [`Config::cors_origins`], understood.
    pub(crate) fn origins(&self) -> Result<Origins, Error> {
        Origins::parse(&self.cors_origins).map_err(|problem| Error::Config { key: "CORS_ORIGINS", problem })
    }

    /// Whether [`Config::weft_edge_stream_limit_ms`] can be used.
    fn check_stream_limit(&self) -> Result<(), Error> {
        if self.weft_edge_stream_limit_ms <= MOST_STREAM_MS {
            return Ok(());
        }
        Err(Error::Config { key: "WEFT_EDGE_STREAM_LIMIT_MS", problem: format!("is at most {MOST_STREAM_MS}") })
    }

    /// Whether [`Config::weft_edge_max_json_depth`] can be used.
    pub(crate) fn check_depth(&self) -> Result<(), Error> {
        if self.weft_edge_max_json_depth <= MOST_JSON_DEPTH {
            return Ok(());
        }
        Err(Error::Config { key: "WEFT_EDGE_MAX_JSON_DEPTH", problem: format!("is at most {MOST_JSON_DEPTH}") })
    }
}
