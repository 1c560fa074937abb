//! Signing in with tokens of issuers: which ones, whose account, and what an issuer's word is worth.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use weft_core::Reason;
use weft_identity::{Config, IssuerConfig};
use weft_product::Products;
use weft_proto::identity::v1::{
    AccessToken, AuthTokens, ExchangeTokenRequest, GetMeRequest, ListUsersRequest, ListUsersResponse, LoginRequest,
    LogoutRequest, UpdateUserRequest, User, UserProfile,
};
use weft_testing::issuer::IssuerStub;
use weft_testing::on_both_databases;

use crate::harness::{Node, PASSWORD, World, claim, reason, with};

on_both_databases! {
    each_kind_signs_in_where_the_product_allows_it
    a_kind_that_the_product_does_not_allow_is_refused
    an_issuer_that_nobody_set_up_is_told_apart_from_a_bad_token
    of_many_first_logins_at_once_one_makes_the_account
    of_many_first_exchanges_at_once_one_makes_the_account_and_one_the_session
    an_address_is_nobody
    an_account_is_linked_only_if_both_sides_have_verified_the_address_and_the_operator_wants_it
    what_issuers_say_of_addresses_counts_only_where_their_users_cannot_write_it
    the_admin_claim_counts_for_the_token_that_was_given_for_it
    an_administrator_by_claim_may_act
    a_suspended_account_gets_nothing_and_the_same_session_after
    an_exchanged_token_ends_with_the_issuers
    who_signed_out_is_not_signed_in_by_a_token_of_the_same_session
    a_bad_token_is_one_and_the_same_401
    keys_rotate_and_an_outage_is_outlived
    a_token_of_one_product_is_nothing_in_another
    who_comes_again_after_their_account_is_gone_is_somebody_new
    a_token_that_is_for_somebody_else_is_refused
}

/// A node for which one stub plays every issuer, and the stub.
struct Setting<'a> {
    world: &'a World,
    node: Node,
    issuer: IssuerStub,
}

impl Setting<'_> {
    async fn on(world: &World) -> Setting<'_> {
        let issuer = IssuerStub::start().await;
        let node = world.node_with(config(world, &issuer)).await;
        Setting { world, node, issuer }
    }

    fn now_s(&self) -> i64 {
        self.world.clock.now_ms() / 1000
    }

    /// What Clerk's session tokens say.
    fn clerk(&self, subject: &str) -> Value {
        json!({
            "iss": self.issuer.url(), "sub": subject, "sid": format!("sess_{subject}"), "azp": "https://app.test",
            "iat": self.now_s(), "nbf": self.now_s() - 10, "exp": self.now_s() + 60,
        })
    }

    fn firebase(&self, subject: &str) -> Value {
        json!({
            "iss": "https://securetoken.google.com/a-project", "aud": "a-project", "sub": subject,
            "auth_time": self.now_s(), "iat": self.now_s(), "exp": self.now_s() + 3600,
            "email": format!("{subject}@example.com"), "email_verified": true,
        })
    }

    fn supabase(&self, subject: &str) -> Value {
        json!({
            "iss": format!("{}/auth/v1", self.issuer.url()), "aud": "authenticated", "role": "authenticated",
            "sub": subject, "session_id": "a-session", "iat": self.now_s(), "exp": self.now_s() + 3600,
            "email": format!("{subject}@example.com"), "email_verified": true,
            "user_metadata": {"email_verified": true},
        })
    }

    async fn login(&self, product: &str, request: LoginRequest) -> Result<AuthTokens, Reason> {
        let answer = self.node.auth().login(with(product, None, request)).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
    }

    async fn login_clerk(&self, claims: &Value) -> Result<AuthTokens, Reason> {
        let request = LoginRequest { clerk_token: self.issuer.token(claims), ..LoginRequest::default() };
        self.login("cofounder", request).await
    }

    async fn exchange(&self, product: &str, token: &str) -> Result<AccessToken, Reason> {
        let request = with(product, None, ExchangeTokenRequest { token: token.to_owned() });
        let answer = self.node.auth().exchange_token(request).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
    }

    async fn exchange_clerk(&self, claims: &Value) -> Result<AuthTokens, Reason> {
        let AccessToken { access_token, expires_at } = self.exchange("cofounder", &self.issuer.token(claims)).await?;
        Ok(AuthTokens { access_token, refresh_token: String::new(), expires_at })
    }

    async fn me(&self, product: &str, tokens: &AuthTokens) -> Result<UserProfile, Reason> {
        let answer = self.node.auth().get_me(with(product, Some(&tokens.access_token), GetMeRequest {})).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
    }

    async fn accounts(&self) -> i64 {
        self.world.column::<i64>("SELECT COUNT(*) FROM accounts").await[0]
    }

    async fn sessions(&self) -> i64 {
        self.world.column::<i64>("SELECT COUNT(*) FROM sessions").await[0]
    }
}

