//! The keys that access tokens are checked with: public ones, or one secret if the operator wants that.
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use weft_core::Clock;
use weft_proto::Channel;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::{GetJwksRequest, Jwk};

use crate::flight::{Flights, Wait};
use crate::moment::Moment;

/// Keys older than this are fetched again, by one call that waits for the answer; the others go on.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);
/// Keys older than this are not used while a first attempt to fetch them again is under way. So a removed
/// key is refused after at most this long, unless identity cannot be reached.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// At most one fetch in this time, however many unknown key ids are presented.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// The same while no key is held at all: nothing can be checked until a fetch succeeds, so recovery after
/// identity starts must be quick.
const FETCH_PAUSE_EMPTY: Duration = Duration::from_secs(1);
/// How long a call waits for a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);
/// More keys than this in one set are ignored.
const MAX_KEYS: usize = 100;

/// The keys of access tokens, and with them the one algorithm that is believed: a token's own word for it counts for
/// nothing. Cheap to clone; clones share one cache.
#[derive(Clone)]
pub struct Keys(Source);

#[derive(Clone)]
enum Source {
    Fixed(Arc<KeySet>),
    Remote(Arc<Remote>),
    Shared(Arc<KeySet>),
}

/// Keys by their id. Stays the same allocation for as long as its content does, so that what was verified
/// with it can be recognised by address.
#[derive(Default)]
pub(crate) struct KeySet {
    keys: HashMap<String, Key>,
    /// In place of the keys, whatever id is asked for.
    shared: Option<DecodingKey>,
}

struct Key {
    x: [u8; 32],
    decoding: DecodingKey,
}

/// Why a key was not found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The source was asked lately and does not have it.
    Unknown,
    /// No keys are held and the source cannot be reached.
    Unavailable,
}

struct Remote {
    client: KeyServiceClient<Channel>,
    /// Apart from the flight, which holds it too and would otherwise hold itself.
    held: Arc<RwLock<Option<Held>>>,
    flights: Flights,
}

struct Held {
    set: Arc<KeySet>,
    /// When the fetch that brought them began.
    asked: Moment,
}

impl Keys {
    /// Keys from identity, fetched when first needed and cached.
    ///
    /// Concurrent callers share one fetch, and there is at most one in 10 s (in 1 s while no key is held).
    /// While identity is away the cached keys go on working; while it answers, a key that it no longer
    /// lists is refused after at most 10 min.
    pub fn remote(client: KeyServiceClient<Channel>) -> Keys {
        Keys(Source::Remote(Arc::new(Remote { client, held: Arc::default(), flights: Flights::default() })))
    }

    /// Keys that never change: identity's own. A key that is not a usable Ed25519 key is left out.
    pub fn fixed(keys: Vec<Jwk>) -> Keys {
        Keys(Source::Fixed(Arc::new(KeySet::of(&keys))))
    }

    /// One secret that signs and checks (HS256). Everybody who has it can mint tokens.
    pub fn shared(secret: &SecretString) -> Keys {
        let shared = Some(DecodingKey::from_secret(secret.expose_secret().as_bytes()));
        Keys(Source::Shared(Arc::new(KeySet { keys: HashMap::new(), shared })))
    }

    /// What tokens must be signed with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Source::Shared(_) => Algorithm::HS256,
            Source::Fixed(_) | Source::Remote(_) => Algorithm::EdDSA,
        }
    }

    /// Fetches old keys again, see [`REFRESH_AFTER`] and [`MAX_AGE`]; returns at once if they are not old.
    pub(crate) async fn freshen(&self, clock: &Clock) {
        let Source::Remote(remote) = &self.0 else {
            return;
        };
        let now = Moment::now(clock);
        let Some(age) = remote.age(now) else { return };
        if age < REFRESH_AFTER {
            return;
        }
        let old = age >= MAX_AGE;
        let wait = if old { Wait::UnlessAway } else { Wait::OnlyOwn };
        remote.fetch(now, wait).await;
    }

    /// The key set that has a key for `kid`.
    pub(crate) async fn find(&self, kid: &str, clock: &Clock) -> Result<Arc<KeySet>, NoKey> {
        if let Some(set) = self.held()
            && set.get(kid).is_some()
        {
            return Ok(set);
        }
        if let Source::Remote(remote) = &self.0 {
            remote.fetch(Moment::now(clock), Wait::Always).await;
        }
        let set = self.held().ok_or(NoKey::Unavailable)?;
        if set.get(kid).is_some() { Ok(set) } else { Err(NoKey::Unknown) }
    }

    /// Whether `set` is what the source lists now.
    pub(crate) fn is_current(&self, set: &Arc<KeySet>) -> bool {
        match &self.0 {
            Source::Fixed(own) | Source::Shared(own) => Arc::ptr_eq(own, set),
            Source::Remote(remote) => {
                let held = remote.held.read().unwrap_or_else(PoisonError::into_inner);
                held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.set, set))
            }
        }
    }

    fn held(&self) -> Option<Arc<KeySet>> {
        match &self.0 {
            Source::Fixed(set) | Source::Shared(set) => Some(set.clone()),
            Source::Remote(remote) => {
                let held = remote.held.read().unwrap_or_else(PoisonError::into_inner);
                held.as_ref().map(|held| held.set.clone())
            }
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Source::Fixed(_) => "fixed",
            Source::Remote(_) => "remote",
            Source::Shared(_) => "shared",
        };
        f.debug_tuple("Keys").field(&kind).finish()
    }
}

