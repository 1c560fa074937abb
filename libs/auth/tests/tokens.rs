//! What a verifier makes of tokens, good and bad.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonic::{Code, Status};
use weft_auth::{Claims, Keys, Refusal, Revocations, Signer, Verifier};
use weft_core::{Clock, Reason};

use crate::fakes::{START_MS, START_S, claims, key_claims, signer, verifier};

const SEED: [u8; 32] = [3; 32];
const KID: &str = "now";

fn ours() -> Signer {
    Signer::from_seed(KID.into(), &SEED)
}

fn base() -> Value {
    serde_json::to_value(claims("ada")).unwrap()
}

/// A token with any header and claims, signed with our key.
fn forge(header: &Value, claims: &Value) -> String {
    signed(&header.to_string(), &claims.to_string())
}

/// Any two texts, signed with our key.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = SigningKey::from_bytes(&SEED).sign(message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature.to_bytes()))
}

fn good_header() -> Value {
    json!({"typ": "JWT", "alg": "EdDSA", "kid": KID})
}

fn with(name: &str, value: Value) -> String {
    let mut claims = base();
    claims[name] = value;
    forge(&good_header(), &claims)
}

/// A token of an API key for this audience.
fn of_key_for(audience: &str) -> String {
    ours().mint(&Claims { aud: audience.to_owned(), ..key_claims("ada", &["chat"]) })
}

fn without(name: &str) -> String {
    let mut claims = base();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    forge(&good_header(), &claims)
}

fn with_header(name: &str, value: Value) -> String {
    let mut header = good_header();
    header[name] = value;
    forge(&header, &base())
}

/// Signed, with a claim a second time in front.
fn twice(name: &str, value: &str) -> String {
    let claims = base().to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
    signed(&good_header().to_string(), &claims)
}

fn half_a_character() -> String {
    let claims = base().to_string();
    assert!(claims.contains("\"ada\""));
    claims.replacen("\"ada\"", r#""ada\ud800""#, 1)
}

fn jwk_of_ours() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": ours().jwk().x})
}

/// HMAC with something public as the secret.
fn hmac(algorithm: Algorithm, secret: &[u8]) -> String {
    let header = Header { kid: Some(KID.into()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &base(), &EncodingKey::from_secret(secret)).unwrap()
}

/// Signed well, with a key that the token itself brings.
fn strangers_own_key() -> String {
    let stranger = SigningKey::from_bytes(&[4; 32]);
    let x = BASE64.encode(stranger.verifying_key().as_bytes());
    let header = json!({"alg": "EdDSA", "kid": KID, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}});
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(base().to_string()));
    format!("{message}.{}", BASE64.encode(stranger.sign(message.as_bytes()).to_bytes()))
}

