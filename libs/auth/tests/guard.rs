//! Who is let in where.
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use weft_auth::{
    Access, Caller, Claims, Entitlements, Guard, Keys, PRODUCT_HEADER, Policies, REQUEST_ID_HEADER, Revocations,
    SERVICE_TOKEN_HEADER, ServiceKey, Verifier,
};
use weft_core::{Clock, Reason};
use weft_proto::identity::v1::key_service_client::KeyServiceClient;

use crate::fakes::{Billing, Mood, PRODUCT, START_MS, claims, connect, key_claims, nobody, secret, signer, verifier};
use crate::policies::{policy, shop};

fn policies() -> Arc<Policies> {
    let pool = shop(&[
        ("Public", &policy("access: ACCESS_PUBLIC")),
        ("User", &policy("access: ACCESS_USER")),
        ("Admin", &policy("access: ACCESS_ADMIN")),
        ("Service", &policy("access: ACCESS_SERVICE callers: [\"gateway\"]")),
        ("Feature", &policy("access: ACCESS_USER feature: \"shopping\"")),
        ("Scoped", &policy("access: ACCESS_USER scope: \"chat\"")),
    ]);
    Arc::new(Policies::of(&pool).unwrap())
}

fn key(me: &'static str) -> ServiceKey {
    ServiceKey::with_clock(&secret(), me, Clock::manual(START_MS))
}

/// The guard of the service `billing`.
fn guard() -> Guard {
    Guard::new(policies(), verifier(&[&signer("one")], &Clock::manual(START_MS))).with_service_key(key("billing"))
}

fn path(rpc: &str) -> String {
    format!("/shop.v1.Shop/{rpc}")
}

/// What a call carries.
#[derive(Default)]
struct Call(HeaderMap);

impl Call {
    fn to(product: &str) -> Call {
        Call::default().with(PRODUCT_HEADER, product)
    }

