//! Four processes, the journey of a user, and a part of the mesh that dies.
use std::time::{Duration, Instant};

use serde_json::json;
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::{Client, Persona};
use weft_testing::{postgres, redis};

use crate::{WEFT, adiuva_with};

/// On PostgreSQL and Redis, as operators run it.
async fn deployed() -> Mesh {
    deployed_with(Vec::new()).await
}

async fn deployed_with(environment: Vec<(String, String)>) -> Mesh {
    let mut options = Options { environment, ..Options::new(WEFT) };
    options.postgres = Some(postgres::shared().await.database().await);
    options.redis = Some(redis::shared().await.url());
    Mesh::start(options).await
}

async fn a_user_gets_from_register_to_chat(mesh: &Mesh) {
    let ana = Persona::register(mesh.edge(), "adiuva", "ana@example.com").await;
    let (status, me) = ana.get("/api/v1/auth/me").await;
    assert_eq!((status, &me["email"], &me["tier"]), (200, &json!("ana@example.com"), &json!("free")), "{me}");

    let (status, chat) = ana.post("/api/v1/chat", &json!({"message": "create a task to call Bo"})).await;
    assert_eq!(status, 200, "{chat}");
    assert_eq!(chat["actions"][0]["data"]["title"], "Call Bo");

    let client = Client::new(mesh.edge(), "adiuva");
    let (status, next) =
        client.post("/api/v1/auth/refresh", None, &json!({"refresh_token": ana.refresh_token()})).await;
    assert_eq!(status, 200, "{next}");
    let token = next["access_token"].as_str().unwrap();
    assert_eq!(client.post("/api/v1/auth/logout", Some(token), &json!({})).await, (200, json!({"ok": true})));
    eventually("the ended session to be refused", Duration::from_secs(1), || async {
        client.get("/api/v1/auth/me", Some(token)).await.0 == 401
    })
    .await;
    let (status, refused) =
        client.post("/api/v1/auth/refresh", None, &json!({"refresh_token": next["refresh_token"]})).await;
    assert_eq!(status, 401, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_on_postgresql_and_redis_serve_the_journey() {
    let mesh = deployed().await;
    a_user_gets_from_register_to_chat(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_on_sqlite_serve_the_journey() {
    let mesh = Mesh::start(Options::new(WEFT)).await;
    a_user_gets_from_register_to_chat(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_says_unavailable_while_billing_is_dead_and_recovers_with_it() {
    // Asking again and again is not what is tested here.
    let products = tempfile::tempdir().unwrap();
    adiuva_with(products.path(), &[("requests_per_minute = 20", "requests_per_minute = 100000")]);
    let mut mesh = deployed_with(vec![("WEFT_PRODUCTS_DIR".to_owned(), products.path().display().to_string())]).await;
    let bo = Persona::register(mesh.edge(), "adiuva", "bo@example.com").await;
    let message = json!({"message": "what can you do?"});
    assert_eq!(bo.post("/api/v1/chat", &message).await.0, 200);

    mesh.billing.kill().await;
    // What was read less than a second ago may still be believed.
    eventually("chat to notice", Duration::from_secs(2), || async { bo.post("/api/v1/chat", &message).await.0 == 503 })
        .await;
    let begun = Instant::now();
    let (status, refused) = bo.post("/api/v1/chat", &message).await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("unavailable")), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    let (status, health) = Client::new(mesh.edge(), "adiuva").get("/health/detailed", None).await;
    assert_eq!(status, 503, "{health}");
    assert!(health.to_string().contains("billing"), "{health}");

    mesh.billing.restart().await;
    eventually("chat to recover", Duration::from_secs(5), || async {
        bo.post("/api/v1/chat", &message).await.0 == 200
    })
    .await;
    mesh.until_healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_words_do_not_reach_the_log() {
    let mut options = Options::new(WEFT);
    options.environment.push(("RUST_LOG".to_owned(), "trace".to_owned()));
    let mesh = Mesh::start(options).await;
    let cy = Persona::register(mesh.edge(), "adiuva", "cy@example.com").await;
    let words = "the canary Zanzibar-4711 sings";
    assert_eq!(cy.post("/api/v1/chat", &json!({"message": words})).await.0, 200);
    let client = Client::new(mesh.edge(), "adiuva");
    let (status, _) =
        client.post("/api/v1/auth/login", None, &json!({"email": cy.email, "password": cy.password})).await;
    assert_eq!(status, 200);

    let logs = mesh.logs();
    assert!(logs.contains("weft.orchestrator.v1.ChatService"), "the calls are logged");
    let signature = cy.access_token().rsplit('.').next().unwrap();
    for (what, secret) in [
        ("the message", "Zanzibar-4711"),
        ("the password", &cy.password),
        ("the access token", signature),
        ("the refresh token", cy.refresh_token()),
    ] {
        assert!(!logs.contains(secret), "{what} is in the log");
    }
}
