//! Where an account is signed in, and ending that.
use std::time::Duration;

use weft_core::{Reason, new_id};
use weft_proto::identity::v1::{
    EndSessionRequest, EndSessionResponse, ListSessionsRequest, ListSessionsResponse, LoginRequest, LogoutAllRequest,
    LogoutAllResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, PASSWORD, PRODUCT, Session, World, claim, reason, with};

on_both_databases! {
    a_user_sees_their_sessions_and_which_is_the_present_one
    a_session_that_was_ended_from_another_is_over_everywhere
    a_foreign_session_is_like_one_that_there_is_not
    all_sessions_end_at_once_or_all_others
    nothing_is_usable_after_all_were_ended_while_others_refreshed_and_signed_in
    sessions_are_read_page_by_page
}

async fn list(node: &Node, tokens: &Session, page_size: i32, page_token: &str) -> Result<ListSessionsResponse, Reason> {
    let message = ListSessionsRequest { page_size, page_token: page_token.to_owned() };
    let path = "/weft.identity.v1.SessionService/ListSessions";
    node.call(tokens, path, message).await.map_err(|status| reason(&status))
}

async fn end(node: &Node, tokens: &Session, id: &str) -> Result<EndSessionResponse, tonic::Status> {
    let message = EndSessionRequest { session_id: id.to_owned() };
    node.call(tokens, "/weft.identity.v1.SessionService/EndSession", message).await
}

async fn end_all(node: &Node, tokens: &Session, keep_current: bool) -> Result<i64, Reason> {
    let path = "/weft.identity.v1.SessionService/LogoutAll";
    let answer: Result<LogoutAllResponse, _> = node.call(tokens, path, LogoutAllRequest { keep_current }).await;
    answer.map(|answer| answer.ended).map_err(|status| reason(&status))
}

fn id(tokens: &Session) -> String {
    claim(tokens, "sid").as_str().unwrap().to_owned()
}

async fn a_user_sees_their_sessions_and_which_is_the_present_one(world: &World) {
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    node.register("bob@example.com").await;
    let begun = world.clock.now_ms();
    world.pass(60);
    let login =
        LoginRequest { email: "ana@example.com".to_owned(), password: PASSWORD.to_owned(), ..LoginRequest::default() };
    let mut request = with(PRODUCT, None, login);
    request.metadata_mut().insert("x-forwarded-for", "203.0.113.77".parse().unwrap());
    let second = node.auth().login(request).await.unwrap().into_inner();
    world.pass(60);
    node.refresh(&first).await.unwrap();

    let sessions = list(&node, &second, 0, "").await.unwrap().sessions;
    let seen: Vec<_> = sessions.iter().map(|one| (one.id.clone(), one.current, one.created_at)).collect();
    assert_eq!(seen, [(id(&second), true, begun + 60_000), (id(&first), false, begun)]);
    assert_eq!((sessions[0].client_address.as_str(), sessions[1].client_address.as_str()), ("203.0.113.0/24", ""));
    assert!(sessions[0].user_agent.contains("tonic"), "{:?}", sessions[0]);
    assert_eq!(sessions[1].last_used_at, begun + 120_000);
    assert_eq!(sessions[1].expires_at, begun + world.product().identity.family_ttl_s * 1000);
    node.logout(&second).await.unwrap();
    eventually("the refusal", Duration::from_secs(1), async || list(&node, &second, 0, "").await.is_err()).await;
}

async fn a_session_that_was_ended_from_another_is_over_everywhere(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let lost = here.register("ana@example.com").await;
    let mine = here.login("ana@example.com").await.unwrap();
    assert!(there.me(&lost).await.is_ok());
    end(&here, &mine, &id(&lost)).await.unwrap();
    assert_eq!(there.refresh(&lost).await, Err(Reason::Unauthenticated));
    eventually("the refusal", Duration::from_secs(1), async || list(&there, &lost, 0, "").await.is_err()).await;
    assert_eq!(list(&there, &mine, 0, "").await.unwrap().sessions.len(), 1);
    assert!(there.me(&mine).await.is_ok());
    end(&here, &mine, &id(&mine)).await.unwrap();
    assert_eq!(here.me(&mine).await, Err(Reason::Unauthenticated), "one's own too");
}

