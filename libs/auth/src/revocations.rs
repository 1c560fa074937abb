//! Sessions that ended, and tokens that were withdrawn, before the tokens expired; and what identity wants to know
//! in return: which tokens are used.
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use weft_proto::Channel;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::{ListRevocationsRequest, ReportUseRequest};

use crate::uses::Uses;
use crate::{Claims, Verifier};

/// How often identity is asked for the news. With the call itself this keeps the promise that an ended
/// session is refused everywhere within a second.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How long one answer may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Revocations per answer.
const PAGE_SIZE: i32 = 1000;
/// Uses per report, the most that identity takes.
const REPORT_SIZE: usize = 1000;
/// Expired entries are forgotten once in this many polls, which is about a minute.
const POLLS_PER_PRUNE: u32 = 200;

/// Why a token is refused before it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its session is over, or it was withdrawn.
    Ended,
    /// Its account is suspended.
    Suspended,
}

/// One entry.
struct Entry {
    expires_at_ms: i64,
    refusal: Refusal,
    /// Of an account or an API key: tokens with greater ids are good. Empty for sessions and single tokens.
    last_token_id: String,
}

/// The ids of ended sessions, of withdrawn tokens and of accounts with such, that have not expired yet, shared by all
/// clones.
///
/// It holds no more than what ends within the life of one access token.
#[derive(Clone, Default)]
pub struct Revocations(Arc<Shared>);

#[derive(Default)]
struct Shared {
    entries: RwLock<HashMap<String, Entry>>,
    /// Told of every entry.
    news: Notify,
}

impl Revocations {
    /// An empty set.
    pub fn new() -> Revocations {
        Revocations::default()
    }

    /// Whether the session or token with this id has ended, or tokens of the account with it were withdrawn.
    pub fn contains(&self, id: &str) -> bool {
        self.entries().contains_key(id)
    }

    /// Why a token with these claims is to be refused, if it is. A session that is over is over, whatever else its
    /// account is. `renews`: so is one of an API key for which there are newer ones.
    pub(crate) fn refusal(&self, claims: &Claims, renews: bool) -> Option<Refusal> {
        let entries = self.entries();
        let withdrawn = |id: &String| entries.get(id).filter(|entry| claims.jti <= entry.last_token_id);
        let key = || claims.key.as_ref().filter(|_key| renews).and_then(|key| withdrawn(&key.id));
        let entry = entries.get(&claims.sid).or_else(|| withdrawn(&claims.sub)).or_else(key);
        let entry = entry.or_else(|| entries.get(&claims.jti));
        entry.map(|entry| entry.refusal)
    }

    /// Why whatever was begun with a token has to end: its session is over, or its account is suspended. A token that
    /// was only withdrawn, in favour of another one, is no reason. Waits until there is one.
    pub(crate) async fn until_over(&self, claims: &Claims) -> Refusal {
        loop {
            let news = self.0.news.notified();
            match self.refusal(claims, false) {
                Some(Refusal::Suspended) => return Refusal::Suspended,
                Some(Refusal::Ended) if self.contains(&claims.sid) => return Refusal::Ended,
                _ => news.await,
            }
        }
    }

    /// Refuses the session's tokens, or the one token, from now on. `expires_at_ms`: when the last of them
    /// expires by itself, in ms since 1970; it may be forgotten afterwards. The last refusal of an id counts.
    pub fn insert(&self, id: impl Into<String>, refusal: Refusal, expires_at_ms: i64) {
        self.insert_account(id, String::new(), refusal, expires_at_ms);
    }

