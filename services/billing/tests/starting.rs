//! What billing does without its database, or with one that is not ready.
use std::time::{Duration, Instant};

use weft_billing::Config;
use weft_core::Reason;
use weft_db::sql;
use weft_testing::postgres::Postgres;
use weft_testing::{Database, eventually, on_both_databases};

use crate::harness::World;

on_both_databases! {
    a_database_that_is_not_migrated_is_refused_with_what_to_do
    a_database_of_a_newer_billing_is_refused
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
