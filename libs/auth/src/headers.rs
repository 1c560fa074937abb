//! The headers of a call that mean the same in every service.
use std::time::Duration;

use http::HeaderMap;

/// Header that carries the token of the calling service, see [`crate::ServiceKey`].
pub const SERVICE_TOKEN_HEADER: &str = "x-weft-service-token";
/// Header that names the product a call is for, by slug.
pub const PRODUCT_HEADER: &str = "x-weft-product";
/// Header that carries the id of a request through every service it touches.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Header that says how long the caller will wait, for its whole call.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";

/// A longer request id is replaced, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id that a request came with, if it can be taken over: 1 to 128 letters, digits, `.`, `_` and `-`, nothing
/// that means something in a log or a query. None: the request needs a new one.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    headers
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(is_plain))
}

/// How long the caller will wait, by its `grpc-timeout`: at most 8 digits and a unit, as
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> has it. None: it does not say, or not in this format.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if amount.is_empty() || amount.len() > 8 || !amount.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = amount.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: &'static str, text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        headers
    }

    #[test]
    fn a_harmless_request_id_is_taken_over() {
        for good in ["a", "abc-1.2_3", "x".repeat(128).as_str()] {
            assert_eq!(request_id(&with(REQUEST_ID_HEADER, good)), Some(good));
        }
        for bad in ["", "a b", "order-7/a", "x".repeat(129).as_str(), "<script>", "é"] {
            assert_eq!(request_id(&with(REQUEST_ID_HEADER, bad)), None, "{bad}");
        }
    }

    #[test]
    fn every_unit_is_understood() {
        let read = |text: &str| grpc_timeout(&with(TIMEOUT_HEADER, text));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
    }

    #[test]
    fn nonsense_is_no_timeout() {
        for text in ["", "S", "1", "1x", "-1S", "+1S", "123456789S", "1.5S", " 1S"] {
            assert_eq!(grpc_timeout(&with(TIMEOUT_HEADER, text)), None, "{text}");
        }
    }
}
