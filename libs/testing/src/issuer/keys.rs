//! The keys of an issuer: one of each kind a generation.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};

/// RSA keys take long to make; these were made for tests and protect nothing.
const RSA: [&[u8]; 3] = [include_bytes!("rsa-1.der"), include_bytes!("rsa-2.der"), include_bytes!("rsa-3.der")];

/// How a token is signed. Each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256: what most issuers use.
    Rs256,
    /// RSA, PSS, SHA-256, with the same key as RS256.
    Ps256,
    /// ECDSA, P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// As in the header `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Algorithm::Rs256 | Algorithm::Ps256 => "rsa",
            Algorithm::Es256 => "ec",
            Algorithm::EdDsa => "ed",
        }
    }
}

/// One key of each kind.
pub(super) struct Keys {
    number: usize,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

#[expect(clippy::expect_used, reason = "a test cannot go on without its stub's keys")]
impl Keys {
    /// The keys of a generation; `rsa` chooses which of the RSA keys is its.
    pub(super) fn generate(number: usize, rsa: usize) -> Keys {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a P-256 key");
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("an Ed25519 key");
        Keys {
            number,
            rsa: RsaKeyPair::from_pkcs8(RSA[rsa % RSA.len()]).expect("the RSA key in the file"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).expect("the same key"),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("the same key"),
        }
    }

    /// The key id, which says the kind and the generation.
    pub(super) fn kid(&self, algorithm: Algorithm) -> String {
        format!("{}-{}", algorithm.kind(), self.number)
    }

    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let padding: &dyn ring::signature::RsaEncoding =
                    if algorithm == Algorithm::Rs256 { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
                self.rsa.sign(padding, &random, message, &mut signature).expect("an RSA signature");
                signature
            }
            Algorithm::Es256 => self.ec.sign(&random, message).expect("an ECDSA signature").as_ref().to_vec(),
            Algorithm::EdDsa => self.ed.sign(message).as_ref().to_vec(),
        }
    }

    /// The public halves. The RSA key is listed a second time, for PS256, by the key id that [`Keys::pss_kid`] gives.
    pub(super) fn jwks(&self) -> Vec<Value> {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let point = self.ec.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        vec![
            json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid(Algorithm::Rs256), "n": text(&n), "e": text(&e)}),
            json!({"kty": "RSA", "use": "sig", "alg": "PS256", "kid": self.pss_kid(), "n": text(&n), "e": text(&e)}),
            json!({"kty": "EC", "use": "sig", "crv": "P-256", "kid": self.kid(Algorithm::Es256), "x": text(x), "y": text(y)}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid(Algorithm::EdDsa), "x": text(self.ed.public_key().as_ref())}),
        ]
    }

    pub(super) fn pss_kid(&self) -> String {
        format!("pss-{}", self.number)
    }

    /// The public half of the RSA key as DER: what a forger uses as a secret for HS256.
    pub(super) fn rsa_public_der(&self) -> Vec<u8> {
        self.rsa.public().as_ref().to_vec()
    }
}
