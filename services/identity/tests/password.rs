//! Changing a password, and getting back in without it.
use std::time::Duration;

use futures_util::future::join_all;
use weft_core::Reason;
use weft_identity::Config;
use weft_proto::identity::v1::{
    ChangePasswordRequest, ChangePasswordResponse, ForgotPasswordRequest, ForgotPasswordResponse, ResetPasswordRequest,
    ResetPasswordResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{MailServer, Node, PASSWORD, PRODUCT, Session, World, link_token, reason};

const NEW: &str = "another horse battery";
/// From one mail of an account to the next, in s.
const APART_S: u64 = 120;

on_both_databases! {
    a_changed_password_ends_all_other_sessions
    a_wrong_old_password_changes_nothing_and_counts_as_a_guess
    nothing_is_usable_after_a_change_that_raced_a_refresh_and_a_login
    who_forgot_gets_a_link_that_works_once
    a_link_is_void_after_half_an_hour_another_reset_and_a_change
    of_many_who_use_a_link_at_once_one_succeeds
    an_address_that_nobody_has_gets_the_same_answer_and_no_mail
    strangers_who_ask_for_links_do_not_keep_the_owner_from_one
    a_mail_that_waits_is_not_sent_after_the_password_was_set
    a_reset_ends_what_guesses_at_the_old_password_began
    mail_is_handed_to_a_server_which_may_put_it_off
    a_mail_that_was_asked_for_is_sent_after_a_restart
    neither_token_nor_password_is_in_the_database
}

async fn change(node: &Node, tokens: &Session, old: &str, new: &str) -> Result<i64, Reason> {
    let message = ChangePasswordRequest { old_password: old.to_owned(), new_password: new.to_owned() };
    let path = "/weft.identity.v1.PasswordService/ChangePassword";
    let answer: Result<ChangePasswordResponse, _> = node.call(tokens, path, message).await;
    answer.map(|answer| answer.ended_sessions).map_err(|status| reason(&status))
}

async fn forgot(node: &Node, email: &str) -> Result<ForgotPasswordResponse, Reason> {
    let message = ForgotPasswordRequest { email: email.to_owned() };
    let answer = node.call_as(None, "/weft.identity.v1.PasswordService/ForgotPassword", message).await;
    answer.map_err(|status| reason(&status))
}

async fn reset(node: &Node, token: &str, new: &str) -> Result<(), Reason> {
    let message = ResetPasswordRequest { token: token.to_owned(), new_password: new.to_owned() };
    let path = "/weft.identity.v1.PasswordService/ResetPassword";
    let answer: Result<ResetPasswordResponse, _> = node.call_as(None, path, message).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

async fn login(node: &Node, password: &str) -> Result<Session, Reason> {
    node.login_in(PRODUCT, "ana@example.com", password).await.map_err(|status| reason(&status))
}

/// Waits until nothing waits to be sent.
async fn until_sent(world: &World) {
    eventually("the end of the job", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs").await == [0]
    })
    .await;
}

/// The token of the link that Ana was sent; there are so many mails then.
async fn link(world: &World, node: &Node, mails: usize) -> String {
    forgot(node, "ana@example.com").await.unwrap();
    let mail = world.mail(mails).await;
    until_sent(world).await;
    world.pass(APART_S);
    link_token(&mail).1
}

async fn a_changed_password_ends_all_other_sessions(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let mine = here.register("ana@example.com").await;
    let other = here.login("ana@example.com").await.unwrap();
    assert!(there.me(&other).await.is_ok());
    assert_eq!(change(&here, &mine, PASSWORD, NEW).await, Ok(1));
    assert_eq!(there.refresh(&other).await, Err(Reason::Unauthenticated));
    eventually("the refusal", Duration::from_secs(1), async || {
        change(&there, &other, PASSWORD, NEW).await == Err(Reason::Unauthenticated)
    })
    .await;
    assert!(there.me(&mine).await.is_ok() && there.refresh(&mine).await.is_ok());
    assert_eq!(login(&there, PASSWORD).await, Err(Reason::InvalidCredentials));
    assert!(login(&there, NEW).await.is_ok());
}

async fn a_wrong_old_password_changes_nothing_and_counts_as_a_guess(world: &World) {
    let node = world.node_with(Config { weft_identity_login_failures: 2, ..world.config.clone() }).await;
    let mine = node.register("ana@example.com").await;
    assert_eq!(change(&node, &mine, PASSWORD, "short").await, Err(Reason::InvalidArgument));
    assert_eq!(change(&node, &mine, "", NEW).await, Err(Reason::InvalidArgument));
    for _ in 0..2 {
        assert_eq!(change(&node, &mine, "a wrong guess", NEW).await, Err(Reason::InvalidCredentials));
    }
    assert_eq!(change(&node, &mine, PASSWORD, NEW).await, Err(Reason::RateLimited));
    world.pass(600);
    assert!(login(&node, PASSWORD).await.is_ok());
}

async fn nothing_is_usable_after_a_change_that_raced_a_refresh_and_a_login(world: &World) {
    let (here, there) = (world.node().await, world.node().await);
    let mut mine = here.register("ana@example.com").await;
    let (mut old, mut new) = (PASSWORD, NEW);
    for _ in 0..8 {
        let other = login(&here, old).await.unwrap();
        let changed = change(&here, &mine, old, new);
        let (changed, refreshed, signed_in) = tokio::join!(changed, there.refresh(&other), login(&there, old));
        assert!(changed.unwrap() >= 1);
        assert_eq!(there.refresh(&other).await, Err(Reason::Unauthenticated));
        for tokens in [refreshed, signed_in].into_iter().flatten() {
            assert_eq!(there.refresh(&tokens).await, Err(Reason::Unauthenticated));
            eventually("the refusal", Duration::from_secs(1), async || there.me(&tokens).await.is_err()).await;
        }
        mine = here.refresh(&mine).await.unwrap();
        (old, new) = (new, old);
    }
}

async fn who_forgot_gets_a_link_that_works_once(world: &World) {
    let node =
        world.node_with(Config { weft_app_url: "https://app.example.com/".to_owned(), ..world.config.clone() }).await;
    let before = node.register("ana@example.com").await;
    assert_eq!(forgot(&node, "Ana@Example.com").await, Ok(ForgotPasswordResponse { ok: true }));
    let mail = world.mail(1).await;
    assert!(mail.contains("To: ana@example.com"), "{mail}");
    let (base, token) = link_token(&mail);
    assert_eq!(base, "https://app.example.com/reset-password?product=adiuva");
    assert_eq!(reset(&node, &token, "short").await, Err(Reason::InvalidArgument), "the link is not used up by that");
    assert_eq!(reset(&node, &token, NEW).await, Ok(()));
    assert_eq!(reset(&node, &token, "a third password").await, Err(Reason::InvalidArgument));
    assert_eq!(node.refresh(&before).await, Err(Reason::Unauthenticated));
    assert_eq!(node.me(&before).await, Err(Reason::Unauthenticated));
    assert_eq!(login(&node, PASSWORD).await, Err(Reason::InvalidCredentials));
    assert!(login(&node, NEW).await.is_ok());
    for wrong in ["", "x", &"A".repeat(43), &format!("{token}A")] {
        assert_eq!(reset(&node, wrong, NEW).await, Err(Reason::InvalidArgument), "{wrong}");
    }
}

async fn a_link_is_void_after_half_an_hour_another_reset_and_a_change(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    let old = link(world, &node, 1).await;
    world.pass(30 * 60);
    assert_eq!(reset(&node, &old, NEW).await, Err(Reason::InvalidArgument));
    let (one, other) = (link(world, &node, 2).await, link(world, &node, 3).await);
    assert_eq!(reset(&node, &one, NEW).await, Ok(()));
    assert_eq!(reset(&node, &other, PASSWORD).await, Err(Reason::InvalidArgument));
    let last = link(world, &node, 4).await;
    let mine = login(&node, NEW).await.unwrap();
    change(&node, &mine, NEW, PASSWORD).await.unwrap();
    assert_eq!(reset(&node, &last, NEW).await, Err(Reason::InvalidArgument));
}

async fn of_many_who_use_a_link_at_once_one_succeeds(world: &World) {
    let nodes = [world.node().await, world.node().await];
    nodes[0].register("ana@example.com").await;
    let tokens = [link(world, &nodes[0], 1).await, link(world, &nodes[0], 2).await];
    // Two links of one account too: the first that is used voids the other.
    let tries = (0..8).map(|number| {
        let (node, token) = (&nodes[number % 2], &tokens[number / 4]);
        async move { reset(node, token, &format!("the password of try {number}")).await }
    });
    let outcomes = join_all(tries).await;
    let winners: Vec<usize> = (0..8).filter(|number| outcomes[*number].is_ok()).collect();
    let [winner] = winners[..] else { panic!("{outcomes:?}") };
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Reason::InvalidArgument))), "{outcomes:?}");
    assert!(login(&nodes[0], &format!("the password of try {winner}")).await.is_ok());
}

