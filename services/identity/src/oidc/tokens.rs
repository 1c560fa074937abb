//! The token endpoint, and what an id token has to say besides what every token has to.
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use weft_auth::ExternalClaims;
use weft_runtime::outbound;

use super::{Answer, Provider, ProviderError, Registration, body, send};
use crate::domain::provider::LoginSecrets;

/// Largest answer in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
struct Tokens {
    id_token: SecretString,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The id token for a code.
///
/// Errors: [`ProviderError::Refused`] if there is none for it; [`ProviderError::Away`].
pub(super) async fn exchange(
    client: &outbound::Client,
    provider: &Provider,
    registration: &Registration,
    answer: &Answer<'_>,
) -> Result<String, ProviderError> {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", answer.code),
        ("redirect_uri", answer.redirect_uri),
        ("code_verifier", answer.secrets.verifier.expose_secret()),
    ];
    let secret = registration.client_secret.as_ref().map(ExposeSecret::expose_secret);
    let in_header = secret.filter(|_| !provider.secret_in_body);
    if in_header.is_none() {
        form.push(("client_id", &registration.client_id));
        form.extend(secret.map(|secret| ("client_secret", secret)));
    }
    let request = client.post(provider.token.clone()).map(|request| match in_header {
        Some(secret) => request.basic_auth(encoded(&registration.client_id), Some(encoded(secret))).form(&form),
        None => request.form(&form),
    });
    // By now nobody learns more of an address than that nothing is there.
    let response = send(request).await.map_err(|_| ProviderError::Away)?;
    let status = response.status().as_u16();
    if matches!(status, 408 | 429 | 500..) {
        return Err(ProviderError::Away);
    }
    let bytes = body(response, ANSWER_BYTES).await?;
    if status == 200 {
        let tokens: Tokens =
            serde_json::from_slice(&bytes).map_err(|_| ProviderError::Refused("there is no id token"))?;
        return Ok(tokens.id_token.expose_secret().to_owned());
    }
    let refusal = serde_json::from_slice::<Refusal>(&bytes).map(|refusal| refusal.error);
    if matches!(refusal.as_deref(), Ok("invalid_client" | "unauthorized_client")) {
        return Err(ProviderError::Refused("our client id or client secret is wrong there"));
    }
    Err(ProviderError::Refused("the code is not valid"))
}

/// That an id token was made for this login, and for us.
///
/// Errors: [`ProviderError::Refused`].
pub(super) fn check(
    claims: &ExternalClaims,
    registration: &Registration,
    secrets: &LoginSecrets,
) -> Result<(), ProviderError> {
    if claims.text("nonce") != Some(secrets.nonce.as_str()) {
        return Err(ProviderError::Refused("the id token was made for another login"));
    }
    match claims.get("azp") {
        Some(party) if party.as_str() != Some(&registration.client_id) => {
            Err(ProviderError::Refused("the id token was made for another client"))
        }
        _ => Ok(()),
    }
}

/// As RFC 6749, 2.3.1 asks for a client id and a secret in the header.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_header_has_no_colon_of_its_own() {
        assert_eq!(encoded("a:b %c+ü~"), "a%3Ab%20%25c%2B%C3%BC~");
    }
}
