//! The page where a product gets its first administrator. It has no outside parts, and the token of its link stays in the
//! fragment, which a browser sends to nobody.
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, Response};
use sha2::{Digest, Sha256};

use crate::body::EdgeBody;

const PAGE: &str = include_str!("setup/page.html");

/// Lets in exactly the one script and the one style of the page, by their hashes, and calls to this edge.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (hash_of("script"), hash_of("style"));
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; form-action 'none'; \
         base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// The page.
pub fn page() -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::from_static(PAGE.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// Of what is inside an element of the page, as the policy writes it.
fn hash_of(element: &str) -> String {
    let inside =
        PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let (text, _) = inside.unwrap_or_default();
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_hashes_of_what_is_on_the_page() {
        let policy = POLICY.to_str().unwrap();
        let nothing = STANDARD.encode(Sha256::digest(""));
        assert!(!policy.contains(&nothing), "an element was not found");
        assert_eq!(policy.matches("'sha256-").count(), 2);
        for element in ["<script>", "<style>"] {
            assert_eq!(PAGE.matches(element).count(), 1, "{element}");
        }
        assert!(!policy.contains("unsafe") && !PAGE.contains("://"), "nothing from outside");
        for inline in [" onclick", " onload", " style=", "javascript:", "innerHTML"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
    }
}
