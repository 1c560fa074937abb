//! Tokens of issuers: what is taken for good, what never is, and how often the issuer is asked.
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use weft_auth::{ExternalClaims, ExternalError, ExternalKeys, Rules};
use weft_core::Clock;
use weft_testing::issuer::{Algorithm, IssuerStub, Signature, Weather};

use crate::fakes::{START_MS, START_S};

const ALL: [Algorithm; 4] = [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa];
const RIGHT: Signature = Signature::Right(Algorithm::Rs256);

/// An issuer, and who trusts it.
struct Setting {
    issuer: IssuerStub,
    keys: ExternalKeys,
    rules: Rules,
    clock: Clock,
}

async fn setting() -> Setting {
    let issuer = IssuerStub::start().await;
    let clock = Clock::manual(START_MS);
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = issuer.jwks_url();
    let keys = ExternalKeys::new(issuer.jwks_url(), clock.clone(), move || {
        let request = http.get(&url);
        Box::pin(async move {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            if answer.status() != 200 {
                return Err(answer.status().to_string());
            }
            Ok(answer.bytes().await.map_err(|error| error.to_string())?.to_vec())
        })
    });
    let rules = Rules {
        issuer: issuer.url().to_owned(),
        audiences: vec!["us".into(), "us too".into()],
        authorized_parties: vec!["https://app.test".into()],
    };
    Setting { issuer, keys, rules, clock }
}

impl Setting {
    /// Claims that keep every rule.
    fn claims(&self) -> Value {
        json!({
            "iss": self.issuer.url(), "sub": "ana", "aud": "us", "azp": "https://app.test", "iat": START_S,
            "exp": START_S + 36_000, "email": "ana@example.com", "public_metadata": {"admin": true},
        })
    }

    fn token(&self) -> String {
        self.issuer.token(&self.claims())
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        self.issuer.token(&claims)
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims();
        claims.as_object_mut().unwrap().remove(name).unwrap();
        self.issuer.token(&claims)
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.issuer.header(Algorithm::Rs256);
        header[name] = value;
        self.issuer.forge(&header, &self.claims().to_string(), &RIGHT)
    }

    fn without_header(&self, name: &str) -> String {
        let mut header = self.issuer.header(Algorithm::Rs256);
        header.as_object_mut().unwrap().remove(name).unwrap();
        self.issuer.forge(&header, &self.claims().to_string(), &RIGHT)
    }

    /// Under the name of one algorithm, signed by another.
    fn confused(&self, alg: &str, kid: Algorithm, signature: &Signature) -> String {
        let header = json!({"alg": alg, "kid": self.issuer.kid(kid), "typ": "JWT"});
        self.issuer.forge(&header, &self.claims().to_string(), signature)
    }

    async fn verify(&self, token: &str) -> Result<ExternalClaims, ExternalError> {
        self.keys.verify(token, &self.rules).await
    }

