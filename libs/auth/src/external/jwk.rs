//! The keys of an issuer, as RFC 7517 lists them.
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// More keys than this in one list are ignored.
const MAX_KEYS: usize = 64;
/// Longest key id, in bytes.
pub(super) const MAX_KID_BYTES: usize = 256;
/// Shortest RSA key, in bits (RFC 7518); the longest that is worth its time.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;
/// Most bytes of a public RSA exponent; all that are in use have three.
const MAX_EXPONENT_BYTES: usize = 4;

/// Usable keys by their id.
pub(super) struct KeySet(HashMap<String, Key>);

/// A key, which alone says how it is used.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Listed {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// What is understood of a list: the first of several keys with one id. None if it is no list.
    pub(super) fn parse(bytes: &[u8]) -> Option<KeySet> {
        let listed: Listed = serde_json::from_slice(bytes).ok()?;
        let mut keys = HashMap::new();
        for value in listed.keys.into_iter().take(MAX_KEYS) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            if let Some(key) = jwk.key() {
                keys.entry(jwk.kid).or_insert(key);
            }
        }
        Some(KeySet(keys))
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Jwk {
    /// `None` for what is no public key for signatures that we check. A secret (`oct`) is none: who can check with it
    /// can sign.
    fn key(&self) -> Option<Key> {
        let signs = self.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !signs || self.kid.is_empty() || self.kid.len() > MAX_KID_BYTES {
            return None;
        }
        match self.kty.as_str() {
            "RSA" => self.rsa(),
            "EC" => self.ec(),
            "OKP" => self.ed(),
            _ => None,
        }
    }

    fn rsa(&self) -> Option<Key> {
        let algorithm = match self.alg.as_deref() {
            None | Some("RS256") => Algorithm::RS256,
            Some("PS256") => Algorithm::PS256,
            _ => return None,
        };
        let (n, e) = (bytes(self.n.as_ref())?, bytes(self.e.as_ref())?);
        let (n, e) = (significant(&n), significant(&e));
        let bits = u32::try_from(n.len()).ok()?.checked_mul(8)?.checked_sub(n.first()?.leading_zeros())?;
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let fits = RSA_BITS.contains(&bits) && odd(n) && odd(e) && e.len() <= MAX_EXPONENT_BYTES && e != [1];
        fits.then(|| Key { algorithm, decoding: DecodingKey::from_rsa_raw_components(n, e) })
    }

    fn ec(&self) -> Option<Key> {
        if self.crv.as_deref() != Some("P-256") || !matches!(self.alg.as_deref(), None | Some("ES256")) {
            return None;
        }
        let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
        if (x.len(), y.len()) != (32, 32) {
            return None;
        }
        // An uncompressed point of SEC 1. Whether it is on the curve is checked with each signature.
        let decoding = DecodingKey::from_ec_der(&[&[4], x.as_slice(), &y].concat());
        Some(Key { algorithm: Algorithm::ES256, decoding })
    }

    fn ed(&self) -> Option<Key> {
        let named = matches!(self.alg.as_deref(), None | Some("EdDSA" | "Ed25519"));
        if self.crv.as_deref() != Some("Ed25519") || !named {
            return None;
        }
        let x: [u8; 32] = bytes(self.x.as_ref())?.try_into().ok()?;
        let point = VerifyingKey::from_bytes(&x).ok()?;
        (!point.is_weak()).then(|| Key { algorithm: Algorithm::EdDSA, decoding: DecodingKey::from_ed_der(&x) })
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

/// Without zeros in front.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(bits: usize) -> Value {
        let n = URL_SAFE_NO_PAD.encode(vec![0xff_u8; bits / 8]);
        json!({"kty": "RSA", "kid": "one", "n": n, "e": "AQAB"})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn count(keys: &[Value]) -> usize {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().0.len()
    }

    #[test]
    fn the_key_says_how_it_is_used() {
        let set = |key: Value| KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
        assert_eq!(set(rsa(2048)).get("one").unwrap().algorithm, Algorithm::RS256);
        assert_eq!(set(with(rsa(2048), "alg", json!("PS256"))).get("one").unwrap().algorithm, Algorithm::PS256);
    }

    #[test]
    fn what_is_no_public_key_for_signatures_is_ignored() {
        assert_eq!(count(&[rsa(2048)]), 1);
        let x = URL_SAFE_NO_PAD.encode([7_u8; 32]);
        let bad = [
            rsa(1024),
            rsa(8192),
            with(rsa(2048), "e", json!("AQ")),
            with(rsa(2048), "e", json!("Ag")),
            with(rsa(2048), "e", json!("_________w")),
            with(rsa(2048), "n", json!("AAAA")),
            with(rsa(2048), "n", json!("not base64 !")),
            with(rsa(2048), "n", json!(7)),
            with(rsa(2048), "alg", json!("HS256")),
            with(rsa(2048), "alg", json!("RS512")),
            with(rsa(2048), "use", json!("enc")),
            with(rsa(2048), "key_ops", json!(["encrypt"])),
            with(rsa(2048), "kid", json!("")),
            with(rsa(2048), "kid", json!("k".repeat(300))),
            with(rsa(2048), "kid", json!(1)),
            with(rsa(2048), "kty", json!("oct")),
            json!({"kty": "oct", "kid": "one", "k": x}),
            json!({"kty": "EC", "crv": "P-384", "kid": "one", "x": x, "y": x}),
            json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "alg": "ES384", "kid": "one", "x": x, "y": x}),
            json!({"kty": "OKP", "crv": "X25519", "kid": "one", "x": x}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "AAAA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": URL_SAFE_NO_PAD.encode([0_u8; 32])}),
            json!("a text"),
            json!({}),
        ];
        for key in bad {
            assert_eq!(count(std::slice::from_ref(&key)), 0, "{key}");
            assert_eq!(count(&[key, rsa(2048)]), 1, "the good one is used");
        }
        let many: Vec<Value> = (0..100).map(|number| with(rsa(2048), "kid", json!(number.to_string()))).collect();
        assert_eq!(count(&many), MAX_KEYS);
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
