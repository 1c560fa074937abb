//! What billing does without its database, or with one that is not ready.
use std::time::{Duration, Instant};

use weft_billing::{Config, MIGRATIONS};
use weft_core::Reason;
use weft_db::{Db, DbOptions, sql};
use weft_testing::postgres::Postgres;
use weft_testing::{Database, eventually, on_both_databases};

use crate::harness::World;

on_both_databases! {
    a_database_that_is_not_migrated_is_refused_with_what_to_do
    a_database_of_a_newer_billing_is_refused
}

/// A database at version 1 with what an administrator had set there.
async fn first_version(database: &Database) -> Db {
    let db = connect(database).await;
    db.migrate(&MIGRATIONS[..1]).await.unwrap();
    for text in [
        "INSERT INTO plans (product, slug, name, seeded_name, manifest, retired) VALUES \
         ('cofounder', 'bootstrapper', 'Starter', 'Bootstrapper', 'old', FALSE), \
         ('cofounder', 'partner', 'Partner', 'Partner', 'old', FALSE), \
         ('zerobs', 'pro', 'Pro', 'Pro', 'old', FALSE), ('zerobs', 'gone', 'Gone', 'Gone', 'older', TRUE)",
        "INSERT INTO plan_values (product, plan, kind, name, value, seeded) VALUES \
         ('cofounder', 'bootstrapper', 'limit', 'max_projects', 2, 1), \
         ('cofounder', 'bootstrapper', 'limit', 'max_sessions_per_day', 9, 9), \
         ('zerobs', 'gone', 'rate', 'requests_per_minute', NULL, NULL)",
        "INSERT INTO accounts (product, user_id, plan) VALUES \
         ('cofounder', 'ana', 'partner'), ('zerobs', 'ana', 'gone'), ('zerobs', 'ben', 'pro')",
    ] {
        sql(text).run(&db).await.unwrap();
    }
    db
}

async fn connect(database: &Database) -> Db {
    Db::connect(&DbOptions { url: database.url.clone(), schema: "billing", max_connections: 2 }).await.unwrap()
}

/// From the first version to this one with every row; then a server starts on it.
async fn it_keeps_every_row(database: Database) {
    let db = first_version(&database).await;
    db.migrate(MIGRATIONS).await.unwrap();
    db.migrate(MIGRATIONS).await.unwrap();
    db.close().await;
    let world = World::on(database).await;
    let node = world.node().await;
    assert_eq!(node.get("cofounder", "ana").await.unwrap().plan, "partner");
    assert_eq!(node.get("zerobs", "ana").await.unwrap().plan, "gone");
    assert_eq!(node.get("zerobs", "ben").await.unwrap().plan, "pro");
    assert_eq!(node.limit("cofounder", "cem", "max_projects").await, Some(2), "an administrator's");
    assert_eq!(node.limit("cofounder", "cem", "max_sessions_per_day").await, Some(10), "the manifest's");
    let plans: Vec<(String, i64)> = sql("SELECT p.slug, v.version FROM plans p JOIN plan_versions v \
         ON v.product = p.product AND v.plan = p.slug WHERE p.product = 'zerobs' ORDER BY p.slug LIMIT 10")
    .all(&world.db)
    .await
    .unwrap();
    let expected = ["free", "gone", "outreach", "pro"].map(|slug| (slug.to_owned(), 1));
    assert_eq!(plans, expected, "a plan without prices yet gets them in place");
    let sold: i64 = sql("SELECT amount_minor FROM prices WHERE product = 'zerobs' AND plan = 'pro' AND version = 1")
        .one(&world.db)
        .await
        .unwrap();
    assert_eq!(sold, 1900);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sqlite_database_of_the_first_version_keeps_every_row() {
    it_keeps_every_row(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_database_of_the_first_version_keeps_every_row() {
    it_keeps_every_row(Database::postgres().await).await;
}

async fn a_database_that_is_not_migrated_is_refused_with_what_to_do(world: &World) {
    sql("DELETE FROM weft_migrations").run(&world.db).await.unwrap();
    let error = world.refused(world.config.clone()).await;
    assert_eq!(error.to_string(), "schema billing lacks migration 1 (plans and accounts), run weft migrate first");
}

async fn a_database_of_a_newer_billing_is_refused(world: &World) {
    sql("INSERT INTO weft_migrations (version, name, checksum) VALUES (999, 'later', '')")
        .run(&world.db)
        .await
        .unwrap();
    let error = world.refused(world.config.clone()).await;
    assert!(error.to_string().contains("migration 999 (later), this program is older"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("sqlite://{}/billing.db", file.path().display());
    let error = weft_billing::migrate(&Config::new(url)).await.unwrap_err();
    assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_billing_says_so_within_a_second_and_comes_back_by_itself() {
    let own = Postgres::start().await;
    let world = World::on(Database::on(&own).await).await;
    let node = world.node().await;
    own.pause().await;
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(node.get("adiuva", "ana").await, Err(Reason::Unavailable));
        assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
    }
    own.resume().await;
    eventually("an answer", Duration::from_secs(10), async || node.get("adiuva", "ana").await.is_ok()).await;
    node.stop().await;
}