async fn an_address_that_nobody_has_gets_the_same_answer_and_no_mail(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    for email in ["nobody@example.com", "no address", "a\0b@example.com", &"x".repeat(5000), "ana@example.com"] {
        assert_eq!(forgot(&node, email).await, Ok(ForgotPasswordResponse { ok: true }), "{email:?}");
    }
    world.mail(1).await;
    until_sent(world).await;
    assert_eq!(world.mails().len(), 1);
    assert_eq!(forgot(&node, "").await, Err(Reason::InvalidArgument));
}

async fn strangers_who_ask_for_links_do_not_keep_the_owner_from_one(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    forgot(&node, "ana@example.com").await.unwrap();
    for number in 1..=5 {
        world.mail(number).await;
        until_sent(world).await;
        // At once again: it waits, and whoever asks meanwhile is sent that one.
        for _ in 0..3 {
            forgot(&node, "ana@example.com").await.unwrap();
        }
        let wait_ms = if number < 5 { 120_000 } else { 30 * 60_000 - 4 * 120_000 };
        let due = world.clock.now_ms() + wait_ms;
        eventually("the job to be put off", Duration::from_secs(5), async || {
            world.column::<i64>("SELECT run_at FROM jobs").await == [due]
        })
        .await;
        assert_eq!(world.mails().len(), number);
        world.pass(APART_S);
    }
    world.pass(30 * 60 - 5 * APART_S);
    let last = link_token(&world.mail(6).await).1;
    until_sent(world).await;
    assert_eq!(reset(&node, &last, NEW).await, Ok(()));
}

