//! Administrators and the accounts of their product.
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use weft_core::{Reason, new_id};
use weft_proto::identity::v1::{GetUserRequest, ListUsersRequest, ListUsersResponse, UpdateUserRequest, User};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, OTHER_PRODUCT, PASSWORD, PRODUCT, Session, World, claim, reason};

on_both_databases! {
    only_an_admin_sees_the_accounts_and_only_those_of_the_product
    the_list_is_read_page_by_page_and_filtered
    plans_and_usage_come_in_one_call_and_the_list_answers_without_billing
    a_suspended_account_is_refused_everywhere_until_it_is_restored
    a_suspension_that_raced_a_refresh_leaves_no_good_token
    only_who_knows_the_password_learns_of_a_suspension
    an_admin_gives_and_takes_roles_but_not_their_own
    what_was_changed_and_by_whom_is_written_down
    who_is_no_admin_any_more_changes_nothing_with_an_old_token
    what_an_admin_says_of_themselves_undoes_nothing_that_another_does_at_once
}

async fn list(node: &Node, tokens: &Session, request: ListUsersRequest) -> Result<ListUsersResponse, Reason> {
    let answer = node.call(tokens, "/weft.identity.v1.AdminService/ListUsers", request).await;
    answer.map_err(|status| reason(&status))
}

async fn get(node: &Node, tokens: &Session, id: &str) -> Result<User, Reason> {
    let message = GetUserRequest { user_id: id.to_owned() };
    node.call(tokens, "/weft.identity.v1.AdminService/GetUser", message).await.map_err(|status| reason(&status))
}

async fn change(node: &Node, tokens: &Session, request: UpdateUserRequest) -> Result<User, Reason> {
    let answer = node.call(tokens, "/weft.identity.v1.AdminService/UpdateUser", request).await;
    answer.map_err(|status| reason(&status))
}

fn id(tokens: &Session) -> String {
    claim(tokens, "sub").as_str().unwrap().to_owned()
}

fn suspend(user_id: &str, suspended: bool) -> UpdateUserRequest {
    let suspend_reason = if suspended { "sent spam".to_owned() } else { String::new() };
    UpdateUserRequest { user_id: user_id.to_owned(), suspended: Some(suspended), suspend_reason, ..Default::default() }
}

async fn only_an_admin_sees_the_accounts_and_only_those_of_the_product(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let foreign = node.register_in(OTHER_PRODUCT, "eve@example.com", PASSWORD).await.unwrap();
    assert_eq!(list(&node, &ana, ListUsersRequest::default()).await, Err(Reason::PermissionDenied));
    world.grant("ana@example.com", "support").await;
    let ana = node.login("ana@example.com").await.unwrap();
    assert_eq!(list(&node, &ana, ListUsersRequest::default()).await, Err(Reason::PermissionDenied), "another role");

    let users = list(&node, &admin, ListUsersRequest::default()).await.unwrap().users;
    let emails: Vec<_> = users.iter().map(|user| user.email.as_str()).collect();
    assert_eq!(emails, ["ana@example.com", "root@example.com"]);
    let user = get(&node, &admin, &id(&ana)).await.unwrap();
    assert_eq!(user, users[0]);
    assert_eq!((user.status.as_str(), user.is_admin, user.roles.join(" ").as_str()), ("active", false, "user support"));
    assert_eq!(user.signed_in_at, Some(world.clock.now_ms()));
    for nobody in [&id(&foreign), &new_id(), "", "x"] {
        assert_eq!(get(&node, &admin, nobody).await, Err(Reason::NotFound), "{nobody}");
        assert_eq!(change(&node, &admin, suspend(nobody, true)).await, Err(Reason::NotFound), "{nobody}");
    }
}

async fn the_list_is_read_page_by_page_and_filtered(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    for number in 0..5 {
        node.register(&format!("Ana{number}@example.com")).await;
    }
    let bob = node.register("b_b@example.com").await;
    change(&node, &admin, suspend(&id(&bob), true)).await.unwrap();

    let ana = ListUsersRequest { page_size: 2, email: "aNa".to_owned(), ..Default::default() };
    let (mut seen, mut request) = (Vec::new(), ana.clone());
    loop {
        let page = list(&node, &admin, request.clone()).await.unwrap();
        assert!(page.users.len() <= 2);
        seen.extend(page.users.into_iter().map(|user| user.email));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, [4, 3, 2, 1, 0].map(|number| format!("Ana{number}@example.com")));
    let other = ListUsersRequest { email: "b".to_owned(), ..request.clone() };
    assert_eq!(list(&node, &admin, other).await, Err(Reason::InvalidArgument), "the place of another query");

    let counted = ListUsersRequest { limit: 2, page: 2, email: "ana".to_owned(), ..Default::default() };
    let emails = async |request| {
        let page = list(&node, &admin, request).await.unwrap();
        page.users.into_iter().map(|user| user.email).collect::<Vec<_>>()
    };
    assert_eq!(emails(counted).await, ["Ana2@example.com", "Ana1@example.com"]);
    let of = |status: &str, email: &str| ListUsersRequest {
        status: status.to_owned(),
        email: email.to_owned(),
        ..Default::default()
    };
    assert_eq!(emails(of("suspended", "")).await, ["b_b@example.com"]);
    assert_eq!(emails(of("active", "")).await.len(), 6);
    assert_eq!(emails(of("", "b_")).await, ["b_b@example.com"]);
    assert!(emails(of("", "_")).await.is_empty() && emails(of("", "%")).await.is_empty(), "no pattern");
    for wrong in [
        of("gone", ""),
        ListUsersRequest { page_size: 1001, ..Default::default() },
        ListUsersRequest { page: -1, ..Default::default() },
        ListUsersRequest { page_size: 2, limit: 3, ..Default::default() },
        ListUsersRequest { page_token: "x".to_owned(), ..Default::default() },
    ] {
        assert_eq!(list(&node, &admin, wrong).await, Err(Reason::InvalidArgument));
    }
}

