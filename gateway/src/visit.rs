//! A request's other end, and how it stands with the limit that counted it.
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use weft_cache::Decision;

/// Requests a minute of the limit that binds. These three are what the drafts of draft-ietf-httpapi-ratelimit-headers
/// called them until 06; clients know them, and hardly one the structured `RateLimit` of the later drafts.
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// How many more are admitted at this moment.
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// Seconds until the whole limit is there again; for who is refused, until the next one is admitted.
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// One request's other end.
#[derive(Debug)]
pub struct Visit {
    /// The other end of the connection.
    pub peer: SocketAddr,
    standing: OnceLock<(u32, Decision)>,
    /// What the limit of its address has decided when identity had to be asked who it is.
    asked: OnceLock<(u32, Decision)>,
}

impl Visit {
    /// A request that no limit has counted yet.
    pub fn new(peer: SocketAddr) -> Visit {
        Visit { peer, standing: OnceLock::new(), asked: OnceLock::new() }
    }

    /// What the limit of so many a minute that binds has decided. A request is counted once.
    pub fn counted(&self, per_minute: u32, decision: Decision) {
        let _first = self.standing.set((per_minute, decision));
    }

    /// Identity has to be asked who it is, which was counted as `asking`.
    pub fn asked(&self, asking: Visit) {
        if let Some(standing) = asking.standing.into_inner() {
            let _first = self.asked.set(standing);
        }
    }

    /// Whether it was counted for asking who it is.
    pub fn has_asked(&self) -> bool {
        self.asked.get().is_some()
    }

    /// Tells how it stands, in any protocol's headers. Says nothing of a request that no limit has counted.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let Some((per_minute, decision)) = self.standing.get().or(self.asked.get()) else { return };
        let (remaining, reset) = match *decision {
            Decision::Admitted { remaining, reset } => (remaining, whole_seconds(reset)),
            Decision::Refused { retry_after } => {
                let seconds = retry_after_s(retry_after);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
                (0, seconds)
            }
        };
        headers.insert(LIMIT, HeaderValue::from(*per_minute));
        headers.insert(REMAINING, HeaderValue::from(remaining));
        headers.insert(RESET, HeaderValue::from(reset));
    }
}

/// In how many whole seconds to come back, so that waiting that long is always enough.
pub fn retry_after_s(wait: Duration) -> u64 {
    whole_seconds(wait).max(1)
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