async fn a_mail_that_waits_is_not_sent_after_the_password_was_set(world: &World) {
    let server = MailServer::start().await;
    let node = world.node_with(Config { smtp_url: Some(server.url.clone().into()), ..world.config.clone() }).await;
    node.register("ana@example.com").await;
    let jobs = async || world.column::<Option<String>>("SELECT last_error FROM jobs").await;
    forgot(&node, "ana@example.com").await.unwrap();
    until_sent(world).await;
    world.pass(APART_S);
    for by_link in [true, false] {
        server.answers(&["451 4.3.0 come back later"]);
        forgot(&node, "ana@example.com").await.unwrap();
        eventually("the job to be put off", Duration::from_secs(10), async || {
            jobs().await == [Some("the mail server put it off with 451".to_owned())]
        })
        .await;
        if by_link {
            let token = link_token(&server.received()[0].data).1;
            assert_eq!(reset(&node, &token, NEW).await, Ok(()));
        } else {
            let mine = login(&node, NEW).await.unwrap();
            assert_eq!(change(&node, &mine, NEW, PASSWORD).await, Ok(0));
        }
        assert!(jobs().await.is_empty());
    }
    assert_eq!(server.received().len(), 1);
}

async fn a_reset_ends_what_guesses_at_the_old_password_began(world: &World) {
    let node = world.node_with(Config { weft_identity_login_failures: 2, ..world.config.clone() }).await;
    node.register("ana@example.com").await;
    let token = link(world, &node, 1).await;
    for _ in 0..2 {
        assert_eq!(login(&node, "a wrong guess").await, Err(Reason::InvalidCredentials));
    }
    assert_eq!(login(&node, PASSWORD).await, Err(Reason::RateLimited));
    assert_eq!(reset(&node, &token, NEW).await, Ok(()));
    assert!(login(&node, NEW).await.is_ok());
}