    /// Refuses the tokens of an account, or of an API key, whose ids are not greater than `last_token_id`, as [`Revocations::insert`] refuses
    /// those of a session. Ids are UUID v7, so tokens that were issued later are good.
    pub fn insert_account(
        &self,
        account_id: impl Into<String>,
        last_token_id: impl Into<String>,
        refusal: Refusal,
        expires_at_ms: i64,
    ) {
        let last_token_id = last_token_id.into();
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(account_id.into());
        let entry = entry.or_insert(Entry { expires_at_ms, refusal, last_token_id: String::new() });
        entry.expires_at_ms = expires_at_ms.max(entry.expires_at_ms);
        entry.refusal = refusal;
        if entry.last_token_id < last_token_id {
            entry.last_token_id = last_token_id;
        }
        drop(entries);
        self.0.news.notify_waiters();
    }

    /// Forgets what has expired at `now_ms`.
    pub fn prune(&self, now_ms: i64) {
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.expires_at_ms > now_ms);
    }

    /// How many ids it holds.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> RwLockReadGuard<'_, HashMap<String, Entry>> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("len", &self.len()).finish()
    }
}

/// Keeps the verifier's revocations up to date from identity, and tells identity which tokens it saw, until
/// `cancel`; then once more what is left to tell. While identity is away it keeps what it has and goes on from there
/// afterwards.
pub async fn follow(mut client: KeyServiceClient<Channel>, verifier: Verifier, cancel: CancellationToken) {
    let mut unreported = Vec::new();
    cancel.run_until_cancelled(poll(&mut client, &verifier, &mut unreported)).await;
    if let Err(status) = report(&mut client, verifier.uses(), &mut unreported).await {
        tracing::warn!(code = ?status.code(), "identity was not told of the last tokens used");
    }
}

/// `unreported` are uses that were taken from the list, and that identity may not know yet.
async fn poll(client: &mut KeyServiceClient<Channel>, verifier: &Verifier, unreported: &mut Vec<String>) {
    let revocations = verifier.revocations();
    let mut place = String::new();
    let mut away = false;
    let mut polls = 0_u32;
    loop {
        let mut result = catch_up(client, revocations, &mut place).await;
        if result.is_ok() {
            result = report(client, verifier.uses(), unreported).await;
        }
        match (&result, away) {
            (Err(status), false) => {
                tracing::warn!(code = ?status.code(), "ended sessions cannot be read from identity, nor used tokens reported; trying on");
            }
            (Ok(()), true) => tracing::info!("ended sessions are read from identity again"),
            _ => {}
        }
        away = result.is_err();
        polls = polls.wrapping_add(1);
        if polls.is_multiple_of(POLLS_PER_PRUNE) {
            revocations.prune(verifier.clock().now_ms());
        }
        sleep(POLL_EVERY).await;
    }
}

/// Reports every use so far. What identity has not confirmed stays in `unreported`.
async fn report(
    client: &mut KeyServiceClient<Channel>,
    uses: &Uses,
    unreported: &mut Vec<String>,
) -> Result<(), Status> {
    loop {
        if unreported.is_empty() {
            *unreported = uses.take(REPORT_SIZE);
        }
        if unreported.is_empty() {
            return Ok(());
        }
        let mut request = tonic::Request::new(ReportUseRequest { token_ids: unreported.clone() });
        request.set_timeout(POLL_TIMEOUT);
        match timeout(POLL_TIMEOUT, client.report_use(request)).await {
            Ok(Ok(_)) => unreported.clear(),
            Ok(Err(status)) => {
                // It would be refused again and again, and everything behind it would wait.
                if status.code() == Code::InvalidArgument {
                    unreported.clear();
                }
                return Err(status);
            }
            Err(_) => return Err(no_answer()),
        }
    }
}

