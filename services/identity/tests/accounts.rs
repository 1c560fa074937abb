//! Registering and signing in.
use tonic::Code;
use weft_core::Reason;
use weft_testing::on_both_databases;

use crate::harness::{NO_PASSWORDS, OTHER_PRODUCT, PASSWORD, PLAN, PRODUCT, World, claim, reason};

on_both_databases! {
    a_user_registers_signs_in_refreshes_and_signs_out
    the_same_address_in_two_products_is_two_accounts
    an_address_is_taken_in_any_case
    of_many_who_register_an_address_at_once_one_gets_it
    an_address_or_password_that_cannot_be_is_refused
    a_wrong_password_and_an_unknown_address_look_the_same
    a_product_without_passwords_takes_none
    an_unknown_product_is_not_found
}

async fn a_user_registers_signs_in_refreshes_and_signs_out(world: &World) {
    let node = world.node().await;
    let registered = node.register("Ana@Example.com").await;
    let life_ms = world.product().identity.access_ttl_s * 1000;
    assert_eq!(registered.expires_at, (world.clock.now_ms() + life_ms) / 1000 * 1000);

    let session = node.login("ana@example.com").await.unwrap();
    assert_ne!(claim(&registered, "sid"), claim(&session, "sid"), "each login is a session");
    let me = node.me(&session).await.unwrap();
    assert_eq!((me.email.as_str(), me.tier.as_str(), me.product.as_str()), ("Ana@Example.com", PLAN, PRODUCT));
    assert_eq!(me.created_at, world.clock.now_ms());
    assert_eq!(claim(&session, "sub"), me.id.as_str());

    world.pass(60);
    let next = node.refresh(&session).await.unwrap();
    assert_ne!((&next.access_token, &next.refresh_token), (&session.access_token, &session.refresh_token));
    assert_eq!(next.expires_at, session.expires_at + 60_000);
    assert_eq!(claim(&next, "sid"), claim(&session, "sid"));
    assert_eq!(node.me(&next).await.unwrap().id, me.id);

    assert_eq!(node.logout(&next).await, Ok(true));
    assert_eq!(node.me(&next).await, Err(Reason::Unauthenticated));
    assert_eq!(node.refresh(&next).await, Err(Reason::Unauthenticated));
    assert!(node.me(&registered).await.is_ok(), "the other session goes on");

    world.pass(world.product().identity.access_ttl_s.unsigned_abs());
    assert_eq!(node.me(&registered).await, Err(Reason::Unauthenticated), "expired");
}

async fn the_same_address_in_two_products_is_two_accounts(world: &World) {
    let node = world.node().await;
    let here = node.register_in(PRODUCT, "ana@example.com", PASSWORD).await.unwrap();
    let there = node.register_in(OTHER_PRODUCT, "ana@example.com", "another password").await.unwrap();
    let (me, other) = (node.me(&here).await.unwrap(), node.me_in(OTHER_PRODUCT, &there).await.unwrap());
    assert_ne!(me.id, other.id);
    assert_eq!(other.product, OTHER_PRODUCT);
    let status = node.login_in(OTHER_PRODUCT, "ana@example.com", PASSWORD).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidCredentials, "the password of the other account");
}

async fn an_address_is_taken_in_any_case(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    let status = node.register_in(PRODUCT, "ANA@Example.com", "some other password").await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::AlreadyExists, Reason::EmailTaken));
    assert!(node.login("ana@example.com").await.is_ok(), "nothing of the account was changed");
}

async fn of_many_who_register_an_address_at_once_one_gets_it(world: &World) {
    let node = world.node().await;
    let tries = (0..8).map(|number| {
        let (node, password) = (&node, format!("the password of try {number}"));
        async move { node.register_in(PRODUCT, "ana@example.com", &password).await.map_err(|status| reason(&status)) }
    });
    let (done, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(tries).await.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    assert!(refused.iter().all(|outcome| *outcome == Err(Reason::EmailTaken)), "{refused:?}");
}

async fn an_address_or_password_that_cannot_be_is_refused(world: &World) {
    let node = world.node().await;
    let (long, longer) = ("x".repeat(1024), "x".repeat(1025));
    for (email, password) in [
        ("", PASSWORD),
        ("ana", PASSWORD),
        ("ana@example", PASSWORD),
        ("a na@example.com", PASSWORD),
        ("a\0na@example.com", PASSWORD),
        (&format!("{}@example.com", "a".repeat(250)), PASSWORD),
        ("ana@example.com", ""),
        ("ana@example.com", "7 bytes"),
        ("ana@example.com", &longer),
    ] {
        let status = node.register_in(PRODUCT, email, password).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidArgument, "{email:?} with {} bytes", password.len());
    }
    assert!(node.register_in(PRODUCT, "ana@example.com", &long).await.is_ok());
    assert!(node.login_in(PRODUCT, "ana@example.com", &long).await.is_ok());
    for (email, password) in [("", PASSWORD), ("ana@example.com", "")] {
        let status = node.login_in(PRODUCT, email, password).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidArgument, "a field is missing");
    }
}

async fn a_wrong_password_and_an_unknown_address_look_the_same(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    let seen = async |email: &str, password: &str| {
        let status = node.login_in(PRODUCT, email, password).await.unwrap_err();
        (status.code(), status.message().to_owned(), status.details().to_vec())
    };
    let wrong = seen("ana@example.com", "not the password").await;
    assert_eq!(wrong.0, Code::Unauthenticated);
    for (email, password) in [
        ("bob@example.com", PASSWORD),
        ("ana@example.com", "short"),
        ("ana@example.com", &"x".repeat(5000)),
        ("nobody", PASSWORD),
        ("a\0na@example.com", PASSWORD),
    ] {
        assert_eq!(seen(email, password).await, wrong, "{email:?} with {} bytes", password.len());
    }
    let status = node.login_in(PRODUCT, "bob@example.com", PASSWORD).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidCredentials);
}

async fn a_product_without_passwords_takes_none(world: &World) {
    let node = world.node().await;
    let registered = node.register_in(NO_PASSWORDS, "ana@example.com", PASSWORD).await.unwrap_err();
    let signed_in = node.login_in(NO_PASSWORDS, "ana@example.com", PASSWORD).await.unwrap_err();
    for status in [registered, signed_in] {
        assert_eq!((status.code(), reason(&status)), (Code::InvalidArgument, Reason::IdentityProviderNotEnabled));
    }
}

async fn an_unknown_product_is_not_found(world: &World) {
    let node = world.node().await;
    for product in ["no-such-product", ""] {
        let status = node.login_in(product, "ana@example.com", PASSWORD).await.unwrap_err();
        assert_eq!(reason(&status), Reason::NotFound, "{product:?}");
    }
    assert_eq!(node.refresh_in("no-such-product", &"A".repeat(43)).await, Err(Reason::NotFound));
}
