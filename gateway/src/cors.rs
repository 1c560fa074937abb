//! Which web pages may call the edge (AD-10). An origin that is not allowed is never echoed.
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, x-weft-product, x-request-id, idempotency-key, if-match, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, connect-timeout-ms, last-event-id, openai-organization, openai-project, openai-beta, x-stainless-arch, x-stainless-async, x-stainless-helper-method, x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout",
);
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, x-request-id, retry-after, x-should-retry, ratelimit-limit, ratelimit-remaining, ratelimit-reset, etag, location",
);
/// For how long a browser need not ask again, in seconds.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("7200");

/// The allowed origins.
#[derive(Debug, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// `http://localhost:*`: this host with any port, or none.
    AnyPort(String),
    /// `app://*`: any host of this scheme; the text ends in `://`.
    AnyHost(String),
}

impl Origins {
    /// Parses the comma-separated list. The error says which entry cannot be understood.
    pub fn parse(list: &str) -> Result<Origins, String> {
        list.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(Pattern::parse)
            .collect::<Result<_, _>>()
            .map(Origins)
    }

    /// Whether a page of this origin may call.
    pub fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(origin))
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Pattern, String> {
        let wrong = || {
            format!(
                "`{entry}` is not an origin; write scheme://host, scheme://host:port, scheme://host:* or scheme://*"
            )
        };
        let (scheme, host) = entry.split_once("://").ok_or_else(wrong)?;
        let plain = |text: &str| !text.is_empty() && !text.contains(['*', '/', ' ', '@', '?', '#']);
        if !plain(scheme) {
            return Err(wrong());
        }
        match host.strip_suffix(":*") {
            // Any host of the web's own schemes would be every page there is.
            _ if host == "*" && !matches!(scheme, "http" | "https") => Ok(Pattern::AnyHost(format!("{scheme}://"))),
            Some(host) if plain(host) => Ok(Pattern::AnyPort(format!("{scheme}://{host}"))),
            None if plain(host) => Ok(Pattern::Exact(entry.to_owned())),
            _ => Err(wrong()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Pattern::Exact(exact) => origin == exact,
            Pattern::AnyPort(base) => match origin.strip_prefix(base.as_str()) {
                Some("") => true,
                Some(rest) => {
                    rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
                }
                None => false,
            },
            Pattern::AnyHost(scheme) => origin.strip_prefix(scheme.as_str()).is_some_and(|host| {
                host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
            }),
        }
    }
}

/// Lets a page of this (allowed) origin read the answer.
pub fn expose(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(VARY, HeaderValue::from_static("origin"));
}

/// Answers a browser that asks before it calls.
pub fn preflight(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_origins_are_allowed() {
        let origins = Origins::parse("app://*, http://localhost:*, https://adiuva.example").unwrap();
        for good in ["app://adiuva", "app://", "http://localhost:3000", "http://localhost", "https://adiuva.example"] {
            assert!(origins.allow(good), "{good}");
        }
        for evil in [
            "null",
            "",
            "https://evil.example",
            "http://localhost.evil",
            "http://localhost.evil:80",
            "http://localhost:80.evil.example",
            "http://localhost:99999",
            "http://localhost:+80",
            "http://localhost:",
            "https://localhost:3000",
            "https://adiuva.example.evil",
            "https://adiuva.example:8443",
            "xapp://adiuva",
            "app://a/b",
            "HTTP://LOCALHOST:3000",
        ] {
            assert!(!origins.allow(evil), "{evil}");
        }
    }

    #[test]
    fn patterns_that_allow_too_much_are_refused() {
        for bad in ["*", "http://*", "https://*", "http://*.example", "localhost:3000", "http://localhost:*/x", "null"]
        {
            assert!(Origins::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Origins::parse("").unwrap(), Origins(Vec::new()));
    }
}