async fn a_foreign_session_is_like_one_that_there_is_not(world: &World) {
    let node = world.node().await;
    let (ana, bob) = (node.register("ana@example.com").await, node.register("bob@example.com").await);
    let over = node.login("ana@example.com").await.unwrap();
    node.logout(&over).await.unwrap();
    let seen = async |id: &str| {
        let status = end(&node, &ana, id).await.unwrap_err();
        (reason(&status), status.message().to_owned(), status.details().to_vec())
    };
    let random = seen(&new_id()).await;
    assert_eq!(random.0, Reason::NotFound);
    for id in [&id(&bob), &id(&over), "", "x"] {
        assert_eq!(seen(id).await, random, "{id}");
    }
    assert!(node.me(&bob).await.is_ok());
}

async fn all_sessions_end_at_once_or_all_others(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let bob = here.register("bob@example.com").await;
    let first = here.register("ana@example.com").await;
    let second = here.login("ana@example.com").await.unwrap();
    let mine = here.login("ana@example.com").await.unwrap();
    assert_eq!(end_all(&here, &mine, true).await, Ok(2));
    for other in [&first, &second] {
        assert_eq!(there.refresh(other).await, Err(Reason::Unauthenticated));
        assert!(end_all(&there, other, false).await.is_err(), "it ends nothing any more, whatever the guard knows");
        eventually("the refusal", Duration::from_secs(1), async || list(&there, other, 0, "").await.is_err()).await;
    }
    assert_eq!(end_all(&there, &mine, true).await, Ok(0), "again: nothing more");
    assert_eq!(end_all(&there, &mine, false).await, Ok(1));
    assert_eq!(there.me(&mine).await, Err(Reason::Unauthenticated));
    assert!(there.me(&bob).await.is_ok());
}

async fn nothing_is_usable_after_all_were_ended_while_others_refreshed_and_signed_in(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    here.register("ana@example.com").await;
    for _ in 0..10 {
        let (mine, other) =
            (here.login("ana@example.com").await.unwrap(), here.login("ana@example.com").await.unwrap());
        let (ended, raced) = tokio::join!(end_all(&here, &mine, false), there.refresh(&other));
        assert!(ended.unwrap() >= 2);
        assert_eq!(there.refresh(&other).await, Err(Reason::Unauthenticated));
        if let Ok(next) = raced {
            assert_eq!(there.refresh(&next).await, Err(Reason::Unauthenticated));
            eventually("the refusal", Duration::from_secs(1), async || there.me(&next).await.is_err()).await;
        }
    }
}

async fn sessions_are_read_page_by_page(world: &World) {
    let node = world.node().await;
    let mine = node.register("ana@example.com").await;
    for _ in 0..4 {
        node.login("ana@example.com").await.unwrap();
    }
    let bob = node.register("bob@example.com").await;
    let (mut seen, mut place) = (Vec::new(), String::new());
    loop {
        let page = list(&node, &mine, 2, &place).await.unwrap();
        assert!(page.sessions.len() <= 2);
        seen.extend(page.sessions.into_iter().map(|one| one.id));
        place = page.next_page_token;
        if place.is_empty() {
            break;
        }
        assert_eq!(list(&node, &bob, 2, &place).await, Err(Reason::InvalidArgument), "somebody else's place");
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|newer, older| newer > older), "{seen:?}");
    for (page_size, place) in [(1001, ""), (-1, ""), (2, "x")] {
        assert_eq!(list(&node, &mine, page_size, place).await, Err(Reason::InvalidArgument));
    }
}