fn no_answer() -> Status {
    Status::deadline_exceeded("identity did not answer in time")
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
            Err(_) => return Err(no_answer()),
        };
        let count = answer.revocations.len();
        for ended in answer.revocations {
            let refusal = if ended.suspended { Refusal::Suspended } else { Refusal::Ended };
            revocations.insert_account(ended.id, ended.last_token_id, refusal, ended.expires_at);
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
        revocations.insert("a", Refusal::Ended, 1_000);
        revocations.insert("b", Refusal::Ended, 2_000);
        revocations.prune(1_000);
        assert!(!revocations.contains("a"));
        assert!(revocations.contains("b"));
    }

    #[test]
    fn hearing_of_it_twice_does_not_shorten_a_revocation() {
        let revocations = Revocations::new();
        revocations.insert("a", Refusal::Ended, 2_000);
        revocations.insert("a", Refusal::Ended, 1_000);
        revocations.prune(1_500);
        assert!(revocations.contains("a"));
    }

    #[test]
    fn clones_share_the_set() {
        let revocations = Revocations::new();
        revocations.clone().insert("a", Refusal::Ended, 1);
        assert!(revocations.contains("a"));
    }

    #[test]
    fn the_last_refusal_of_an_id_counts() {
        let revocations = Revocations::new();
        revocations.insert("a", Refusal::Suspended, 1_000);
        revocations.insert("a", Refusal::Ended, 1_000);
        assert_eq!(revocations.refusal(&claims("s", "a"), false), Some(Refusal::Ended));
        revocations.insert("a", Refusal::Suspended, 1_000);
        assert_eq!(revocations.refusal(&claims("s", "a"), false), Some(Refusal::Suspended));
        revocations.insert("s", Refusal::Ended, 1_000);
        assert_eq!(revocations.refusal(&claims("s", "a"), false), Some(Refusal::Ended), "its session is over as well");
        assert_eq!(revocations.refusal(&claims("t", "b"), false), None);
    }

    #[test]
    fn an_accounts_tokens_are_refused_up_to_the_last_one_that_was_withdrawn() {
        let revocations = Revocations::new();
        let of = |sub: &str, jti: &str| {
            let claims = Claims { sub: sub.to_owned(), ..claims("s", jti) };
            revocations.refusal(&claims, false)
        };
        revocations.insert_account("ana", "0190-5", Refusal::Suspended, 2_000);
        assert_eq!([of("ana", "0190-4"), of("ana", "0190-5")], [Some(Refusal::Suspended); 2]);
        assert_eq!([of("ana", "0190-6"), of("bob", "0190-4")], [None; 2]);
        revocations.insert_account("ana", "0190-3", Refusal::Ended, 1_000);
        assert_eq!(of("ana", "0190-5"), Some(Refusal::Ended), "restored: a bound never moves back");
        revocations.prune(1_500);
        assert_eq!(of("ana", "0190-5"), Some(Refusal::Ended));
        revocations.insert("0190-4", Refusal::Ended, 2_000);
        revocations.insert_account("ana", "0190-7", Refusal::Suspended, 2_000);
        assert_eq!(of("ana", "0190-4"), Some(Refusal::Suspended), "one that was withdrawn alone before, too");
    }

    #[tokio::test]
    async fn what_was_begun_ends_with_the_session_and_not_with_the_token() {
        let revocations = Revocations::new();
        revocations.insert("withdrawn", Refusal::Ended, 1_000);
        let claims = claims("session", "withdrawn");
        let mut over = Box::pin(revocations.until_over(&claims));
        assert!(futures_util::poll!(over.as_mut()).is_pending());
        revocations.insert("another", Refusal::Ended, 1_000);
        assert!(futures_util::poll!(over.as_mut()).is_pending());
        revocations.insert("session", Refusal::Ended, 1_000);
        assert_eq!(over.await, Refusal::Ended);
        revocations.insert("other", Refusal::Suspended, 1_000);
        assert_eq!(revocations.until_over(&super::tests::claims("open", "other")).await, Refusal::Suspended);
    }

    fn claims(sid: &str, jti: &str) -> Claims {
        Claims {
            iss: String::new(),
            aud: String::new(),
            sub: String::new(),
            prd: String::new(),
            sid: sid.to_owned(),
            jti: jti.to_owned(),
            email: String::new(),
            roles: Vec::new(),
            scp: None,
            key: None,
            iat: 0,
            exp: 0,
        }
    }
}
