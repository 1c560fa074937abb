//! An operator's own gRPC services behind the edge: which package prefix is where, and what they look like.
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DescriptorPool;

use crate::config::Config;
use crate::error::Error;
use crate::upstream::Upstream;

/// Services of an operator.
#[derive(Default)]
pub struct Operator {
    /// By package prefix.
    pub upstreams: Vec<(String, Arc<Upstream>)>,
    /// Their descriptors, decoded.
    pub pool: DescriptorPool,
    /// The same as they came, for reflection.
    pub encoded: Vec<u8>,
}

impl Operator {
    /// Reads `WEFT_EDGE_UPSTREAMS` and `WEFT_EDGE_DESCRIPTORS`.
    pub fn read(config: &Config, connect_timeout: Duration) -> Result<Operator, Error> {
        let upstreams = upstreams(&config.weft_edge_upstreams, connect_timeout)?;
        let wrong = |problem: String| Error::Config { key: "WEFT_EDGE_DESCRIPTORS", problem };
        let Some(path) = &config.weft_edge_descriptors else {
            if upstreams.is_empty() {
                return Ok(Operator::default());
            }
            return Err(wrong("is needed with WEFT_EDGE_UPSTREAMS: give a descriptor set with imports".to_owned()));
        };
        let encoded = std::fs::read(path).map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
        let pool = DescriptorPool::decode(encoded.as_slice())
            .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        for (prefix, _) in &upstreams {
            if !pool.services().any(|service| is_in(service.full_name(), prefix)) {
                return Err(wrong(format!("{} describes no service of `{prefix}`", path.display())));
            }
        }
        Ok(Operator { upstreams, pool, encoded })
    }

    /// Where a service of the operator's is: by the longest prefix.
    pub fn upstream_of(&self, service: &str) -> Option<Arc<Upstream>> {
        let fitting = self.upstreams.iter().filter(|(prefix, _)| is_in(service, prefix));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, upstream)| upstream.clone())
    }
}

/// Whether a full name is in a package: `a.b` holds `a.b.C`, not `a.bc.D`.
fn is_in(full_name: &str, prefix: &str) -> bool {
    full_name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
}

fn upstreams(list: &str, connect_timeout: Duration) -> Result<Vec<(String, Arc<Upstream>)>, Error> {
    let wrong = |problem: String| Error::Config { key: "WEFT_EDGE_UPSTREAMS", problem };
    let mut upstreams: Vec<(String, Arc<Upstream>)> = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (prefix, url) =
            entry.split_once('=').ok_or_else(|| wrong(format!("`{entry}` is not package.prefix=http://host:port")))?;
        let prefix = prefix.trim().trim_end_matches('.');
        let named = !prefix.is_empty()
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
        if !named {
            return Err(wrong(format!("`{prefix}` is not a package")));
        }
        if prefix == "weft" || prefix.starts_with("weft.") || prefix == "grpc" || prefix.starts_with("grpc.") {
            return Err(wrong(format!("`{prefix}` is not yours: weft and grpc are answered by the mesh")));
        }
        if upstreams.iter().any(|(other, _)| other == prefix) {
            return Err(wrong(format!("`{prefix}` is given twice")));
        }
        let upstream =
            Upstream::new(prefix, url.trim(), connect_timeout, false).map_err(|error| wrong(error.to_string()))?;
        upstreams.push((prefix.to_owned(), Arc::new(upstream)));
    }
    Ok(upstreams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_dot() {
        assert!(is_in("a.b.C", "a.b"));
        assert!(!is_in("a.bc.D", "a.b"));
        assert!(!is_in("a.b", "a.b"));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let upstreams = upstreams("a=http://127.0.0.1:1, a.b=http://127.0.0.1:2", Duration::ZERO).unwrap();
        let operator = Operator { upstreams, ..Operator::default() };
        assert_eq!(operator.upstream_of("a.b.C").unwrap().name(), "a.b");
        assert_eq!(operator.upstream_of("a.c.D").unwrap().name(), "a");
        assert!(operator.upstream_of("b.C").is_none());
    }

    #[test]
    fn mistakes_in_the_list_are_named() {
        for bad in [
            "a",
            "=http://x:1",
            "a=ftp://x",
            "a=http://x:1/path",
            "a=x:1",
            "weft.identity=http://x:1",
            "a=http://x:1,a=http://y:1",
            "a b=http://x:1",
        ] {
            assert!(upstreams(bad, Duration::ZERO).is_err(), "{bad}");
        }
    }
}
