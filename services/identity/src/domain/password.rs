//! Passwords and their hash: argon2id with the parameters OWASP recommends (19 MiB, two passes, one lane).
//!
//! [`hash`] and [`verify`] each take some 20 ms of a core; they are called through [`crate::hashing`] only.
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::error::Error;

/// Shortest password in bytes.
pub const MIN_BYTES: usize = 8;
/// Longest password in bytes.
pub const MAX_BYTES: usize = 1024;

/// Verified when there is nothing to verify, so that an unknown address costs what a known one costs. Its
/// parameters are those of [`argon2id`].
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Whether a password may be chosen.
pub fn check(password: &str) -> Result<(), Error> {
    if (MIN_BYTES..=MAX_BYTES).contains(&password.len()) { Ok(()) } else { Err(Error::InvalidPassword) }
}

/// The hash to store, in PHC format, with a fresh salt.
pub fn hash(password: &str) -> Result<String, Error> {
    let hash = argon2id().hash_password(password.as_bytes()).map_err(Error::Hash)?;
    Ok(hash.to_string())
}

/// Whether this is the password that `stored` was made from. The same work is done in every case: also without
/// `stored`, with one that cannot be read, or for a password that nobody can have.
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    let password = if check(password).is_ok() { password } else { "" };
    let readable = stored.and_then(|text| {
        let parsed = PasswordHash::new(text);
        parsed.inspect_err(|error| tracing::error!(%error, "a stored password hash cannot be read")).ok()
    });
    let known = readable.is_some();
    let hash = readable.unwrap_or_else(dummy);
    let matches = argon2id().verify_password(password.as_bytes(), &hash).is_ok();
    matches && known
}

fn dummy() -> PasswordHash {
    PasswordHash::new(DUMMY).unwrap_or_else(|error| unreachable!("a test reads it: {error}"))
}

fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_password_verifies_it_and_no_other() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("correct horsf", Some(&stored)));
        assert!(!verify("correct horse", None));
        assert!(!verify("correct horse", Some("not a hash")));
    }

    #[test]
    fn the_dummy_costs_what_a_real_hash_costs() {
        let (real, dummy) = (hash("correct horse").unwrap(), PasswordHash::new(DUMMY).unwrap());
        let real = PasswordHash::new(&real).unwrap();
        assert_eq!(real.params, dummy.params);
        assert_eq!((real.algorithm, real.version), (dummy.algorithm, dummy.version));
        assert_eq!(real.salt.unwrap().len(), dummy.salt.unwrap().len());
        assert_eq!(real.hash.unwrap().len(), dummy.hash.unwrap().len());
    }

    #[test]
    fn a_password_has_8_to_1024_bytes() {
        assert!(check(&"x".repeat(8)).is_ok() && check(&"x".repeat(1024)).is_ok());
        assert!(check(&"x".repeat(7)).is_err() && check(&"x".repeat(1025)).is_err());
    }
}
