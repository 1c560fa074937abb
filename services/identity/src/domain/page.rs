//! Pages of lists.
use crate::error::Error;

/// Entries of a page unless the caller says.
const DEFAULT: i64 = 50;
/// Most entries of a page.
const MOST: i64 = 1000;
/// The last page of those that are counted.
const LAST: i64 = 1000;

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most entries.
    pub size: i64,
    /// Entries to leave out, where pages are counted.
    pub offset: i64,
    /// The last entry of the page before; empty on the first.
    pub after: String,
}

impl Page {
    /// What a request asks for: a size under either of its names, and a place that was found in its token or a page's
    /// number.
    ///
    /// Errors: [`Error::InvalidField`].
    pub fn new(page_size: i32, limit: i32, number: i32, after: String) -> Result<Page, Error> {
        let size = match (i64::from(page_size), i64::from(limit)) {
            (0, 0) => DEFAULT,
            (0, size) | (size, 0) => size,
            (size, same) if size == same => size,
            _ => return Err(Error::InvalidField("page_size and limit are two names of one number, send one")),
        };
        if !(1..=MOST).contains(&size) {
            return Err(Error::InvalidField("page_size must be from 1 to 1000"));
        }
        let number = i64::from(number);
        if !(0..=LAST).contains(&number) {
            return Err(Error::InvalidField("page must be from 1 to 1000, go on with page_token"));
        }
        if number > 0 && !after.is_empty() {
            return Err(Error::InvalidField("send page or page_token, not both"));
        }
        Ok(Page { size, offset: size * (number - 1).max(0), after })
    }

    /// The rows of this page, out of one more than that if there are more; and whether there are.
    pub fn cut<T>(&self, mut rows: Vec<T>) -> (Vec<T>, bool) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        (rows, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(page_size: i32, limit: i32, number: i32) -> Option<(i64, i64)> {
        Page::new(page_size, limit, number, String::new()).ok().map(|page| (page.size, page.offset))
    }

    #[test]
    fn a_page_has_a_size_under_either_name_and_perhaps_a_number() {
        assert_eq!(page(0, 0, 0), Some((50, 0)));
        assert_eq!((page(7, 0, 0), page(0, 7, 0), page(7, 7, 1)), (Some((7, 0)), Some((7, 0)), Some((7, 0))));
        assert_eq!((page(0, 10, 3), page(0, 1000, 1000)), (Some((10, 20)), Some((1000, 999_000))));
        for (page_size, limit, number) in [(-1, 0, 0), (1001, 0, 0), (1, 2, 0), (0, 0, -1), (0, 0, 1001)] {
            assert_eq!(page(page_size, limit, number), None, "{page_size} {limit} {number}");
        }
        assert!(Page::new(0, 0, 2, "place".to_owned()).is_err());
    }

    #[test]
    fn one_row_more_than_the_page_says_that_there_are_more() {
        let page = Page::new(2, 0, 0, String::new()).unwrap();
        assert_eq!(page.cut(vec![1, 2, 3]), (vec![1, 2], true));
        assert_eq!(page.cut(vec![1, 2]), (vec![1, 2], false));
    }
}
