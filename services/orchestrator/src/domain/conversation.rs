//! What is kept of conversations, by which products, and its limits.
use serde_json::Value;
use weft_product::{DataPolicy, Product};
use weft_proto::json::Struct;

use crate::domain::chat::Role;
use crate::domain::json;
use crate::error::Error;

/// Longest title, in bytes.
const TITLE_BYTES: usize = 200;
/// So much of the first message becomes a title, in characters.
const TITLE_CHARS: usize = 60;
/// Largest metadata as JSON, in bytes.
const METADATA_BYTES: usize = 4_096;
/// Length of an id.
const ID_BYTES: usize = 36;
/// Longest text that is kept of one message, in bytes; of a longer one the end is cut off.
pub const CONTENT_BYTES: usize = 131_072;
/// A session into which nobody ever said a word is forgotten after this time.
pub const EMPTY_MS: i64 = DAY_MS;
/// Sessions that live for a while live no longer than this: what should stay longer belongs in a database.
const SILENT_MS_MOST: i64 = 31 * DAY_MS;
/// A day.
pub const DAY_MS: i64 = 86_400_000;

/// A product that keeps conversations: it can only be made of one whose policy allows it. Whatever writes one down wants
/// this.
#[derive(Clone)]
pub struct Keeping {
    product: String,
    until: Until,
}

/// How long they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until somebody deletes them.
    Deleted,
    /// Until nothing was said for so long, in ms.
    Silent {
        /// How long.
        ttl_ms: i64,
    },
}

impl Keeping {
    /// That of a product.
    ///
    /// # Errors
    /// [`Error::ZeroPlaintext`] for one that promises to keep nothing.
    pub fn of(product: &Product) -> Result<Keeping, Error> {
        let until = match product.data_policy {
            DataPolicy::ZeroPlaintext => return Err(Error::ZeroPlaintext),
            DataPolicy::SessionOnly { ttl_s } => {
                Until::Silent { ttl_ms: ttl_s.saturating_mul(1_000).min(SILENT_MS_MOST) }
            }
            DataPolicy::ServerSide => Until::Deleted,
        };
        Ok(Keeping { product: product.slug.clone(), until })
    }

    /// Slug of the product.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// How long.
    pub fn until(&self) -> Until {
        self.until
    }
}

/// Who said something, as it is kept.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// Who said something that was kept.
pub fn role(name: &str) -> Role {
    if name == role_name(Role::User) { Role::User } else { Role::Assistant }
}

/// The id of a session, if it can be one: what cannot is told like one that does not exist.
///
/// # Errors
/// [`Error::NotFound`].
pub fn id(given: &str) -> Result<&str, Error> {
    let is_id = given.len() == ID_BYTES && given.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_id { Ok(given) } else { Err(Error::NotFound("session")) }
}

/// A title.
///
/// # Errors
/// [`Error::Invalid`] for one that is too long or has control characters.
pub fn title(given: &str) -> Result<String, Error> {
    let title = given.trim();
    if title.len() > TITLE_BYTES || title.chars().any(char::is_control) {
        return Err(Error::Invalid("title must be at most 200 bytes, without control characters".into()));
    }
    Ok(title.to_owned())
}

/// What a session is called that has no title: the beginning of its first message, in one line.
pub fn title_of(message: &str) -> String {
    let plain = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut title: String = plain.chars().filter(|letter| !letter.is_control()).take(TITLE_CHARS).collect();
    title.truncate(title.floor_char_boundary(TITLE_BYTES));
    title.trim_end().to_owned()
}

/// Metadata as JSON text.
///
/// # Errors
/// [`Error::Invalid`] if there is too much of it.
pub fn metadata(given: Struct) -> Result<String, Error> {
    let text = Value::Object(json::object(given)).to_string();
    if text.len() > METADATA_BYTES {
        return Err(Error::Invalid("metadata must be at most 4096 bytes of JSON".into()));
    }
    Ok(text)
}

/// Metadata as a message has it; None: there never was any.
pub fn metadata_told(text: &str) -> Option<Struct> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(json::message(object)),
        _ => None,
    }
}

/// A user's message that may be kept.
///
/// # Errors
/// [`Error::Invalid`], which does not repeat it.
pub fn said(message: &str) -> Result<(), Error> {
    if message.contains('\0') {
        return Err(Error::Invalid("a message in a session must not contain a NUL character".into()));
    }
    Ok(())
}

/// A text as it is kept, and whether that is all of it.
pub fn content(text: &str) -> (String, bool) {
    let kept = &text[..text.floor_char_boundary(CONTENT_BYTES)];
    (kept.replace('\0', ""), kept.len() == text.len())
}

#[cfg(test)]
mod tests {
    use weft_product::Products;

    use super::*;

    #[test]
    fn who_promises_to_keep_nothing_keeps_nothing() {
        let products = Products::builtin();
        let until = |slug: &str| Keeping::of(products.get(slug).unwrap()).map(|keeping| keeping.until());
        assert!(matches!(until("adiuva"), Err(Error::ZeroPlaintext)));
        assert_eq!(until("cofounder").unwrap(), Until::Silent { ttl_ms: 3_600_000 });
        assert_eq!(until("zerobs").unwrap(), Until::Deleted);
    }

    #[test]
    fn a_title_has_a_length_and_no_control_characters() {
        assert_eq!(title(&format!(" {} ", "é".repeat(100))).unwrap(), "é".repeat(100));
        for wrong in ["é".repeat(101), "a\nb".to_owned(), "\0".to_owned()] {
            assert!(matches!(title(&wrong), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn a_message_gives_a_title() {
        assert_eq!(title_of("  plan\n\tmy \u{7}week "), "plan my week");
        assert_eq!(title_of(&"word ".repeat(40)), format!("{}word", "word ".repeat(11)));
        let long = title_of(&"😀".repeat(300));
        assert!(long.len() <= TITLE_BYTES && title(&long).is_ok());
    }

    #[test]
    fn metadata_comes_back_as_it_was() {
        let given = |text: &str| json::message(serde_json::from_str(text).unwrap());
        let text = r#"{"a":[1,"\u0000",null],"b":{"c":true}}"#;
        let kept = metadata(given(text)).unwrap();
        assert!(!kept.contains('\0'));
        assert_eq!(metadata_told(&kept), Some(given(text)));
        assert!(metadata(given(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4_088)))).is_ok());
        assert!(metadata(given(&format!(r#"{{"a":"{}"}}"#, "x".repeat(4_089)))).is_err());
        assert_eq!(metadata_told(""), None);
    }

    #[test]
    fn what_is_no_id_is_not_there() {
        assert!(id(&weft_core::new_id()).is_ok());
        for wrong in ["", "x", "0190\0", "../../../../../../../../../../../../", &"a".repeat(37)] {
            assert!(matches!(id(wrong), Err(Error::NotFound("session"))), "{wrong}");
        }
    }

    #[test]
    fn of_a_long_text_the_end_is_cut_off() {
        assert_eq!(content("a\0b"), ("ab".to_owned(), true));
        let (kept, whole) = content(&"é".repeat(CONTENT_BYTES));
        assert_eq!((kept.len(), whole), (CONTENT_BYTES, false));
    }
}