async fn plans_and_usage_come_in_one_call_and_the_list_answers_without_billing(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    node.register("ana@example.com").await;
    let users = list(&node, &admin, ListUsersRequest::default()).await.unwrap().users;
    for user in &users {
        assert_eq!((user.plan.as_deref(), user.tokens_today), (Some("pro"), Some(42)));
    }
    let [asked] = &world.known.asked()[..] else { panic!("one call for all: {:?}", world.known.asked()) };
    assert_eq!((asked.product.as_str(), asked.user_ids.len()), (PRODUCT, 2));

    world.billing.go_away();
    let asked = Instant::now();
    let without = list(&node, &admin, ListUsersRequest::default()).await.unwrap().users;
    assert!(asked.elapsed() < Duration::from_secs(3), "it must not hang");
    assert_eq!(without.len(), users.len());
    for user in &without {
        assert_eq!(
            (&user.plan, &user.subscription_status, user.tokens_today, user.sessions_today),
            (&None, &None, None, None)
        );
    }
}

async fn a_suspended_account_is_refused_everywhere_until_it_is_restored(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let told = async |tokens: &Session| {
        elsewhere.verifier().verify(&tokens.access_token).await.map(drop).map_err(|status| reason(&status))
    };
    assert_eq!(told(&ana).await, Ok(()));

    let user = change(&node, &admin, suspend(&id(&ana), true)).await.unwrap();
    assert_eq!((user.status.as_str(), user.suspend_reason.as_deref()), ("suspended", Some("sent spam")));
    assert_eq!(user.suspended_at, Some(world.clock.now_ms()));
    assert_eq!(node.me(&ana).await, Err(Reason::AccountSuspended));
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        told(&ana).await == Err(Reason::AccountSuspended)
    })
    .await;
    assert_eq!(node.login("ana@example.com").await, Err(Reason::AccountSuspended));
    assert_eq!(node.refresh(&ana).await, Err(Reason::AccountSuspended));
    assert_eq!(told(&admin).await, Ok(()));

    let user = change(&node, &admin, suspend(&id(&ana), false)).await.unwrap();
    assert_eq!((user.status.as_str(), user.suspended_at, user.suspend_reason), ("active", None, None));
    eventually("a refusal that says to refresh", Duration::from_secs(1), async || {
        told(&ana).await == Err(Reason::Unauthenticated)
    })
    .await;
    let next = node.refresh(&ana).await.expect("the session goes on");
    assert_eq!(told(&next).await, Ok(()));
    assert!(node.login("ana@example.com").await.is_ok());
    elsewhere.shutdown().trigger();
}

async fn a_suspension_that_raced_a_refresh_leaves_no_good_token(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let admin = world.admin(&here, "root@example.com").await;
    let ana = here.register("ana@example.com").await;
    let mut session = ana.clone();
    for _ in 0..10 {
        let (suspended, raced) = tokio::join!(change(&here, &admin, suspend(&id(&ana), true)), there.refresh(&session));
        suspended.unwrap();
        let newest = raced.unwrap_or(session);
        eventually("the refusal", Duration::from_secs(1), async || {
            there.me(&newest).await == Err(Reason::AccountSuspended)
        })
        .await;
        assert_eq!(there.refresh(&newest).await, Err(Reason::AccountSuspended));
        change(&here, &admin, suspend(&id(&ana), false)).await.unwrap();
        session = there.refresh(&newest).await.unwrap();
    }
}

async fn only_who_knows_the_password_learns_of_a_suspension(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    change(&node, &admin, suspend(&id(&ana), true)).await.unwrap();
    let seen = async |email: &str| {
        let status = node.login_in(PRODUCT, email, "not the password").await.unwrap_err();
        (status.code(), status.message().to_owned(), status.details().to_vec())
    };
    assert_eq!(seen("ana@example.com").await, seen("nobody@example.com").await);
}

