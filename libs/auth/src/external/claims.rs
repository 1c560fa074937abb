//! What a token of an issuer says, and what it has to.
use std::fmt;

use serde_json::{Map, Value};

/// How far an issuer's clock may be ahead of ours, in seconds.
const CLOCK_SKEW_S: i64 = 30;
/// A token that is good for longer than this from now is refused, in seconds: no issuer of logins gives one out, and
/// nobody could take it back.
const MAX_LIFE_S: i64 = 31 * 24 * 60 * 60;
/// Longest subject, in bytes (OpenID Connect Core).
const MAX_SUBJECT_BYTES: usize = 255;
/// Most entries of a list of audiences.
const MAX_AUDIENCES: usize = 32;

/// What a token has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Its `iss`, exactly.
    pub issuer: String,
    /// One of these is its `aud`. Empty: it has none, because one that is there names somebody else (RFC 7519, 4.1.3).
    pub audiences: Vec<String>,
    /// One of these is its `azp`. Empty: it is not asked for.
    pub authorized_parties: Vec<String>,
}

/// What a token says that was verified.
#[derive(Clone, PartialEq)]
pub struct ExternalClaims {
    /// `sub`: not empty, at most 255 bytes, no control characters.
    pub subject: String,
    /// `iat`, in s since 1970.
    pub issued: i64,
    /// `exp`, in s since 1970.
    pub expires: i64,
    all: Map<String, Value>,
}

impl Rules {
    /// None if the claims break a rule, or are not such as every token's have to be.
    pub(super) fn check(&self, all: Map<String, Value>, now_s: i64) -> Option<ExternalClaims> {
        let text = |name: &str| all.get(name).and_then(Value::as_str);
        let subject = text("sub").filter(|sub| !sub.is_empty() && sub.len() <= MAX_SUBJECT_BYTES)?;
        let (issued, expires) = (all.get("iat")?.as_i64()?, all.get("exp")?.as_i64()?);
        // A time that is there is a whole number and not in the future.
        let past = |name: &str| {
            all.get(name)
                .is_none_or(|time| time.as_i64().is_some_and(|time| time <= now_s.saturating_add(CLOCK_SKEW_S)))
        };
        let good = text("iss") == Some(self.issuer.as_str())
            && !self.issuer.is_empty()
            && !subject.chars().any(char::is_control)
            && expires > now_s
            && expires <= now_s.saturating_add(MAX_LIFE_S)
            && expires > issued
            && issued >= 0
            && past("iat")
            && past("nbf")
            && past("auth_time")
            && self.is_for_us(&all);
        let subject = subject.to_owned();
        good.then_some(ExternalClaims { subject, issued, expires, all })
    }

    fn is_for_us(&self, all: &Map<String, Value>) -> bool {
        let party = match all.get("azp") {
            None => None,
            Some(Value::String(party)) => Some(party),
            Some(_) => return false,
        };
        let authorized = party.is_some_and(|party| self.authorized_parties.contains(party));
        if !self.authorized_parties.is_empty() && !authorized {
            return false;
        }
        let audiences: Option<Vec<&str>> = match all.get("aud") {
            None => Some(Vec::new()),
            Some(Value::String(audience)) => Some(vec![audience]),
            Some(Value::Array(list)) if list.len() <= MAX_AUDIENCES => list.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let Some(audiences) = audiences else { return false };
        if self.audiences.is_empty() {
            return !all.contains_key("aud");
        }
        // A token for several says to whom of them it was given.
        let ours = |name: &str| self.audiences.iter().any(|audience| audience == name);
        let given_to_us = authorized || party.is_some_and(|party| ours(party));
        audiences.iter().any(|audience| ours(audience)) && (audiences.len() == 1 || given_to_us)
    }
}

impl ExternalClaims {
    /// A claim by its name, or by the names of the objects around it and its own with dots between.
    pub fn get(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.all.get(path) {
            return Some(value);
        }
        let mut names = path.split('.');
        let first = self.all.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    }

    /// A claim that is a text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// Whether a claim is there and literally `true`.
    pub fn is_true(&self, path: &str) -> bool {
        self.get(path) == Some(&Value::Bool(true))
    }
}

/// Without what the issuer says of a person: claims end up in log lines.
impl fmt::Debug for ExternalClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalClaims")
            .field("subject", &self.subject)
            .field("issued", &self.issued)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
