//! TXT records of domains, by which organisations prove that a domain is theirs.
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::time::timeout;

/// How long one question to a name server may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long all questions about a domain may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Records of a domain that are looked through.
const MOST_RECORDS: usize = 100;

/// Who is asked about domains. Answers are not kept: whoever has just set a record does not wait.
pub struct Dns(Option<TokioResolver>);

impl Dns {
    /// Asks `server`, or those that the machine asks. Without either, nothing is found.
    pub fn new(server: Option<SocketAddr>) -> Dns {
        let resolver = resolver(server);
        let resolver = resolver.inspect_err(|error| {
            tracing::warn!(%error, "no name server is known, domains can only be confirmed by administrators: set WEFT_DNS_SERVER");
        });
        Dns(resolver.ok())
    }

    /// Whether a domain has this TXT record. A name server that does not answer has none.
    pub async fn has_record(&self, domain: &str, record: &str) -> bool {
        let Some(resolver) = &self.0 else { return false };
        // With the root's dot, so that no search list is tried.
        match timeout(TIMEOUT, resolver.txt_lookup(format!("{domain}."))).await {
            Ok(Ok(found)) => found.answers().iter().take(MOST_RECORDS).any(|answer| is_text(answer, record)),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// A long text stands in several pieces.
fn is_text(answer: &Record, text: &str) -> bool {
    matches!(&answer.data, RData::TXT(found) if found.txt_data.concat() == text.as_bytes())
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let servers = vec![NameServerConfig::new(server.ip(), true, connections.into())];
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = ASK_TIMEOUT;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}