    fn with(mut self, name: &'static str, value: &str) -> Call {
        self.0.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    fn signed_in(self, claims: &Claims) -> Call {
        self.with("authorization", &format!("Bearer {}", signer("one").mint(claims)))
    }

    fn from(self, service: &'static str) -> Call {
        self.with(SERVICE_TOKEN_HEADER, &key(service).mint("billing"))
    }
}

fn admin() -> Claims {
    Claims { roles: vec!["admin".into()], ..claims("root") }
}

fn foreign() -> Claims {
    Claims { prd: "zerobs".into(), roles: vec!["admin".into()], ..claims("eve") }
}

/// Who calls without a service token, and what comes of it where the policy is public, user, admin, service:
/// the one who is let in, or the reason.
fn from_outside() -> Vec<(&'static str, Call, &'static str)> {
    const NO: &str = "nobody UNAUTHENTICATED UNAUTHENTICATED UNAUTHENTICATED";
    let call = || Call::to(PRODUCT);
    let (ada, root) = (claims("ada"), admin());
    vec![
        ("nobody", call(), NO),
        ("nobody, no product", Call::default(), NO),
        ("bad token", call().with("authorization", "Bearer not.a.token"), NO),
        ("no bearer", call().with("authorization", "Basic YTpi"), NO),
        ("user", call().signed_in(&ada), "ada ada PERMISSION_DENIED PERMISSION_DENIED"),
        ("user, no product", Call::default().signed_in(&ada), "ada ada PERMISSION_DENIED PERMISSION_DENIED"),
        ("admin", call().signed_in(&root), "root root root PERMISSION_DENIED"),
        ("foreign admin", call().signed_in(&foreign()), "nobody PRODUCT_MISMATCH PRODUCT_MISMATCH PERMISSION_DENIED"),
    ]
}

/// The same with a service token.
fn from_services() -> Vec<(&'static str, Call, &'static str)> {
    let call = || Call::to(PRODUCT);
    let bad = |call: Call| call.with("authorization", "Bearer not.a.token");
    let (ada, root) = (claims("ada"), admin());
    let named = "nobody/gateway UNAUTHENTICATED UNAUTHENTICATED nobody/gateway";
    vec![
        ("named", call().from("gateway"), named),
        ("named, bad user token", bad(call().from("gateway")), named),
        (
            "named, for a user",
            call().from("gateway").signed_in(&ada),
            "ada/gateway ada/gateway PERMISSION_DENIED ada/gateway",
        ),
        (
            "named, for a foreign user",
            call().from("gateway").signed_in(&foreign()),
            "nobody/gateway PRODUCT_MISMATCH PRODUCT_MISMATCH PRODUCT_MISMATCH",
        ),
        ("not named", call().from("outreach"), "nobody/outreach UNAUTHENTICATED UNAUTHENTICATED PERMISSION_DENIED"),
        (
            "not named, for an admin",
            call().from("outreach").signed_in(&root),
            "root/outreach root/outreach root/outreach PERMISSION_DENIED",
        ),
        (
            "bad service token",
            call().with(SERVICE_TOKEN_HEADER, "a.b.c"),
            "nobody UNAUTHENTICATED UNAUTHENTICATED UNAUTHENTICATED",
        ),
        (
            "bad service token, user",
            call().with(SERVICE_TOKEN_HEADER, "a.b.c").signed_in(&ada),
            "ada ada PERMISSION_DENIED UNAUTHENTICATED",
        ),
    ]
}

/// Who was let in, or why nobody was.
fn told(outcome: Result<Caller, Status>) -> String {
    let caller = match outcome {
        Ok(caller) => caller,
        Err(status) => return Reason::of(&status).unwrap().as_str().to_owned(),
    };
    let user = caller.user.as_ref().map_or("nobody", |user| &user.sub);
    caller.service.as_ref().map_or(user.to_owned(), |service| format!("{user}/{service}"))
}

#[tokio::test]
async fn each_access_lets_in_whom_it_names() {
    let guard = guard();
    for (who, call, expected) in from_outside().into_iter().chain(from_services()) {
        let mut outcomes = Vec::new();
        for rpc in ["Public", "User", "Admin", "Service"] {
            outcomes.push(told(guard.admit(&path(rpc), &call.0).await));
        }
        assert_eq!(outcomes.join(" "), expected, "{who}");
    }
}

#[tokio::test]
async fn an_api_key_may_call_what_its_scopes_name_and_nothing_else() {
    let guard = guard();
    const SCOPE: &str = "SCOPE_MISSING";
    let admin = Claims { roles: vec!["admin".into()], ..key_claims("root", &["chat", "admin", ""]) };
    let keyless = Claims { key: None, ..key_claims("eve", &[]) };
    let scopeless = Claims { scp: None, ..key_claims("eve", &[]) };
    let foreign = Claims { prd: "zerobs".into(), ..key_claims("eve", &["chat"]) };
    let rows = [
        ("its scope", key_claims("ada", &["models", "chat"]), ["nobody", SCOPE, SCOPE, "PERMISSION_DENIED", "ada"]),
        ("another scope", key_claims("ada", &["models"]), ["nobody", SCOPE, SCOPE, "PERMISSION_DENIED", SCOPE]),
        ("roles", admin, ["nobody", SCOPE, SCOPE, "PERMISSION_DENIED", "root"]),
        ("no scope", keyless, ["nobody", SCOPE, SCOPE, "PERMISSION_DENIED", SCOPE]),
        ("no list of scopes", scopeless, ["nobody", SCOPE, SCOPE, "PERMISSION_DENIED", SCOPE]),
        (
            "another product",
            foreign,
            ["nobody", "PRODUCT_MISMATCH", "PRODUCT_MISMATCH", "PERMISSION_DENIED", "PRODUCT_MISMATCH"],
        ),
        ("no key", claims("ada"), ["ada", "ada", "PERMISSION_DENIED", "PERMISSION_DENIED", "ada"]),
    ];
    for (who, claims, expected) in rows {
        let mut outcomes = Vec::new();
        for rpc in ["Public", "User", "Admin", "Service", "Scoped"] {
            outcomes.push(told(guard.admit(&path(rpc), &Call::to(PRODUCT).signed_in(&claims).0).await));
        }
        assert_eq!(outcomes, expected, "{who}");
    }
    let call = Call::to(PRODUCT).from("gateway").signed_in(&key_claims("ada", &["chat"]));
    let caller = guard.admit(&path("Service"), &call.0).await.unwrap();
    assert_eq!(caller.user().unwrap().key.as_ref().unwrap().id, "key of ada", "a service calls for it");
}

#[tokio::test]
async fn an_api_key_is_let_in_by_none_of_our_rpcs_that_names_no_scope() {
    let policies = Arc::new(Policies::of(weft_proto::descriptors()).unwrap());
    let verifier = verifier(&[&signer("one")], &Clock::manual(START_MS));
    let guard = Guard::new(Arc::clone(&policies), verifier).with_service_key(key("billing"));
    let scopes: Vec<&str> = policies.paths().filter_map(|path| policies.get(path)?.scope.as_deref()).collect();
    assert!(scopes.contains(&"chat") && scopes.contains(&"embeddings") && scopes.contains(&"models"), "{scopes:?}");
    let claims = Claims { roles: vec!["admin".into()], ..key_claims("ada", &scopes) };
    let call = Call::to(PRODUCT).signed_in(&claims);
    let mut paths: Vec<&str> = policies.paths().collect();
    paths.sort_unstable();
    for path in paths {
        let policy = policies.get(path).unwrap();
        let outcome = guard.admit(path, &call.0).await;
        match (policy.access, &policy.scope) {
            (Access::User, Some(_)) => assert_eq!(told(outcome), "ada", "{path}"),
            (_, Some(_)) => panic!("{path} has a scope and is not for users"),
            (Access::Public, None) => assert_eq!(told(outcome), "nobody", "{path}"),
            (Access::Service, None) => assert_eq!(told(outcome), "PERMISSION_DENIED", "{path}"),
            (Access::User | Access::Admin, None) => assert_eq!(told(outcome), "SCOPE_MISSING", "{path}"),
        }
    }
}

#[tokio::test]
async fn the_product_is_that_of_the_request_or_else_of_the_user() {
    let guard = guard();
    let product = async |call: Call| guard.admit(&path("Public"), &call.0).await.unwrap().product;
    assert_eq!(&*product(Call::to("zerobs")).await, "zerobs");
    assert_eq!(&*product(Call::default().signed_in(&claims("ada"))).await, PRODUCT);
    assert_eq!(&*product(Call::to("zerobs").signed_in(&claims("ada"))).await, "zerobs");
    assert_eq!(&*product(Call::default()).await, "");
}

#[tokio::test]
async fn a_token_of_another_product_is_told_so() {
    let status = guard().admit(&path("User"), &Call::to(PRODUCT).signed_in(&foreign()).0).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::PermissionDenied, Some(Reason::ProductMismatch)));
}