async fn mail_is_handed_to_a_server_which_may_put_it_off(world: &World) {
    let server = MailServer::start().await;
    let config = Config {
        smtp_url: Some(server.url.clone().into()),
        weft_mail_from: "Adiuva <hello@adiuva.test>".to_owned(),
        ..world.config.clone()
    };
    let node = world.node_with(config).await;
    node.register("ana@example.com").await;
    server.answers(&["451 4.3.0 ana@example.com: come back later"]);
    forgot(&node, "ana@example.com").await.unwrap();
    eventually("the first try", Duration::from_secs(10), async || server.refused() == 1).await;
    assert!(server.received().is_empty());
    let kept = "SELECT last_error FROM jobs WHERE last_error IS NOT NULL";
    eventually("the job to be put off", Duration::from_secs(5), async || {
        world.column::<String>(kept).await == ["the mail server put it off with 451"]
    })
    .await;
    world.pass(2);
    eventually("the mail", Duration::from_secs(10), async || server.received().len() == 1).await;
    let [mail] = &server.received()[..] else { panic!() };
    assert_eq!((mail.from.as_str(), &mail.to[..]), ("hello@adiuva.test", &["ana@example.com".to_owned()][..]));
    assert!(mail.data.contains("From: Adiuva <hello@adiuva.test>"), "{}", mail.data);
    assert_eq!(reset(&node, &link_token(&mail.data).1, NEW).await, Ok(()));
    assert!(world.mails().is_empty(), "no file besides");

    server.answers(&["550 no such user"]);
    forgot(&node, "ana@example.com").await.unwrap();
    until_sent(world).await;
    assert_eq!((server.refused(), server.received().len()), (2, 1), "given up at once");
}

async fn a_mail_that_was_asked_for_is_sent_after_a_restart(world: &World) {
    // Nobody listens there: the job stays.
    let config = Config { smtp_url: Some("smtp://127.0.0.1:1".into()), ..world.config.clone() };
    let node = world.node_with(config).await;
    node.register("ana@example.com").await;
    forgot(&node, "ana@example.com").await.unwrap();
    eventually("the first try", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs WHERE last_error IS NOT NULL").await == [1]
    })
    .await;
    node.stop().await;
    world.pass(3600);
    let node = world.node().await;
    let token = link_token(&world.mail(1).await).1;
    assert_eq!(reset(&node, &token, NEW).await, Ok(()));
}

async fn neither_token_nor_password_is_in_the_database(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    let token = link(world, &node, 1).await;
    let stored: Vec<String> = world.column("SELECT hash FROM mail_links").await;
    let [hash] = &stored[..] else { panic!("{stored:?}") };
    assert!(!hash.contains(&token) && hash.len() > token.len());
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY id").await;
    assert_eq!(kinds, ["register", "password_reset_sent"]);
    reset(&node, &token, NEW).await.unwrap();
    assert!(world.column::<String>("SELECT hash FROM mail_links").await.is_empty());
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY id").await;
    assert_eq!(kinds.last().map(String::as_str), Some("password_reset"));
}
