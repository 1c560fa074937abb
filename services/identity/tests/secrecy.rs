//! What must not be found in the database.
use std::fs;
use weft_testing::{Database, on_both_databases};

use crate::harness::{PASSWORD, PRODUCT, World};

on_both_databases! {
    what_happens_to_an_account_is_written_down
}

async fn what_happens_to_an_account_is_written_down(world: &World) {
    let node = world.node().await;
    let tokens = node.register("ana@example.com").await;
    node.login_in(PRODUCT, "ana@example.com", "not the password").await.unwrap_err();
    node.login_in(PRODUCT, "bob@example.com", PASSWORD).await.unwrap_err();
    node.logout(&tokens).await.unwrap();
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY id").await;
    assert_eq!(kinds, ["register", "login_failed", "login_failed", "logout"]);
    let whose: Vec<Option<String>> = world.column("SELECT account_id FROM audit_events ORDER BY id").await;
    assert!(whose[0].is_some() && whose[1] == whose[0] && whose[2].is_none() && whose[3] == whose[0], "{whose:?}");
}

#[tokio::test]
async fn no_password_and_no_token_is_in_the_database() {
    let world = World::on(Database::sqlite()).await;
    let node = world.node().await;
    let first = node.register("ana@example.com").await;
    let next = node.refresh(&first).await.unwrap();
    node.login_in(PRODUCT, "ana@example.com", "a wrong password").await.unwrap_err();
    let files = world.files();
    let holds = |text: &str| {
        files.iter().any(|path| fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(holds("ana@example.com"), "this looks at the right files");
    for secret in [PASSWORD, "a wrong password"] {
        assert!(!holds(secret), "{secret}");
    }
    for tokens in [&first, &next] {
        assert!(!holds(&tokens.refresh_token), "a refresh token");
        assert!(!holds(tokens.access_token.rsplit('.').next().unwrap()), "an access token");
    }
}