#[tokio::test]
async fn unknown_paths_are_unimplemented_whoever_asks() {
    let guard = guard();
    let call = Call::to(PRODUCT).from("gateway").signed_in(&admin());
    for path in [
        "",
        "/",
        "//",
        "/shop.v1.Shop",
        "/shop.v1.Shop/",
        "/shop.v1.Shop/Nothing",
        "/shop.v1.Shop/user",
        "shop.v1.Shop/User",
        "/shop.v1.Shop/User/",
        "//shop.v1.Shop/User",
        "/grpc.health.v1.Health",
        "/grpc.health.v1.HealthX/Check",
        "/x/grpc.health.v1.Health/Check",
        "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.Other/Info",
    ] {
        let status = guard.admit(path, &call.0).await.expect_err(path);
        assert_eq!((status.code(), Reason::of(&status)), (Code::Unimplemented, Some(Reason::Unimplemented)), "{path}");
    }
}

#[tokio::test]
async fn health_and_reflection_are_open() {
    let guard = guard();
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let caller = guard.admit(path, &HeaderMap::new()).await.unwrap();
        assert!(caller.user.is_none() && caller.service.is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_feature_is_what_billing_says_it_is() {
    let mut tasks = JoinSet::new();
    let billing = Billing::with_features(&[("shopping", false)]);
    let clock = Clock::manual(START_MS);
    let guard = guard().with_entitlements(Entitlements::new(billing.client(&mut tasks).await, clock.clone()));
    let admit = async || {
        let call = Call::to(PRODUCT).signed_in(&claims("ada"));
        guard.admit(&path("Feature"), &call.0).await.map(drop)
    };

    let status = admit().await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::PermissionDenied, Some(Reason::FeatureNotInPlan)));
    assert!(status.message().contains("free") && status.message().contains("shopping"), "{}", status.message());

    billing.sells("shopping");
    clock.advance(std::time::Duration::from_secs(1));
    admit().await.unwrap();

    billing.is(Mood::Away);
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(Reason::of(&admit().await.unwrap_err()), Some(Reason::Unavailable));

    let asked = billing.asked_about("ada");
    guard.admit(&path("User"), &Call::to(PRODUCT).signed_in(&claims("ada")).0).await.unwrap();
    let nobody = guard.admit(&path("Feature"), &Call::to(PRODUCT).0).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    assert_eq!(billing.asked_about("ada"), asked, "no feature, no question");
}

