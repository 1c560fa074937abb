//! Idempotency keys: the same call again has the same effect and answer.
use sha2::{Digest, Sha256};
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// Metadata that carries a key.
const HEADER: &str = "idempotency-key";
/// Longest key, in characters.
const MAX_KEY: usize = 255;

/// A key, whose it is and what it was first used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Slug of the product.
    pub product: String,
    /// Account id.
    pub user_id: String,
    /// Name of the RPC.
    pub method: &'static str,
    /// What the caller chose.
    pub key: String,
    /// SHA-256 of the request without the key.
    pub request: [u8; 32],
}

/// The key of a call, from the message's `field` or the metadata `idempotency-key`; none if it has none.
/// `encoded_request` is the message with its key field emptied: wherever the key stands, the request is the same.
///
/// # Errors
/// [`Error::Invalid`] for a key that is not 1 to 255 printable ASCII characters, and for two that differ.
pub fn key_of(
    method: &'static str,
    product: &str,
    user_id: &str,
    field: &str,
    metadata: &MetadataMap,
    encoded_request: &[u8],
) -> Result<Option<Key>, Error> {
    let header = match metadata.get(HEADER) {
        Some(value) => value.to_str().map_err(|_| not_a_key())?,
        None => "",
    };
    let key = match (field, header) {
        ("", "") if metadata.contains_key(HEADER) => return Err(not_a_key()),
        ("", "") => return Ok(None),
        ("", key) | (key, "") => key,
        (field, header) if field == header => field,
        _ => return Err(Error::Invalid("idempotency_key differs from the metadata's, send one of them".to_owned())),
    };
    if key.len() > MAX_KEY || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(not_a_key());
    }
    Ok(Some(Key {
        product: product.to_owned(),
        user_id: user_id.to_owned(),
        method,
        key: key.to_owned(),
        request: Sha256::digest(encoded_request).into(),
    }))
}

/// The same where a call without a key is refused.
///
/// # Errors
/// [`Error::Invalid`] also without a key.
pub fn key_required(key: Option<Key>) -> Result<Key, Error> {
    key.ok_or_else(|| {
        Error::Invalid("an idempotency key is required, set idempotency_key or Idempotency-Key".to_owned())
    })
}

fn not_a_key() -> Error {
    Error::Invalid(format!("the idempotency key must have 1 to {MAX_KEY} printable ascii characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(field: &str, header: Option<&str>) -> Result<Option<String>, Error> {
        let mut metadata = MetadataMap::new();
        if let Some(header) = header {
            metadata.insert(HEADER, header.parse().unwrap());
        }
        Ok(key_of("Debit", "p", "u", field, &metadata, b"request")?.map(|key| key.key))
    }

    #[test]
    fn a_key_stands_in_the_message_or_in_the_metadata() {
        assert_eq!(key("", None).unwrap(), None);
        assert_eq!(key("a b~", None).unwrap().as_deref(), Some("a b~"));
        assert_eq!(key("", Some("k")).unwrap().as_deref(), Some("k"));
        assert_eq!(key("k", Some("k")).unwrap().as_deref(), Some("k"));
        assert!(key("k", Some("other")).is_err());
    }

    #[test]
    fn a_key_is_short_printable_and_not_empty() {
        assert!(key(&"k".repeat(255), None).is_ok());
        for bad in ["k".repeat(256).as_str(), "\u{7f}", "\n", "ključ"] {
            assert!(key(bad, None).is_err(), "{bad:?}");
        }
        assert!(key("", Some("")).is_err());
    }
}
