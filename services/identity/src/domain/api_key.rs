//! API keys: what they look like, and what they may be made with.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use weft_auth::{API_KEY_PREFIX, may_be_api_key};

use crate::error::Error;

/// Everything that a key may be allowed to call, in the order in which it is told.
pub const SCOPES: [&str; 3] = ["chat", "embeddings", "models"];
/// Most keys of an account.
pub const MOST_KEYS: i64 = 50;
/// Longest name, in bytes.
const NAME_BYTES: usize = 100;
/// The greatest budget, in micro-credits: the greatest amount that billing moves.
const MOST_BUDGET: i64 = 1_000_000_000_000_000;
/// A key lives for ten years at most, in ms, leap days included.
const MOST_LIFE_MS: i64 = 3653 * 24 * 60 * 60 * 1000;
const MINUTE_MS: i64 = 60_000;

/// An API key in plain; only on its way in or out.
pub struct ApiKeySecret(SecretString);

impl ApiKeySecret {
    /// A new one.
    pub fn generate() -> Result<ApiKeySecret, Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        Ok(ApiKeySecret(format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into()))
    }

    /// What a program presents; nothing if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<ApiKeySecret> {
        may_be_api_key(text).then(|| ApiKeySecret(text.into()))
    }

    /// The text to hand out.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }

    /// What it is found by. It is as random as a hash, so nothing can be guessed from it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text()).into()
    }

    /// Its last four characters, for its owner to know it by.
    pub fn last_four(&self) -> &str {
        self.text().get(self.text().len() - 4..).unwrap_or_default()
    }
}

/// What a key is for.
///
/// Errors: [`Error::InvalidField`].
pub fn name(text: &str) -> Result<&str, Error> {
    let name = text.trim();
    let good = (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if good { Ok(name) } else { Err(Error::InvalidField("name must have 1 to 100 bytes without control characters")) }
}

/// What a key may call, as stored: all there is if nothing is named.
///
/// Errors: [`Error::InvalidField`].
pub fn scopes(named: &[String]) -> Result<String, Error> {
    if named.iter().any(|name| !SCOPES.contains(&name.as_str())) {
        return Err(Error::InvalidField("scopes must be of chat, embeddings and models"));
    }
    let is_named = |scope: &&str| named.is_empty() || named.iter().any(|name| name == scope);
    Ok(SCOPES.into_iter().filter(is_named).collect::<Vec<_>>().join(" "))
}

/// The scopes of a stored text. What a later version may have written is nothing here.
pub fn stored_scopes(text: &str) -> Vec<String> {
    text.split(' ').filter(|scope| SCOPES.contains(scope)).map(str::to_owned).collect()
}

/// What a key may spend, in micro-credits.
///
/// Errors: [`Error::InvalidField`].
pub fn budget(micro: Option<i64>) -> Result<Option<i64>, Error> {
    match micro {
        Some(micro) if !(0..=MOST_BUDGET).contains(&micro) => {
            Err(Error::InvalidField("budget must be 0 to 1000000000 credits"))
        }
        micro => Ok(micro),
    }
}

/// When a key ends, in ms since 1970.
///
/// Errors: [`Error::InvalidField`].
pub fn expiry(at: Option<i64>, now_ms: i64) -> Result<Option<i64>, Error> {
    match at {
        Some(at) if at <= now_ms || at > now_ms.saturating_add(MOST_LIFE_MS) => {
            Err(Error::InvalidField("expires_at must be in the future, at most ten years from now"))
        }
        at => Ok(at),
    }
}

/// The minute of a moment, in ms since 1970: as exactly as uses of keys are kept.
pub fn minute(now_ms: i64) -> i64 {
    now_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

#[cfg(test)]
mod tests {
    use weft_auth::Policies;

    use super::*;

    #[test]
    fn a_new_key_has_the_form_of_one_and_no_other_is_like_it() {
        let key = ApiKeySecret::generate().unwrap();
        let again = ApiKeySecret::parse(key.text()).unwrap();
        assert_eq!((again.hash(), again.last_four()), (key.hash(), key.last_four()));
        assert!(key.text().starts_with("sk-weft-") && key.text().len() == 51 && key.text().ends_with(key.last_four()));
        assert_ne!(ApiKeySecret::generate().unwrap().hash(), key.hash());
        assert!(ApiKeySecret::parse("sk-weft-short").is_none());
    }

    #[test]
    fn the_scopes_are_those_that_rpcs_ask_for() {
        let policies = Policies::of(weft_proto::descriptors()).unwrap();
        let asked: std::collections::BTreeSet<&str> =
            policies.paths().filter_map(|path| policies.get(path)?.scope.as_deref()).collect();
        assert_eq!(asked, SCOPES.into());
    }

    #[test]
    fn scopes_are_kept_in_one_order_and_none_means_all() {
        let named = |names: &[&str]| scopes(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&[]).unwrap(), "chat embeddings models");
        assert_eq!(named(&["models", "chat", "models"]).unwrap(), "chat models");
        for not in ["", "Chat", "admin", "chat models"] {
            assert!(named(&["chat", not]).is_err(), "{not}");
        }
        assert_eq!(stored_scopes("chat later models"), ["chat", "models"]);
        assert!(stored_scopes("").is_empty());
    }

    #[test]
    fn fields_are_checked() {
        assert_eq!(name("  my program ").unwrap(), "my program");
        for not in ["", "   ", "a\nb", &"x".repeat(101)] {
            assert!(name(not).is_err(), "{not:?}");
        }
        assert_eq!((budget(None).unwrap(), budget(Some(0)).unwrap()), (None, Some(0)));
        assert!(budget(Some(-1)).is_err() && budget(Some(MOST_BUDGET + 1)).is_err());
        assert_eq!(expiry(Some(8), 7).unwrap(), Some(8));
        assert!(expiry(Some(7), 7).is_err() && expiry(Some(MOST_LIFE_MS + 8), 7).is_err());
        assert_eq!(minute(119_999), 60_000);
    }
}
