//! Page tokens: opaque, signed, and good only for the caller and the question they were given for.
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use weft_core::new_id;
use weft_runtime::MeshConfig;

use crate::error::Error;

/// Entries of a page if the caller does not say.
const DEFAULT_SIZE: i32 = 50;
/// Most entries of a page.
const MAX_SIZE: i32 = 1000;
/// Hexadecimal digits of a signature.
const SIGNATURE_DIGITS: usize = 32;

/// Signs and reads page tokens; every replica of a mesh reads those of the others.
#[derive(Clone)]
pub struct Pages {
    mac: Hmac<Sha256>,
}

impl Pages {
    /// With a key derived from the mesh's service secret; without one tokens live as long as the process.
    pub fn new(config: &MeshConfig) -> Pages {
        let mut hasher = Sha256::new();
        hasher.update(b"weft billing page token");
        match &config.weft_service_secret {
            Some(secret) => hasher.update(secret.expose_secret().as_bytes()),
            None => hasher.update([new_id(), new_id(), new_id(), new_id()].concat().as_bytes()),
        }
        // A key of HMAC's own block size; shorter ones are filled up with zeros anyway.
        let mut key = [0; 64];
        key[..32].copy_from_slice(&hasher.finalize());
        Pages { mac: Hmac::new(&key.into()) }
    }

    /// A token for the page at `position`; `scope` says whose question it is, and which.
    pub fn sign(&self, scope: &[&str], position: i64) -> String {
        format!("{}{position}", self.signature(scope, position))
    }

    /// The position of a token.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it was not given for this scope.
    pub fn read(&self, scope: &[&str], token: &str) -> Result<i64, Error> {
        let (signature, position) = token.split_at_checked(SIGNATURE_DIGITS).unwrap_or_default();
        let position: Option<i64> = position.parse().ok();
        position
            .filter(|position| self.signature(scope, *position) == signature)
            .ok_or_else(|| Error::Invalid("page_token was not given for this list, begin again without one".to_owned()))
    }

    fn signature(&self, scope: &[&str], position: i64) -> String {
        let mut mac = self.mac.clone();
        for text in scope {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        mac.update(&position.to_be_bytes());
        let mac = mac.finalize().into_bytes();
        mac.iter().take(SIGNATURE_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How many entries a page has; `limit` is another name of `page_size`.
///
/// # Errors
/// [`Error::Invalid`] for less than 0, more than 1000, and two that differ.
pub fn page_size(page_size: i32, limit: i32) -> Result<i64, Error> {
    let size = match (page_size, limit) {
        (0, 0) => DEFAULT_SIZE,
        (0, size) | (size, 0) => size,
        (size, limit) if size == limit => size,
        _ => return Err(Error::Invalid("page_size and limit differ, send one of them".to_owned())),
    };
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(i64::from(size));
    }
    Err(Error::Invalid(format!("page_size must be 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_caller_and_question_only() {
        let config = MeshConfig { weft_service_secret: Some("a secret".into()), ..MeshConfig::default() };
        let (pages, replica) = (Pages::new(&config), Pages::new(&config));
        let token = pages.sign(&["List", "p", "ana"], 17);
        assert_eq!(replica.read(&["List", "p", "ana"], &token).unwrap(), 17);
        for scope in [["List", "p", "ben"], ["List", "q", "ana"], ["Other", "p", "ana"], ["Listp", "", "ana"]] {
            assert!(pages.read(&scope, &token).is_err(), "{scope:?}");
        }
        for bad in ["", "17", "č", &token[..33], &format!("{token}0"), &token.replace("17", "18")] {
            assert!(pages.read(&["List", "p", "ana"], bad).is_err(), "{bad}");
        }
        let stranger = Pages::new(&MeshConfig::default());
        assert!(stranger.read(&["List", "p", "ana"], &token).is_err());
    }

    #[test]
    fn a_page_has_a_size_with_a_limit() {
        assert_eq!(page_size(0, 0).unwrap(), 50);
        assert_eq!(page_size(0, 7).unwrap(), 7);
        assert_eq!(page_size(1000, 1000).unwrap(), 1000);
        for (size, limit) in [(-1, 0), (0, 1001), (5, 6), (i32::MAX, 0)] {
            assert!(page_size(size, limit).is_err(), "{size} {limit}");
        }
    }
}
