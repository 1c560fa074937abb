//! Logins by code at the product's own provider.
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use weft_core::Reason;
use weft_identity::{Config, IssuerConfig};
use weft_product::Products;
use weft_proto::identity::v1::oidc_service_client::OidcServiceClient;
use weft_proto::identity::v1::{AuthTokens, FinishLoginRequest, StartLoginRequest, StartLoginResponse};
use weft_testing::issuer::{CLIENT_ID, CLIENT_SECRET, IssuerStub, Weather};
use weft_testing::on_both_databases;

use crate::harness::{Node, OTHER_PRODUCT, Outcome, PRODUCT, World, claim, reason, with};

/// A page of the app.
pub const PAGE: &str = "http://localhost:3000/signed-in";

on_both_databases! {
    who_signs_in_at_the_provider_has_one_account
    a_state_is_good_once_for_ten_minutes_and_its_product
    who_sees_what_the_browser_comes_back_with_finishes_nothing
    what_the_provider_says_must_be_right
    of_fifty_who_finish_a_login_one_does
    a_provider_that_is_away_is_told_in_time
    only_known_pages_and_products_are_served
    nothing_secret_of_a_login_is_in_the_database
}

/// A product whose people may sign in at a provider too.
pub fn products() -> Arc<Products> {
    let folder = tempfile::tempdir().unwrap();
    let manifest = include_str!("../../../products/adiuva.toml");
    let from = "credentials = [\"password\"]";
    assert!(manifest.contains(from));
    let to = "credentials = [\"password\", \"oidc\"]\nredirect_uris = [\"test.adiuva.app:/signed-in\"]";
    fs::write(folder.path().join("adiuva.toml"), manifest.replacen(from, to, 1)).unwrap();
    Arc::new(Products::load(Some(folder.path())).unwrap())
}

/// A server whose products sign in at `stub`, and providers of organisations may be on loopback.
pub async fn node(world: &World, stub: &IssuerStub, config: Config) -> Node {
    let issuers = IssuerConfig {
        oidc_issuer: Some(stub.url().to_owned()),
        oidc_client_id: Some(CLIENT_ID.to_owned()),
        oidc_client_secret: Some(CLIENT_SECRET.into()),
        ..IssuerConfig::default()
    };
    stub.person(&ana(world));
    world.node_of(Config { issuers, ..config }, products(), "127.0.0.0/8").await
}

/// Claims of somebody who signs in now.
pub fn person(world: &World, subject: &str, email: &str) -> Value {
    let now_s = world.clock.now_ms() / 1000;
    json!({"sub": subject, "email": email, "email_verified": true, "iat": now_s, "exp": now_s + 3600})
}

fn ana(world: &World) -> Value {
    person(world, "ana-1", "ana@example.com")
}

pub async fn start_in(node: &Node, product: &str, email: &str, page: &str) -> Outcome<StartLoginResponse> {
    let message = StartLoginRequest { email: email.to_owned(), redirect_uri: page.to_owned() };
    let answer = OidcServiceClient::new(node.channel.clone()).start_login(with(product, None, message)).await;
    answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
}

pub async fn start(node: &Node, email: &str) -> Outcome<StartLoginResponse> {
    start_in(node, PRODUCT, email, PAGE).await
}

/// Signs in at `stub`: what the app then brings.
pub async fn browse(stub: &IssuerStub, begun: &StartLoginResponse) -> FinishLoginRequest {
    let back = stub.browse(&begun.authorization_url).await;
    assert_eq!(back.state, begun.state);
    FinishLoginRequest { code: back.code, state: back.state, iss: back.issuer, login_key: begun.login_key.clone() }
}

async fn finish_in(node: &Node, product: &str, back: &FinishLoginRequest) -> Outcome<AuthTokens> {
    let request = with(product, None, back.clone());
    let answer = OidcServiceClient::new(node.channel.clone()).finish_login(request).await;
    answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
}

pub async fn finish(node: &Node, back: &FinishLoginRequest) -> Outcome<AuthTokens> {
    finish_in(node, PRODUCT, back).await
}

/// A whole login at `stub`.
pub async fn sign_in(node: &Node, stub: &IssuerStub, email: &str) -> Outcome<AuthTokens> {
    let begun = start(node, email).await?;
    finish(node, &browse(stub, &begun).await).await
}

