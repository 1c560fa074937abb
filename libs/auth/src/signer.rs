//! Mints access tokens. Only identity holds a [`Signer`].
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use weft_proto::identity::v1::Jwk;

use crate::Claims;

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes for a new key: {0}")]
pub struct RandomnessError(getrandom::Error);

/// What signs access tokens: an Ed25519 key, or a secret that whoever checks them has too.
pub struct Signer {
    header: Header,
    key: EncodingKey,
    /// Nothing in it if there is no public half.
    jwk: Jwk,
}

impl Signer {
    /// A new key and the seed to keep it by. Its key id is the thumbprint of the public key (RFC 7638), so
    /// the same seed always has the same one.
    pub fn generate() -> Result<(Signer, SecretBox<[u8; 32]>), RandomnessError> {
        let mut seed = SecretBox::new(Box::new([0_u8; 32]));
        getrandom::fill(secrecy::ExposeSecretMut::expose_secret_mut(&mut seed)).map_err(RandomnessError)?;
        let kid = thumbprint(&SigningKey::from_bytes(seed.expose_secret()));
        Ok((Signer::from_seed(kid, seed.expose_secret()), seed))
    }

    /// The key of a seed, under the key id that its tokens name.
    pub fn from_seed(kid: String, seed: &[u8; 32]) -> Signer {
        let signing = SigningKey::from_bytes(seed);
        let der = signing
            .to_pkcs8_der()
            .unwrap_or_else(|error| unreachable!("an Ed25519 key always has a PKCS#8 form: {error}"));
        let jwk = Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: public_x(&signing),
            kid: kid.clone(),
            alg: "EdDSA".into(),
            r#use: "sig".into(),
        };
        let header = Header { kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
        Signer { header, key: EncodingKey::from_ed_der(der.as_bytes()), jwk }
    }

    /// Signs with a secret (HS256), for [`crate::Keys::shared`].
    pub fn shared(secret: &SecretString) -> Signer {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Signer { header: Header::new(Algorithm::HS256), key, jwk: Jwk::default() }
    }

    /// The key id that this signer's tokens name; empty if they name none.
    pub fn kid(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// The public half, as identity publishes it. A shared secret has none: nothing is in it.
    pub fn jwk(&self) -> Jwk {
        self.jwk.clone()
    }

    /// An access token with these claims.
    pub fn mint(&self, claims: &Claims) -> String {
        jsonwebtoken::encode(&self.header, claims, &self.key)
            .unwrap_or_else(|error| unreachable!("both kinds of keys sign any claims: {error}"))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid()).finish_non_exhaustive()
    }
}

fn public_x(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes())
}

/// RFC 7638 over the members that RFC 8037 requires, in their lexical order.
fn thumbprint(key: &SigningKey) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, public_x(key));
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_key_again() {
        let (signer, seed) = Signer::generate().unwrap();
        let again = Signer::from_seed(signer.kid().to_owned(), seed.expose_secret());
        assert_eq!(signer.jwk(), again.jwk());
        let (other, _) = Signer::generate().unwrap();
        assert_ne!(signer.kid(), other.kid());
    }

    /// The key and thumbprint of RFC 8037, appendix A.
    #[test]
    fn the_key_id_is_the_thumbprint_of_the_public_key() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::from_bytes(&seed.try_into().unwrap());
        assert_eq!(public_x(&key), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(thumbprint(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_signer_does_not_print_its_key() {
        let (signer, seed) = Signer::generate().unwrap();
        let text = format!("{signer:?} {seed:?}");
        assert_eq!(text.matches(signer.kid()).count(), 1);
        assert!(!text.contains(&format!("{:?}", seed.expose_secret())), "{text}");
        assert!(text.contains("REDACTED"), "{text}");
    }
}
