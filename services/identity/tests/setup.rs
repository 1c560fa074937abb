//! The link by which a product gets its first administrator.
use std::collections::HashSet;

use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::json;
use weft_core::Reason;
use weft_identity::setup_token;
use weft_proto::identity::v1::setup_service_client::SetupServiceClient;
use weft_proto::identity::v1::{AuthTokens, CompleteSetupRequest};
use weft_testing::on_both_databases;

use crate::harness::{Node, OTHER_PRODUCT, Outcome, PASSWORD, PRODUCT, World, claim, reason, with};

on_both_databases! {
    the_link_makes_one_administrator_once
    of_many_who_use_the_link_at_once_one_succeeds
    a_link_is_good_for_a_day_its_product_and_until_the_next_one
    an_address_that_has_an_account_needs_its_password
    a_product_with_an_administrator_has_no_link
}

async fn link(world: &World, product: &str, even_if_empty: bool) -> Option<String> {
    let (url, secret) = world.secret();
    let token = setup_token(url, secret, &world.clock, product, even_if_empty).await.unwrap();
    token.map(|token| token.expose_secret().to_owned())
}

async fn complete(node: &Node, product: &str, token: &str, email: &str, password: &str) -> Outcome<AuthTokens> {
    let (token, email, password) = (token.to_owned(), email.to_owned(), password.to_owned());
    let request = with(product, None, CompleteSetupRequest { token, email, password });
    let answer = SetupServiceClient::new(node.channel.clone()).complete_setup(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn the_link_makes_one_administrator_once(world: &World) {
    let node = world.node().await;
    assert_eq!(link(world, PRODUCT, false).await, None, "nobody is there, and it is not the default product");
    let token = link(world, PRODUCT, true).await.unwrap();
    let stored: Vec<String> = world.column("SELECT hash FROM setup_links").await;
    assert!(stored.len() == 1 && !stored[0].contains(&token));
    for wrong in ["", "x", &"A".repeat(43), &format!("{token}A")] {
        let refused = complete(&node, PRODUCT, wrong, "root@example.com", PASSWORD).await;
        assert_eq!(refused.unwrap_err(), Reason::Unauthenticated, "{wrong}");
    }
    let short = complete(&node, PRODUCT, &token, "root@example.com", "short").await;
    assert_eq!(short.unwrap_err(), Reason::InvalidArgument, "and the link is still good");
    let root = complete(&node, PRODUCT, &token, "root@example.com", PASSWORD).await.unwrap();
    assert_eq!(claim(&root, "roles"), json!(["user", "admin"]));
    assert!(node.me(&root).await.is_ok());
    let again = complete(&node, PRODUCT, &token, "eve@example.com", PASSWORD).await;
    assert_eq!(again.unwrap_err(), Reason::Unauthenticated);
    assert_eq!(world.column::<String>("SELECT email FROM accounts").await, ["root@example.com"]);
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY number").await;
    assert_eq!(kinds, ["register", "role_granted"]);
}

async fn of_many_who_use_the_link_at_once_one_succeeds(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let token = link(world, PRODUCT, true).await.unwrap();
    let emails: Vec<String> = (0..6).map(|number| format!("root{number}@example.com")).collect();
    let tries = emails.iter().enumerate();
    let tries = tries.map(|(number, email)| complete(&nodes[number % 2], PRODUCT, &token, email, PASSWORD));
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let refused: HashSet<Reason> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(
        refused.iter().all(|reason| [Reason::Unauthenticated, Reason::RateLimited].contains(reason)),
        "{refused:?}"
    );
    assert_eq!(world.column::<String>("SELECT roles FROM accounts").await, ["admin"], "nobody else is there");
}

async fn a_link_is_good_for_a_day_its_product_and_until_the_next_one(world: &World) {
    let node = world.node().await;
    let refused = async |product: &str, token: &str| {
        let outcome = complete(&node, product, token, "root@example.com", PASSWORD).await;
        assert_eq!(outcome.unwrap_err(), Reason::Unauthenticated);
    };
    let first = link(world, PRODUCT, true).await.unwrap();
    refused(OTHER_PRODUCT, &first).await;
    let second = link(world, PRODUCT, true).await.unwrap();
    refused(PRODUCT, &first).await;
    world.pass(24 * 3600);
    refused(PRODUCT, &second).await;
    let third = link(world, PRODUCT, true).await.unwrap();
    world.pass(24 * 3600 - 1);
    assert!(complete(&node, PRODUCT, &third, "root@example.com", PASSWORD).await.is_ok());
}

async fn an_address_that_has_an_account_needs_its_password(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let token = link(world, PRODUCT, false).await.unwrap();
    let wrong = complete(&node, PRODUCT, &token, "Ana@example.com", "another password").await;
    assert_eq!(wrong.unwrap_err(), Reason::InvalidCredentials);
    let root = complete(&node, PRODUCT, &token, "Ana@example.com", PASSWORD).await.unwrap();
    assert_eq!((claim(&root, "sub"), claim(&root, "roles")), (claim(&ana, "sub"), json!(["user", "admin"])));
}

async fn a_product_with_an_administrator_has_no_link(world: &World) {
    let node = world.node().await;
    let token = link(world, PRODUCT, true).await.unwrap();
    world.admin(&node, "root@example.com").await;
    let late = complete(&node, PRODUCT, &token, "eve@example.com", PASSWORD).await;
    assert_eq!(late.unwrap_err(), Reason::Unauthenticated, "somebody else was made one meanwhile");
    assert_eq!(link(world, PRODUCT, true).await, None);
}
