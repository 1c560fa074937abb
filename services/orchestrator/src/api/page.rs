//! Page tokens: opaque, signed, and good only for the question they were given for.
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::ExposeSecret as _;
use sha2::Sha256;
use weft_core::new_id;
use weft_runtime::MeshConfig;

use crate::error::Error;

/// Entries of a page if the caller does not say.
const SIZE_USUAL: i32 = 50;
/// Most entries of a page.
const SIZE_MOST: i32 = 1000;
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
        let secret = config.weft_service_secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        let secret = secret.unwrap_or_else(|| [new_id(), new_id(), new_id(), new_id()].concat());
        let mac = Hmac::new_from_slice(secret.as_bytes());
        let mac = mac.unwrap_or_else(|error| unreachable!("hmac takes a key of any length: {error}"));
        Pages { mac: mac.chain_update("weft orchestrator page token") }
    }

    /// How many entries a page has, for what the caller asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] below 0 or above the most.
    pub fn size(asked: i32) -> Result<usize, Error> {
        let size = if asked == 0 { SIZE_USUAL } else { asked };
        let size = usize::try_from(size).ok().filter(|_| size <= SIZE_MOST);
        size.ok_or(Error::Invalid("page_size must be 1 to 1000, or 0 for 50".into()))
    }

    /// A token for the page after the entry with this id; `scope` says whose question it is, and which.
    pub fn sign(&self, scope: &[&str], id: &str) -> String {
        format!("{}{id}", self.signature(scope, id))
    }

    /// The id in a token; an empty one is the first page, an empty id.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that was not given out for this question.
    pub fn read(&self, scope: &[&str], token: &str) -> Result<String, Error> {
        if token.is_empty() {
            return Ok(String::new());
        }
        let (signature, id) = token.split_at_checked(SIGNATURE_DIGITS).unwrap_or_default();
        let is_ours = !id.is_empty() && signature == self.signature(scope, id);
        is_ours.then(|| id.to_owned()).ok_or(Error::Invalid("page_token is not one of this list".into()))
    }

    fn signature(&self, scope: &[&str], id: &str) -> String {
        let parts = scope.iter().chain([&id]);
        let mac = parts.fold(self.mac.clone(), |mac, part| {
            mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part.as_bytes())
        });
        let bytes = mac.finalize().into_bytes();
        bytes.iter().take(SIGNATURE_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_question_only() {
        let config = MeshConfig { weft_service_secret: Some("x".into()), ..MeshConfig::default() };
        let pages = Pages::new(&config);
        let token = pages.sign(&["keys", "adiuva", "ana"], "0190");
        assert_eq!(pages.read(&["keys", "adiuva", "ana"], &token).unwrap(), "0190");
        assert_eq!(pages.read(&["keys", "adiuva", "ana"], "").unwrap(), "");
        for scope in [&["keys", "adiuva", "bob"][..], &["keys", "adiuvaana", ""], &["uses", "adiuva", "ana"]] {
            assert!(pages.read(scope, &token).is_err(), "{scope:?}");
        }
        for forged in ["x", "0190", &token[1..], &format!("{token}1"), "é".repeat(20).as_str()] {
            assert!(pages.read(&["keys", "adiuva", "ana"], forged).is_err(), "{forged}");
        }
        assert!(Pages::new(&MeshConfig::default()).read(&["keys", "adiuva", "ana"], &token).is_err());
    }

    #[test]
    fn a_page_has_a_size() {
        assert_eq!((Pages::size(0).unwrap(), Pages::size(1).unwrap(), Pages::size(1000).unwrap()), (50, 1, 1000));
        assert!(Pages::size(-1).is_err() && Pages::size(1001).is_err());
    }
}
