//! What API keys look like, and the sessions of their tokens.

/// How every API key begins.
pub const API_KEY_PREFIX: &str = "sk-weft-";
/// What follows: 32 random bytes in base64url.
const SECRET_CHARACTERS: usize = 43;
/// How the `sid` of a token of an API key begins; the key's id follows. No session's id begins so.
const SESSION_PREFIX: &str = "key:";

/// Whether a bearer is meant as an API key.
pub fn is_api_key(bearer: &str) -> bool {
    bearer.starts_with(API_KEY_PREFIX)
}

/// Whether a text has the form of an API key. What has not need not be looked up.
pub fn may_be_api_key(text: &str) -> bool {
    let secret = text.strip_prefix(API_KEY_PREFIX).unwrap_or_default();
    secret.len() == SECRET_CHARACTERS
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// The claim `sid` of the tokens of an API key. Under the same name its use is reported.
pub fn key_session(key_id: &str) -> String {
    format!("{SESSION_PREFIX}{key_id}")
}

/// The id of the API key that a `sid` is of.
pub fn key_of_session(sid: &str) -> Option<&str> {
    sid.strip_prefix(SESSION_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_key_is_looked_up() {
        let secret = "abcDEF-_0123456789".repeat(3)[..SECRET_CHARACTERS].to_owned();
        assert!(may_be_api_key(&format!("{API_KEY_PREFIX}{secret}")));
        for not in
            ["", "sk-weft-", &secret, &format!("sk-weft-{secret}a"), &format!("sk-weft-{}", secret.replace('-', "+"))]
        {
            assert!(!may_be_api_key(not), "{not}");
        }
        assert_eq!(key_of_session(&key_session("0190")), Some("0190"));
        assert_eq!(key_of_session("0190"), None);
    }
}