fn config(world: &World, issuer: &IssuerStub) -> Config {
    let issuers = IssuerConfig {
        clerk_issuer: Some(issuer.url().to_owned()),
        clerk_authorized_parties: vec!["https://app.test".to_owned()],
        firebase_project_id: Some("a-project".to_owned()),
        firebase_jwks_url: Some(issuer.jwks_url()),
        supabase_url: Some(issuer.url().to_owned()),
        ..IssuerConfig::default()
    };
    Config { issuers, ..world.config.clone() }
}

async fn each_kind_signs_in_where_the_product_allows_it(world: &World) {
    let setting = Setting::on(world).await;
    let (clerk, firebase, supabase) = (
        setting.issuer.token(&setting.clerk("ana")),
        setting.issuer.token(&setting.firebase("ana")),
        setting.issuer.token(&setting.supabase("ana")),
    );
    let none = LoginRequest::default;
    for (product, request) in [
        ("cofounder", LoginRequest { clerk_token: clerk.clone(), ..none() }),
        ("cofounder", LoginRequest { token: clerk.clone(), ..none() }),
        ("async-coder", LoginRequest { clerk_token: clerk.clone(), ..none() }),
        ("companion", LoginRequest { firebase_token: firebase.clone(), ..none() }),
        ("companion", LoginRequest { token: firebase, ..none() }),
        ("zerobs", LoginRequest { supabase_token: supabase, ..none() }),
    ] {
        let tokens = setting.login(product, request).await.unwrap_or_else(|why| panic!("{product}: {why:?}"));
        let me = setting.me(product, &tokens).await.unwrap();
        assert_eq!((me.product.as_str(), claim(&tokens, "sub")), (product, json!(me.id)));
        let next = setting.node.refresh_in(product, &tokens.refresh_token).await.unwrap();
        assert_eq!(claim(&next, "sid"), claim(&tokens, "sid"));
    }
    assert_eq!(setting.accounts().await, 4, "one a product, however often");
    assert_eq!(setting.sessions().await, 6, "each login is a session");
}

async fn a_kind_that_the_product_does_not_allow_is_refused(world: &World) {
    let setting = Setting::on(world).await;
    let clerk = setting.issuer.token(&setting.clerk("ana"));
    let none = LoginRequest::default;
    let password = || LoginRequest { email: "ana@example.com".into(), password: PASSWORD.into(), ..none() };
    for (product, request) in [
        ("adiuva", LoginRequest { clerk_token: clerk.clone(), ..none() }),
        ("adiuva", LoginRequest { token: clerk.clone(), ..none() }),
        ("companion", LoginRequest { clerk_token: clerk.clone(), ..none() }),
        ("cofounder", LoginRequest { firebase_token: clerk.clone(), ..none() }),
        ("cofounder", LoginRequest { oidc_token: clerk.clone(), ..none() }),
        ("cofounder", LoginRequest { clerk_token: clerk.clone(), oidc_token: clerk.clone(), ..none() }),
        ("cofounder", LoginRequest { clerk_token: clerk.clone(), token: clerk.clone(), ..none() }),
        ("async-coder", LoginRequest { clerk_token: clerk, ..password() }),
        ("cofounder", password()),
        ("cofounder", none()),
        ("adiuva", none()),
    ] {
        let told = setting.login(product, request.clone()).await;
        assert_eq!(told, Err(Reason::IdentityProviderNotEnabled), "{product}: {request:?}");
    }
    assert_eq!((setting.accounts().await, setting.issuer.fetches()), (0, 0));
}

