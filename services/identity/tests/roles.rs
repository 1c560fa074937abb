//! Roles, and the first administrator.
use std::time::Duration;

use serde_json::json;
use weft_core::Reason;
use weft_identity::{RoleOrder, change_role};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{OTHER_PRODUCT, PRODUCT, Session, World, claim};

on_both_databases! {
    everybody_is_a_user_and_an_operator_makes_the_first_admin
    a_change_of_roles_withdraws_tokens_and_not_sessions
    no_token_with_the_old_roles_survives_a_change_that_raced_a_refresh_or_a_login
    what_an_operator_cannot_do_is_said
}

fn order<'a>(email: &'a str, role: &'a str, given: bool) -> RoleOrder<'a> {
    RoleOrder { product: Some(PRODUCT), account: email, role, given }
}

async fn everybody_is_a_user_and_an_operator_makes_the_first_admin(world: &World) {
    let node = world.node().await;
    assert_eq!(claim(&node.register("Ana@example.com").await, "roles"), json!(["user"]));
    let change = async |given| {
        change_role(&world.config.database_url, &world.clock, order("ana@Example.com", "admin", given)).await.unwrap()
    };
    let now_ms = world.clock.now_ms();
    let first = change(true).await;
    assert_eq!((first.changed, first.created_at, first.signed_in_at), (true, now_ms, Some(now_ms)));
    assert!(!change(true).await.changed, "again: no change");
    assert_eq!(claim(&node.login("ana@example.com").await.unwrap(), "roles"), json!(["user", "admin"]));
    assert!(change(false).await.changed);
    assert_eq!(claim(&node.login("ana@example.com").await.unwrap(), "roles"), json!(["user"]));
    let events: Vec<(String, Option<String>, Option<String>)> =
        world.column("SELECT kind, actor_id, detail FROM audit_events WHERE kind LIKE 'role_%' ORDER BY id").await;
    let by_operator = |kind: &str| (kind.to_owned(), Some("operator".to_owned()), Some("admin".to_owned()));
    assert_eq!(events, [by_operator("role_granted"), by_operator("role_revoked")]);
}

async fn a_change_of_roles_withdraws_tokens_and_not_sessions(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let (ana, bob) = (node.register("ana@example.com").await, node.register("bob@example.com").await);
    let second = node.login("ana@example.com").await.unwrap();
    let known = async |tokens: &Session| elsewhere.verifier().verify(&tokens.access_token).await.is_ok();
    assert!(known(&ana).await && known(&second).await && known(&bob).await);

    world.grant("ana@example.com", "reviewer").await;
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        !known(&ana).await && !known(&second).await && node.me(&ana).await == Err(Reason::Unauthenticated)
    })
    .await;
    assert!(known(&bob).await, "somebody else");
    let entries: Vec<String> = world.column("SELECT ended_id FROM revocations").await;
    assert_eq!(entries, [claim(&ana, "sub").as_str().unwrap()], "one entry, however many tokens");
    for old in [&ana, &second] {
        let next = node.refresh(old).await.unwrap();
        assert_eq!(claim(&next, "roles"), json!(["user", "reviewer"]));
        assert_eq!(claim(&next, "sid"), claim(old, "sid"));
        assert!(known(&next).await);
    }
    elsewhere.shutdown().trigger();
}

async fn no_token_with_the_old_roles_survives_a_change_that_raced_a_refresh_or_a_login(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    for round in 0..10 {
        let session = node.login("ana@example.com").await.unwrap();
        let given = round % 2 == 0;
        let change = change_role(&world.config.database_url, &world.clock, order("ana@example.com", "admin", given));
        let login = node.login("ana@example.com");
        let (changed, refreshed, logged_in) = tokio::join!(change, node.refresh(&session), login);
        assert!(changed.unwrap().changed);
        let roles = if given { json!(["user", "admin"]) } else { json!(["user"]) };
        for tokens in [refreshed.unwrap(), logged_in.unwrap()] {
            if claim(&tokens, "roles") != roles {
                eventually("the refusal", Duration::from_secs(1), async || {
                    node.me(&tokens).await == Err(Reason::Unauthenticated)
                })
                .await;
            }
        }
    }
}

async fn what_an_operator_cannot_do_is_said(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    let told = async |order: RoleOrder<'_>| {
        change_role(&world.config.database_url, &world.clock, order).await.unwrap_err().to_string()
    };
    assert!(told(order("bob@example.com", "admin", true)).await.contains("there is no account bob@example.com"));
    assert!(told(order("ana@example.com", "root", true)).await.contains("choose user, reviewer, support or admin"));
    assert!(told(order("ana@example.com", "user", false)).await.contains("everybody"));
    // Without an @ it is an id, and nobody has this one.
    assert!(told(order("ana", "admin", true)).await.contains("there is no account ana in adiuva,"));
    assert!(told(order("ana@", "admin", true)).await.contains("email must"));
    let elsewhere = RoleOrder { product: Some(OTHER_PRODUCT), ..order("ana@example.com", "admin", true) };
    assert!(told(elsewhere).await.contains(OTHER_PRODUCT));
    world.forget_migrations().await;
    assert!(told(order("ana@example.com", "admin", true)).await.contains("weft migrate"));
}