impl KeySet {
    /// As RFC 7517 asks: what is not understood is ignored.
    fn of(jwks: &[Jwk]) -> KeySet {
        let usable = jwks.iter().take(MAX_KEYS).filter_map(|jwk| Some((jwk.kid.clone(), Key::of(jwk)?)));
        KeySet { keys: usable.collect(), shared: None }
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&DecodingKey> {
        self.shared.as_ref().or_else(|| self.keys.get(kid).map(|key| &key.decoding))
    }

    fn same(&self, other: &KeySet) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().all(|(kid, key)| other.keys.get(kid).is_some_and(|theirs| theirs.x == key.x))
    }
}

impl Key {
    /// `None` for anything but an Ed25519 signature key. The point itself is checked here, because
    /// jsonwebtoken panics on a key that is too short.
    fn of(jwk: &Jwk) -> Option<Key> {
        let fits = jwk.kty == "OKP"
            && jwk.crv == "Ed25519"
            && !jwk.kid.is_empty()
            && matches!(jwk.alg.as_str(), "" | "EdDSA" | "Ed25519")
            && matches!(jwk.r#use.as_str(), "" | "sig");
        if !fits {
            return None;
        }
        let x: [u8; 32] = URL_SAFE_NO_PAD.decode(&jwk.x).ok()?.try_into().ok()?;
        let point = VerifyingKey::from_bytes(&x).ok()?;
        (!point.is_weak()).then(|| Key { x, decoding: DecodingKey::from_ed_der(&x) })
    }
}

impl Remote {
    fn age(&self, now: Moment) -> Option<Duration> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| now.since(held.asked))
    }

    /// Joins the fetch that is under way, or begins one if the last is long enough ago.
    async fn fetch(&self, now: Moment, wait: Wait) {
        let pause = if self.age(now).is_some() { FETCH_PAUSE } else { FETCH_PAUSE_EMPTY };
        let begin = || fetch(self.client.clone(), self.held.clone(), now).boxed();
        self.flights.join(now, pause, wait, begin).await;
    }
}

/// Fetches the keys into `held`; false if that failed, and then what is held stays.
async fn fetch(mut client: KeyServiceClient<Channel>, held: Arc<RwLock<Option<Held>>>, asked: Moment) -> bool {
    let mut request = tonic::Request::new(GetJwksRequest {});
    request.set_timeout(FETCH_TIMEOUT);
    let set = match timeout(FETCH_TIMEOUT, client.get_jwks(request)).await {
        Ok(Ok(answer)) => KeySet::of(&answer.into_inner().keys),
        Ok(Err(status)) => {
            tracing::warn!(code = ?status.code(), "the keys of access tokens could not be fetched from identity");
            return false;
        }
        Err(_) => {
            tracing::warn!("identity did not answer in time for the keys of access tokens");
            return false;
        }
    };
    if set.keys.is_empty() {
        tracing::warn!("identity lists no usable key for access tokens");
        return false;
    }
    let mut held = held.write().unwrap_or_else(PoisonError::into_inner);
    let set = match held.take() {
        Some(before) if before.set.same(&set) => before.set,
        _ => Arc::new(set),
    };
    *held = Some(Held { set, asked });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signer;

    fn jwk() -> Jwk {
        Signer::from_seed("one".into(), &[7; 32]).jwk()
    }

    #[test]
    fn only_a_whole_ed25519_signature_key_is_used() {
        assert_eq!(KeySet::of(&[jwk()]).keys.len(), 1);
        let small_order = URL_SAFE_NO_PAD.encode([0_u8; 32]);
        let bad = [
            Jwk { kty: "RSA".into(), ..jwk() },
            Jwk { crv: "X25519".into(), ..jwk() },
            Jwk { alg: "HS256".into(), ..jwk() },
            Jwk { r#use: "enc".into(), ..jwk() },
            Jwk { kid: String::new(), ..jwk() },
            Jwk { x: String::new(), ..jwk() },
            Jwk { x: "AAAA".into(), ..jwk() },
            Jwk { x: "not base64 !".into(), ..jwk() },
            Jwk { x: small_order, ..jwk() },
        ];
        for key in bad {
            assert!(KeySet::of(std::slice::from_ref(&key)).keys.is_empty(), "{key:?}");
        }
    }

    #[test]
    fn sets_are_the_same_if_every_key_is() {
        let other = Signer::from_seed("one".into(), &[8; 32]).jwk();
        assert!(KeySet::of(&[jwk()]).same(&KeySet::of(&[jwk()])));
        assert!(!KeySet::of(&[jwk()]).same(&KeySet::of(&[other])));
        assert!(!KeySet::of(&[jwk()]).same(&KeySet::of(&[])));
    }
}