async fn an_issuer_that_nobody_set_up_is_told_apart_from_a_bad_token(world: &World) {
    let issuer = IssuerStub::start().await;
    let node = world.node().await;
    let setting = Setting { world, node, issuer };
    assert_eq!(setting.login_clerk(&setting.clerk("ana")).await, Err(Reason::PreconditionFailed));
    assert_eq!(setting.exchange_clerk(&setting.clerk("ana")).await, Err(Reason::Unauthenticated));
}

async fn of_many_first_logins_at_once_one_makes_the_account(world: &World) {
    let setting = Setting::on(world).await;
    let claims = setting.clerk("ana");
    let tokens = join_all((0..50).map(|_| setting.login_clerk(&claims))).await;
    let accounts: Vec<Value> = tokens.iter().map(|tokens| claim(tokens.as_ref().unwrap(), "sub")).collect();
    assert!(accounts.iter().all(|account| *account == accounts[0]));
    assert_eq!((setting.accounts().await, setting.sessions().await), (1, 50));
    let registered = world.column::<i64>("SELECT COUNT(*) FROM external_identities").await;
    assert_eq!(registered, [1]);
    assert_eq!(setting.issuer.fetches(), 1);
}

async fn of_many_first_exchanges_at_once_one_makes_the_account_and_one_the_session(world: &World) {
    let setting = Setting::on(world).await;
    let other = world.node_with(config(world, &setting.issuer)).await;
    let other = Setting { world, node: other, issuer: IssuerStub::start().await };
    let token = setting.issuer.token(&setting.clerk("ana"));
    let exchanges = (0..50)
        .map(|n| if n % 2 == 0 { setting.exchange("cofounder", &token) } else { other.exchange("cofounder", &token) });
    let answers = join_all(exchanges).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((setting.accounts().await, setting.sessions().await), (1, 1));
    let next = setting.clerk("ana");
    assert!(setting.exchange_clerk(&next).await.is_ok());
    assert_eq!(setting.sessions().await, 1, "the issuer's next token is of the same session");
    let mut elsewhere = setting.clerk("ana");
    elsewhere["sid"] = json!("another");
    assert!(setting.exchange_clerk(&elsewhere).await.is_ok());
    assert_eq!((setting.accounts().await, setting.sessions().await), (1, 2));
}

async fn an_address_is_nobody(world: &World) {
    let setting = Setting::on(world).await;
    setting.node.register_in("async-coder", "ana@example.com", PASSWORD).await.unwrap();
    let login = async |subject: &str, email: Value| {
        let mut claims = setting.clerk(subject);
        (claims["email"], claims["email_verified"]) = (email, json!(true));
        let request = LoginRequest { clerk_token: setting.issuer.token(&claims), ..LoginRequest::default() };
        let tokens = setting.login("async-coder", request).await.unwrap();
        setting.me("async-coder", &tokens).await.unwrap()
    };
    let one = login("one", json!("ana@example.com")).await;
    let two = login("two", json!("Ana@Example.com")).await;
    assert_ne!(one.id, two.id);
    assert_eq!(setting.accounts().await, 3, "three accounts show one address, and none is the other's");
    let own = setting.node.login_in("async-coder", "ana@example.com", PASSWORD).await.unwrap();
    let own = setting.me("async-coder", &own).await.unwrap();
    assert!(own.id != one.id && own.id != two.id && !own.email_verified);
    assert!(one.email_verified && two.email == "Ana@Example.com");

    for password in ["", "\u{1}", PASSWORD] {
        let told = setting.node.login_in("async-coder", &format!("\u{1}{}", one.id), password).await.unwrap_err();
        assert!(matches!(reason(&told), Reason::InvalidCredentials | Reason::InvalidArgument), "{told:?}");
    }
    let renamed = login("one", json!("new@example.com")).await;
    assert_eq!((renamed.id.as_str(), renamed.email.as_str()), (one.id.as_str(), "new@example.com"));
    for strange in [json!(7), json!("no address"), json!(["a@b.test"]), Value::Null, json!("x".repeat(5000))] {
        let me = login("one", strange).await;
        assert_eq!((me.email.as_str(), me.email_verified), ("", false));
    }
}

