//! The chain of a product's audit log: what an entry's hash is made of.
use sha2::{Digest, Sha256};

/// A SHA-256; empty before the first entry.
pub type Hash = Vec<u8>;

/// What an entry says, without its place.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// UUID v7 text.
    pub id: &'a str,
    /// Slug of the product.
    pub product: &'a str,
    /// What happened.
    pub kind: &'a str,
    /// To whom.
    pub account_id: Option<&'a str>,
    /// In which session.
    pub session_id: Option<&'a str>,
    /// During which request.
    pub request_id: &'a str,
    /// In ms since 1970.
    pub at: i64,
    /// Who did it, if it was somebody else.
    pub actor_id: Option<&'a str>,
    /// What exactly.
    pub detail: Option<&'a str>,
}

impl Entry<'_> {
    /// SHA-256 over every field: texts with their length, those that are none with a mark of their own.
    pub fn digest(&self) -> Hash {
        let mut hasher = Sha256::new_with_prefix("weft identity v1: audit entry");
        let mut text = |text: Option<&str>| match text {
            Some(text) => {
                hasher.update([1]);
                hasher.update((text.len() as u64).to_be_bytes());
                hasher.update(text);
            }
            None => hasher.update([0]),
        };
        for part in [Some(self.id), Some(self.product), Some(self.kind), self.account_id, self.session_id] {
            text(part);
        }
        for part in [Some(self.request_id), self.actor_id, self.detail] {
            text(part);
        }
        hasher.update(self.at.to_be_bytes());
        hasher.finalize().to_vec()
    }
}

/// The hash of the entry with this digest at place `number`, after the one with the hash `before`. PostgreSQL computes the
/// same while it holds the head's lock.
pub fn chain(before: &[u8], number: i64, digest: &[u8]) -> Hash {
    Sha256::new().chain_update(before).chain_update(number.to_be_bytes()).chain_update(digest).finalize().to_vec()
}

/// How far a log is vouched for: what was pruned, and the last entry that was found right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The last entry that is gone because it was too old, or 0.
    pub pruned_number: i64,
    /// Its hash.
    pub pruned_hash: Hash,
    /// The last entry that was found right, or 0.
    pub number: i64,
    /// Its hash.
    pub hash: Hash,
}

impl Seal {
    /// What is signed of the seal of `product`.
    pub fn bytes(&self, product: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [product.as_bytes(), &self.pruned_hash, &self.hash] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        bytes.extend(self.pruned_number.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            id: "id",
            product: "p",
            kind: "logout",
            account_id: Some("a"),
            session_id: None,
            request_id: "r",
            at: 7,
            actor_id: None,
            detail: Some(""),
        }
    }

    #[test]
    fn every_field_counts_and_none_is_not_empty() {
        let others = [
            Entry { id: "ie", ..entry() },
            Entry { product: "q", ..entry() },
            Entry { kind: "register", ..entry() },
            Entry { account_id: None, ..entry() },
            Entry { account_id: None, session_id: Some("a"), ..entry() },
            Entry { request_id: "", ..entry() },
            Entry { at: 8, ..entry() },
            Entry { actor_id: Some(""), ..entry() },
            Entry { detail: None, ..entry() },
        ];
        let mut digests: Vec<Hash> = others.iter().map(Entry::digest).collect();
        digests.push(entry().digest());
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn the_place_and_the_entry_before_count() {
        let digest = entry().digest();
        let hash = chain(&[1; 32], 2, &digest);
        assert_ne!(hash, chain(&[1; 32], 3, &digest));
        assert_ne!(hash, chain(&[2; 32], 2, &digest));
        assert_ne!(hash, chain(&[], 2, &digest));
    }
}
