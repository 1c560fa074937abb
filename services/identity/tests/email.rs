//! Proof that an address is the account's.
use std::time::Duration;

use futures_util::future::join_all;
use weft_core::Reason;
use weft_identity::Config;
use weft_proto::identity::v1::{
    ForgotPasswordRequest, ForgotPasswordResponse, ResetPasswordRequest, ResetPasswordResponse,
    SendVerificationRequest, SendVerificationResponse, VerifyEmailRequest, VerifyEmailResponse,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{MailServer, Node, OTHER_PRODUCT, PASSWORD, Session, World, link_token, reason, with};

on_both_databases! {
    a_mail_proves_the_address_once
    of_many_who_use_a_link_at_once_one_succeeds
    an_account_is_sent_three_mails_an_hour
    a_link_is_good_for_a_day_for_its_account_and_for_nothing_else
    a_mail_that_was_asked_for_often_is_sent_once_after_a_restart
    a_new_password_by_a_link_proves_the_address_too
}

async fn ask(node: &Node, tokens: &Session) -> Result<(), Reason> {
    let path = "/weft.identity.v1.EmailService/SendVerification";
    let answer: Result<SendVerificationResponse, _> = node.call(tokens, path, SendVerificationRequest {}).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

async fn verify(node: &Node, token: &str) -> Result<(), Reason> {
    let path = "/weft.identity.v1.EmailService/VerifyEmail";
    let message = VerifyEmailRequest { token: token.to_owned() };
    let answer: Result<VerifyEmailResponse, _> = node.call_as(None, path, message).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

async fn is_verified(node: &Node, tokens: &Session) -> bool {
    node.me(tokens).await.unwrap().email_verified
}

/// Waits until nothing waits to be sent.
async fn until_sent(world: &World) {
    eventually("the end of the job", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs").await == [0]
    })
    .await;
}

async fn mailing(world: &World, server: &MailServer) -> Node {
    let smtp_url = Some(server.url.clone().into());
    let weft_app_url = "https://app.example.com/".to_owned();
    world.node_with(Config { smtp_url, weft_app_url, ..world.config.clone() }).await
}

/// The token of the mail with this number, once its job is over.
async fn token(world: &World, server: &MailServer, number: usize) -> String {
    let mail = server.mail(number).await;
    until_sent(world).await;
    link_token(&mail.data).1
}

async fn a_mail_proves_the_address_once(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let ana = node.register("Ana@example.com").await;
    assert!(!is_verified(&node, &ana).await);
    assert_eq!(ask(&node, &ana).await, Ok(()));
    let mail = server.mail(1).await;
    assert_eq!(mail.to, ["Ana@example.com"]);
    let (base, token) = link_token(&mail.data);
    assert_eq!(base, "https://app.example.com/verify-email?product=adiuva");
    let stored: Vec<String> = world.column("SELECT hash FROM mail_links").await;
    assert!(stored.len() == 1 && !stored[0].contains(&token), "{stored:?}");
    assert!(!is_verified(&node, &ana).await, "asking proves nothing");

    for wrong in ["", "x", &"A".repeat(43), &format!("{token}A")] {
        assert_eq!(verify(&node, wrong).await, Err(Reason::InvalidArgument), "{wrong}");
    }
    assert_eq!(verify(&node, &token).await, Ok(()));
    assert!(is_verified(&node, &ana).await);
    assert_eq!(verify(&node, &token).await, Err(Reason::InvalidArgument), "used");
    until_sent(world).await;
    assert_eq!(ask(&node, &ana).await, Ok(()), "it is proven already");
    until_sent(world).await;
    assert_eq!(server.received().len(), 1);
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY id").await;
    assert_eq!(kinds, ["register", "email_verified"]);
}

async fn of_many_who_use_a_link_at_once_one_succeeds(world: &World) {
    let server = MailServer::start().await;
    let nodes = [mailing(world, &server).await, mailing(world, &server).await];
    let ana = nodes[0].register("ana@example.com").await;
    ask(&nodes[0], &ana).await.unwrap();
    let link = token(world, &server, 1).await;
    let tries = (0..8).map(|number| verify(&nodes[number % 2], &link));
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(Reason::InvalidArgument))), "{outcomes:?}");
}

