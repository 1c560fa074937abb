//! What the owner of an account says of themselves: optional, short, and shown to others only by apps.
use crate::error::Error;

const NAME_CHARS: usize = 100;
const LOCALE_BYTES: usize = 35;
const ZONE_BYTES: usize = 64;
const URL_BYTES: usize = 2048;

/// What to change. None: as it is; an empty text: none from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// Name for others to see.
    pub display_name: Option<String>,
    /// BCP 47 tag.
    pub locale: Option<String>,
    /// Name of the IANA database.
    pub time_zone: Option<String>,
    /// URL of a picture.
    pub avatar_url: Option<String>,
}

impl ProfileChange {
    /// Takes away the space around texts, and checks the form of what is not empty.
    ///
    /// Errors: [`Error::InvalidField`].
    pub fn checked(self) -> Result<ProfileChange, Error> {
        let field =
            |text: Option<String>, good: fn(&str) -> bool, mistake| match text.map(|text| text.trim().to_owned()) {
                Some(text) if !text.is_empty() && !good(&text) => Err(Error::InvalidField(mistake)),
                text => Ok(text),
            };
        Ok(ProfileChange {
            display_name: field(
                self.display_name,
                is_name,
                "display_name must have at most 100 characters and no control characters",
            )?,
            locale: field(self.locale, is_locale, "locale must be a BCP 47 tag like pt-BR, at most 35 bytes")?,
            time_zone: field(self.time_zone, is_zone, "time_zone must be a name like Europe/Lisbon, at most 64 bytes")?,
            avatar_url: field(self.avatar_url, is_picture, "avatar_url must be an https URL of at most 2048 bytes")?,
        })
    }
}

fn is_name(text: &str) -> bool {
    text.chars().count() <= NAME_CHARS && !text.chars().any(char::is_control)
}

fn is_locale(text: &str) -> bool {
    let language = text.split('-').next().unwrap_or_default();
    let subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LOCALE_BYTES
        && (2..=8).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.split('-').all(subtag)
}

fn is_zone(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-');
    let part = |part: &str| part.starts_with(|first: char| first.is_ascii_alphabetic()) && part.bytes().all(letter);
    text.len() <= ZONE_BYTES && text.split('/').all(part)
}

fn is_picture(text: &str) -> bool {
    let is_https = |uri: http::Uri| {
        uri.scheme_str() == Some("https")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    text.len() <= URL_BYTES && text.parse().is_ok_and(is_https)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_form() {
        let good = |change: ProfileChange| change.checked().is_ok();
        let name = |text: &str| good(ProfileChange { display_name: Some(text.into()), ..Default::default() });
        assert!(name("Ana Müller 🦊") && name(&"ü".repeat(100)) && name("") && name("  "));
        assert!(!name(&"ü".repeat(101)) && !name("a\nb") && !name("a\0b"));
        let locale = |text: &str| good(ProfileChange { locale: Some(text.into()), ..Default::default() });
        assert!(locale("de") && locale("pt-BR") && locale("zh-Hant-TW") && locale(""));
        assert!(!locale("d") && !locale("pt_BR") && !locale("pt-") && !locale("12") && !locale("not a language"));
        let zone = |text: &str| good(ProfileChange { time_zone: Some(text.into()), ..Default::default() });
        assert!(zone("UTC") && zone("Europe/Lisbon") && zone("America/Port-au-Prince") && zone("Etc/GMT+1"));
        assert!(!zone("Europe/") && !zone("../etc/passwd") && !zone("/UTC") && !zone("Europe Lisbon"));
        let picture = |text: &str| good(ProfileChange { avatar_url: Some(text.into()), ..Default::default() });
        assert!(picture("https://cdn.example.com/a.png?x=1") && picture(""));
        let long = format!("https://example.com/{}", "a".repeat(2048));
        for bad in ["http://example.com/a", "javascript:alert(1)", "https://", "https://a@b.c/", "//b.c/", &long] {
            assert!(!picture(bad), "{bad}");
        }
    }

    #[test]
    fn the_space_around_a_text_is_no_part_of_it() {
        let change =
            ProfileChange { display_name: Some("  Ana ".into()), locale: Some(" ".into()), ..Default::default() };
        let checked = change.checked().unwrap();
        assert_eq!((checked.display_name.as_deref(), checked.locale.as_deref()), (Some("Ana"), Some("")));
        assert_eq!(checked.time_zone, None);
    }
}
