//! What the edge reads from the environment.
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

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
    pub weft_edge_replicas: u32,
    /// `WEFT_EDGE_ANONYMOUS_PER_MINUTE`: calls a minute without a signed-in user, by address. Default 600.
    pub weft_edge_anonymous_per_minute: u32,
    /// `WEFT_EDGE_TRUSTED_PROXIES`: how many proxies stand in front of the edge, each adding the address it was
    /// called from to `X-Forwarded-For`. Default 0: the header is not believed.
    pub weft_edge_trusted_proxies: usize,
    /// `WEFT_EDGE_MAX_JSON_BYTES`: largest JSON body. Default 1048576.
    pub weft_edge_max_json_bytes: usize,
    /// `WEFT_EDGE_MAX_MESSAGE_BYTES`: largest gRPC message, and largest raw body. Default 4194304.
    pub weft_edge_max_message_bytes: usize,
    /// `WEFT_EDGE_MAX_RESPONSE_BYTES`: largest answer that is turned into JSON. Default 16777216.
    pub weft_edge_max_response_bytes: usize,
    /// `WEFT_EDGE_MAX_JSON_DEPTH`: objects and arrays inside each other, at most 100. Default 64.
    pub weft_edge_max_json_depth: u32,
    /// `WEFT_EDGE_MAX_HEADER_BYTES`: request line and headers together. Default 16384.
    pub weft_edge_max_header_bytes: u32,
    /// `WEFT_EDGE_MAX_CONNECTIONS`: clients beyond them wait to be accepted. Default 10000.
    pub weft_edge_max_connections: usize,
    /// `WEFT_EDGE_MAX_STREAMS`: calls at once on one HTTP/2 connection. Default 100.
    pub weft_edge_max_streams: u32,
    /// `WEFT_EDGE_HEADER_TIMEOUT_MS`: from the first byte of a request, or from the last one's answer, to the end
    /// of its headers. Default 10000.
    pub weft_edge_header_timeout_ms: u64,
    /// `WEFT_EDGE_BODY_TIMEOUT_MS`: how long a unary call's body may take; one that trickles is given up sooner.
    /// Default 30000.
    pub weft_edge_body_timeout_ms: u64,
    /// `WEFT_EDGE_WRITE_TIMEOUT_MS`: how long a client may take nothing of what it is sent. Default 30000.
    pub weft_edge_write_timeout_ms: u64,
    /// `WEFT_EDGE_CONNECTION_AGE_MS`: after this time a connection takes no new requests, so that clients spread
    /// over the replicas. Default 3600000.
    pub weft_edge_connection_age_ms: u64,
    /// `WEFT_EDGE_STREAM_LIMIT_MS`: longest stream, and longest deadline that a client may ask for. Default 600000.
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
            weft_edge_trusted_proxies: 0,
            weft_edge_max_json_bytes: 1024 * 1024,
            weft_edge_max_message_bytes: 4 * 1024 * 1024,
            weft_edge_max_response_bytes: 16 * 1024 * 1024,
            weft_edge_max_json_depth: 64,
            weft_edge_max_header_bytes: 16 * 1024,
            weft_edge_max_connections: 10_000,
            weft_edge_max_streams: 100,
            weft_edge_header_timeout_ms: 10_000,
            weft_edge_body_timeout_ms: 30_000,
            weft_edge_write_timeout_ms: 30_000,
            weft_edge_connection_age_ms: 3_600_000,
            weft_edge_stream_limit_ms: 600_000,
        }
    }
}