fn headers_gone_wrong() -> Vec<(&'static str, String)> {
    let public = SigningKey::from_bytes(&SEED).verifying_key();
    let unsigned = |alg: &str| {
        let header = json!({"typ": "JWT", "alg": alg, "kid": KID});
        format!("{}.{}.", BASE64.encode(header.to_string()), BASE64.encode(base().to_string()))
    };
    let mut no_kid = good_header();
    no_kid.as_object_mut().unwrap().remove("kid");
    vec![
        ("alg none, no signature", unsigned("none")),
        ("alg None, no signature", unsigned("None")),
        ("our alg, no signature", unsigned("EdDSA")),
        ("alg none, our signature", with_header("alg", json!("none"))),
        ("HS256 with the public key", hmac(Algorithm::HS256, public.as_bytes())),
        ("HS256 with the public key as text", hmac(Algorithm::HS256, ours().jwk().x.as_bytes())),
        ("HS512 with the public key", hmac(Algorithm::HS512, public.as_bytes())),
        ("HS256 with nothing", hmac(Algorithm::HS256, b"")),
        ("alg RS256", with_header("alg", json!("RS256"))),
        ("alg ES256", with_header("alg", json!("ES256"))),
        ("alg unheard of", with_header("alg", json!("XX999"))),
        ("alg not text", with_header("alg", json!(["EdDSA"]))),
        ("no kid", forge(&no_kid, &base())),
        ("empty kid", with_header("kid", json!(""))),
        ("foreign kid", with_header("kid", json!("elsewhere"))),
        ("kid as a path", with_header("kid", json!("../../now"))),
        ("a critical extension", with_header("crit", json!(["exp"]))),
        ("another typ", with_header("typ", json!("at+jwt"))),
        ("typ not text", with_header("typ", json!(1))),
        ("a token inside", with_header("cty", json!("JWT"))),
        ("a place of keys", with_header("jku", json!("https://elsewhere.example/jwks.json"))),
        ("a place of certificates", with_header("x5u", json!("https://elsewhere.example/x5u.pem"))),
        ("claims that are not encoded", with_header("b64", json!(false))),
        ("claims that are packed", with_header("zip", json!("DEF"))),
        ("claims that are encrypted", with_header("enc", json!("A256GCM"))),
        ("a thumbprint of a certificate", with_header("x5t#S256", json!("AAAA"))),
        ("a header of somebody else's", with_header("https://elsewhere.example/role", json!("admin"))),
        ("alg twice", signed(r#"{"alg":"none","typ":"JWT","alg":"EdDSA","kid":"now"}"#, &base().to_string())),
        ("kid twice", signed(r#"{"kid":"x","typ":"JWT","alg":"EdDSA","kid":"now"}"#, &base().to_string())),
        ("alg in letters that look alike", with_header("alg", json!("\u{ff25}dDSA"))),
        ("kid with an invisible character", with_header("kid", json!("now\u{200b}"))),
        ("kid with a zero byte", with_header("kid", json!("now\u{0}"))),
        ("a certificate", with_header("x5c", json!(["MIIB"]))),
        ("our own key brought along", with_header("jwk", serde_json::to_value(jwk_of_ours()).unwrap())),
        ("a stranger's key under our kid", Signer::from_seed(KID.into(), &[4; 32]).mint(&claims("ada"))),
        ("a stranger's key brought along", strangers_own_key()),
    ]
}

fn claims_gone_wrong() -> Vec<(&'static str, String)> {
    vec![
        ("no iss", without("iss")),
        ("no aud", without("aud")),
        ("no sub", without("sub")),
        ("no prd", without("prd")),
        ("no sid", without("sid")),
        ("no jti", without("jti")),
        ("no iat", without("iat")),
        ("no exp", without("exp")),
        ("empty sub", with("sub", json!(""))),
        ("empty prd", with("prd", json!(""))),
        ("empty sid", with("sid", json!(""))),
        ("empty jti", with("jti", json!(""))),
        ("sub not text", with("sub", json!(7))),
        ("roles not a list", with("roles", json!("admin"))),
        ("wrong iss", with("iss", json!("https://elsewhere.example"))),
        ("iss in another case", with("iss", json!("Weft"))),
        ("iss with an invisible character", with("iss", json!("weft\u{200b}"))),
        ("iss in letters that look alike", with("iss", json!("\u{ff57}eft"))),
        ("sub with half a character", signed(&good_header().to_string(), &half_a_character())),
        ("claims nested a thousand deep", twice("email", &format!("{}1{}", "[".repeat(1000), "]".repeat(1000)))),
        ("iss with something behind it", with("iss", json!("weft2"))),
        ("wrong aud", with("aud", json!("elsewhere"))),
        ("aud for others too", with("aud", json!(["weft", "elsewhere"]))),
        ("a user's for API keys", with("aud", json!("weft:key"))),
        ("an API key's for users", of_key_for("weft")),
        ("exp as text", with("exp", json!((START_S + 3600).to_string()))),
        ("exp as a fraction", with("exp", json!(1.9e9 + 0.5))),
        ("exp null", with("exp", Value::Null)),
        ("exp true", with("exp", json!(true))),
        ("exp as a list", with("exp", json!([START_S + 3600]))),
        ("exp as an object", with("exp", json!({"value": START_S + 3600}))),
        ("exp beyond 64 bits", with("exp", json!(u64::MAX))),
        ("exp negative", with("exp", json!(-1))),
        ("exp smallest", with("exp", json!(i64::MIN))),
        ("expired an hour ago", with("exp", json!(START_S - 3600))),
        ("expired this second", with("exp", json!(START_S))),
        ("not valid before an hour from now", with("nbf", json!(START_S + 3600))),
        ("nbf as text", with("nbf", json!("0"))),
        ("issued an hour from now", with("iat", json!(START_S + 3600))),
        ("exp twice", twice("exp", &(START_S + 3600).to_string())),
        ("sub twice", twice("sub", "\"eve\"")),
        ("issued at the end of time", with("iat", json!(i64::MAX))),
    ]
}

fn bytes_gone_wrong() -> Vec<(&'static str, String)> {
    let good = ours().mint(&claims("ada"));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let other = BASE64.encode(serde_json::to_vec(&claims("eve")).unwrap());
    let mut padded = claims("ada");
    padded.email = "a".repeat(100_000);
    vec![
        ("claims exchanged", format!("{header}.{other}.{signature}")),
        ("signature of something else", format!("{header}.{payload}.{}", BASE64.encode([7; 64]))),
        ("signature cut off", good[..good.len() - 4].to_owned()),
        ("signature gone", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("a leading dot", format!(".{good}")),
        ("a trailing space", format!("{good} ")),
        ("a trailing new line", format!("{good}\n")),
        ("padding", format!("{good}==")),
        ("twice", format!("{good}{good}")),
        ("claims that are no JSON", format!("{header}.{}.{signature}", BASE64.encode("claims"))),
        ("header that is no JSON", format!("{}.{payload}.{signature}", BASE64.encode("header"))),
        ("a token in a token", signed(&good_header().to_string(), &good)),
        ("signed, but no object", forge(&good_header(), &json!([1, 2, 3]))),
        ("empty", String::new()),
        ("dots", "..".into()),
        ("garbage", "garbage".into()),
        ("binary", "\u{0}\u{1}\u{fffd}.\u{0}.\u{0}".into()),
        ("huge garbage", "a.b.".repeat(1_000_000)),
        ("huge, but signed by us", ours().mint(&padded)),
    ]
}

fn told(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same() {
    let verifier = verifier(&[&ours()], &Clock::manual(START_MS));
    verifier.verify(&forge(&good_header(), &base())).await.expect("the corpus differs from a good token in one thing");

    let expected = told(&verifier.verify("").await.unwrap_err());
    assert_eq!((expected.0, expected.1.as_str()), (Code::Unauthenticated, "the access token is not valid"));
    for (what, token) in [headers_gone_wrong(), claims_gone_wrong(), bytes_gone_wrong()].concat() {
        for time in ["first", "second"] {
            let status = verifier.verify(&token).await.expect_err(what);
            assert_eq!(told(&status), expected, "{what}, {time} time");
            assert_eq!(Reason::of(&status), Some(Reason::Unauthenticated));
        }
    }
}

#[tokio::test]
async fn a_good_token_gives_its_claims_also_the_second_time() {
    let verifier = verifier(&[&ours()], &Clock::manual(START_MS));
    let token = ours().mint(&claims("ada"));
    assert_eq!(*verifier.verify(&token).await.unwrap(), claims("ada"));
    assert_eq!(*verifier.verify(&token).await.unwrap(), claims("ada"));
}

#[tokio::test]
async fn a_token_from_a_clock_that_is_a_little_ahead_is_good() {
    let verifier = verifier(&[&ours()], &Clock::manual(START_MS));
    let token = forge(&good_header(), &{
        let mut ahead = base();
        ahead["iat"] = json!(START_S + 30);
        ahead["nbf"] = json!(START_S + 30);
        ahead
    });
    verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn a_remembered_token_is_refused_when_it_expires() {
    let clock = Clock::manual(START_MS);
    let verifier = verifier(&[&ours()], &clock);
    let token = with("exp", json!(START_S + 60));
    verifier.verify(&token).await.unwrap();
    clock.advance(std::time::Duration::from_millis(59_999));
    verifier.verify(&token).await.unwrap();
    clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_remembered_token_is_refused_as_soon_as_its_session_ends() {
    let revocations = Revocations::new();
    let keys = Keys::fixed(vec![ours().jwk()]);
    let verifier = Verifier::new(keys, revocations.clone(), Clock::manual(START_MS));
    let (ada, eve) = (ours().mint(&claims("ada")), ours().mint(&claims("eve")));
    verifier.verify(&ada).await.unwrap();
    verifier.verify(&eve).await.unwrap();

    revocations.insert(claims("ada").sid, Refusal::Ended, claims("ada").exp * 1000);
    let status = verifier.verify(&ada).await.unwrap_err();
    assert_eq!(told(&status), told(&verifier.verify("").await.unwrap_err()));
    assert!(verifier.verify(&ada).await.is_err(), "and stays refused");
    verifier.verify(&eve).await.expect("other sessions go on");
}

#[tokio::test]
async fn a_token_of_an_ended_session_is_refused_the_first_time_too() {
    let revocations = Revocations::new();
    revocations.insert(claims("ada").sid, Refusal::Ended, claims("ada").exp * 1000);
    let verifier = Verifier::new(Keys::fixed(vec![ours().jwk()]), revocations, Clock::manual(START_MS));
    assert_eq!(verifier.verify(&ours().mint(&claims("ada"))).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_withdrawn_token_is_refused_and_others_of_its_session_go_on() {
    let revocations = Revocations::new();
    let verifier = Verifier::new(Keys::fixed(vec![ours().jwk()]), revocations.clone(), Clock::manual(START_MS));
    let (withdrawn, next) = (with("jti", json!("one")), with("jti", json!("another")));
    verifier.verify(&withdrawn).await.unwrap();

    revocations.insert("one", Refusal::Ended, claims("ada").exp * 1000);
    assert_eq!(verifier.verify(&withdrawn).await.unwrap_err().code(), Code::Unauthenticated);
    verifier.verify(&next).await.expect("only the one token");
}

#[tokio::test]
async fn every_listed_key_is_good() {
    let before = signer("before");
    let verifier = verifier(&[&ours(), &before], &Clock::manual(START_MS));
    verifier.verify(&ours().mint(&claims("ada"))).await.unwrap();
    verifier.verify(&before.mint(&claims("ada"))).await.unwrap();
}

#[test]
fn claims_do_not_print_the_address() {
    let text = format!("{:?}", claims("ada"));
    assert!(text.contains("ada") && !text.contains("example.com"), "{text}");
}
