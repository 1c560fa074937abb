//! The end of a session.
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use weft_core::Reason;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{World, claim, reason};

on_both_databases! {
    a_session_that_ended_on_one_server_is_refused_by_the_guard_of_another_within_a_second
    nothing_is_usable_after_a_logout_that_raced_a_refresh
    the_list_of_ended_sessions_shows_each_until_its_tokens_expire
    who_follows_the_list_misses_nobody_while_many_sign_out_at_once
    a_place_in_the_list_that_was_never_given_out_is_refused
}

async fn a_session_that_ended_on_one_server_is_refused_by_the_guard_of_another_within_a_second(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let tokens = here.register("ana@example.com").await;
    assert!(there.me(&tokens).await.is_ok());
    assert_eq!(here.logout(&tokens).await, Ok(true));
    // The other one's guard is all that can refuse this: to end a session again is no error.
    eventually("the refusal", Duration::from_secs(1), async || {
        there.logout(&tokens).await == Err(Reason::Unauthenticated)
    })
    .await;
    let later = world.node().await;
    eventually("the refusal by a new server", Duration::from_secs(1), async || {
        later.logout(&tokens).await == Err(Reason::Unauthenticated)
    })
    .await;
}

async fn nothing_is_usable_after_a_logout_that_raced_a_refresh(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    here.register("ana@example.com").await;
    let mut refreshed = 0;
    for _ in 0..20 {
        let tokens = here.login("ana@example.com").await.unwrap();
        let (ended, raced) = tokio::join!(here.logout(&tokens), there.refresh(&tokens));
        assert_eq!(ended, Ok(true));
        assert_eq!(there.refresh(&tokens).await, Err(Reason::Unauthenticated));
        if let Ok(next) = raced {
            refreshed += 1;
            assert_eq!(there.refresh(&next).await, Err(Reason::Unauthenticated));
            assert_eq!(there.me(&next).await, Err(Reason::Unauthenticated));
        }
    }
    tracing::info!(refreshed, "refreshes that were faster than the logout");
}

async fn the_list_of_ended_sessions_shows_each_until_its_tokens_expire(world: &World) {
    let node = world.node().await;
    let gateway = world.service("gateway");
    let tokens = node.register("ana@example.com").await;
    let nothing = node.revocations(&gateway, "", 0).await.unwrap();
    assert!(nothing.revocations.is_empty() && !nothing.next_page_token.is_empty());

    node.logout(&tokens).await.unwrap();
    for place in ["", &nothing.next_page_token] {
        let news = node.revocations(&gateway, place, 0).await.unwrap();
        let [ended] = news.revocations.as_slice() else { panic!("{news:?}") };
        assert_eq!(claim(&tokens, "sid"), ended.id.as_str());
        assert_eq!(ended.expires_at, tokens.expires_at);
        assert!(node.revocations(&gateway, &news.next_page_token, 0).await.unwrap().revocations.is_empty());
    }
    world.pass(world.product().identity.access_ttl_s.unsigned_abs());
    assert!(node.revocations(&gateway, "", 0).await.unwrap().revocations.is_empty());
}

async fn who_follows_the_list_misses_nobody_while_many_sign_out_at_once(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    nodes[0].register("ana@example.com").await;
    let sessions = join_all((0..30).map(|number| nodes[number % 3].login("ana@example.com"))).await;
    let sessions: Vec<_> = sessions.into_iter().map(Result::unwrap).collect();
    let all: BTreeSet<String> =
        sessions.iter().map(|tokens| claim(tokens, "sid").as_str().unwrap().to_owned()).collect();

    let sign_out = sessions.iter().enumerate().map(|(number, tokens)| nodes[number % 3].logout(tokens));
    let sign_out = stream::iter(sign_out).buffer_unordered(9).collect::<Vec<_>>();
    let gateway = world.service("gateway");
    let follow = async {
        let (mut place, mut seen) = (String::new(), BTreeSet::new());
        while seen.len() < all.len() {
            let news = nodes[0].revocations(&gateway, &place, 2).await.unwrap();
            assert!(news.revocations.len() <= 2);
            seen.extend(news.revocations.into_iter().map(|ended| ended.id));
            place = news.next_page_token;
        }
        seen
    };
    let patience = Duration::from_secs(20);
    let (ended, seen) = tokio::join!(sign_out, tokio::time::timeout(patience, follow));
    assert!(ended.iter().all(|outcome| *outcome == Ok(true)), "{ended:?}");
    assert_eq!(seen.expect("somebody was skipped"), all);
}

async fn a_place_in_the_list_that_was_never_given_out_is_refused(world: &World) {
    let node = world.node().await;
    for place in ["x", "-1", "7", "99999999999999999999"] {
        let status = node.revocations(&world.service("gateway"), place, 0).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidArgument, "{place}");
    }
}