    async fn accepts(&self, token: &str) -> bool {
        match self.verify(token).await {
            Ok(_) => true,
            Err(ExternalError::NotValid) => false,
            Err(error) => panic!("neither good nor bad: {error}"),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn headers_gone_wrong(&self) -> Vec<(&'static str, String)> {
        let claims = self.claims().to_string();
        let public = self.issuer.rsa_public_der();
        let good = self.token();
        let ring = |alg, kid, by| self.confused(alg, kid, &Signature::Right(by));
        vec![
            ("alg none, no signature", self.confused("none", Algorithm::Rs256, &Signature::Raw(Vec::new()))),
            ("alg nOnE, no signature", self.confused("nOnE", Algorithm::Rs256, &Signature::Raw(Vec::new()))),
            ("alg none, right signature", self.confused("none", Algorithm::Rs256, &RIGHT)),
            ("right alg, no signature", self.confused("RS256", Algorithm::Rs256, &Signature::Raw(Vec::new()))),
            ("HS256 with the public key", self.confused("HS256", Algorithm::Rs256, &Signature::Hs256(public.clone()))),
            ("HS256 with nothing", self.confused("HS256", Algorithm::Rs256, &Signature::Hs256(Vec::new()))),
            ("HS256 as RS256", self.confused("RS256", Algorithm::Rs256, &Signature::Hs256(public))),
            ("alg RS512", self.with_header("alg", json!("RS512"))),
            ("alg rs256", self.with_header("alg", json!("rs256"))),
            ("alg not text", self.with_header("alg", json!(["RS256"]))),
            ("no alg", self.without_header("alg")),
            ("RS256 by a key for PS256", ring("RS256", Algorithm::Ps256, Algorithm::Rs256)),
            ("PS256 by a key for RS256", ring("PS256", Algorithm::Rs256, Algorithm::Ps256)),
            ("ES256 under an RSA key's id", ring("ES256", Algorithm::Rs256, Algorithm::Es256)),
            ("RS256 under an EC key's id", ring("RS256", Algorithm::Es256, Algorithm::Rs256)),
            ("EdDSA under an EC key's id", ring("EdDSA", Algorithm::Es256, Algorithm::EdDsa)),
            ("ES256 by an Ed25519 key", ring("ES256", Algorithm::Es256, Algorithm::EdDsa)),
            ("no kid", self.without_header("kid")),
            ("empty kid", self.with_header("kid", json!(""))),
            ("kid not text", self.with_header("kid", json!(0))),
            ("over-long kid", self.with_header("kid", json!("k".repeat(300)))),
            ("kid as a path", self.with_header("kid", json!("../../rsa-0"))),
            ("kid as SQL", self.with_header("kid", json!("rsa-0' OR '1'='1"))),
            ("foreign kid", self.with_header("kid", json!("elsewhere"))),
            ("jku", self.with_header("jku", json!("https://elsewhere.example/jwks.json"))),
            ("x5u", self.with_header("x5u", json!("https://elsewhere.example/x5u.pem"))),
            ("x5c", self.with_header("x5c", json!(["MIIB"]))),
            ("jwk", self.with_header("jwk", json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}))),
            ("a critical extension", self.with_header("crit", json!(["exp"]))),
            ("an empty list of critical extensions", self.with_header("crit", json!([]))),
            ("claims that are not encoded", self.with_header("b64", json!(false))),
            ("claims that are packed", self.with_header("zip", json!("DEF"))),
            ("a token inside", self.with_header("cty", json!("JWT"))),
            ("typ of an access token", self.with_header("typ", json!("at+jwt"))),
            ("typ not text", self.with_header("typ", json!(1))),
            ("alg twice", self.issuer.forge_text(r#"{"alg":"RS256","alg":"RS256","kid":"rsa-0"}"#, &claims, &RIGHT)),
            ("header that is no object", self.issuer.forge_text("[]", &claims, &RIGHT)),
            (
                "claims under another header",
                format!("{}{}", &self.confused("RS256", Algorithm::Es256, &RIGHT)[..40], good),
            ),
        ]
    }

    #[expect(clippy::too_many_lines, reason = "a list of cases")]
    fn claims_gone_wrong(&self) -> Vec<(&'static str, String)> {
        let long = "s".repeat(256);
        let twice = |name: &str, value: &str| {
            let claims = self.claims().to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
            self.issuer.forge(&self.issuer.header(Algorithm::Rs256), &claims, &RIGHT)
        };
        let text = |from: &str, to: &str| {
            let claims = self.claims().to_string();
            assert!(claims.contains(from), "{claims}");
            self.issuer.forge(&self.issuer.header(Algorithm::Rs256), &claims.replacen(from, to, 1), &RIGHT)
        };
        vec![
            ("no iss", self.without("iss")),
            ("wrong iss", self.with("iss", json!("https://elsewhere.example"))),
            ("iss with a slash", self.with("iss", json!(format!("{}/", self.issuer.url())))),
            ("iss in another case", self.with("iss", json!(self.issuer.url().to_uppercase()))),
            ("iss as a list", self.with("iss", json!([self.issuer.url()]))),
            ("our iss", self.with("iss", json!("weft"))),
            ("no sub", self.without("sub")),
            ("empty sub", self.with("sub", json!(""))),
            ("over-long sub", self.with("sub", json!(long))),
            ("sub with a zero byte", self.with("sub", json!("ana\u{0}"))),
            ("sub not text", self.with("sub", json!(7))),
            ("sub with a zero byte that is written out", text(r#""sub":"ana""#, r#""sub":"ana\u0000""#)),
            ("sub with half a character", text(r#""sub":"ana""#, r#""sub":"ana\ud800""#)),
            ("iss in letters that look alike", self.with("iss", json!(self.issuer.url().replace('t', "\u{ff54}")))),
            ("iss with an invisible character", self.with("iss", json!(format!("{}\u{200b}", self.issuer.url())))),
            ("aud in another case", self.with("aud", json!("US"))),
            ("aud with an invisible character", self.with("aud", json!("us\u{feff}"))),
            ("no aud", self.without("aud")),
            ("wrong aud", self.with("aud", json!("elsewhere"))),
            ("aud of others", self.with("aud", json!(["elsewhere", "others"]))),
            ("empty aud", self.with("aud", json!([]))),
            ("aud with a number in it", self.with("aud", json!(["us", 7]))),
            ("aud as an object", self.with("aud", json!({"us": true}))),
            ("a hundred auds", self.with("aud", json!(vec!["us"; 100]))),
            ("no azp", self.without("azp")),
            ("wrong azp", self.with("azp", json!("https://elsewhere.example"))),
            ("azp that begins like ours", self.with("azp", json!("https://app.test.elsewhere.example"))),
            ("azp as a list", self.with("azp", json!(["https://app.test"]))),
            ("no exp", self.without("exp")),
            ("exp as text", self.with("exp", json!((START_S + 3600).to_string()))),
            ("exp as a fraction", self.with("exp", json!(1.9e9 + 0.5))),
            ("exp as a whole float", self.with("exp", json!(START_S as f64 + 3600.0))),
            ("exp null", self.with("exp", Value::Null)),
            ("exp true", self.with("exp", json!(true))),
            ("exp as a list", self.with("exp", json!([START_S + 3600]))),
            ("exp beyond 64 bits", self.with("exp", json!(u64::MAX))),
            ("exp negative", self.with("exp", json!(-1))),
            ("exp smallest", self.with("exp", json!(i64::MIN))),
            ("exp in a thousand years", self.with("exp", json!(START_S + 1000 * 365 * 24 * 3600))),
            ("exp a month and a second from now", self.with("exp", json!(START_S + 31 * 24 * 3600 + 1))),
            ("exp at the end of time", self.with("exp", json!(i64::MAX))),
            ("expired an hour ago", self.with("exp", json!(START_S - 3600))),
            ("expired this second", self.with("exp", json!(START_S))),
            ("no iat", self.without("iat")),
            ("iat as text", self.with("iat", json!(START_S.to_string()))),
            ("iat negative", self.with("iat", json!(-1))),
            ("issued an hour from now", self.with("iat", json!(START_S + 3600))),
            ("issued half a minute and a second from now", self.with("iat", json!(START_S + 31))),
            ("issued at the end of time", self.with("iat", json!(i64::MAX))),
            ("nbf an hour from now", self.with("nbf", json!(START_S + 3600))),
            ("nbf as text", self.with("nbf", json!("0"))),
            ("signed in an hour from now", self.with("auth_time", json!(START_S + 3600))),
            ("exp twice", twice("exp", &(START_S + 7200).to_string())),
            ("sub twice", twice("sub", "\"eve\"")),
            ("a claim inside twice", twice("public", r#"{"admin":true,"admin":false}"#)),
            ("sub twice, once written otherwise", twice(r"s\u0075b", "\"eve\"")),
            ("claims nested a thousand deep", twice("deep", &format!("{}1{}", "[".repeat(1000), "]".repeat(1000)))),
            ("claims with something behind them", text("}}", "}} {}")),
            ("claims that are no object", self.issuer.token(&json!([1, 2, 3]))),
            ("claims that are no JSON", self.issuer.forge(&self.issuer.header(Algorithm::Rs256), "claims", &RIGHT)),
            ("huge, but signed", self.with("more", json!("a".repeat(100_000)))),
        ]
    }

    fn bytes_gone_wrong(&self) -> Vec<(&'static str, String)> {
        let good = self.token();
        let parts: Vec<&str> = good.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        let (other, nested) = (self.with("sub", json!("eve")), self.issuer.forge(&json!({}), &good, &RIGHT));
        let stranger = Signature::Raw(vec![7; 256]);
        vec![
            ("claims exchanged", format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap())),
            ("signature of something else", self.confused("RS256", Algorithm::Rs256, &stranger)),
            ("signature cut off", good[..good.len() - 4].to_owned()),
            ("signature gone", format!("{header}.{payload}.")),
            ("a token in a token", nested),
            ("two parts", format!("{header}.{payload}")),
            ("four parts", format!("{good}.{signature}")),
            ("five parts", format!("{header}.{header}.{payload}.{payload}.{signature}")),
            ("a leading dot", format!(".{good}")),
            ("a trailing space", format!("{good} ")),
            ("padding", format!("{good}==")),
            ("the other alphabet", format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+"))),
            ("empty", String::new()),
            ("dots", "..".into()),
            ("garbage", "garbage".into()),
            ("binary", "\u{0}\u{1}\u{fffd}.\u{0}.\u{0}".into()),
            ("huge garbage", "a.b.".repeat(1_000_000)),
        ]
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_answer_is_the_same_and_costs_no_fetch() {
    let setting = setting().await;
    setting.verify(&setting.token()).await.expect("the corpus differs from a good token in one thing");
    assert_eq!(setting.issuer.fetches(), 1);
    let corpus = [setting.headers_gone_wrong(), setting.claims_gone_wrong(), setting.bytes_gone_wrong()].concat();
    assert!(corpus.len() >= 100, "{}", corpus.len());
    for (what, token) in corpus {
        assert_eq!(setting.verify(&token).await, Err(ExternalError::NotValid), "{what}");
        // Only a token of which all but the key is right may be worth a question, and not more often than in 10 s.
        assert_eq!(setting.issuer.fetches(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_token_that_is_wrong_by_itself_causes_no_first_fetch() {
    let setting = setting().await;
    for (what, token) in [setting.claims_gone_wrong(), setting.bytes_gone_wrong()].concat() {
        if what.starts_with("signature of") || what.starts_with("claims exchanged") || what == "signature cut off" {
            continue;
        }
        assert!(!setting.accepts(&token).await, "{what}");
        assert_eq!(setting.issuer.fetches(), 0, "{what}");
    }
}

#[tokio::test]
async fn each_algorithm_gives_the_claims() {
    let setting = setting().await;
    for algorithm in ALL {
        let token = setting.issuer.token_in(algorithm, &setting.claims());
        let claims = setting.verify(&token).await.unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
        assert_eq!((claims.subject.as_str(), claims.issued, claims.expires), ("ana", START_S, START_S + 36_000));
        assert_eq!(claims.text("email"), Some("ana@example.com"));
        assert!(claims.is_true("public_metadata.admin") && !claims.is_true("public_metadata.owner"));
        assert!(!claims.is_true("public_metadata") && !claims.is_true("email.admin") && !claims.is_true(""));
        assert!(!format!("{claims:?}").contains("example.com"));
    }
    assert_eq!(setting.issuer.fetches(), 1);
}

#[tokio::test]
async fn only_true_is_true_and_a_name_with_dots_is_one_name() {
    let setting = setting().await;
    for not in [json!("true"), json!(1), json!({}), json!([true]), Value::Null] {
        let token = setting.with("public_metadata", json!({ "admin": not }));
        assert!(!setting.verify(&token).await.unwrap().is_true("public_metadata.admin"), "{not}");
    }
    let token = setting.with("https://app.test/admin", json!(true));
    assert!(setting.verify(&token).await.unwrap().is_true("https://app.test/admin"));
}

#[tokio::test]
async fn a_token_for_several_says_to_whom_it_was_given() {
    let mut setting = setting().await;
    setting.rules.authorized_parties.clear();
    for (good, aud, azp) in [
        (true, json!("us too"), json!("anybody")),
        (true, json!(["us"]), json!("anybody")),
        (true, json!(["us", "others"]), json!("us")),
        (false, json!(["us", "others"]), json!("others")),
        (false, json!(["others"]), json!("us")),
    ] {
        let mut claims = setting.claims();
        (claims["aud"], claims["azp"]) = (aud, azp);
        assert_eq!(setting.accepts(&setting.issuer.token(&claims)).await, good, "{claims}");
    }
    setting.rules.audiences.clear();
    assert!(setting.accepts(&setting.without("aud")).await, "where no audience is asked for");
    for aud in [json!("us"), json!(["us"]), json!([]), Value::Null] {
        assert!(!setting.accepts(&setting.with("aud", aud.clone())).await, "{aud}: then it is for somebody else");
    }
}

#[tokio::test]
async fn a_token_from_a_clock_that_is_a_little_ahead_is_good_until_it_expires() {
    let setting = setting().await;
    let mut claims = setting.claims();
    for name in ["iat", "nbf", "auth_time"] {
        claims[name] = json!(START_S + 30);
    }
    claims["exp"] = json!(START_S + 60);
    let token = setting.issuer.token(&claims);
    assert!(setting.accepts(&token).await);
    setting.pass(59);
    assert!(setting.accepts(&token).await);
    setting.pass(1);
    assert!(!setting.accepts(&token).await);
}

#[tokio::test]
async fn many_first_tokens_at_once_share_one_fetch() {
    let setting = setting().await;
    let token = setting.token();
    let outcomes = join_all((0..50).map(|_| setting.verify(&token))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(setting.issuer.fetches(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_and_the_one_before_goes_on() {
    let setting = setting().await;
    let before = setting.token();
    assert!(setting.accepts(&before).await);
    setting.issuer.rotate();
    setting.pass(10);
    assert!(setting.accepts(&setting.token()).await, "the new key is asked for at once");
    assert!(setting.accepts(&before).await);
    assert_eq!(setting.issuer.fetches(), 2);
}

#[tokio::test]
async fn a_removed_key_is_refused_within_ten_minutes() {
    let setting = setting().await;
    let before = setting.token();
    assert!(setting.accepts(&before).await);
    setting.issuer.remove_key(&setting.issuer.kid(Algorithm::Rs256));
    setting.pass(299);
    assert!(setting.accepts(&before).await, "nobody has asked again yet");
    setting.pass(600 - 299);
    assert!(!setting.accepts(&before).await);
    assert_eq!(setting.issuer.fetches(), 2);
}

#[tokio::test]
async fn everybody_waits_for_the_fetch_that_is_due_after_ten_minutes() {
    let setting = setting().await;
    let before = setting.token();
    assert!(setting.accepts(&before).await);
    setting.issuer.remove_key(&setting.issuer.kid(Algorithm::Rs256));
    setting.pass(600);
    let outcomes = join_all((0..20).map(|_| setting.accepts(&before))).await;
    assert_eq!(outcomes, [false; 20]);
    assert_eq!(setting.issuer.fetches(), 2, "one fetch for all");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_one_question_in_ten_seconds() {
    let setting = setting().await;
    assert!(setting.accepts(&setting.token()).await);
    let flood: Vec<String> = (0..50).map(|n| setting.with_header("kid", json!(format!("unknown-{n}")))).collect();
    for round in 1..=3 {
        setting.pass(10);
        let outcomes = join_all(flood.iter().map(|token| setting.accepts(token))).await;
        assert!(outcomes.iter().all(|accepted| !accepted));
        setting.pass(5);
        assert!(!setting.accepts(&flood[0]).await);
        assert_eq!(setting.issuer.fetches(), 1 + round);
        setting.pass(5);
    }
    assert!(setting.accepts(&setting.token()).await, "who has a known key is not held up");
}

#[tokio::test]
async fn keys_go_on_for_an_hour_of_outage_and_no_longer_than_ten_minutes_more() {
    let setting = setting().await;
    let token = setting.token();
    assert!(setting.accepts(&token).await);
    // As identity does now and then: an outage begins with keys that are five minutes old at most.
    setting.pass(299);
    setting.keys.freshen().await;
    assert_eq!(setting.issuer.fetches(), 1);
    setting.issuer.down();
    for _ in 0..60 {
        setting.pass(60);
        assert!(setting.accepts(&token).await);
    }
    assert!(setting.issuer.fetches() > 10, "it went on asking");
    setting.pass(302);
    assert_eq!(setting.verify(&token).await, Err(ExternalError::Unavailable), "an hour and ten minutes old");
    setting.issuer.up();
    setting.pass(1);
    assert!(setting.accepts(&token).await, "and recovers within a second");
}

#[tokio::test]
async fn keys_that_get_old_are_fetched_again_before_anybody_needs_it() {
    let setting = setting().await;
    setting.keys.freshen().await;
    assert_eq!(setting.issuer.fetches(), 0, "an issuer that nobody uses is not asked");
    assert!(setting.accepts(&setting.token()).await);
    setting.pass(300);
    setting.keys.freshen().await;
    assert_eq!(setting.issuer.fetches(), 2);
}

#[tokio::test]
async fn keys_that_were_never_seen_are_unavailable_and_no_verdict() {
    let setting = setting().await;
    for weather in [Weather::Down, Weather::Redirect] {
        setting.issuer.set_weather(weather);
        assert_eq!(setting.verify(&setting.token()).await, Err(ExternalError::Unavailable), "{weather:?}");
        setting.pass(1);
    }
    setting.issuer.up();
    let lists =
        ["", "[]", "{}", "<html>", r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "kid": "rsa-0", "k": "AAAA"}]}"#];
    for list in lists.map(str::to_owned).into_iter().chain([" ".repeat(300_000)]) {
        setting.issuer.list_instead(Some(list.clone()));
        assert_eq!(setting.verify(&setting.token()).await, Err(ExternalError::Unavailable), "{:.40}", list);
        setting.pass(1);
    }
    setting.issuer.list_instead(None);
    assert!(setting.accepts(&setting.token()).await);
}

#[tokio::test]
async fn a_list_that_is_broken_later_changes_nothing() {
    let setting = setting().await;
    assert!(setting.accepts(&setting.token()).await);
    setting.issuer.list_instead(Some(r#"{"keys": []}"#.to_owned()));
    setting.pass(1800);
    assert!(setting.accepts(&setting.token()).await);
    assert_eq!(setting.issuer.fetches(), 2);
}
