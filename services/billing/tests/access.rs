//! Who may ask.
use weft_auth::ServiceKey;
use weft_core::Reason;
use weft_testing::on_both_databases;

use crate::harness::{Headers, Node, World, reason, service};

on_both_databases! {
    nobody_is_told_anything
    a_user_is_told_nothing_about_themselves_or_others
    a_service_that_is_not_listed_is_told_nothing
    a_service_token_for_somebody_else_is_worth_nothing
    a_service_token_of_another_mesh_is_worth_nothing
    every_listed_service_is_told
}

/// Why both RPCs refuse this caller; none if both answer.
async fn refusal(node: &Node, headers: &Headers) -> Option<Reason> {
    let got = node.get_as(headers, "adiuva", "ana").await;
    let checked = node.check_as(headers, "companion", "ana", "basic_chat").await;
    let refusals = (got.map_err(|status| reason(&status)).err(), checked.map_err(|status| reason(&status)).err());
    assert_eq!(refusals.0, refusals.1, "one RPC answers where the other does not");
    refusals.0
}

async fn nobody_is_told_anything(world: &World) {
    let node = world.node().await;
    assert_eq!(refusal(&node, &Headers::default()).await, Some(Reason::Unauthenticated));
    node.stop().await;
}

async fn a_user_is_told_nothing_about_themselves_or_others(world: &World) {
    let node = world.node().await;
    for roles in [&[][..], &["admin"]] {
        for user in ["ana", "ben"] {
            let access_token = Some(world.access_token("adiuva", user, roles));
            let refusal = refusal(&node, &Headers { access_token, service_token: None }).await;
            assert_eq!(refusal, Some(Reason::PermissionDenied), "{user} {roles:?}");
        }
    }
    let access_token = Some("not.a.token".to_owned());
    assert_eq!(refusal(&node, &Headers { access_token, service_token: None }).await, Some(Reason::Unauthenticated));
    node.stop().await;
}

async fn a_service_that_is_not_listed_is_told_nothing(world: &World) {
    let node = world.node().await;
    for name in ["billing", "somebody"] {
        assert_eq!(refusal(&node, &Headers::of_service(name)).await, Some(Reason::PermissionDenied), "{name}");
    }
    node.stop().await;
}

async fn a_service_token_for_somebody_else_is_worth_nothing(world: &World) {
    let node = world.node().await;
    let service_token = Some(service("gateway").mint("identity"));
    assert_eq!(refusal(&node, &Headers { service_token, access_token: None }).await, Some(Reason::Unauthenticated));
    node.stop().await;
}

async fn a_service_token_of_another_mesh_is_worth_nothing(world: &World) {
    let node = world.node().await;
    let stranger = ServiceKey::new(&"the service secret of a stranger's mesh".into(), "gateway");
    let service_token = Some(stranger.mint("billing"));
    assert_eq!(refusal(&node, &Headers { service_token, access_token: None }).await, Some(Reason::Unauthenticated));
    node.stop().await;
}

async fn every_listed_service_is_told(world: &World) {
    let node = world.node().await;
    for name in ["gateway", "identity", "storage", "orchestrator", "marketplace", "workspace", "outreach"] {
        assert_eq!(refusal(&node, &Headers::of_service(name)).await, None, "{name}");
    }
    node.stop().await;
}