async fn an_account_is_linked_only_if_both_sides_have_verified_the_address_and_the_operator_wants_it(world: &World) {
    let issuer = IssuerStub::start().await;
    let manifest = include_str!("../../../products/async-coder.toml")
        .replace("[models]\n", "[[identity.issuers]]\nkind = \"clerk\"\nlink_by_email = true\n\n[models]\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("async-coder.toml"), manifest).unwrap();
    let linking = Arc::new(Products::load(Some(folder.path())).unwrap());
    let node = world.node_of(config(world, &issuer), linking, "").await;
    let node_that_does_not = world.node_with(config(world, &issuer)).await;
    let setting = Setting { world, node, issuer };
    let own = setting.node.register_in("async-coder", "ana@example.com", PASSWORD).await.unwrap();
    let own = claim(&own, "sub");
    let login = async |node: &Node, subject: &str, verified: bool| {
        let mut claims = setting.clerk(subject);
        (claims["email"], claims["email_verified"]) = (json!("ana@example.com"), json!(verified));
        let request = LoginRequest { clerk_token: setting.issuer.token(&claims), ..LoginRequest::default() };
        claim(&node.auth().login(with("async-coder", None, request)).await.unwrap().into_inner(), "sub")
    };
    assert_ne!(login(&setting.node, "one", true).await, own, "the account has not verified it");
    world.tamper("UPDATE accounts SET email_verified_at = 1 WHERE email_folded = 'ana@example.com'").await;
    assert_ne!(login(&setting.node, "two", false).await, own, "the issuer has not verified it");
    assert_ne!(login(&node_that_does_not, "three", true).await, own, "the operator has not said so");
    assert_eq!(login(&setting.node, "four", true).await, own);
    assert_eq!(login(&setting.node, "four", false).await, own, "and stays so");
    assert_ne!(login(&setting.node, "one", true).await, own, "who has an account keeps it");
    let linked = world.column::<i64>("SELECT COUNT(*) FROM audit_events WHERE kind = 'identity_linked'").await;
    assert_eq!(linked, [1]);
}

async fn what_issuers_say_of_addresses_counts_only_where_their_users_cannot_write_it(world: &World) {
    let setting = Setting::on(world).await;
    let me = async |product: &str, token: String| {
        let AccessToken { access_token, expires_at } = setting.exchange(product, &token).await.unwrap();
        let tokens = AuthTokens { access_token, refresh_token: String::new(), expires_at };
        setting.me(product, &tokens).await.unwrap().email_verified
    };
    assert!(me("companion", setting.issuer.token(&setting.firebase("ana"))).await);
    let mut claims = setting.firebase("bob");
    claims["email_verified"] = json!("true");
    assert!(!me("companion", setting.issuer.token(&claims)).await, "only true is true");
    assert!(!me("zerobs", setting.issuer.token(&setting.supabase("ana"))).await);
    assert!(!me("cofounder", setting.issuer.token(&setting.clerk("ana"))).await);

    // Who has shown it to us by mail need not have shown it to the issuer, for as long as it is the same address.
    let mut claims = setting.clerk("ana");
    claims["email"] = json!("ana@example.com");
    assert!(!me("cofounder", setting.issuer.token(&claims)).await);
    world.tamper("UPDATE accounts SET email_verified_at = 1 WHERE external_email = 'ana@example.com'").await;
    assert!(me("cofounder", setting.issuer.token(&claims)).await);
    claims["email"] = json!("another@example.com");
    assert!(!me("cofounder", setting.issuer.token(&claims)).await);
}

async fn who_comes_again_after_their_account_is_gone_is_somebody_new(world: &World) {
    let setting = Setting::on(world).await;
    let before = claim(&setting.exchange_clerk(&setting.clerk("ana")).await.unwrap(), "sub");
    world.tamper("DELETE FROM sessions").await;
    world.tamper("DELETE FROM accounts").await;
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM external_identities").await, [0]);
    let after = claim(&setting.exchange_clerk(&setting.clerk("ana")).await.unwrap(), "sub");
    assert_ne!(after, before, "who comes again is somebody new");
}

async fn a_token_that_is_for_somebody_else_is_refused(world: &World) {
    let setting = Setting::on(world).await;
    for (name, value) in
        [("aud", json!("convex")), ("sts", json!("pending")), ("exp", json!(setting.now_s() + 40 * 24 * 3600))]
    {
        let mut claims = setting.clerk("ana");
        claims[name] = value;
        assert_eq!(setting.exchange_clerk(&claims).await, Err(Reason::Unauthenticated), "{name}");
        assert_eq!(setting.login_clerk(&claims).await, Err(Reason::Unauthenticated), "{name}");
    }
    let mut claims = setting.clerk("ana");
    claims["sts"] = json!("active");
    assert!(setting.exchange_clerk(&claims).await.is_ok());
}

async fn the_admin_claim_counts_for_the_token_that_was_given_for_it(world: &World) {
    let setting = Setting::on(world).await;
    let admin = |value: Value| {
        let mut claims = setting.clerk("ana");
        claims["public_metadata"] = json!({ "admin": value });
        claims
    };
    let roles = |tokens: &AuthTokens| claim(tokens, "roles");
    let tokens = setting.login_clerk(&admin(json!(true))).await.unwrap();
    assert_eq!(roles(&tokens), json!(["user", "admin"]));
    let next = setting.node.refresh_in("cofounder", &tokens.refresh_token).await.unwrap();
    assert_eq!(roles(&next), json!(["user"]), "a refresh asks no issuer");
    assert_eq!(roles(&setting.exchange_clerk(&admin(json!(true))).await.unwrap()), json!(["user", "admin"]));
    for not in [json!(false), json!("true"), json!(1), Value::Null] {
        assert_eq!(roles(&setting.exchange_clerk(&admin(not)).await.unwrap()), json!(["user"]));
    }
    let stored = world.column::<String>("SELECT roles FROM accounts").await;
    assert_eq!(stored, [""], "a claim is no stored role");
    world.tamper("UPDATE accounts SET roles = 'admin'").await;
    assert_eq!(roles(&setting.exchange_clerk(&admin(json!(false))).await.unwrap()), json!(["user", "admin"]));

    let mut elsewhere = setting.clerk("eve");
    elsewhere["public_metadata"] = json!({"admin": true});
    let request = LoginRequest { clerk_token: setting.issuer.token(&elsewhere), ..LoginRequest::default() };
    let tokens = setting.login("async-coder", request).await.unwrap();
    assert_eq!(roles(&tokens), json!(["user"]), "where the manifest names no claim");
}

async fn an_administrator_by_claim_may_act(world: &World) {
    let setting = Setting::on(world).await;
    let mut claims = setting.clerk("boss");
    claims["public_metadata"] = json!({"admin": true});
    claims["email"] = json!("boss@example.com");
    let boss = setting.exchange_clerk(&claims).await.unwrap();
    let eve = setting.exchange_clerk(&setting.clerk("eve")).await.unwrap();
    let change = UpdateUserRequest {
        user_id: claim(&eve, "sub").as_str().unwrap().to_owned(),
        suspended: Some(true),
        suspend_reason: "a reason".to_owned(),
        ..UpdateUserRequest::default()
    };
    let update = "/weft.identity.v1.AdminService/UpdateUser";
    let done: Result<User, _> = setting.node.call_in("cofounder", &boss, update, change.clone()).await;
    assert_eq!(done.unwrap().status, "suspended");
    assert_eq!(setting.me("cofounder", &eve).await, Err(Reason::AccountSuspended));
    let list = ListUsersRequest { email: "BOSS@".to_owned(), ..ListUsersRequest::default() };
    let listed: Result<ListUsersResponse, _> =
        setting.node.call_in("cofounder", &boss, "/weft.identity.v1.AdminService/ListUsers", list).await;
    assert_eq!(listed.unwrap().users.len(), 1, "found by the address that the issuer tells");

    // The issuer says otherwise now; the token from before has not expired, but its word counts no more.
    setting.exchange_clerk(&setting.clerk("boss")).await.unwrap();
    let told: Result<User, _> = setting.node.call_in("cofounder", &boss, update, change).await;
    assert_eq!(reason(&told.unwrap_err()), Reason::Unauthenticated);
}

async fn a_suspended_account_gets_nothing_and_the_same_session_after(world: &World) {
    let setting = Setting::on(world).await;
    let before = setting.exchange_clerk(&setting.clerk("ana")).await.unwrap();
    world.tamper("UPDATE accounts SET suspended_at = 1").await;
    assert_eq!(setting.exchange_clerk(&setting.clerk("ana")).await, Err(Reason::AccountSuspended));
    assert_eq!(setting.login_clerk(&setting.clerk("ana")).await, Err(Reason::AccountSuspended));
    world.tamper("UPDATE accounts SET suspended_at = NULL").await;
    let after = setting.exchange_clerk(&setting.clerk("ana")).await.unwrap();
    assert_eq!(claim(&after, "sid"), claim(&before, "sid"));
}

async fn an_exchanged_token_ends_with_the_issuers(world: &World) {
    let setting = Setting::on(world).await;
    let short = setting.exchange_clerk(&setting.clerk("ana")).await.unwrap();
    assert_eq!(short.expires_at, (setting.now_s() + 60) * 1000);
    assert_eq!(claim(&short, "exp"), json!(setting.now_s() + 60));
    let mut claims = setting.clerk("ana");
    claims["exp"] = json!(setting.now_s() + 100_000);
    let long = setting.exchange_clerk(&claims).await.unwrap();
    assert_eq!(long.expires_at, (setting.now_s() + 900) * 1000, "no longer than any token of the product");
    world.pass(60);
    assert_eq!(setting.me("cofounder", &short).await, Err(Reason::Unauthenticated));
    assert!(setting.me("cofounder", &long).await.is_ok());
}

async fn who_signed_out_is_not_signed_in_by_a_token_of_the_same_session(world: &World) {
    let setting = Setting::on(world).await;
    let tokens = setting.exchange_clerk(&setting.clerk("ana")).await.unwrap();
    let request = with("cofounder", Some(&tokens.access_token), LogoutRequest {});
    setting.node.auth().logout(request).await.unwrap();
    assert_eq!(setting.exchange_clerk(&setting.clerk("ana")).await, Err(Reason::Unauthenticated));
    let mut later = setting.clerk("ana");
    later["sid"] = json!("sess_later");
    assert!(setting.exchange_clerk(&later).await.is_ok(), "who signs in again at the issuer is");

    // An issuer that names no sessions is taken at the time of its tokens.
    let nameless = || {
        let mut claims = setting.clerk("eve");
        claims.as_object_mut().unwrap().remove("sid");
        claims
    };
    let (first, tokens) = (nameless(), setting.exchange_clerk(&nameless()).await.unwrap());
    setting.node.auth().logout(with("cofounder", Some(&tokens.access_token), LogoutRequest {})).await.unwrap();
    assert_eq!(setting.exchange_clerk(&first).await, Err(Reason::Unauthenticated));
    world.pass(1);
    assert!(setting.exchange_clerk(&nameless()).await.is_ok());
}

async fn a_bad_token_is_one_and_the_same_401(world: &World) {
    let setting = Setting::on(world).await;
    let with_claim = |name: &str, value: Value| {
        let mut claims = setting.clerk("ana");
        claims[name] = value;
        setting.issuer.token(&claims)
    };
    let stranger = IssuerStub::stranger().await;
    let good = setting.issuer.token(&setting.clerk("ana"));
    let mut seen = Vec::new();
    for token in [
        stranger.token(&setting.clerk("ana")),
        with_claim("azp", json!("https://elsewhere.test")),
        with_claim("exp", json!(setting.now_s())),
        with_claim("iss", json!(stranger.url())),
        with_claim("sub", json!("")),
        with_claim("sid", json!(7)),
        with_claim("sid", json!("s\u{0}")),
        with_claim("sid", json!("s".repeat(300))),
        good[..good.len() - 3].to_owned(),
        "garbage".to_owned(),
        "x".repeat(20_000),
    ] {
        let request = LoginRequest { clerk_token: token.clone(), ..LoginRequest::default() };
        let login = setting.node.auth().login(with("cofounder", None, request)).await.unwrap_err();
        let exchange = ExchangeTokenRequest { token: token.clone() };
        let exchange = setting.node.auth().exchange_token(with("cofounder", None, exchange)).await.unwrap_err();
        for status in [login, exchange] {
            assert_eq!(reason(&status), Reason::Unauthenticated, "{token:.60}");
            seen.push((status.message().to_owned(), status.details().to_vec()));
        }
    }
    assert!(seen.iter().all(|told| *told == seen[0]), "{seen:?}");
    assert_eq!(setting.accounts().await, 0);
    let ours = setting.node.register_in("async-coder", "ana@example.com", PASSWORD).await.unwrap().access_token;
    assert_eq!(setting.exchange("async-coder", &ours).await, Err(Reason::Unauthenticated), "ours is no issuer's");
}

async fn keys_rotate_and_an_outage_is_outlived(world: &World) {
    let setting = Setting::on(world).await;
    setting.issuer.down();
    assert_eq!(setting.login_clerk(&setting.clerk("ana")).await, Err(Reason::Unavailable), "no verdict");
    setting.issuer.up();
    world.pass(2);
    setting.login_clerk(&setting.clerk("ana")).await.unwrap();
    world.pass(10);
    setting.issuer.rotate();
    setting.login_clerk(&setting.clerk("ana")).await.unwrap();
    setting.issuer.down();
    for _ in 0..6 {
        world.pass(600);
        setting.login_clerk(&setting.clerk("ana")).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(660));
    assert_eq!(setting.login_clerk(&setting.clerk("ana")).await, Err(Reason::Unavailable));
    assert_eq!(setting.accounts().await, 1);
}

async fn a_token_of_one_product_is_nothing_in_another(world: &World) {
    let issuer = IssuerStub::start().await;
    let own = IssuerStub::start().await;
    let of_product = IssuerConfig { clerk_issuer: Some(own.url().to_owned()), ..IssuerConfig::default() };
    let issuers_of = BTreeMap::from([("ASYNC_CODER".to_owned(), of_product)]);
    let node = world.node_with(Config { issuers_of, ..config(world, &issuer) }).await;
    let setting = Setting { world, node, issuer };
    let common = setting.issuer.token(&setting.clerk("ana"));
    assert!(setting.exchange("cofounder", &common).await.is_ok());
    assert_eq!(setting.exchange("async-coder", &common).await, Err(Reason::Unauthenticated));
    assert_eq!(setting.exchange("companion", &common).await, Err(Reason::Unauthenticated));
    let mut claims = setting.clerk("ana");
    claims["iss"] = json!(own.url());
    assert!(setting.exchange("async-coder", &own.token(&claims)).await.is_ok(), "and without authorized parties");
    assert_eq!(setting.exchange("cofounder", &own.token(&claims)).await, Err(Reason::Unauthenticated));
}
