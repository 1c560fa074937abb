//! Tokens of an issuer straight as bearers: no login, no webhook, every protocol.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Endpoint;
use weft_proto::identity::v1::GetMeRequest;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_testing::eventually;
use weft_testing::issuer::{IssuerStub, Signature};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Client;

use crate::WEFT;

const ME: &str = "/api/v1/auth/me";

struct Setting {
    mesh: Mesh,
    issuer: IssuerStub,
    client: Client,
}

async fn setting() -> Setting {
    setting_with(&[]).await
}

async fn setting_with(more: &[(&str, &str)]) -> Setting {
    let issuer = IssuerStub::start().await;
    let mut options = Options::new(WEFT);
    options.environment.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    options.environment.push(("CLERK_ISSUER".to_owned(), issuer.url().to_owned()));
    let mesh = Mesh::start(options).await;
    let client = Client::new(mesh.edge(), "cofounder");
    Setting { mesh, issuer, client }
}

impl Setting {
    /// What Clerk's session tokens say.
    fn claims(&self, subject: &str, admin: bool) -> Value {
        #[expect(clippy::disallowed_methods, reason = "an issuer has a clock of its own")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.issuer.url(), "sub": subject, "sid": format!("sess_{subject}"), "iat": now, "nbf": now - 10,
            "exp": now + 300, "email": format!("{subject}@example.com"), "public_metadata": {"admin": admin},
        })
    }

    fn token(&self, subject: &str) -> String {
        self.issuer.token(&self.claims(subject, false))
    }

    async fn me(&self, token: &str) -> (u16, Value) {
        self.client.get(ME, Some(token)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_issuer_works_at_once_and_fifty_first_requests_make_one_account() {
    let setting = setting().await;
    let tokens: Vec<String> = (0..50)
        .map(|n| {
            let mut claims = setting.claims("ana", false);
            claims["jti"] = json!(n / 5);
            setting.issuer.token(&claims)
        })
        .collect();
    let answers = join_all(tokens.iter().map(|token| setting.me(token))).await;
    for (status, me) in &answers {
        assert_eq!((*status, &me["id"], &me["email"]), (200, &answers[0].1["id"], &json!("ana@example.com")), "{me}");
    }
    let admin = setting.issuer.token(&setting.claims("boss", true));
    let (status, users) = setting.client.get("/api/v1/admin/users?email=ana", Some(&admin)).await;
    assert_eq!((status, users["users"].as_array().map(Vec::len)), (200, Some(1)), "{users}");
    assert_eq!(setting.client.get("/api/v1/admin/users", Some(&tokens[0])).await.0, 403);

    let (status, cofounder) = setting.client.post("/api/v1/auth/login", None, &json!({"token": tokens[0]})).await;
    assert_eq!(status, 200, "{cofounder}");
    let (status, wrong) = setting.client.post("/api/v1/auth/login", None, &json!({"firebase_token": "x"})).await;
    assert_eq!((status, &wrong["error"]["code"]), (400, &json!("identity_provider_not_enabled")), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_of_an_issuer_gets_the_answer_of_any_bad_token() {
    let setting = setting().await;
    let stranger = IssuerStub::stranger().await;
    let told = async |token: &str| {
        let (status, mut answer) = setting.me(token).await;
        assert_eq!(status, 401, "{answer}");
        answer["error"]["request_id"].take();
        answer
    };
    let expected = told("garbage").await;
    let mut expired = setting.claims("ana", false);
    expired["exp"] = json!(1);
    let mut elsewhere = setting.claims("ana", false);
    elsewhere["iss"] = json!(stranger.url());
    for token in [
        setting.issuer.token(&expired),
        stranger.token(&setting.claims("ana", false)),
        stranger.token(&elsewhere),
        setting.token("ana")[..400].to_owned(),
    ] {
        for _ in 0..2 {
            assert_eq!(told(&token).await, expected, "{token}");
        }
    }
    let market = setting.client.get("/api/v1/products", Some(&stranger.token(&elsewhere))).await;
    assert_ne!(market.0, 401, "where anybody may call it is as good as none: {}", market.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_refused_within_a_second_and_restored_with_the_same_token() {
    let setting = setting().await;
    let (ana, admin) = (setting.token("ana"), setting.issuer.token(&setting.claims("boss", true)));
    let (_, me) = setting.me(&ana).await;
    let user = format!("/api/v1/admin/users/{}", me["id"].as_str().unwrap());
    let order = json!({"suspended": true, "suspend_reason": "a reason"});
    assert_eq!(setting.client.put(&user, Some(&admin), &order).await.0, 200);
    eventually("the refusal", Duration::from_secs(1), || async { setting.me(&ana).await.0 == 403 }).await;
    let (status, refused) = setting.me(&ana).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("account_suspended")), "{refused}");
    let (_, refused) = setting.me(&setting.token("ana")).await;
    assert_eq!(refused["error"]["code"], json!("account_suspended"), "a new token is no way around it");

    assert_eq!(setting.client.put(&user, Some(&admin), &json!({"suspended": false})).await.0, 200);
    eventually("the account restored", Duration::from_secs(5), || async { setting.me(&ana).await.0 == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_with_it_is_out_and_a_mesh_without_identity_says_so() {
    let mut setting = setting().await;
    let (ana, bo) = (setting.token("ana"), setting.token("bo"));
    assert_eq!(setting.me(&ana).await.0, 200);
    assert_eq!(setting.client.post("/api/v1/auth/logout", Some(&ana), &json!({})).await.0, 200);
    eventually("the end of the session", Duration::from_secs(1), || async { setting.me(&ana).await.0 == 401 }).await;
    assert_eq!(setting.me(&setting.token("ana")).await.0, 401, "of the same session at the issuer");

    setting.mesh.identities[0].kill().await;
    let (status, away) = setting.me(&bo).await;
    assert_eq!((status, &away["error"]["code"]), (503, &json!("unavailable")), "{away}");
    setting.mesh.identities[0].restart().await;
    eventually("identity's return", Duration::from_secs(10), || async { setting.me(&bo).await.0 == 200 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_over_grpc_and_grpc_web() {
    let setting = setting().await;
    let (_, me) = setting.me(&setting.token("ana")).await;
    let channel = Endpoint::from_shared(setting.mesh.edge().to_owned()).unwrap().connect().await.unwrap();
    let mut request = tonic::Request::new(GetMeRequest {});
    request.metadata_mut().insert("x-weft-product", "cofounder".parse().unwrap());
    let mut wrong = tonic::Request::new(GetMeRequest {});
    *wrong.metadata_mut() = request.metadata().clone();
    request.metadata_mut().insert("authorization", format!("Bearer {}", setting.token("ana")).parse().unwrap());
    let stranger = IssuerStub::stranger().await.token(&setting.claims("ana", false));
    wrong.metadata_mut().insert("authorization", format!("Bearer {stranger}").parse().unwrap());
    let mut auth = AuthServiceClient::new(channel);
    assert_eq!(json!(auth.get_me(request).await.unwrap().into_inner().id), me["id"]);
    assert_eq!(auth.get_me(wrong).await.unwrap_err().code(), Code::Unauthenticated);

    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/weft.identity.v1.AuthService/GetMe", setting.mesh.edge()))
        .header("content-type", "application/grpc-web+proto")
        .header("x-weft-product", "cofounder")
        .bearer_auth(setting.token("ana"))
        .body(vec![0_u8; 5])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let body = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
    assert!(body.contains(me["id"].as_str().unwrap()) && body.contains("grpc-status:0"), "{body}");
}

/// Header and claims of a token.
fn read(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (next(), next())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_shared_secret_the_whole_mesh_gives_and_takes_hs256() {
    let secret = "a secret that all of this mesh has, of thirty-two bytes and more";
    let setting = setting_with(&[("JWT_SECRET", secret)]).await;
    let (ana, login) = (setting.token("ana"), json!({"token": setting.token("ana")}));
    let (status, tokens) = setting.client.post("/api/v1/auth/login", None, &login).await;
    assert_eq!(status, 200, "{tokens}");
    let ours = tokens["access_token"].as_str().unwrap();
    let (header, claims) = read(ours);
    assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
    let (_, me) = setting.me(ours).await;
    assert_eq!(me["id"], claims["sub"], "{me}");
    assert_eq!(setting.me(&ana).await.1["id"], me["id"], "the issuer's is exchanged for one of those");
    assert_eq!(
        setting.client.get("/api/v1/billing/subscription", Some(ours)).await.0,
        200,
        "billing has the secret too"
    );

    let forge = |header: &Value, signature| setting.issuer.forge(header, &claims.to_string(), &signature);
    let by = |secret: &str| Signature::Hs256(secret.as_bytes().to_vec());
    assert_eq!(setting.me(&forge(&header, by(secret))).await.0, 200, "who has the secret can sign in as anybody");
    for (header, signature) in [
        (header.clone(), by("another secret of a mesh, of thirty-two bytes and more")),
        (header.clone(), by("")),
        (json!({"alg": "none", "typ": "JWT"}), Signature::Raw(Vec::new())),
        (json!({"alg": "HS512", "typ": "JWT"}), by(secret)),
        (json!({"alg": "EdDSA", "typ": "JWT", "kid": "x"}), by(secret)),
    ] {
        assert_eq!(setting.me(&forge(&header, signature)).await.0, 401, "{header}");
    }
}