async fn who_signs_in_at_the_provider_has_one_account(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let first = sign_in(&node, &stub, "").await.unwrap();
    let me = node.me(&first).await.unwrap();
    assert_eq!((me.email.as_str(), me.email_verified), ("ana@example.com", true));
    stub.describe(&json!({
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_response_iss_parameter_supported": true,
    }));
    let fresh = self::node(world, &stub, world.config.clone()).await;
    let again = sign_in(&fresh, &stub, "").await.unwrap();
    assert_eq!(claim(&again, "sub"), claim(&first, "sub"));
    assert_ne!(claim(&again, "sid"), claim(&first, "sid"));
    assert!(fresh.refresh(&again).await.is_ok());
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY id").await;
    assert_eq!(kinds, ["register"]);
    // A password account of the same address is somebody else.
    let other = node.register("ana@example.com").await;
    assert_ne!(claim(&other, "sub"), claim(&first, "sub"));
}

async fn a_state_is_good_once_for_ten_minutes_and_its_product(world: &World) {
    let stub = IssuerStub::start().await;
    let (here, there) =
        (node(world, &stub, world.config.clone()).await, node(world, &stub, world.config.clone()).await);
    let back = browse(&stub, &start(&here, "").await.unwrap()).await;
    assert_eq!(finish_in(&here, OTHER_PRODUCT, &back).await, Err(Reason::Unauthenticated));
    assert!(finish(&there, &back).await.is_ok(), "any server finishes it");
    for node in [&here, &there] {
        assert_eq!(finish(node, &back).await, Err(Reason::Unauthenticated));
    }
    let late = browse(&stub, &start(&here, "").await.unwrap()).await;
    let in_time = browse(&stub, &start(&here, "").await.unwrap()).await;
    world.pass(599);
    stub.bend(&ana(world));
    assert!(finish(&here, &in_time).await.is_ok());
    world.pass(1);
    assert_eq!(finish(&here, &late).await, Err(Reason::Unauthenticated));
    let empty = FinishLoginRequest { state: String::new(), ..back.clone() };
    assert_eq!(finish(&here, &empty).await, Err(Reason::InvalidArgument));
    for state in ["x", &"A".repeat(43), &format!("{}A", back.state)] {
        let unknown = FinishLoginRequest { state: state.to_owned(), ..back.clone() };
        assert_eq!(finish(&here, &unknown).await, Err(Reason::Unauthenticated), "{state}");
    }
}

/// Neither who reads the address on its way, nor who sends somebody to it that comes from a login of their own.
async fn who_sees_what_the_browser_comes_back_with_finishes_nothing(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let (mine, theirs) = (start(&node, "").await.unwrap(), start(&node, "").await.unwrap());
    let back = browse(&stub, &mine).await;
    assert!(!mine.authorization_url.contains(&mine.login_key) && mine.state != mine.login_key);
    let none = FinishLoginRequest { login_key: String::new(), ..back.clone() };
    assert_eq!(finish(&node, &none).await, Err(Reason::InvalidArgument));
    for key in [theirs.login_key.as_str(), &mine.state, "x", &"A".repeat(43), &"A".repeat(10_000)] {
        let other = FinishLoginRequest { login_key: key.to_owned(), ..back.clone() };
        assert_eq!(finish(&node, &other).await, Err(Reason::Unauthenticated), "{key:.50}");
    }
    assert_eq!(stub.exchanges(), 0);
    assert!(finish(&node, &back).await.is_ok(), "and nothing was used up");
}

