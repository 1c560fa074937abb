//! Page tokens: opaque, signed, and good only for the question they were given for.
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use weft_core::new_id;

use crate::MeshConfig;

/// Hexadecimal digits of a signature.
const SIGNATURE_DIGITS: usize = 32;

/// Signs and reads page tokens; every replica of a service reads those of the others.
#[derive(Clone)]
pub struct PageTokens {
    mac: Hmac<Sha256>,
}

impl PageTokens {
    /// Those of a service, with a key derived from the mesh's service secret; without one they live as long as the process.
    pub fn new(service: &str, config: &MeshConfig) -> PageTokens {
        let mut hasher = Sha256::new();
        hasher.update(format!("weft {service} page token"));
        match &config.weft_service_secret {
            Some(secret) => hasher.update(secret.expose_secret().as_bytes()),
            None => hasher.update([new_id(), new_id(), new_id(), new_id()].concat().as_bytes()),
        }
        // A key of HMAC's own block size; shorter ones are filled up with zeros anyway.
        let mut key = [0; 64];
        key[..32].copy_from_slice(&hasher.finalize());
        PageTokens { mac: Hmac::new(&key.into()) }
    }

    /// A token for the page at this place; `scope` says whose question it is, and which.
    pub fn sign(&self, scope: &[&str], place: &str) -> String {
        format!("{}{place}", self.signature(scope, place))
    }

    /// The place in a token; none if it was not given for this scope.
    pub fn read<'a>(&self, scope: &[&str], token: &'a str) -> Option<&'a str> {
        let (signature, place) = token.split_at_checked(SIGNATURE_DIGITS)?;
        (signature == self.signature(scope, place)).then_some(place)
    }

    fn signature(&self, scope: &[&str], place: &str) -> String {
        let mac = scope.iter().chain([&place]).fold(self.mac.clone(), |mac, part| {
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
    fn a_token_is_good_for_its_caller_and_question_only() {
        let config = MeshConfig { weft_service_secret: Some("a secret".into()), ..MeshConfig::default() };
        let (tokens, replica) = (PageTokens::new("billing", &config), PageTokens::new("billing", &config));
        let token = tokens.sign(&["List", "p", "ana"], "17");
        assert_eq!(replica.read(&["List", "p", "ana"], &token), Some("17"));
        for scope in [["List", "p", "ben"], ["List", "q", "ana"], ["Other", "p", "ana"], ["Listp", "", "ana"]] {
            assert_eq!(tokens.read(&scope, &token), None, "{scope:?}");
        }
        let long = "é".repeat(20);
        for bad in ["", "17", "č", &token[..33], &token[1..], &format!("{token}0"), &token.replace("17", "18"), &long]
        {
            assert_eq!(tokens.read(&["List", "p", "ana"], bad), None, "{bad}");
        }
        for stranger in [PageTokens::new("identity", &config), PageTokens::new("billing", &MeshConfig::default())] {
            assert_eq!(stranger.read(&["List", "p", "ana"], &token), None);
        }
    }
}
