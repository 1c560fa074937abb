//! Service tokens: how one service of the mesh knows another.
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tonic::Status;
use weft_core::{Clock, Reason};

/// How long a service token is valid, in seconds.
const LIFETIME_S: i64 = 60;
/// How far another machine's clock may be ahead of ours, in seconds.
const CLOCK_SKEW_S: i64 = 30;
/// Longer tokens are refused unread, in bytes.
const MAX_TOKEN_BYTES: usize = 2 * 1024;
/// Verified tokens that are remembered: more than every replica of every service has alive at once.
const MAX_VERIFIED: usize = 1024;

/// Mints and checks service tokens with the secret that all services of a mesh share. Cheap to clone.
///
/// A token says which service sends it (`iss`) and to which one (`aud`), so a service that receives it
/// cannot use it towards a third.
#[derive(Clone)]
pub struct ServiceKey(Arc<Inner>);

struct Inner {
    me: &'static str,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    clock: Clock,
    /// By audience.
    minted: RwLock<HashMap<String, Minted>>,
    /// By token.
    verified: RwLock<HashMap<String, Verified>>,
}

struct Minted {
    token: String,
    renew_at_s: i64,
}

struct Verified {
    caller: Arc<str>,
    exp: i64,
}

#[derive(Serialize, Deserialize)]
struct ServiceClaims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
}

impl ServiceKey {
    /// The key of the service `me`. Its time is the machine's: services must agree on it also where one of
    /// them has its clock moved by a test.
    pub fn new(secret: &SecretString, me: &'static str) -> ServiceKey {
        ServiceKey::with_clock(secret, me, Clock::System)
    }

    /// The same with another clock.
    pub fn with_clock(secret: &SecretString, me: &'static str, clock: Clock) -> ServiceKey {
        let bytes = secret.expose_secret().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        // Only algorithm and signature; times are checked here, with our clock.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        ServiceKey(Arc::new(Inner {
            me,
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            validation,
            clock,
            minted: RwLock::default(),
            verified: RwLock::default(),
        }))
    }

    /// The name of the service whose key this is.
    pub fn me(&self) -> &'static str {
        self.0.me
    }

    /// A token for a call to the service `audience`, valid for 60 s; the same one for 30 s.
    pub fn mint(&self, audience: &str) -> String {
        let inner = &*self.0;
        let now_s = inner.now_s();
        let minted = inner.minted.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = minted.get(audience)
            && (known.renew_at_s - LIFETIME_S / 2..known.renew_at_s).contains(&now_s)
        {
            return known.token.clone();
        }
        drop(minted);
        let claims = ServiceClaims { iss: inner.me.into(), aud: audience.into(), iat: now_s, exp: now_s + LIFETIME_S };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &inner.encoding)
            .unwrap_or_else(|error| unreachable!("any secret signs these claims: {error}"));
        let known = Minted { token: token.clone(), renew_at_s: now_s + LIFETIME_S / 2 };
        inner.minted.write().unwrap_or_else(PoisonError::into_inner).insert(audience.into(), known);
        token
    }

    /// The name of the service that sent this token to us.
    ///
    /// Errors: UNAUTHENTICATED, one and the same whatever is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Arc<str>, Status> {
        let inner = &*self.0;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(not_valid());
        }
        let now_s = inner.now_s();
        let verified = inner.verified.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verified.get(token) {
            return if now_s < known.exp { Ok(known.caller.clone()) } else { Err(not_valid()) };
        }
        drop(verified);
        let claims = inner.check(token, now_s).ok_or_else(not_valid)?;
        let caller = Arc::<str>::from(claims.iss);
        let mut verified = inner.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MAX_VERIFIED {
            verified.retain(|_, known| now_s < known.exp);
        }
        if verified.len() < MAX_VERIFIED {
            verified.insert(token.to_owned(), Verified { caller: caller.clone(), exp: claims.exp });
        }
        Ok(caller)
    }
}

impl Inner {
    fn check(&self, token: &str, now_s: i64) -> Option<ServiceClaims> {
        let token = jsonwebtoken::decode::<ServiceClaims>(token, &self.decoding, &self.validation).ok()?;
        let claims = token.claims;
        let good = token.header.crit.is_none()
            && claims.aud == self.me
            && !claims.iss.is_empty()
            && claims.exp > now_s
            && claims.iat <= now_s + CLOCK_SKEW_S
            // Nobody may make one that lives for long.
            && claims.exp <= now_s + LIFETIME_S + CLOCK_SKEW_S;
        good.then_some(claims)
    }

    fn now_s(&self) -> i64 {
        self.clock.now_ms().div_euclid(1000)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").field("me", &self.0.me).finish_non_exhaustive()
    }
}

fn not_valid() -> Status {
    Reason::Unauthenticated.status("the service token is not valid")
}
