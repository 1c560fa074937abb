//! Pages of lists: how long they are, and where the next begins.
use weft_runtime::{MeshConfig, PageTokens};

use crate::error::Error;

/// How many entries the pages of most lists have.
const USUAL: Sizes = Sizes { default: 50, most: 1000 };

/// How many entries the pages of a list have.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// If the caller does not say.
    pub default: i32,
    /// At most.
    pub most: i32,
}

impl Sizes {
    /// How many entries a page has, for what the caller asked for.
    ///
    /// # Errors
    /// [`Error::Invalid`] below 0 or above the most.
    pub fn size(self, asked: i32) -> Result<usize, Error> {
        let Sizes { default, most } = self;
        let size = if asked == 0 { default } else { asked };
        let size = usize::try_from(size).ok().filter(|_| size <= most);
        size.ok_or_else(|| Error::Invalid(format!("page_size must be 1 to {most}, or 0 for {default}").into()))
    }
}

/// Page tokens with the place of the last entry, mostly its id.
#[derive(Clone)]
pub struct Pages(PageTokens);

impl Pages {
    /// Those of this service; see [`PageTokens::new`].
    pub fn new(config: &MeshConfig) -> Pages {
        Pages(PageTokens::new("orchestrator", config))
    }

    /// How many entries a page of most lists has; see [`Sizes::size`].
    ///
    /// # Errors
    /// [`Error::Invalid`] below 0 or above the most.
    pub fn size(asked: i32) -> Result<usize, Error> {
        USUAL.size(asked)
    }

    /// A token for the page after the entry with this id; `scope` says whose question it is, and which.
    pub fn sign(&self, scope: &[&str], id: &str) -> String {
        self.0.sign(scope, id)
    }

    /// The id in a token; of no token it is empty, as on the first page.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that was not given out for this question.
    pub fn read(&self, scope: &[&str], token: &str) -> Result<String, Error> {
        let id = if token.is_empty() { Some("") } else { self.0.read(scope, token) };
        id.map(str::to_owned).ok_or_else(no_page)
    }
}

/// A page token that was not given out for this list.
pub fn no_page() -> Error {
    Error::Invalid("page_token is not one of this list".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_size() {
        assert_eq!((Pages::size(0).unwrap(), Pages::size(1).unwrap(), Pages::size(1000).unwrap()), (50, 1, 1000));
        assert!(Pages::size(-1).is_err() && Pages::size(1001).is_err());
    }

    #[test]
    fn no_token_is_the_first_page_and_a_forged_one_is_none() {
        let pages = Pages::new(&MeshConfig::default());
        assert_eq!(pages.read(&["keys", "p", "ana"], "").unwrap(), "");
        let token = pages.sign(&["keys", "p", "ana"], "0190");
        assert_eq!(pages.read(&["keys", "p", "ana"], &token).unwrap(), "0190");
        assert!(
            pages.read(&["keys", "p", "ben"], &token).is_err() && pages.read(&["keys", "p", "ana"], "0190").is_err()
        );
    }
}
