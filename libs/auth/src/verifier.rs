//! Checks access tokens.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jsonwebtoken::{Algorithm, Header, Validation};
use moka::policy::EvictionPolicy;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tonic::Status;
use weft_core::{Clock, Reason};

use crate::keys::{KeySet, NoKey};
use crate::revocations::Refusal;
use crate::uses::Uses;
use crate::{AUDIENCE, Claims, ISSUER, KEY_AUDIENCE, Keys, Revocations};

/// Longer tokens are refused unread, in bytes. Ours have about 500.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Verified tokens that are remembered. One takes about 1 KiB.
const MAX_VERIFIED: u64 = 20_000;
/// The use of an API key is noted once in so long, in ms.
const MINUTE_MS: i64 = 60_000;
/// How far identity's clock may be ahead of ours, in seconds.
const CLOCK_SKEW_S: i64 = 30;

/// Checks access tokens. Cheap to clone; clones share one cache.
///
/// A token that was verified once is remembered by its SHA-256 until it expires, its session ends or its key
/// is withdrawn; recognising it costs a hash and a look-up instead of a signature check.
///
/// That it was used is noted the first time, for [`crate::follow`] to report; that an API key was, once a minute.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
    /// Refuses tokens of an API key for which there are newer ones.
    renews: bool,
}

struct Inner {
    keys: Keys,
    revocations: Revocations,
    clock: Clock,
    validation: Validation,
    uses: Uses,
    verified: moka::sync::Cache<[u8; 32], Verified>,
}

#[derive(Clone)]
struct Verified {
    claims: Arc<Claims>,
    keys: Arc<KeySet>,
    /// The minute since 1970 in which the use of the API key was last noted, for a token of one.
    noted: Arc<AtomicI64>,
}

/// The claims as they are on the wire.
#[derive(Deserialize)]
struct Wire {
    #[serde(flatten)]
    claims: Claims,
    nbf: Option<i64>,
}

impl Verifier {
    /// A verifier of tokens signed with one of `keys`, by their algorithm and no other; neither they nor their session
    /// are in `revocations`.
    pub fn new(keys: Keys, revocations: Revocations, clock: Clock) -> Verifier {
        // Least recently used, so that tokens which have expired make room for new ones.
        let verified =
            moka::sync::Cache::builder().max_capacity(MAX_VERIFIED).eviction_policy(EvictionPolicy::lru()).build();
        let (validation, uses) = (signature_only(keys.algorithm()), Uses::default());
        Verifier { inner: Arc::new(Inner { keys, revocations, clock, validation, uses, verified }), renews: false }
    }

    /// The same where tokens are given for API keys: one of a key that was changed is refused, so that a newer one is
    /// asked for. Elsewhere it is good: the edge may not have heard of the change yet.
    #[must_use]
    pub fn at_edge(&self) -> Verifier {
        Verifier { inner: Arc::clone(&self.inner), renews: true }
    }

    /// The claims of a token.
    ///
    /// Errors: UNAUTHENTICATED, one and the same whatever is wrong with the token; UNAVAILABLE if no keys are
    /// held and identity cannot be reached.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, Status> {
        let inner = &*self.inner;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(not_valid());
        }
        inner.keys.freshen(&inner.clock).await;
        let digest = <[u8; 32]>::from(Sha256::digest(token));
        if let Some(known) = inner.verified.get(&digest) {
            if inner.keys.is_current(&known.keys) {
                let claims = inner.still_good(known.claims, self.renews)?;
                inner.note_key(&claims, &known.noted);
                return Ok(claims);
            }
            inner.verified.invalidate(&digest);
        }
        let verified = inner.check(token).await?;
        let claims = inner.still_good(verified.claims.clone(), self.renews)?;
        if claims.is_of_key() {
            inner.note_key(&claims, &verified.noted);
        } else {
            inner.uses.note(&claims.jti);
        }
        inner.verified.insert(digest, verified);
        Ok(claims)
    }

    /// Waits until whatever was begun with a token has to end, and says why: its session is over (UNAUTHENTICATED) or
    /// its account suspended (PERMISSION_DENIED, `account_suspended`). That the token expires meanwhile is no reason.
    /// For what lasts, a stream; it may be dropped at any time.
    pub async fn until_over(&self, claims: &Claims) -> Status {
        refused(self.inner.revocations.until_over(claims).await)
    }

    pub(crate) fn revocations(&self) -> &Revocations {
        &self.inner.revocations
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.inner.uses
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }
}

impl Inner {
    /// Everything about a token that does not change later.
    async fn check(&self, token: &str) -> Result<Verified, Status> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| not_valid())?;
        if header.alg != self.keys.algorithm() || !is_plain(&header) {
            return Err(not_valid());
        }
        // A shared secret has no id.
        let kid = header.kid.or_else(|| (header.alg == Algorithm::HS256).then(String::new)).ok_or_else(not_valid)?;
        let keys = self.keys.find(&kid, &self.clock).await.map_err(|missing| match missing {
            NoKey::Unknown => not_valid(),
            NoKey::Unavailable => Reason::Unavailable.status("tokens cannot be checked right now, try again"),
        })?;
        let key = keys.get(&kid).ok_or_else(not_valid)?;
        let wire = jsonwebtoken::decode::<Wire>(token, key, &self.validation).map_err(|_| not_valid())?.claims;
        let now_s = self.clock.now_ms().div_euclid(1000);
        let claims = wire.claims;
        let audience = if claims.is_of_key() { KEY_AUDIENCE } else { AUDIENCE };
        let good = claims.iss == ISSUER
            && claims.aud == audience
            && ![&claims.sub, &claims.prd, &claims.sid, &claims.jti].into_iter().any(String::is_empty)
            && claims.iat <= now_s.saturating_add(CLOCK_SKEW_S)
            && wire.nbf.is_none_or(|nbf| nbf <= now_s.saturating_add(CLOCK_SKEW_S));
        if good { Ok(Verified { claims: Arc::new(claims), keys, noted: Arc::default() }) } else { Err(not_valid()) }
    }

    /// Notes that the API key of a token is used, once a minute.
    fn note_key(&self, claims: &Claims, noted: &AtomicI64) {
        let minute = self.clock.now_ms().div_euclid(MINUTE_MS);
        if claims.is_of_key() && noted.swap(minute, Ordering::Relaxed) != minute {
            self.uses.note(&claims.sid);
        }
    }

    /// What may change between two calls with the same token.
    fn still_good(&self, claims: Arc<Claims>, renews: bool) -> Result<Arc<Claims>, Status> {
        if self.clock.now_ms().div_euclid(1000) >= claims.exp {
            return Err(not_valid());
        }
        self.revocations.refusal(&claims, renews).map_or(Ok(claims), |refusal| Err(refused(refusal)))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.inner.keys).finish_non_exhaustive()
    }
}

/// Whether a header says no more than ours do: no place of keys, nothing that has to be understood besides.
fn is_plain(header: &Header) -> bool {
    *header == Header { kid: header.kid.clone(), ..Header::new(header.alg) }
}

/// jsonwebtoken checks algorithm and signature; claims are ours to check, because times come from [`Clock`].
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// The same for everything that can be wrong with a token: a forger learns nothing from it.
pub fn not_valid() -> Status {
    Reason::Unauthenticated.status("the access token is not valid")
}

/// Why a token that was good is so no more. That an account is suspended is told only to who has a token of it.
fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Ended => not_valid(),
        Refusal::Suspended => Reason::AccountSuspended.status("this account is suspended, ask the support"),
    }
}
