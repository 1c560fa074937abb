//! Sign-in at a provider: the state of a login, where the browser may be sent, and whose domains are whose.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use weft_runtime::outbound::{Networks, address_of};

use crate::domain::account::Email;
use crate::error::Error;

/// How long a login may take, in ms.
pub const LOGIN_MS: i64 = 10 * 60 * 1000;
/// Longest `redirect_uri` in bytes.
const REDIRECT_URI_BYTES: usize = 512;
/// Longest issuer in bytes.
const ISSUER_BYTES: usize = 512;
/// Longest client id in bytes.
const CLIENT_ID_BYTES: usize = 256;
/// Longest client secret in bytes.
const CLIENT_SECRET_BYTES: usize = 512;
/// Most domains of an organisation.
pub const MOST_DOMAINS: usize = 10;
/// Longest domain in bytes (RFC 1035, without the root's dot).
const DOMAIN_BYTES: usize = 253;
/// Longest part of a domain between two dots.
const LABEL_BYTES: usize = 63;

/// What only the holder of a login's state, together with the identity secret, has.
pub struct LoginSecrets {
    /// How the login is found.
    pub hash: String,
    /// The PKCE verifier (RFC 7636).
    pub verifier: SecretString,
    /// What the id token must repeat.
    pub nonce: String,
}

impl LoginSecrets {
    /// The PKCE challenge for S256.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose_secret()))
    }
}

/// Whether a provider may send the browser to `uri`: one of the product's, to the letter, or a page of the app.
pub fn is_redirect_uri(uri: &str, of_product: &[String], app_url: &str) -> bool {
    if uri.is_empty() || uri.len() > REDIRECT_URI_BYTES {
        return false;
    }
    if of_product.iter().any(|known| known == uri) {
        return true;
    }
    let (Ok(app), Ok(page)) = (Url::parse(app_url), Url::parse(uri)) else { return false };
    let folder = app.path().trim_end_matches('/');
    let below = page.path().strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    // Written as every browser reads it: nothing hides in what is tidied up.
    let plain = page.as_str() == uri || page.as_str().strip_suffix('/') == Some(uri);
    let hidden = page.path().contains('%') || page.path().contains("//");
    plain
        && !hidden
        && below
        && page.origin() == app.origin()
        && page.username().is_empty()
        && page.fragment().is_none()
}

/// Whether a URL of a provider that a user named may be used: https, or an address that the operator allows.
pub fn is_safe(url: &Url, allowed: &Networks) -> bool {
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let inside = || url.scheme() == "http" && address_of(url).is_some_and(|address| allowed.allows(address));
    plain && url.host_str().is_some() && (url.scheme() == "https" || inside())
}

/// The issuer that an organisation names.
///
/// Errors: [`Error::InvalidField`].
pub fn issuer(text: &str, allowed: &Networks) -> Result<(), Error> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= ISSUER_BYTES && text.is_ascii());
    match url {
        Some(url) if is_safe(&url, allowed) && url.query().is_none() && !text.contains(['?', '#', ' ']) => Ok(()),
        _ => Err(Error::InvalidField("issuer must be an https URL of at most 512 bytes without query and fragment")),
    }
}

/// Our client id at a provider.
///
/// Errors: [`Error::InvalidField`].
pub fn client_id(text: &str) -> Result<(), Error> {
    if is_visible(text) && (1..=CLIENT_ID_BYTES).contains(&text.len()) {
        Ok(())
    } else {
        Err(Error::InvalidField("client_id must have 1 to 256 visible ASCII characters"))
    }
}