async fn an_admin_gives_and_takes_roles_but_not_their_own(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let one = |user: &Session, is_admin| UpdateUserRequest {
        user_id: id(user),
        is_admin: Some(is_admin),
        ..Default::default()
    };
    let all = |user: &Session, roles: &[&str]| UpdateUserRequest {
        user_id: id(user),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Default::default()
    };
    assert_eq!(change(&node, &admin, one(&ana, true)).await.unwrap().roles, ["user", "admin"]);
    let ana = node.refresh(&ana).await.unwrap();
    assert!(list(&node, &ana, ListUsersRequest::default()).await.is_ok(), "an administrator now");
    assert_eq!(
        change(&node, &admin, all(&ana, &["support", "reviewer"])).await.unwrap().roles,
        ["user", "reviewer", "support"]
    );
    assert_eq!(list(&node, &ana, ListUsersRequest::default()).await, Err(Reason::Unauthenticated));

    for own in [one(&admin, false), all(&admin, &["user"]), suspend(&id(&admin), true)] {
        assert_eq!(change(&node, &admin, own).await, Err(Reason::PermissionDenied));
    }
    assert!(change(&node, &admin, one(&admin, true)).await.unwrap().is_admin, "no change is no harm");
    let both = UpdateUserRequest { is_admin: Some(true), ..all(&ana, &["admin"]) };
    let no_reason = UpdateUserRequest { suspend_reason: String::new(), ..suspend(&id(&ana), true) };
    for wrong in [all(&ana, &["root"]), both, no_reason] {
        assert_eq!(change(&node, &admin, wrong).await, Err(Reason::InvalidArgument));
    }
}

async fn what_was_changed_and_by_whom_is_written_down(world: &World) {
    let node = world.node().await;
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let wish = UpdateUserRequest { roles: vec!["support".to_owned()], ..suspend(&id(&ana), true) };
    for _ in 0..2 {
        change(&node, &admin, wish.clone()).await.unwrap();
    }
    let other_reason = UpdateUserRequest { suspend_reason: "sold spam".to_owned(), ..suspend(&id(&ana), true) };
    change(&node, &admin, other_reason).await.unwrap();
    change(&node, &admin, suspend(&id(&ana), false)).await.unwrap();
    type Text = Option<String>;
    let events: Vec<(String, Text, Text, Text)> = world
        .column("SELECT kind, account_id, actor_id, detail FROM audit_events WHERE kind <> 'register' ORDER BY id")
        .await;
    let (ana, admin) = (Some(id(&ana)), Some(id(&admin)));
    let by_admin =
        |kind: &str, detail: Option<&str>| (kind.to_owned(), ana.clone(), admin.clone(), detail.map(str::to_owned));
    let digest = |reason: &str| format!("sha256:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(reason)));
    let expected = [
        by_admin("role_granted", Some("support")),
        by_admin("suspended", Some(&digest("sent spam"))),
        by_admin("suspend_reason_changed", Some(&digest("sold spam"))),
        by_admin("restored", None),
    ];
    assert_eq!(events[1..], expected, "the first is the operator's");
}

async fn who_is_no_admin_any_more_changes_nothing_with_an_old_token(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let root = world.admin(&here, "root@example.com").await;
    let eve = here.register("eve@example.com").await;
    let friend = id(&here.register("friend@example.com").await);
    let admin = |user_id: &str, is_admin| UpdateUserRequest {
        user_id: user_id.to_owned(),
        is_admin: Some(is_admin),
        ..Default::default()
    };
    for round in 0..4 {
        change(&here, &root, admin(&id(&eve), true)).await.unwrap();
        let old = here.login("eve@example.com").await.unwrap();
        // Another server, which hears of it within a second, is asked within the same instant.
        assert!(list(&there, &old, ListUsersRequest::default()).await.is_ok());
        match round % 2 {
            0 => change(&here, &root, admin(&id(&eve), false)).await.map(drop).unwrap(),
            _ => assert_eq!(here.logout(&old).await, Ok(true)),
        }
        let tries = [admin(&id(&eve), true), admin(&friend, true), suspend(&id(&root), true)];
        for outcome in join_all(tries.map(|wish| change(&there, &old, wish))).await {
            assert_eq!(outcome, Err(Reason::Unauthenticated));
        }
        let seen = [get(&here, &root, &id(&eve)).await.unwrap(), get(&here, &root, &friend).await.unwrap()];
        assert_eq!(seen.map(|user| user.is_admin), [round % 2 == 1, false]);
    }
}

async fn what_an_admin_says_of_themselves_undoes_nothing_that_another_does_at_once(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let root = world.admin(&here, "root@example.com").await;
    let eve = id(&here.register("eve@example.com").await);
    for _ in 0..4 {
        let restored = UpdateUserRequest { is_admin: Some(true), ..suspend(&eve, false) };
        change(&here, &root, restored).await.unwrap();
        let old = here.login("eve@example.com").await.unwrap();
        let own = UpdateUserRequest { roles: vec!["admin".to_owned()], ..suspend(&eve, false) };
        let fallen = UpdateUserRequest { is_admin: Some(false), ..suspend(&eve, true) };
        let (fallen, _) =
            tokio::join!(change(&here, &root, fallen), join_all((0..10).map(|_| change(&there, &old, own.clone()))));
        fallen.unwrap();
        let user = get(&here, &root, &eve).await.unwrap();
        assert_eq!((user.status.as_str(), user.is_admin), ("suspended", false));
    }
}
