//! Access tokens under one secret (HS256) in place of a key pair.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tonic::Code;
use weft_auth::{Keys, Refusal, Revocations, Signer, Verifier};
use weft_core::Clock;

use crate::fakes::{START_MS, claims, signer, verifier};

fn jwt_secret() -> SecretString {
    SecretString::from("what every service of the mesh checks tokens with")
}

fn shared() -> Verifier {
    Verifier::new(Keys::shared(&jwt_secret()), Revocations::new(), Clock::manual(START_MS))
}

fn forged(header: &Header, secret: &[u8]) -> String {
    jsonwebtoken::encode(header, &claims("ada"), &EncodingKey::from_secret(secret)).unwrap()
}

async fn refused(verifier: &Verifier, token: &str) {
    assert_eq!(verifier.verify(token).await.unwrap_err().code(), Code::Unauthenticated, "{token}");
}

#[tokio::test]
async fn what_the_secret_signs_it_checks() {
    let verifier = shared();
    let token = Signer::shared(&jwt_secret()).mint(&claims("ada"));
    for _ in 0..2 {
        assert_eq!(verifier.verify(&token).await.unwrap().sub, "ada");
    }
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!((header.alg, header.kid), (Algorithm::HS256, None));
    let named = Header { kid: Some("of another minter".into()), ..Header::new(Algorithm::HS256) };
    assert!(verifier.verify(&forged(&named, jwt_secret().expose_secret().as_bytes())).await.is_ok());
}

#[tokio::test]
async fn a_token_of_a_key_pair_is_refused_under_the_secret() {
    let pair = signer("pair");
    refused(&shared(), &pair.mint(&claims("ada"))).await;
    let known = verifier(&[&pair], &Clock::manual(START_MS));
    assert!(known.verify(&pair.mint(&claims("ada"))).await.is_ok(), "the token itself is good");
}

#[tokio::test]
async fn a_token_of_the_secret_is_refused_where_key_pairs_sign() {
    let pair = signer("pair");
    let verifier = verifier(&[&pair], &Clock::manual(START_MS));
    refused(&verifier, &Signer::shared(&jwt_secret()).mint(&claims("ada"))).await;
    // The oldest trick: the public key, in any form, as the secret, under its own id.
    let x = pair.jwk().x;
    let named = Header { kid: Some("pair".into()), ..Header::new(Algorithm::HS256) };
    for secret in [BASE64.decode(&x).unwrap(), x.into_bytes()] {
        refused(&verifier, &forged(&named, &secret)).await;
    }
}

#[tokio::test]
async fn another_secret_another_hash_and_no_signature_are_refused() {
    let verifier = shared();
    let secret = jwt_secret();
    let secret = secret.expose_secret().as_bytes();
    refused(&verifier, &forged(&Header::new(Algorithm::HS256), b"another secret of at least thirty-two bytes")).await;
    refused(&verifier, &forged(&Header::new(Algorithm::HS256), b"")).await;
    refused(&verifier, &forged(&Header::new(Algorithm::HS384), secret)).await;
    refused(&verifier, &forged(&Header::new(Algorithm::HS512), secret)).await;
    let good = forged(&Header::new(Algorithm::HS256), secret);
    let (message, signature) = good.rsplit_once('.').unwrap();
    refused(&verifier, &format!("{message}.")).await;
    for alg in ["none", "None", "HS256", "EdDSA", "RS256"] {
        let header = BASE64.encode(json!({"typ": "JWT", "alg": alg}).to_string());
        let payload = message.split_once('.').unwrap().1;
        refused(&verifier, &format!("{header}.{payload}.")).await;
        if alg != "HS256" {
            refused(&verifier, &format!("{header}.{payload}.{signature}")).await;
        }
    }
    let critical = json!({"typ": "JWT", "alg": "HS256", "crit": ["exp"]}).to_string();
    let (_, payload) = message.split_once('.').unwrap();
    let message = format!("{}.{payload}", BASE64.encode(critical));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256);
    refused(&verifier, &format!("{message}.{}", signature.unwrap())).await;
}

#[tokio::test]
async fn the_rest_of_a_token_is_checked_as_ever() {
    let revocations = Revocations::new();
    let clock = Clock::manual(START_MS);
    let verifier = Verifier::new(Keys::shared(&jwt_secret()), revocations.clone(), clock.clone());
    let minter = Signer::shared(&jwt_secret());
    let elsewhere = weft_auth::Claims { iss: "elsewhere".into(), ..claims("ada") };
    refused(&verifier, &minter.mint(&elsewhere)).await;
    let token = minter.mint(&claims("ada"));
    assert!(verifier.verify(&token).await.is_ok());
    revocations.insert(claims("ada").sid, Refusal::Ended, claims("ada").exp * 1000);
    refused(&verifier, &token).await;
}

#[test]
fn neither_minter_nor_keys_print_the_secret() {
    let text = format!("{:?} {:?}", Signer::shared(&jwt_secret()), Keys::shared(&jwt_secret()));
    assert!(!text.contains("every service"), "{text}");
    assert_eq!(Signer::shared(&jwt_secret()).jwk(), Default::default(), "there is nothing to publish");
}
