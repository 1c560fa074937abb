//! Passwords and their hash: argon2id with the parameters OWASP recommends (19 MiB, two passes, one lane).
//!
//! [`hash`] and [`verify`] each take some 20 ms of a core; they are called through [`crate::hashing`] only.
mod stored;

use std::cell::RefCell;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

pub use self::stored::Stored;
use crate::error::Error;

/// Shortest password in bytes that may be chosen; elsewhere people may have chosen a shorter one.
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
    let mut output = [0_u8; Params::DEFAULT_OUTPUT_LEN];
    let mut hashed = || {
        MEMORY.with_borrow_mut(|memory| {
            memory.resize(Params::DEFAULT.block_count(), Block::new());
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
            argon2.hash_password_into_with_memory(password.as_bytes(), &salt, &mut output, memory.as_mut_slice())
        })?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&Params::DEFAULT)?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(Output::new(&output)?),
        };
        Ok(hash.to_string())
    };
    hashed().map_err(Error::Hash)
}

/// What became of a password that somebody says is theirs.
pub struct Checked {
    /// Whether it is.
    pub right: bool,
    /// A hash of ours to store in place of the one it was checked with, which was made elsewhere.
    pub better: Option<String>,
}

/// Whether this is the password that `stored` was made from. A wrong one costs the same in every case: also without
/// `stored`, with one that cannot be read, or for a password that nobody can have.
///
/// `shapes` are hashes of nothing ([`Stored::shape`]), one of each cost that accounts of the product may have besides
/// our own: all of them are computed for a wrong password, so that nobody can tell which one the account has.
pub fn verify(password: &str, stored: Option<&str>, shapes: &[String]) -> Result<Checked, Error> {
    let possible = password.len() <= MAX_BYTES;
    let password = if possible { password } else { "" };
    // An account that has no password has an empty one stored.
    let readable = stored.filter(|text| !text.is_empty()).and_then(|text| {
        let parsed = Stored::parse(text);
        parsed.inspect_err(|error| tracing::error!(error, "a stored password hash cannot be used")).ok()
    });
    if let Some(hash) = &readable
        && compute(hash, password)
        && possible
    {
        let better = if hash.is_ours() { None } else { Some(self::hash(password)?) };
        return Ok(Checked { right: true, better });
    }
    let done = readable.map(|hash| hash.shape());
    for shape in std::iter::once(DUMMY).chain(shapes.iter().map(String::as_str)) {
        if done.as_deref() == Some(shape) {
            continue;
        }
        match Stored::parse(shape) {
            Ok(dummy) => drop(compute(&dummy, password)),
            Err(error) => tracing::error!(error, "the shape of a password hash cannot be used"),
        }
    }
    Ok(Checked { right: false, better: None })
}

/// In the thread's own memory if it is enough; what a hash from elsewhere needs besides is given back.
fn compute(hash: &Stored, password: &str) -> bool {
    if hash.is_ours() {
        MEMORY.with_borrow_mut(|memory| hash.matches(password, memory))
    } else {
        hash.matches(password, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(password: &str, stored: Option<&str>) -> bool {
        verify(password, stored, &[]).unwrap().right
    }

    #[test]
    fn the_hash_of_a_password_verifies_it_and_no_other() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let checked = verify("correct horse", Some(&stored), &[]).unwrap();
        assert!(checked.right && checked.better.is_none());
        for nothing in [None, Some("not a hash"), Some("")] {
            assert!(!right("correct horse", nothing));
        }
        assert!(!right("correct horsf", Some(&stored)));
        let long = "x".repeat(MAX_BYTES + 1);
        assert!(!right(&long, Some(&hash("").unwrap())), "it is not cut to nothing");
    }

    #[test]
    fn the_dummy_costs_what_a_real_hash_costs() {
        let real = Stored::parse(&hash("correct horse").unwrap()).unwrap();
        assert_eq!(real.shape(), DUMMY);
        assert!(real.is_ours());
    }

    #[test]
    fn a_hash_from_elsewhere_is_replaced_by_ours_when_its_password_was_shown() {
        let foreign = "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe";
        let checked = verify("a", Some(foreign), &[]).unwrap();
        let better = checked.better.unwrap();
        assert!(checked.right && Stored::parse(&better).unwrap().is_ours());
        assert!(right("a", Some(&better)), "though nobody could choose it here");
        assert!(verify("b", Some(foreign), &[]).unwrap().better.is_none());
    }

    #[test]
    fn a_password_has_8_to_1024_bytes() {
        assert!(check(&"x".repeat(8)).is_ok() && check(&"x".repeat(1024)).is_ok());
        assert!(check(&"x".repeat(7)).is_err() && check(&"x".repeat(1025)).is_err());
    }
}
