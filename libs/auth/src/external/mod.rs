//! Tokens of issuers that an operator trusts.
//!
//! What a token says about how it is to be checked is never believed: the key that its `kid` names says the algorithm,
//! and keys come only from where the operator said. Whatever can be wrong with a token is one and the same error, and is
//! found before any key is asked for where that can be.
mod claims;
mod json;
mod jwk;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use tokio::time::timeout;
use weft_core::Clock;

pub use self::claims::{ExternalClaims, Rules};
use self::jwk::{KeySet, MAX_KID_BYTES};
use crate::flight::{Flights, Wait};
use crate::moment::Moment;

/// Longer tokens are refused unread, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Longest list of keys, in bytes.
const MAX_LIST_BYTES: usize = 256 * 1024;
/// Keys older than this are fetched again, by one call that waits for the answer; the others go on.
const REFRESH_AFTER: Duration = Duration::from_secs(5 * 60);
/// Keys older than this are not used while a first attempt to fetch them again is under way: a removed key is refused
/// after at most this long, unless the issuer cannot be reached.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// Keys older than this are not used. While keys are [`ExternalKeys::freshen`]ed, an outage begins with keys that are at
/// most [`REFRESH_AFTER`] old, so they go on for an hour of it.
const KEPT: Duration = Duration::from_secs(70 * 60);
/// At most one fetch in this time, however many unknown key ids are presented.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// The same while no key is held at all.
const FETCH_PAUSE_EMPTY: Duration = Duration::from_secs(1);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Header members with which a token says where its key is, or that more has to be understood than we do.
const FORBIDDEN_HEADERS: [&str; 9] = ["crit", "jku", "jwk", "x5u", "x5c", "cty", "b64", "zip", "enc"];

/// How the claims of every token of ours begin, in base64url: `{"iss":"weft","`.
const OURS: &str = "eyJpc3MiOiJ3ZWZ0Iiwi";

/// A list of keys (RFC 7517) on its way, or in words why there is none.
pub type Fetched = BoxFuture<'static, Result<Vec<u8>, String>>;

/// Why there are no claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalError {
    /// Something is wrong with the token; what, a forger does not learn.
    #[error("the token is not valid")]
    NotValid,
    /// No keys of the issuer are held, and they cannot be fetched.
    #[error("the keys of the issuer cannot be fetched")]
    Unavailable,
}

/// The keys of one issuer, fetched when first needed and cached. Cheap to clone; clones share one cache.
///
/// Concurrent callers share one fetch, and there is at most one in 10 s (in 1 s while no key is held). A removed key is
/// refused after at most 10 min. While the issuer is away its keys go on working for an hour.
#[derive(Clone)]
pub struct ExternalKeys(Arc<Inner>);

struct Inner {
    url: String,
    clock: Clock,
    fetch: Box<dyn Fn() -> Fetched + Send + Sync>,
    /// Apart from the flight, which holds it too and would otherwise hold itself.
    held: Arc<RwLock<Option<Held>>>,
    flights: Flights,
}

#[derive(Clone)]
struct Held {
    set: Arc<KeySet>,
    /// When the fetch that brought them began.
    asked: Moment,
}

impl ExternalKeys {
    /// The keys that `fetch` brings; `url` is where from, for log lines.
    pub fn new(
        url: impl Into<String>,
        clock: Clock,
        fetch: impl Fn() -> Fetched + Send + Sync + 'static,
    ) -> ExternalKeys {
        let (held, flights) = (Arc::default(), Flights::default());
        ExternalKeys(Arc::new(Inner { url: url.into(), clock, fetch: Box::new(fetch), held, flights }))
    }

    /// The claims of a token that keeps the rules.
    ///
    /// Errors: [`ExternalError::NotValid`], one and the same whatever is wrong; [`ExternalError::Unavailable`] only for
    /// a token of which everything but its signature is right.
    pub async fn verify(&self, token: &str, rules: &Rules) -> Result<ExternalClaims, ExternalError> {
        let now_s = self.0.clock.now_ms().div_euclid(1000);
        let parsed = Parsed::of(token).ok_or(ExternalError::NotValid)?;
        let claims = rules.check(parsed.claims, now_s).ok_or(ExternalError::NotValid)?;
        self.freshen().await;
        let set = self.find(&parsed.kid).await?;
        let key = set.get(&parsed.kid).filter(|key| key.algorithm == parsed.algorithm);
        let key = key.ok_or(ExternalError::NotValid)?;
        let signed = jsonwebtoken::crypto::verify(parsed.signature, parsed.message, &key.decoding, key.algorithm);
        if signed.is_ok_and(|right| right) { Ok(claims) } else { Err(ExternalError::NotValid) }
    }

    /// Fetches keys again that were fetched before and are older than 5 min; returns at once if they are not. Called
    /// now and then also when nobody signs in, it keeps an outage from beginning with old keys.
    pub async fn freshen(&self) {
        let now = Moment::now(&self.0.clock);
        let Some(age) = self.0.age(now).filter(|age| *age >= REFRESH_AFTER) else { return };
        let wait = if age >= MAX_AGE { Wait::UnlessAway } else { Wait::OnlyOwn };
        self.0.fetch(now, wait).await;
    }