async fn an_account_is_sent_three_mails_an_hour(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let (ana, ben) = (node.register("ana@example.com").await, node.register("ben@example.com").await);
    for number in 1..=3 {
        assert_eq!(ask(&node, &ana).await, Ok(()));
        token(world, &server, number).await;
        world.pass(60);
    }
    assert_eq!(ask(&node, &ana).await, Err(Reason::RateLimited));
    assert_eq!(ask(&node, &ben).await, Ok(()), "it is an account's own limit");
    token(world, &server, 4).await;
    world.pass(3600 - 181);
    let ana = node.login("ana@example.com").await.unwrap();
    assert_eq!(ask(&node, &ana).await, Err(Reason::RateLimited));
    world.pass(2);
    assert_eq!(ask(&node, &ana).await, Ok(()));
    token(world, &server, 5).await;
}

async fn a_link_is_good_for_a_day_for_its_account_and_for_nothing_else(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let ana = node.register("ana@example.com").await;
    ask(&node, &ana).await.unwrap();
    let link = token(world, &server, 1).await;
    let elsewhere = with(OTHER_PRODUCT, None, VerifyEmailRequest { token: link.clone() });
    let mut client = weft_proto::identity::v1::email_service_client::EmailServiceClient::new(node.channel.clone());
    assert_eq!(reason(&client.verify_email(elsewhere).await.unwrap_err()), Reason::InvalidArgument);
    let reset = ResetPasswordRequest { token: link.clone(), new_password: "another horse".to_owned() };
    let path = "/weft.identity.v1.PasswordService/ResetPassword";
    let refused: Result<ResetPasswordResponse, _> = node.call_as(None, path, reset).await;
    assert_eq!(reason(&refused.unwrap_err()), Reason::InvalidArgument, "it sets no password");
    world.pass(24 * 3600);
    assert_eq!(verify(&node, &link).await, Err(Reason::InvalidArgument), "too old");

    let ana = node.login("ana@example.com").await.unwrap();
    ask(&node, &ana).await.unwrap();
    let link = token(world, &server, 2).await;
    world.tamper("UPDATE accounts SET email = 'eve@example.com'").await;
    assert_eq!(verify(&node, &link).await, Err(Reason::InvalidArgument), "it proves another address");
    world.tamper("UPDATE accounts SET email = 'ana@example.com'").await;
    world.pass(24 * 3600 - 60);
    assert_eq!(verify(&node, &link).await, Ok(()));
}

async fn a_mail_that_was_asked_for_often_is_sent_once_after_a_restart(world: &World) {
    // Nobody listens there: the job stays.
    let node = world.node_with(Config { smtp_url: Some("smtp://127.0.0.1:1".into()), ..world.config.clone() }).await;
    let ana = node.register("ana@example.com").await;
    for _ in 0..5 {
        assert_eq!(ask(&node, &ana).await, Ok(()));
    }
    eventually("the first try", Duration::from_secs(10), async || {
        world.column::<i64>("SELECT COUNT(*) FROM jobs WHERE last_error IS NOT NULL").await == [1]
    })
    .await;
    node.stop().await;
    world.pass(3600);
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    let link = token(world, &server, 1).await;
    assert_eq!(server.received().len(), 1);
    assert_eq!(verify(&node, &link).await, Ok(()));
}

async fn a_new_password_by_a_link_proves_the_address_too(world: &World) {
    let server = MailServer::start().await;
    let node = mailing(world, &server).await;
    node.register("ana@example.com").await;
    let forgot = ForgotPasswordRequest { email: "ana@example.com".to_owned() };
    let path = "/weft.identity.v1.PasswordService/ForgotPassword";
    let _: ForgotPasswordResponse = node.call_as(None, path, forgot).await.unwrap();
    let link = token(world, &server, 1).await;
    assert_eq!(verify(&node, &link).await, Err(Reason::InvalidArgument), "it is another kind of link");
    let reset = ResetPasswordRequest { token: link, new_password: PASSWORD.to_owned() };
    let path = "/weft.identity.v1.PasswordService/ResetPassword";
    let _: ResetPasswordResponse = node.call_as(None, path, reset).await.unwrap();
    let ana = node.login("ana@example.com").await.unwrap();
    assert!(is_verified(&node, &ana).await);
}
