//! A provider's discovery document (OpenID Connect Discovery), and the URL that begins a login there.
use reqwest::Url;
use serde::Deserialize;
use weft_runtime::outbound::{Networks, Reach};

use super::ProviderError;
use crate::domain::provider::{LoginSecrets, is_safe};
use crate::issuers::is_https;

/// Longest URL in a document, in bytes.
const URL_BYTES: usize = 2048;
/// What we ask to know.
const SCOPE: &str = "openid email profile";

/// What we need to know of a provider.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    authorization: Url,
    /// Where codes are exchanged.
    pub(super) token: Url,
    /// Where its keys are listed.
    pub(super) keys: Url,
    /// Whether the client secret goes in the body; else in the header.
    pub(super) secret_in_body: bool,
    /// Whether it says who it is when it sends the browser back (RFC 9207).
    says_issuer: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// Reads a document of the provider that is known as `issuer`.
    ///
    /// Errors: [`ProviderError::Wrong`].
    pub(super) fn read(
        bytes: &[u8],
        reach: Reach,
        issuer: &str,
        allowed: &Networks,
    ) -> Result<Provider, ProviderError> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|_| ProviderError::Wrong("the issuer's discovery document cannot be read"))?;
        if document.issuer != issuer {
            return Err(ProviderError::Wrong(
                "the issuer's discovery document names another issuer, write it exactly so",
            ));
        }
        let url = |text: &str| {
            let url = Url::parse(text).ok().filter(|_| text.len() <= URL_BYTES);
            let usable = |url: &Url| match reach {
                // What an issuer with TLS says never leads to where there is none.
                Reach::Operator => url.scheme() == "https" || (url.scheme() == "http" && !is_https(issuer)),
                Reach::Public => is_safe(url, allowed),
            };
            url.filter(usable)
                .ok_or(ProviderError::Wrong("the issuer's discovery document has a URL that is not https"))
        };
        let methods = document.token_endpoint_auth_methods_supported.unwrap_or_default();
        let has = |method: &str| methods.iter().any(|known| known == method);
        Ok(Provider {
            issuer: document.issuer,
            authorization: url(&document.authorization_endpoint)?,
            token: url(&document.token_endpoint)?,
            keys: url(&document.jwks_uri)?,
            secret_in_body: !methods.is_empty() && !has("client_secret_basic") && has("client_secret_post"),
            says_issuer: document.authorization_response_iss_parameter_supported,
        })
    }

    /// Where the browser goes to sign in.
    pub fn authorization_url(
        &self,
        client_id: &str,
        redirect_uri: &str,
        state: &str,
        secrets: &LoginSecrets,
        email: &str,
    ) -> String {
        let mut url = self.authorization.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", redirect_uri),
            ("scope", SCOPE),
            ("state", state),
            ("nonce", &secrets.nonce),
            ("code_challenge", &secrets.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        if !email.is_empty() {
            url.query_pairs_mut().append_pair("login_hint", email);
        }
        url.into()
    }

    /// That the browser was sent back by this provider, as far as it says so: else a code of another one would be sent to
    /// this one's token endpoint.
    ///
    /// Errors: [`ProviderError::Refused`].
    pub(super) fn check_issuer(&self, said: &str) -> Result<(), ProviderError> {
        let right = if said.is_empty() { !self.says_issuer } else { said == self.issuer };
        if right { Ok(()) } else { Err(ProviderError::Refused("the browser came back from another provider")) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://login.example.com/tenant/";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://login.example.com/authorize?tenant=1",
            "token_endpoint": "https://login.example.com/token",
            "jwks_uri": "https://login.example.com/keys",
        })
    }

    fn read(document: &Value, reach: Reach) -> Result<Provider, ProviderError> {
        Provider::read(document.to_string().as_bytes(), reach, ISSUER, &Networks::default())
    }

    fn with(name: &str, value: Value) -> Value {
        let mut document = document();
        document[name] = value;
        document
    }

    #[test]
    fn a_document_must_be_the_issuers_own_and_lead_to_https() {
        assert!(read(&document(), Reach::Public).is_ok());
        for (name, value) in [
            ("issuer", json!("https://login.example.com/tenant")),
            ("issuer", json!("https://evil.example.com")),
            ("issuer", json!(7)),
            ("token_endpoint", json!("http://login.example.com/token")),
            ("token_endpoint", json!("http://127.0.0.1/token")),
            ("jwks_uri", json!("file:///etc/passwd")),
            ("jwks_uri", Value::Null),
            ("authorization_endpoint", json!("javascript:alert(1)")),
            ("authorization_endpoint", json!("https://user@login.example.com/")),
            ("jwks_uri", json!(format!("https://login.example.com/{}", "x".repeat(URL_BYTES)))),
        ] {
            assert!(matches!(read(&with(name, value), Reach::Public), Err(ProviderError::Wrong(_))), "{name}");
        }
        assert!(read(&with("token_endpoint", json!("http://inside/token")), Reach::Operator).is_err());
        assert!(read(&document(), Reach::Operator).is_ok());
        let mut inside = with("token_endpoint", json!("http://inside/token"));
        inside["issuer"] = json!("http://inside");
        let read_inside =
            |reach| Provider::read(inside.to_string().as_bytes(), reach, "http://inside", &Networks::default());
        assert!(read_inside(Reach::Operator).is_ok() && read_inside(Reach::Public).is_err());
        assert!(read(&with("authorization_endpoint", json!("javascript:alert(1)")), Reach::Operator).is_err());
    }

    #[test]
    fn the_secret_goes_where_the_provider_takes_it() {
        for (methods, in_body) in [
            (json!(["client_secret_post"]), true),
            (json!(["client_secret_post", "client_secret_basic"]), false),
            (json!(["private_key_jwt"]), false),
            (json!([]), false),
        ] {
            let provider = read(&with("token_endpoint_auth_methods_supported", methods), Reach::Public).unwrap();
            assert_eq!(provider.secret_in_body, in_body);
        }
    }

    #[test]
    fn a_provider_that_says_who_it_is_has_to() {
        let silent = read(&document(), Reach::Public).unwrap();
        let talking = with("authorization_response_iss_parameter_supported", json!(true));
        let talking = read(&talking, Reach::Public).unwrap();
        let may = |provider: &Provider, said: &str| provider.check_issuer(said).is_ok();
        assert!(may(&silent, "") && may(&silent, ISSUER) && !may(&silent, "https://evil.example.com"));
        assert!(!may(&talking, "") && may(&talking, ISSUER) && !may(&talking, "https://evil.example.com"));
    }

    #[test]
    fn a_login_begins_with_everything_that_protects_it() {
        let secrets =
            LoginSecrets { hash: "hash".to_owned(), verifier: "verifier".into(), nonce: "the nonce".to_owned() };
        let provider = read(&document(), Reach::Public).unwrap();
        let url =
            provider.authorization_url("us & them", "https://app.test/?a=b", "state", &secrets, "ana@example.com");
        let url = Url::parse(&url).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = [
            ("tenant", "1"),
            ("response_type", "code"),
            ("client_id", "us & them"),
            ("redirect_uri", "https://app.test/?a=b"),
            ("scope", "openid email profile"),
            ("state", "state"),
            ("nonce", "the nonce"),
            ("code_challenge", "iMnq5o6zALKXGivsnlom_0F5_WYda32GHkxlV7mq7hQ"),
            ("code_challenge_method", "S256"),
            ("login_hint", "ana@example.com"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!url.as_str().contains("verifier"));
    }
}
