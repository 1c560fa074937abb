//! Signing keys, and what a server that starts finds.
use weft_identity::{Config, Error};
use weft_testing::on_both_databases;

use crate::harness::World;

on_both_databases! {
    a_restart_keeps_keys_accounts_and_sessions
    servers_that_start_at_once_on_a_new_database_sign_with_one_key
    another_identity_secret_is_refused
    a_database_that_was_not_migrated_is_refused
}

async fn a_restart_keeps_keys_accounts_and_sessions(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    let keys = node.jwks().await;
    node.stop().await;

    let node = world.node().await;
    assert_eq!(node.jwks().await, keys);
    assert!(node.me(&tokens).await.is_ok());
    assert!(node.refresh(&tokens).await.is_ok());
    assert!(node.login("ana@example.com").await.is_ok());
}

async fn servers_that_start_at_once_on_a_new_database_sign_with_one_key(world: &World) {
    let (a, b, c) = tokio::join!(world.node(), world.node(), world.node());
    let keys = a.jwks().await;
    let [key] = keys.keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(
        (key.kty.as_str(), key.crv.as_str(), key.alg.as_str(), key.r#use.as_str()),
        ("OKP", "Ed25519", "EdDSA", "sig")
    );
    for (number, node) in [&a, &b, &c].into_iter().enumerate() {
        assert_eq!(node.jwks().await, keys);
        let tokens = node.register(&format!("ana{number}@example.com")).await;
        for other in [&a, &b, &c] {
            assert!(other.me(&tokens).await.is_ok());
        }
    }
}

async fn another_identity_secret_is_refused(world: &World) {
    world.node().await.stop().await;
    let other =
        Config { weft_identity_secret: "another secret of at least thirty-two bytes".into(), ..world.config.clone() };
    let error = world.refused(other).await;
    assert!(matches!(error, Error::WrongSecret), "{error:?}");
    assert!(error.to_string().contains("WEFT_IDENTITY_SECRET"), "{error}");
}

async fn a_database_that_was_not_migrated_is_refused(world: &World) {
    world.forget_migrations().await;
    let error = world.refused(world.config.clone()).await;
    assert!(matches!(error, Error::Database(_)), "{error:?}");
}