async fn what_the_provider_says_must_be_right(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let now_s = world.clock.now_ms() / 1000;
    for bent in [
        json!({"nonce": "another"}),
        json!({"nonce": null}),
        json!({"aud": "another client"}),
        json!({"aud": [CLIENT_ID, "another client"]}),
        json!({"azp": "another client"}),
        json!({"iss": "https://another.example.com"}),
        json!({"iss": format!("{}/", stub.url())}),
        json!({"exp": now_s}),
        json!({"exp": null}),
        json!({"iat": now_s + 600}),
        json!({"sub": ""}),
        json!({"sub": null}),
    ] {
        stub.bend(&bent);
        assert_eq!(sign_in(&node, &stub, "").await, Err(Reason::Unauthenticated), "{bent}");
    }
    stub.bend(&json!({"azp": CLIENT_ID}));
    assert!(sign_in(&node, &stub, "").await.is_ok(), "the same with nothing wrong");
    let sessions = "SELECT COUNT(*) FROM sessions";
    assert_eq!(world.column::<i64>(sessions).await, [1]);

    let mine = browse(&stub, &start(&node, "").await.unwrap()).await;
    let theirs = browse(&stub, &start(&node, "").await.unwrap()).await;
    // A stolen code does not fit another login's verifier.
    let stolen = FinishLoginRequest { code: theirs.code, ..mine.clone() };
    assert_eq!(finish(&node, &stolen).await, Err(Reason::Unauthenticated));
    for changed in [
        FinishLoginRequest { code: "code-0".to_owned(), ..FinishLoginRequest::default() },
        FinishLoginRequest { code: "x".repeat(5000), ..FinishLoginRequest::default() },
        FinishLoginRequest { iss: "https://another.example.com".to_owned(), ..FinishLoginRequest::default() },
    ] {
        let mut wrong = browse(&stub, &start(&node, "").await.unwrap()).await;
        if !changed.code.is_empty() {
            wrong.code = changed.code;
        }
        wrong.iss = changed.iss;
        assert_eq!(finish(&node, &wrong).await, Err(Reason::Unauthenticated));
    }
    stub.set_client_secret("changed there");
    assert_eq!(sign_in(&node, &stub, "").await, Err(Reason::Unauthenticated));
    assert_eq!(world.column::<i64>(sessions).await, [1]);
}

async fn of_fifty_who_finish_a_login_one_does(world: &World) {
    let stub = IssuerStub::start().await;
    let nodes = [node(world, &stub, world.config.clone()).await, node(world, &stub, world.config.clone()).await];
    let back = browse(&stub, &start(&nodes[0], "").await.unwrap()).await;
    let outcomes = join_all((0..50).map(|number| finish(&nodes[number % 2], &back))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Reason::Unauthenticated))), "{outcomes:?}");
    assert_eq!(stub.exchanges(), 1);
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM sessions").await, [1]);
}

async fn a_provider_that_is_away_is_told_in_time(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    stub.down();
    assert_eq!(start(&node, "").await, Err(Reason::Unavailable));
    stub.up();
    let backs =
        [browse(&stub, &start(&node, "").await.unwrap()).await, browse(&stub, &start(&node, "").await.unwrap()).await];
    for (back, weather) in backs.iter().zip([Weather::Down, Weather::Hang]) {
        stub.set_weather(weather);
        let begun = Instant::now();
        assert_eq!(finish(&node, back).await, Err(Reason::Unavailable), "{weather:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{weather:?}: {:?}", begun.elapsed());
    }
    stub.up();
    assert!(sign_in(&node, &stub, "").await.is_ok());
}

async fn only_known_pages_and_products_are_served(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    for page in [PAGE, "http://localhost:3000/", "test.adiuva.app:/signed-in"] {
        assert!(start_in(&node, PRODUCT, "", page).await.is_ok(), "{page}");
    }
    for page in
        ["", "https://evil.example.com/", "test.adiuva.app:/signed-in/", "http://localhost:3000@evil.example.com/"]
    {
        assert_eq!(start_in(&node, PRODUCT, "", page).await, Err(Reason::InvalidArgument), "{page}");
    }
    assert_eq!(start_in(&node, OTHER_PRODUCT, "", PAGE).await, Err(Reason::IdentityProviderNotEnabled));
    assert_eq!(start(&node, "ana@example.com").await, Err(Reason::IdentityProviderNotEnabled), "no organisation");
    assert_eq!(start(&node, "no address").await, Err(Reason::InvalidArgument));
    let plain = world.node().await;
    assert_eq!(start(&plain, "").await, Err(Reason::IdentityProviderNotEnabled), "nobody has set it up");
}

async fn nothing_secret_of_a_login_is_in_the_database(world: &World) {
    let stub = IssuerStub::start().await;
    let node = node(world, &stub, world.config.clone()).await;
    let begun = start(&node, "").await.unwrap();
    let rows: Vec<String> =
        world.column("SELECT hash || issuer || client_id || redirect_uri || organisation_id FROM login_states").await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let nonce = begun.authorization_url.split("nonce=").nth(1).unwrap().split('&').next().unwrap();
    assert!(row.contains(stub.url()) && !row.contains(&begun.state) && !row.contains(nonce), "{row}");
    assert!(!row.contains(&begun.login_key), "{row}");
    world.pass(600);
    let gone = async || world.column::<i64>("SELECT COUNT(*) FROM login_states").await == [0];
    weft_testing::eventually("the state to be forgotten", Duration::from_secs(10), gone).await;
}
