//! How people sign in to a product: ways, issuers, lives of tokens, and where they may be sent back to.
use toml::Spanned;

use super::{TTL_MAX_S, number, unique};
use crate::manifest::{Mistakes, Name, RawIdentity, RawIssuer};
use crate::product::{CredentialKind, Identity, Issuer};

/// The longest URL of an issuer, in bytes.
const ISSUER_MAX: usize = 512;
/// The longest URI to send people back to, in bytes.
const REDIRECT_URI_MAX: usize = 512;
const ACCESS_TTL_S: i64 = 15 * 60;
const REFRESH_TTL_S: i64 = 30 * 24 * 3600;
const FAMILY_TTL_S: i64 = 90 * 24 * 3600;

/// What a manifest says of it, with every mistake noted.
pub fn identity(raw: &RawIdentity, mistakes: &mut Mistakes) -> Identity {
    if raw.credentials.get_ref().is_empty() {
        mistakes.at(raw.credentials.span(), "identity.credentials is empty; name at least one way to sign in");
    }
    let mut credentials = Vec::new();
    for kind in raw.credentials.get_ref() {
        if credentials.contains(kind.get_ref()) {
            mistakes.at(kind.span(), "this way to sign in is named twice");
        }
        credentials.push(*kind.get_ref());
    }
    let issuers = issuers(&raw.issuers, &credentials, mistakes);
    let mut ttl = |given: &Option<Spanned<i64>>, key: &str, default: i64| {
        given.as_ref().map_or(default, |given| number(given, key, 1..=TTL_MAX_S, mistakes))
    };
    let identity = Identity {
        credentials,
        issuers,
        access_ttl_s: ttl(&raw.access_ttl_s, "access_ttl_s", ACCESS_TTL_S),
        refresh_ttl_s: ttl(&raw.refresh_ttl_s, "refresh_ttl_s", REFRESH_TTL_S),
        family_ttl_s: ttl(&raw.family_ttl_s, "family_ttl_s", FAMILY_TTL_S),
        redirect_uris: redirect_uris(&raw.redirect_uris, mistakes),
    };
    if !(identity.access_ttl_s <= identity.refresh_ttl_s && identity.refresh_ttl_s <= identity.family_ttl_s) {
        let message = format!(
            "lives must not shrink from access_ttl_s ({}) over refresh_ttl_s ({}) to family_ttl_s ({})",
            identity.access_ttl_s, identity.refresh_ttl_s, identity.family_ttl_s
        );
        mistakes.at(raw.credentials.span(), message);
    }
    identity
}

fn issuers(raw: &[RawIssuer], credentials: &[CredentialKind], mistakes: &mut Mistakes) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for raw in raw {
        let kind = *raw.kind.get_ref();
        if kind == CredentialKind::Password {
            mistakes.at(raw.kind.span(), "passwords have no issuer; write clerk, firebase, supabase or oidc");
        } else if !credentials.contains(&kind) {
            mistakes.at(raw.kind.span(), "this way to sign in is not in identity.credentials");
        }
        if issuers.iter().any(|issuer| issuer.kind == kind) {
            mistakes.at(raw.kind.span(), "this way to sign in has an issuer already");
        }
        for url in [&raw.issuer, &raw.jwks_url].into_iter().flatten().filter(|url| !is_issuer_url(url.get_ref())) {
            mistakes.at(url.span(), format!("`{}` is no URL of an issuer; write https://host/path", url.get_ref()));
        }
        let texts = |list: &[Name]| list.iter().map(|text| text.get_ref().clone()).collect();
        for text in raw.audiences.iter().chain(&raw.authorized_parties).chain(&raw.admin_claim) {
            if text.get_ref().trim().is_empty() {
                mistakes.at(text.span(), "this is empty; remove it or write what tokens say");
            }
        }
        if let Some(claim) = raw.admin_claim.as_ref().filter(|claim| is_written_by_users(claim.get_ref())) {
            mistakes.at(claim.span(), "people write this claim themselves; name one that only the issuer can write");
        }
        issuers.push(Issuer {
            kind,
            issuer: raw.issuer.as_ref().map(|url| url.get_ref().clone()),
            jwks_url: raw.jwks_url.as_ref().map(|url| url.get_ref().clone()),
            audiences: texts(&raw.audiences),
            authorized_parties: texts(&raw.authorized_parties),
            admin_claim: raw.admin_claim.as_ref().map(|claim| claim.get_ref().clone()),
            link_by_email: raw.link_by_email,
        });
    }
    issuers
}

/// Whether a claim is one that Clerk (`unsafe_metadata`) or Supabase (`user_metadata`) lets its users write.
fn is_written_by_users(claim: &str) -> bool {
    let first = claim.split('.').next().unwrap_or_default();
    ["unsafe_metadata", "unsafeMetadata", "user_metadata", "raw_user_meta_data"].contains(&first)
}

/// Whether this can be an `iss` or a list of keys: http or https, a host, nothing after `#`. Compared byte by byte later.
fn is_issuer_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    text.len() <= ISSUER_MAX
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain))
}

fn redirect_uris(raw: &[Name], mistakes: &mut Mistakes) -> Vec<String> {
    for uri in raw {
        let text = uri.get_ref();
        if !is_redirect_uri(text) {
            let message = format!(
                "`{text}` is no redirect URI; write https://host/path, http://127.0.0.1:port/path or com.example.app:/path"
            );
            mistakes.at(uri.span(), message);
        }
    }
    unique(raw, "redirect URI", mistakes);
    raw.iter().map(|uri| uri.get_ref().clone()).collect()
}

/// https, http to the machine itself, or an app's own scheme with a dot in it (RFC 8252); compared byte by byte later, so
/// nothing that reads in two ways.
fn is_redirect_uri(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"#\\\"<>`{}|^*".contains(&byte);
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    if text.len() > REDIRECT_URI_MAX || !text.bytes().all(plain) || rest.len() < 2 {
        return false;
    }
    let authority = rest.strip_prefix("//").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
    match (scheme, authority) {
        ("https", Some(authority)) => !authority.is_empty() && !authority.contains('@'),
        ("http", Some(authority)) => {
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            ["127.0.0.1", "[::1]", "localhost"].contains(&host)
        }
        ("http" | "https", None) => false,
        (scheme, _) => {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
            scheme.contains('.')
                && scheme.starts_with(|first: char| first.is_ascii_lowercase())
                && scheme.bytes().all(allowed)
        }
    }
}
