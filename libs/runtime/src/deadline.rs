//! How long calls may take, and the writing of the `grpc-timeout` header, which [`weft_auth::grpc_timeout`] reads.
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use weft_auth::TIMEOUT_HEADER;

use crate::mesh_config::MeshConfig;
use crate::methods::Method;

/// The header.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_HEADER);

/// The largest number that 8 digits can say.
const MAX_AMOUNT: u128 = 99_999_999;

/// How long calls may take at most.
#[derive(Clone, Copy)]
pub(crate) struct Caps {
    usual: Duration,
    long: Duration,
}

impl Caps {
    /// As it is configured.
    pub fn of(config: &MeshConfig) -> Caps {
        Caps { usual: config.request_timeout(), long: config.long_request_timeout() }
    }

    /// For this RPC.
    pub fn get(self, method: &Method) -> Duration {
        if method.is_long { self.long } else { self.usual }
    }
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
    use http::HeaderMap;
    use weft_auth::grpc_timeout;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for written in [0, 1, 999, 30_000_000, 99_999_999].map(Duration::from_micros) {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, header_of(written))]);
            assert_eq!(grpc_timeout(&headers), Some(written));
        }
        let day = Duration::from_secs(86_400);
        assert_eq!(grpc_timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, header_of(day))])), Some(day));
    }
}