/// Our client secret at a provider; empty: as it was.
///
/// Errors: [`Error::InvalidField`].
pub fn client_secret(text: &str) -> Result<(), Error> {
    if is_visible(text) && text.len() <= CLIENT_SECRET_BYTES {
        Ok(())
    } else {
        Err(Error::InvalidField("client_secret must have at most 512 visible ASCII characters"))
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// The domains that an organisation names, in lower case, each once.
///
/// Errors: [`Error::InvalidField`].
pub fn domains(named: &[String]) -> Result<Vec<String>, Error> {
    if named.is_empty() || named.len() > MOST_DOMAINS {
        return Err(Error::InvalidField("domains must be 1 to 10"));
    }
    let mut domains: Vec<String> = named.iter().map(|text| text.to_ascii_lowercase()).collect();
    if !domains.iter().all(|domain| is_domain(domain)) {
        return Err(Error::InvalidField(
            "domains must look like example.com, those with other letters in their xn-- form",
        ));
    }
    domains.sort();
    domains.dedup();
    Ok(domains)
}

fn is_domain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        (1..=LABEL_BYTES).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = text.rsplit('.').next().unwrap_or_default();
    text.len() <= DOMAIN_BYTES
        && text.contains('.')
        && text.split('.').all(is_label)
        && top.bytes().any(|byte| !byte.is_ascii_digit())
}

/// The domain of an address, in lower case.
pub fn domain_of(email: &Email) -> &str {
    email.folded.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// What stands for the issuer of an organisation's provider wherever identities are kept. The issuer is whatever the
/// organisation says it is, so its subjects are the organisation's own: nothing of this form is a URL, and no two
/// organisations have the same.
pub fn issuer_of_organisation(organisation_id: &str, issuer: &str) -> String {
    format!("organisation {organisation_id} {issuer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_is_sent_to_pages_of_the_product_and_the_app_only() {
        let known = ["https://shop.test/done".to_owned(), "test.shop.app:/done".to_owned()];
        let may = |uri: &str| is_redirect_uri(uri, &known, "https://app.test/base/");
        for good in [
            "https://shop.test/done",
            "test.shop.app:/done",
            "https://app.test/base/",
            "https://app.test/base/callback",
            "https://app.test/base/callback?product=shop",
        ] {
            assert!(may(good), "{good}");
        }
        for bad in [
            "",
            "https://shop.test/done/",
            "https://shop.test/done?x",
            "https://shop.test/Done",
            "https://app.test/",
            "https://app.test/basement",
            "https://app.test/base/../evil",
            "https://app.test/base/%2e%2e/evil",
            "https://app.test/base//evil.test",
            "https://app.test/base\\evil",
            "http://app.test/base/callback",
            "https://app.test:8443/base/callback",
            "https://app.test.evil.test/base/callback",
            "https://app.test@evil.test/base/callback",
            "https://evil@app.test/base/callback",
            "https://app.test/base/callback#x",
            " https://app.test/base/callback",
            "https://APP.test/base/callback",
            "javascript:alert(1)",
            &format!("https://app.test/base/{}", "x".repeat(512)),
        ] {
            assert!(!may(bad), "{bad}");
        }
        let may = |uri: &str| is_redirect_uri(uri, &[], "http://localhost:3000");
        assert!(may("http://localhost:3000/callback") && may("http://localhost:3000"));
        assert!(!may("http://localhost:30001/callback") && !may("http://localhost/callback"));
    }

    #[test]
    fn an_issuer_is_an_https_url_or_where_the_operator_allows() {
        let (none, loopback) = (Networks::default(), "127.0.0.0/8".parse().unwrap());
        assert!(issuer("https://login.example.com/tenant/", &none).is_ok());
        assert!(issuer("http://127.0.0.1:8000", &loopback).is_ok());
        for bad in [
            "",
            "login.example.com",
            "http://login.example.com",
            "http://127.0.0.1:8000",
            "https://user:password@login.example.com",
            "https://login.example.com/?x",
            "https://login.example.com/?",
            "https://login.example.com/#x",
            "file:///etc/passwd",
            &format!("https://login.example.com/{}", "x".repeat(512)),
        ] {
            assert!(issuer(bad, &none).is_err(), "{bad}");
        }
        assert!(issuer("http://localhost:8000", &loopback).is_err(), "a name may lead anywhere");
    }

    #[test]
    fn domains_are_in_lower_case_and_there_once() {
        let named = |names: &[&str]| domains(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["Example.com", "example.COM", "a.b-c.de"]).unwrap(), ["a.b-c.de", "example.com"]);
        assert!(named(&["xn--exmple-cua.de"]).is_ok());
        for bad in [
            "",
            "com",
            ".com",
            "example.com.",
            "-a.com",
            "a-.com",
            "a..com",
            "exämple.de",
            "a_b.com",
            "127.0.0.1",
            "*.com",
            "a b.com",
            "a@b.com",
            &format!("{}.com", "x".repeat(64)),
            &format!("{}com", "x.".repeat(126)),
        ] {
            assert!(named(&[bad]).is_err(), "{bad}");
        }
        assert!(named(&[]).is_err() && named(&["a.com"; 11]).is_err());
    }

    #[test]
    fn what_stands_for_an_organisations_issuer_is_nobody_elses() {
        let ours = issuer_of_organisation("0190", "https://login.example.com");
        assert!(Url::parse(&ours).is_err());
        assert_ne!(ours, issuer_of_organisation("0191", "https://login.example.com"));
    }
}
