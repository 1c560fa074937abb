//! What a user may keep as a key of a provider.
use reqwest::Url;
use weft_runtime::outbound::{Networks, address_of};

use crate::error::Error;
use crate::models::vendor::{COMPATIBLE, named};

/// Longest name, in characters.
const NAME_MOST: usize = 100;
/// Shortest and longest key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=512;
/// Longest base URL, in bytes.
const URL_BYTES_MOST: usize = 512;
/// So many characters of a key are shown.
const SHOWN: usize = 4;

/// The provider that a request names.
///
/// # Errors
/// [`Error::Invalid`] for one that there is not.
pub fn provider(name: &str) -> Result<&'static str, Error> {
    let known = named(name).map(|vendor| vendor.name);
    known.ok_or(Error::Invalid("provider must be openai, anthropic, gemini, xai or compatible".into()))
}

/// A key that can be one.
///
/// # Errors
/// [`Error::Invalid`], which does not repeat it.
pub fn secret(key: &str) -> Result<&str, Error> {
    let is_key = KEY_BYTES.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_key { Ok(key) } else { Err(Error::Invalid("key must be 8 to 512 visible ASCII characters".into())) }
}

/// What is shown of a key.
pub fn last_four(secret: &str) -> String {
    secret.get(secret.len().saturating_sub(SHOWN)..).unwrap_or_default().to_owned()
}

/// A name for a key; the provider's if none is given.
///
/// # Errors
/// [`Error::Invalid`] for one that is too long or has control characters.
pub fn name(given: &str, provider: &str) -> Result<String, Error> {
    let name = given.trim();
    if name.chars().count() > NAME_MOST || name.chars().any(char::is_control) {
        return Err(Error::Invalid("name must be at most 100 characters, without control characters".into()));
    }
    Ok(if name.is_empty() { provider } else { name }.to_owned())
}

/// Where a server of the user's own is; empty for a provider that is where it always is. A name is checked again, with
/// the address it has then, whenever it is connected to.
///
/// # Errors
/// [`Error::Invalid`] for a URL that is missing, not wanted, not https, or leads inside.
pub fn base_url(given: &str, provider: &str, allowed: &Networks) -> Result<String, Error> {
    let invalid = |text: &'static str| Err(Error::Invalid(text.into()));
    match (provider == COMPATIBLE.name, given.is_empty()) {
        (false, true) => return Ok(String::new()),
        (false, false) => return invalid("base_url is for the provider compatible only"),
        (true, true) => return invalid("base_url must be an https URL, such as https://host/v1"),
        (true, false) => {}
    }
    let Some(url) = Url::parse(given).ok().filter(|_| given.len() <= URL_BYTES_MOST) else {
        return invalid("base_url must be an https URL of at most 512 bytes, such as https://host/v1");
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !is_plain || url.fragment().is_some() {
        return invalid("base_url must have no user, query or fragment");
    }
    // Inside its own network an operator may allow what has no certificate.
    let is_allowed = address_of(&url).is_some_and(|address| allowed.allows(address));
    if url.scheme() != "https" && !(url.scheme() == "http" && is_allowed) {
        return invalid("base_url must begin with https://");
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let is_local = host == "localhost" || host.ends_with(".localhost") || host.ends_with(".internal");
    if is_local || !allowed.may_name(&url) {
        return invalid("base_url leads inside; use a public host");
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_its_end_is_shown() {
        assert_eq!(last_four(secret("sk-12345678").unwrap()), "5678");
        assert!(secret(&"k".repeat(512)).is_ok());
        for wrong in ["", "short", "sk 12345678", "sk-1234\n5678", "schlüssel-123", &"k".repeat(513)] {
            let told = secret(wrong).unwrap_err().to_string();
            assert!(wrong.is_empty() || !told.contains(wrong));
        }
    }

    #[test]
    fn a_name_may_be_left_out() {
        assert_eq!(name(" mine ", "openai").unwrap(), "mine");
        assert_eq!(name("", "openai").unwrap(), "openai");
        assert!(name(&"é".repeat(100), "openai").is_ok());
        assert!(name(&"é".repeat(101), "openai").is_err() && name("a\u{7}b", "openai").is_err());
    }

    #[test]
    fn a_base_url_is_https_and_outside() {
        let none = Networks::default();
        assert_eq!(base_url("https://llm.example.com/v1", "compatible", &none).unwrap(), "https://llm.example.com/v1");
        assert_eq!(base_url("", "openai", &none).unwrap(), "");
        let long = format!("https://host/{}", "x".repeat(512));
        for wrong in [
            "",
            "llm.example.com",
            "http://llm.example.com/v1",
            "ftp://llm.example.com",
            "https://127.0.0.1/v1",
            "https://[::1]/v1",
            "https://10.0.0.1",
            "https://0x7f.1",
            "https://localhost/v1",
            "https://x.LOCALHOST./v1",
            "https://metadata.google.internal/",
            "https://169.254.169.254/latest",
            "https://user@host/v1",
            "https://host/v1?key=1",
            "https://host/#x",
            long.as_str(),
        ] {
            assert!(base_url(wrong, "compatible", &none).is_err(), "{wrong}");
        }
        assert!(base_url("https://host", "openai", &none).is_err());
        let allowed: Networks = "127.0.0.0/8".parse().unwrap();
        assert!(base_url("http://127.0.0.1:8000/v1", "compatible", &allowed).is_ok());
        assert!(base_url("http://8.8.8.8/v1", "compatible", &allowed).is_err());
    }

    #[test]
    fn a_provider_is_one_of_ours() {
        assert_eq!(provider("compatible").unwrap(), "compatible");
        assert!(provider("OpenAI").is_err() && provider("").is_err());
    }
}
