//! Sessions that ended before their access tokens expired.
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use weft_core::Clock;
use weft_proto::Channel;
use weft_proto::identity::v1::ListRevocationsRequest;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;

/// How often identity is asked for the news. With the call itself this keeps the promise that an ended
/// session is refused everywhere within a second.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How long one answer may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Revocations per answer.
const PAGE_SIZE: i32 = 1000;
/// Expired entries are forgotten once in this many polls, which is about a minute.
const POLLS_PER_PRUNE: u32 = 200;

/// The ended sessions whose access tokens have not expired yet, shared by all clones.
///
/// It holds no more than the sessions that end within the life of one access token.
#[derive(Clone, Default)]
pub struct Revocations(Arc<RwLock<HashMap<String, i64>>>);

impl Revocations {
    /// An empty set.
    pub fn new() -> Revocations {
        Revocations::default()
    }

    /// Whether the session with this id has ended.
    pub fn contains(&self, sid: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(sid)
    }

    /// Refuses the session's tokens from now on. `expires_at_ms`: when its last access token expires by
    /// itself, in ms since 1970; it may be forgotten afterwards.
    pub fn insert(&self, sid: impl Into<String>, expires_at_ms: i64) {
        let mut ended = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let until = ended.entry(sid.into()).or_insert(expires_at_ms);
        *until = expires_at_ms.max(*until);
    }

    /// Forgets what has expired at `now_ms`.
    pub fn prune(&self, now_ms: i64) {
        let mut ended = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, expires_at_ms| *expires_at_ms > now_ms);
    }

    /// How many sessions it holds.
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("len", &self.len()).finish()
    }
}

/// Keeps `revocations` up to date from identity, until `cancel`. While identity is away it keeps what it has
/// and goes on from there afterwards.
pub async fn follow(
    mut client: KeyServiceClient<Channel>,
    revocations: Revocations,
    clock: Clock,
    cancel: CancellationToken,
) {
    let mut place = String::new();
    let mut away = false;
    let mut polls = 0_u32;
    let poll = async {
        loop {
            let result = catch_up(&mut client, &revocations, &mut place).await;
            match (&result, away) {
                (Err(status), false) => {
                    tracing::warn!(code = ?status.code(), "ended sessions cannot be read from identity; trying on");
                }
                (Ok(()), true) => tracing::info!("ended sessions are read from identity again"),
                _ => {}
            }
            away = result.is_err();
            polls = polls.wrapping_add(1);
            if polls.is_multiple_of(POLLS_PER_PRUNE) {
                revocations.prune(clock.now_ms());
            }
            sleep(POLL_EVERY).await;
        }
    };
    cancel.run_until_cancelled(poll).await;
}

/// Reads from `place` to the end and leaves `place` there.
async fn catch_up(
    client: &mut KeyServiceClient<Channel>,
    revocations: &Revocations,
    place: &mut String,
) -> Result<(), Status> {
    loop {
        let message = ListRevocationsRequest { page_token: place.clone(), page_size: PAGE_SIZE };
        let mut request = tonic::Request::new(message);
        request.set_timeout(POLL_TIMEOUT);
        let answer = match timeout(POLL_TIMEOUT, client.list_revocations(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                // A place that identity does not know (its database was restored): read all of it again.
                if status.code() == Code::InvalidArgument {
                    place.clear();
                }
                return Err(status);
            }
            Err(_) => return Err(Status::deadline_exceeded("identity did not answer in time")),
        };
        let count = answer.revocations.len();
        for ended in answer.revocations {
            revocations.insert(ended.session_id, ended.expires_at);
        }
        let moved = *place != answer.next_page_token;
        *place = answer.next_page_token;
        if count < PAGE_SIZE as usize || !moved {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_forgotten_when_its_tokens_have_expired() {
        let revocations = Revocations::new();
        revocations.insert("a", 1_000);
        revocations.insert("b", 2_000);
        revocations.prune(1_000);
        assert!(!revocations.contains("a"));
        assert!(revocations.contains("b"));
    }

    #[test]
    fn hearing_of_it_twice_does_not_shorten_a_revocation() {
        let revocations = Revocations::new();
        revocations.insert("a", 2_000);
        revocations.insert("a", 1_000);
        revocations.prune(1_500);
        assert!(revocations.contains("a"));
    }

    #[test]
    fn clones_share_the_set() {
        let revocations = Revocations::new();
        revocations.clone().insert("a", 1);
        assert!(revocations.contains("a"));
    }
}
