//! Passwords and their hash: argon2id with the parameters OWASP recommends (19 MiB, two passes, one lane).
//!
//! [`hash`] and [`verify`] each take some 20 ms of a core; they are called through [`crate::hashing`] only.
use std::cell::RefCell;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version, password_hash};

use crate::error::Error;

/// Shortest password in bytes.
pub const MIN_BYTES: usize = 8;
/// Longest password in bytes.
pub const MAX_BYTES: usize = 1024;

/// Verified when there is nothing to verify, so that an unknown address costs what a known one costs. Its
/// parameters are those of [`hash`].
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Whether a password may be chosen.
pub fn check(password: &str) -> Result<(), Error> {
    if (MIN_BYTES..=MAX_BYTES).contains(&password.len()) { Ok(()) } else { Err(Error::InvalidPassword) }
}

thread_local! {
    /// The memory of this thread's hashes, kept from one to the next: given back each time, the allocator would keep
    /// several times as much, in pieces.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// The hash to store, in PHC format, with a fresh salt.
pub fn hash(password: &str) -> Result<String, Error> {
    let mut salt = [0_u8; Salt::RECOMMENDED_LENGTH];
    getrandom::fill(&mut salt).map_err(Error::Random)?;
    let hashed = || {
        let mut hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&Params::DEFAULT)?,
            salt: Some(Salt::new(&salt)?),
            hash: None,
        };
        hash.hash = Some(derive(password, &hash)?);
        Ok(hash.to_string())
    };
    hashed().map_err(Error::Hash)
}

/// What a password becomes with the salt and the parameters of `hash`.
fn derive(password: &str, hash: &PasswordHash) -> password_hash::Result<Output> {
    let params = Params::try_from(hash)?;
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let salt = hash.salt.as_ref().ok_or(password_hash::Error::SaltInvalid)?;
    let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let mut output = [0_u8; Output::MAX_LENGTH];
    let output = output.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
    MEMORY.with_borrow_mut(|memory| {
        memory.resize(params.block_count(), Block::new());
        let argon2 = Argon2::new(Algorithm::try_from(hash.algorithm.as_str())?, version, params);
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, memory.as_mut_slice())?;
        Ok(Output::new(output)?)
    })
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
    // The comparison takes the same time wherever the outputs differ.
    let matches = derive(password, &hash).is_ok_and(|output| hash.hash.is_some_and(|expected| expected == output));
    matches && known
}

fn dummy() -> PasswordHash {
    PasswordHash::new(DUMMY).unwrap_or_else(|error| unreachable!("a test reads it: {error}"))
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