    /// The keys that are held, with the one of this id among them.
    async fn find(&self, kid: &str) -> Result<Arc<KeySet>, ExternalError> {
        let now = Moment::now(&self.0.clock);
        if let Some(set) = self.0.held(now).filter(|set| set.get(kid).is_some()) {
            return Ok(set);
        }
        self.0.fetch(now, Wait::Always).await;
        self.0.held(now).ok_or(ExternalError::Unavailable)
    }
}

impl Inner {
    fn age(&self, now: Moment) -> Option<Duration> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| now.since(held.asked))
    }

    fn held(&self, now: Moment) -> Option<Arc<KeySet>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|held| now.since(held.asked) < KEPT).map(|held| held.set.clone())
    }

    async fn fetch(&self, now: Moment, wait: Wait) {
        let pause = if self.held(now).is_some() { FETCH_PAUSE } else { FETCH_PAUSE_EMPTY };
        let begin = || fetch(self.url.clone(), (self.fetch)(), self.held.clone(), now).boxed();
        self.flights.join(now, pause, wait, begin).await;
    }
}

impl fmt::Debug for ExternalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalKeys").field("url", &self.0.url).finish_non_exhaustive()
    }
}

/// Puts the keys into `held`; false if that failed, and then what is held stays.
async fn fetch(url: String, fetched: Fetched, held: Arc<RwLock<Option<Held>>>, asked: Moment) -> bool {
    let list = match timeout(FETCH_TIMEOUT, fetched).await {
        Ok(list) => {
            list.and_then(|bytes| if bytes.len() <= MAX_LIST_BYTES { Ok(bytes) } else { Err("too long".into()) })
        }
        Err(_) => Err("no answer in time".to_owned()),
    };
    let set = list.and_then(|bytes| match KeySet::parse(&bytes) {
        Some(set) if !set.is_empty() => Ok(set),
        _ => Err("no usable key in it".to_owned()),
    });
    match set {
        Ok(set) => {
            *held.write().unwrap_or_else(PoisonError::into_inner) = Some(Held { set: Arc::new(set), asked });
            true
        }
        Err(error) => {
            tracing::warn!(url, error, "the keys of an issuer could not be fetched");
            false
        }
    }
}

/// What a token of somebody else says of itself. Nothing of it is verified: it only tells where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The claim `iss`; never [`crate::ISSUER`].
    pub issuer: String,
    /// The claim `exp`, in s since 1970; 0 if there is none.
    pub expires: i64,
}

/// What a token says of itself if it is a JWT and not of ours. Costs next to nothing for those of ours.
pub fn claimed(token: &str) -> Option<Claimed> {
    let (_, rest) = token.split_once('.')?;
    if rest.starts_with(OURS) || token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let claims = part(rest.split_once('.')?.0)?;
    let issuer = claims.get("iss")?.as_str().filter(|issuer| *issuer != crate::ISSUER)?.to_owned();
    Some(Claimed { issuer, expires: claims.get("exp").and_then(Value::as_i64).unwrap_or(0) })
}

/// A token taken apart. Nothing of it is verified.
struct Parsed<'a> {
    kid: String,
    algorithm: Algorithm,
    claims: Map<String, Value>,
    /// Header and claims as they were signed.
    message: &'a [u8],
    /// In base64url.
    signature: &'a str,
}

impl<'a> Parsed<'a> {
    fn of(token: &'a str) -> Option<Parsed<'a>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        if URL_SAFE_NO_PAD.decode(signature).ok()?.is_empty() {
            return None;
        }
        let header = part(header)?;
        let typed = header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("jwt")));
        if !typed || FORBIDDEN_HEADERS.into_iter().any(|name| header.contains_key(name)) {
            return None;
        }
        let algorithm = match header.get("alg")?.as_str()? {
            "RS256" => Algorithm::RS256,
            "PS256" => Algorithm::PS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" | "Ed25519" => Algorithm::EdDSA,
            _ => return None,
        };
        let kid = header.get("kid")?.as_str().filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID_BYTES)?.to_owned();
        Some(Parsed { kid, algorithm, claims: part(claims)?, message: message.as_bytes(), signature })
    }
}

fn part(text: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AUDIENCE, Claims, ISSUER, Signer};

    #[test]
    fn a_token_of_ours_is_known_by_its_first_letters() {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: "a".into(),
            prd: "p".into(),
            sid: "s".into(),
            jti: "j".into(),
            email: String::new(),
            roles: Vec::new(),
            scp: None,
            key: None,
            iat: 1,
            exp: 2,
        };
        let token = Signer::from_seed("kid".into(), &[7; 32]).mint(&claims);
        assert!(token.split('.').nth(1).unwrap().starts_with(OURS), "{token}");
        assert_eq!(claimed(&token), None);
    }

    #[test]
    fn what_a_foreign_token_says_of_itself_is_read_and_nothing_else_is_taken_for_one() {
        let token = |claims: &str| format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(claims));
        let known = claimed(&token(r#"{"exp":7,"iss":"https://issuer.test"}"#)).unwrap();
        assert_eq!(known, Claimed { issuer: "https://issuer.test".into(), expires: 7 });
        assert_eq!(claimed(&token(r#"{"iss":"weft.test"}"#)).unwrap().expires, 0);
        for not in
            [&token(r#"{"sub":"x","iss":"weft"}"#), &token(r#"{"iss":7}"#), &token("{}"), "a.b", "", "x.y.z", "opaque"]
        {
            assert_eq!(claimed(not), None, "{not}");
        }
    }
}
