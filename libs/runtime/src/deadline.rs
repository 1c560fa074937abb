//! The `grpc-timeout` header: how long the caller will wait, and for its whole call.
//! Format: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, at most 8 digits and a unit.
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest number that 8 digits can say.
const MAX_AMOUNT: u128 = 99_999_999;

/// How long the caller will wait. None: it does not say, or not in the header's format.
pub(crate) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if amount.is_empty() || amount.len() > 8 || !amount.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = amount.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The header's value for a duration, in the finest unit that holds it.
pub(crate) fn header_of(timeout: Duration) -> HeaderValue {
    let units = [(1_000, "u"), (1_000_000, "m"), (1_000_000_000, "S")];
    let nanos = timeout.as_nanos();
    let (amount, unit) = units
        .into_iter()
        .map(|(nanos_per_unit, unit)| (nanos / nanos_per_unit, unit))
        .find(|(amount, _)| *amount <= MAX_AMOUNT)
        .unwrap_or((MAX_AMOUNT, "S"));
    // Digits and a letter are always a valid header.
    HeaderValue::try_from(format!("{amount}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("30S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Option<Duration> {
        timeout_of(&HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]))
    }

    #[test]
    fn what_is_written_is_read() {
        for timeout in [0, 1, 999, 30_000_000, 99_999_999].map(Duration::from_micros) {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, header_of(timeout))]);
            assert_eq!(timeout_of(&headers), Some(timeout));
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(timeout_of(&HeaderMap::from_iter([(GRPC_TIMEOUT, header_of(day))])), Some(day));
    }

    #[test]
    fn every_unit_is_understood() {
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
            assert_eq!(read(text), None, "{text}");
        }
    }
}
