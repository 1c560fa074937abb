//! Pages of lists: how long they are, and where the next begins.
use weft_runtime::{MeshConfig, PageTokens};

use crate::error::Error;

/// Entries of a page if the caller does not say.
const DEFAULT_SIZE: i32 = 50;
/// Most entries of a page.
const MAX_SIZE: i32 = 1000;

/// Page tokens with a position.
#[derive(Clone)]
pub struct Pages(PageTokens);

impl Pages {
    /// Those of this service; see [`PageTokens::new`].
    pub fn new(config: &MeshConfig) -> Pages {
        Pages(PageTokens::new("billing", config))
    }

    /// A token for the page at `position`; `scope` says whose question it is, and which.
    pub fn sign(&self, scope: &[&str], position: i64) -> String {
        self.0.sign(scope, &position.to_string())
    }

    /// The position of a token.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it was not given for this scope.
    pub fn read(&self, scope: &[&str], token: &str) -> Result<i64, Error> {
        let position = self.0.read(scope, token).and_then(|position| position.parse().ok());
        position
            .ok_or_else(|| Error::Invalid("page_token was not given for this list, begin again without one".to_owned()))
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
    fn a_page_has_a_size_with_a_limit() {
        assert_eq!(page_size(0, 0).unwrap(), 50);
        assert_eq!(page_size(0, 7).unwrap(), 7);
        assert_eq!(page_size(1000, 1000).unwrap(), 1000);
        for (size, limit) in [(-1, 0), (0, 1001), (5, 6), (i32::MAX, 0)] {
            assert!(page_size(size, limit).is_err(), "{size} {limit}");
        }
    }
}