#[tokio::test]
async fn a_feature_that_billing_does_not_know_is_not_in_the_plan() {
    let mut tasks = JoinSet::new();
    let billing = Billing::with_features(&[]);
    let entitlements = Entitlements::new(billing.client(&mut tasks).await, Clock::manual(START_MS));
    let call = Call::to(PRODUCT).signed_in(&claims("ada"));
    let status = guard().with_entitlements(entitlements).admit(&path("Feature"), &call.0).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::FeatureNotInPlan));
}

#[tokio::test]
async fn a_guard_that_cannot_check_lets_nobody_in() {
    let bare = Guard::new(policies(), verifier(&[&signer("one")], &Clock::manual(START_MS)));
    let user = Call::to(PRODUCT).signed_in(&claims("ada"));
    assert_eq!(bare.admit(&path("Feature"), &user.0).await.unwrap_err().code(), Code::Internal);
    let service = Call::to(PRODUCT).from("gateway");
    assert_eq!(bare.admit(&path("Service"), &service.0).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn while_tokens_cannot_be_checked_users_wait_and_the_public_does_not_notice() {
    let keys = Keys::remote(KeyServiceClient::new(connect(&nobody().await)));
    let verifier = Verifier::new(keys, Revocations::new(), Clock::manual(START_MS));
    let guard = Guard::new(policies(), verifier).with_service_key(key("billing"));
    let call = Call::to(PRODUCT).from("gateway").signed_in(&claims("ada"));
    let status = guard.admit(&path("User"), &call.0).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::Unavailable));
    assert!(guard.admit(&path("Public"), &call.0).await.unwrap().user.is_none());
    assert!(guard.admit(&path("Service"), &call.0).await.unwrap().user.is_none());
}

#[tokio::test]
async fn a_request_keeps_its_id_and_a_strange_one_gets_another() {
    let guard = guard();
    let id = async |call: Call| guard.admit(&path("Public"), &call.0).await.unwrap().request_id;
    assert_eq!(&*id(Call::default().with(REQUEST_ID_HEADER, "abc-1")).await, "abc-1");
    let long = "a".repeat(200);
    let strange = [
        id(Call::default().with(REQUEST_ID_HEADER, &long)).await,
        id(Call::default().with(REQUEST_ID_HEADER, "")).await,
        id(Call::default()).await,
        id(Call::default()).await,
    ];
    for (n, one) in strange.iter().enumerate() {
        assert!(!one.is_empty() && **one != *long && !strange[..n].contains(one));
    }
}

#[tokio::test]
async fn a_call_on_behalf_of_the_caller_says_who_that_is() {
    let call = Call::default().signed_in(&claims("ada")).with(REQUEST_ID_HEADER, "abc-1").with("grpc-timeout", "20S");
    let caller = guard().admit(&path("User"), &call.0).await.unwrap();
    assert_eq!(caller.user().unwrap().email, "ada@example.com");
    let onward = caller.request(());
    let text = |name: &str| onward.metadata().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(text(PRODUCT_HEADER), Some(PRODUCT));
    assert_eq!(text(REQUEST_ID_HEADER), Some("abc-1"));
    assert_eq!(text("authorization"), call.0.get("authorization").map(|value| value.to_str().unwrap()));
    let micros: u64 = text("grpc-timeout").unwrap().strip_suffix('u').unwrap().parse().unwrap();
    assert!((10_000_000..=20_000_000).contains(&micros), "what is left of 20 s: {micros}");

    let token = text("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    for shown in [format!("{caller:?}"), format!("{onward:?}")] {
        assert!(!shown.contains(token), "{shown}");
    }
}

#[tokio::test]
async fn a_token_that_was_ignored_is_not_passed_on() {
    let call = Call::to(PRODUCT).signed_in(&foreign());
    let caller = guard().admit(&path("Public"), &call.0).await.unwrap();
    assert!(caller.user().is_err_and(|status| status.code() == Code::Unauthenticated));
    let onward = caller.request(());
    assert!(onward.metadata().get("authorization").is_none());
    assert!(onward.metadata().get("grpc-timeout").is_none(), "nobody set a time");
}
