//! Refreshing against everything that ends a session, on three replicas: once the end was answered, nothing of the session
//! is good for anything. A few rounds here; `scripts/prove races` runs 500 of each.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tonic::{Response, Status};
use weft_core::Reason;
use weft_proto::identity::v1::{
    ChangePasswordRequest, ChangePasswordResponse, ForgotPasswordRequest, ForgotPasswordResponse, RefreshRequest,
    ResetPasswordRequest, ResetPasswordResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, PASSWORD, PRODUCT, Session, World, link_token, with};

const NEW: &str = "another horse battery";
/// Clients that refresh as fast as they can, each the pair that it holds.
const RACERS: usize = 4;

on_both_databases! {
    nothing_is_usable_after_a_logout_that_raced_refreshes
    nothing_is_usable_after_a_new_password_that_raced_refreshes
    nothing_is_usable_after_a_reset_that_raced_refreshes
}

fn rounds() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a longer proof is asked for by the environment of a test")]
    let asked = std::env::var("WEFT_PROVE_ROUNDS").ok().and_then(|number| number.parse().ok());
    asked.unwrap_or(4)
}

async fn nothing_is_usable_after_a_logout_that_raced_refreshes(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    for round in 0..rounds() {
        let mine = nodes[round % 3].register(&format!("ana{round}@example.com")).await;
        let end = async || assert_eq!(nodes[(round + 1) % 3].logout(&mine).await, Ok(true), "round {round}");
        let held = race(&nodes, &[&mine], round, end).await;
        nothing_works(&nodes, &held, round).await;
    }
}

async fn nothing_is_usable_after_a_new_password_that_raced_refreshes(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    for round in 0..rounds() {
        let email = format!("ana{round}@example.com");
        let mine = nodes[round % 3].register(&email).await;
        let others = [nodes[0].login(&email).await.unwrap(), nodes[1].login(&email).await.unwrap()];
        let message = ChangePasswordRequest { old_password: PASSWORD.to_owned(), new_password: NEW.to_owned() };
        let path = "/weft.identity.v1.PasswordService/ChangePassword";
        let end = async || {
            let changed: ChangePasswordResponse = nodes[round % 3].call(&mine, path, message.clone()).await.unwrap();
            assert_eq!(changed.ended_sessions, 2, "round {round}");
        };
        let held = race(&nodes, &[&others[0], &others[1]], round, end).await;
        nothing_works(&nodes, &held, round).await;
        assert!(nodes[(round + 2) % 3].refresh(&mine).await.is_ok(), "the session that did it goes on");
    }
}

async fn nothing_is_usable_after_a_reset_that_raced_refreshes(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    for round in 0..rounds() {
        let email = format!("ana{round}@example.com");
        let mine = nodes[round % 3].register(&email).await;
        let forgot = ForgotPasswordRequest { email: email.clone() };
        let path = "/weft.identity.v1.PasswordService/ForgotPassword";
        let _told: ForgotPasswordResponse = nodes[0].call_as(None, path, forgot).await.unwrap();
        let (_, token) = link_token(&world.mail(round + 1).await);
        let message = ResetPasswordRequest { token, new_password: NEW.to_owned() };
        let path = "/weft.identity.v1.PasswordService/ResetPassword";
        let end = async || {
            let reset: ResetPasswordResponse = nodes[1].call_as(None, path, message.clone()).await.unwrap();
            assert!(reset.ok, "round {round}");
        };
        let held = race(&nodes, &[&mine], round, end).await;
        nothing_works(&nodes, &held, round).await;
        let again: Result<ResetPasswordResponse, _> = nodes[2].call_as(None, path, message.clone()).await;
        assert_eq!(again.unwrap_err().code(), tonic::Code::InvalidArgument, "round {round}: a link works once");
    }
}

/// Refreshes these sessions on all replicas until `end` was answered and a little longer; gives every pair that was ever
/// held. How long the race goes before the end begins is different in each round.
async fn race(nodes: &[Node; 3], sessions: &[&Session], round: usize, end: impl AsyncFn()) -> Vec<Session> {
    let is_over = AtomicBool::new(false);
    let racers = (0..RACERS).map(|racer| {
        let (node, first, is_over) = (&nodes[racer % 3], sessions[racer % sessions.len()], &is_over);
        async move {
            let mut held = vec![first.clone()];
            loop {
                // What was begun before the end may be answered after it.
                let was_over = is_over.load(Ordering::Acquire);
                match refresh(node, &held[held.len() - 1]).await {
                    Ok(next) => {
                        assert!(!was_over, "round {round}: a refresh that began after the end was answered");
                        held.push(next);
                    }
                    // A connection that reached its age is closed, and who calls meanwhile asks again.
                    Err(status) if Reason::of(&status).is_none() => {}
                    Err(status) if is_over_for_good(&status) => return held,
                    Err(other) => panic!("round {round}: {other:?}"),
                }
            }
        }
    });
    let ending = async {
        // Long enough for some refreshes, and never the same.
        tokio::time::sleep(Duration::from_micros(500 * (round as u64 * 7 % 40))).await;
        end().await;
        is_over.store(true, Ordering::Release);
    };
    let (held, ()) = tokio::join!(join_all(racers), ending);
    held.into_iter().flatten().collect()
}

async fn refresh(node: &Node, tokens: &Session) -> Result<Session, Status> {
    let message = RefreshRequest { refresh_token: tokens.refresh_token.clone() };
    node.auth().refresh(with(PRODUCT, None, message)).await.map(Response::into_inner)
}

fn is_over_for_good(status: &Status) -> bool {
    matches!(Reason::of(status), Some(Reason::Unauthenticated | Reason::RefreshReused))
}

/// No pair refreshes anywhere, at once; no access token is taken anywhere within a second.
async fn nothing_works(nodes: &[Node; 3], held: &[Session], round: usize) {
    for node in nodes {
        for tokens in held {
            let refused = refresh(node, tokens).await.unwrap_err();
            let is_no_answer = Reason::of(&refused).is_none();
            assert!(is_no_answer || is_over_for_good(&refused), "round {round}: {refused:?}");
        }
        eventually("every access token to be refused", Duration::from_secs(1), async || {
            join_all(held.iter().map(|tokens| node.me(tokens))).await.iter().all(Result::is_err)
        })
        .await;
    }
}
