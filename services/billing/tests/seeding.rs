//! Manifests seed the tables; the tables are the truth.
use weft_db::{record, sql};
use weft_product::Products;
use weft_testing::on_both_databases;

use crate::harness::{World, products_with};

on_both_databases! {
    an_edit_survives_restarts_and_a_changed_manifest_that_changes_the_rest
    an_edit_survives_a_manifest_that_says_the_same_for_a_while
    an_edit_that_is_undone_follows_the_manifest_again
    a_number_becomes_unlimited_and_limited_again_with_its_manifest
    an_edited_name_survives_and_another_follows_the_manifest
    seeding_again_changes_nothing
    servers_that_start_together_seed_once
    a_plan_that_leaves_its_manifest_is_retired_with_the_people_on_it
    what_is_declared_after_a_plan_retired_is_not_given_to_it
    what_is_no_longer_declared_is_no_longer_told
    everything_of_the_manifests_is_in_the_tables
}

/// A change of the cofounder's first plan.
const TWELVE_SESSIONS: (&str, &str) = ("max_sessions_per_day = 10,", "max_sessions_per_day = 12,");

/// Starts a server with these products and ends it: what a redeploy does to the tables.
async fn seed(world: &World, products: Products) {
    world.node_with(products).await.stop().await;
}

async fn an_edit_survives_restarts_and_a_changed_manifest_that_changes_the_rest(world: &World) {
    seed(world, Products::builtin()).await;
    world.edit_limit("cofounder", "bootstrapper", "max_projects", Some(2)).await;
    let node = world.node().await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(2));
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(10));
    node.stop().await;

    let node = world.node_with(products_with("cofounder", &[TWELVE_SESSIONS])).await;
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(12));
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(2));
    node.stop().await;
}

async fn an_edit_survives_a_manifest_that_says_the_same_for_a_while(world: &World) {
    seed(world, Products::builtin()).await;
    world.edit_limit("cofounder", "bootstrapper", "max_sessions_per_day", Some(12)).await;
    seed(world, products_with("cofounder", &[TWELVE_SESSIONS])).await;
    let node = world
        .node_with(products_with("cofounder", &[("max_sessions_per_day = 10,", "max_sessions_per_day = 15,")]))
        .await;
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(12));
    node.stop().await;
}

async fn an_edit_that_is_undone_follows_the_manifest_again(world: &World) {
    seed(world, Products::builtin()).await;
    world.edit_limit("cofounder", "bootstrapper", "max_sessions_per_day", Some(99)).await;
    seed(world, Products::builtin()).await;
    world.edit_limit("cofounder", "bootstrapper", "max_sessions_per_day", Some(10)).await;
    let node = world.node_with(products_with("cofounder", &[TWELVE_SESSIONS])).await;
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(12));
    node.stop().await;
}

async fn a_number_becomes_unlimited_and_limited_again_with_its_manifest(world: &World) {
    seed(world, Products::builtin()).await;
    let node = world.node_with(products_with("adiuva", &[("agents = 3", "agents = \"unlimited\"")])).await;
    assert_eq!(node.limit("adiuva", "ana", "agents").await, None);
    node.stop().await;
    let node = world.node().await;
    assert_eq!(node.limit("adiuva", "ana", "agents").await, Some(3));
    node.stop().await;
}

async fn an_edited_name_survives_and_another_follows_the_manifest(world: &World) {
    seed(world, Products::builtin()).await;
    sql("UPDATE plans SET name = 'Gratis' WHERE product = 'adiuva' AND slug = 'free'").run(&world.db).await.unwrap();
    let renamed = [("name = \"Free\"", "name = \"Basic\""), ("name = \"Pro\"", "name = \"Plus\"")];
    seed(world, products_with("adiuva", &renamed)).await;
    let names: Vec<String> =
        sql("SELECT name FROM plans WHERE product = 'adiuva' AND slug IN ('free', 'pro') ORDER BY slug LIMIT 10")
            .all(&world.db)
            .await
            .unwrap();
    assert_eq!(names, ["Gratis", "Plus"]);
}

async fn seeding_again_changes_nothing(world: &World) {
    seed(world, Products::builtin()).await;
    world.edit_limit("cofounder", "bootstrapper", "max_projects", Some(2)).await;
    let before = tables(world).await;
    seed(world, Products::builtin()).await;
    assert_eq!(tables(world).await, before);
}

async fn servers_that_start_together_seed_once(world: &World) {
    let nodes = tokio::join!(world.node(), world.node(), world.node());
    for node in [&nodes.0, &nodes.1, &nodes.2] {
        assert_eq!(node.limit("adiuva", "ana", "agents").await, Some(3));
    }
    let together = tables(world).await;
    nodes.0.stop().await;
    nodes.1.stop().await;
    nodes.2.stop().await;
    seed(world, Products::builtin()).await;
    assert_eq!(tables(world).await, together);
}

async fn a_plan_that_leaves_its_manifest_is_retired_with_the_people_on_it(world: &World) {
    seed(world, Products::builtin()).await;
    world.put("async-coder", "ana", "enterprise").await;
    let without_enterprise = [
        ("slug = \"enterprise\"\nname = \"Enterprise\"", "slug = \"business\"\nname = \"Business\""),
        ("max_concurrent_tasks = 20", "max_concurrent_tasks = 30"),
    ];
    let node = world.node_with(products_with("async-coder", &without_enterprise)).await;
    assert_eq!(node.get("async-coder", "ana").await.unwrap().plan, "enterprise");
    assert_eq!(node.limit("async-coder", "ana", "max_concurrent_tasks").await, Some(20));
    assert_eq!(retired(world, "async-coder").await, ["enterprise"]);
    node.stop().await;

    seed(world, Products::builtin()).await;
    assert_eq!(retired(world, "async-coder").await, ["business"]);
}

async fn what_is_declared_after_a_plan_retired_is_not_given_to_it(world: &World) {
    seed(world, Products::builtin()).await;
    world.put("async-coder", "ana", "enterprise").await;
    let changes = [
        ("slug = \"enterprise\"", "slug = \"business\""),
        ("[limits]", "[features]\nreviews = \"reviews\"\n\n[limits]\nmax_reviews_per_day = \"reviews in one UTC day\""),
        (
            "max_tasks_per_day = 10 }",
            "max_tasks_per_day = 10, max_reviews_per_day = 1 }\nfeatures = { reviews = true }",
        ),
        (
            "max_tasks_per_day = 100 }",
            "max_tasks_per_day = 100, max_reviews_per_day = 2 }\nfeatures = { reviews = true }",
        ),
        (
            "max_tasks_per_day = \"unlimited\" }",
            "max_tasks_per_day = \"unlimited\", max_reviews_per_day = \"unlimited\" }\nfeatures = { reviews = true }",
        ),
    ];
    let node = world.node_with(products_with("async-coder", &changes)).await;
    assert_eq!(node.limit("async-coder", "ana", "max_reviews_per_day").await, Some(0));
    assert_eq!(node.get("async-coder", "ana").await.unwrap().features.get("reviews"), Some(&false));
    assert_eq!(node.limit("async-coder", "ben", "max_reviews_per_day").await, Some(1));
    node.stop().await;
}

async fn what_is_no_longer_declared_is_no_longer_told(world: &World) {
    seed(world, Products::builtin()).await;
    let changes = [
        ("max_projects = \"start-up projects that exist at the same time\"", ""),
        ("limits = { max_projects = 1 }", ""),
        ("limits = { max_projects = 5 }", ""),
        ("limits = { max_projects = \"unlimited\" }", ""),
    ];
    let node = world.node_with(products_with("zerobs", &changes)).await;
    assert!(node.get("zerobs", "ana").await.unwrap().limits.is_empty());
    node.stop().await;
}

async fn everything_of_the_manifests_is_in_the_tables(world: &World) {
    seed(world, Products::builtin()).await;
    let plans: i64 = sql("SELECT COUNT(*) FROM plans WHERE NOT retired").one(&world.db).await.unwrap();
    assert_eq!(plans, 16);
    let companion = sql("SELECT plan, version, kind, name, value, seeded FROM plan_values \
                         WHERE product = 'companion' AND plan = 'vip' ORDER BY kind, name LIMIT 100");
    let rows: Vec<ValueRow> = companion.all(&world.db).await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.kind.as_str(), row.name.as_str(), row.value)).collect();
    let expected = [
        ("credits", "daily", Some(500_000_000)),
        ("credits", "initial", Some(0)),
        ("credits", "micro_credits_per_token", Some(50)),
        ("feature", "advanced_rag", Some(1)),
        ("feature", "basic_chat", Some(1)),
        ("feature", "rag_memory", Some(1)),
        ("rate", "requests_per_minute", Some(100)),
        ("rate", "requests_per_seat", Some(0)),
    ];
    assert_eq!(shown, expected);
}

record! {
    #[derive(Debug, PartialEq)]
    struct ValueRow { plan: String, version: i64, kind: String, name: String, value: Option<i64>, seeded: Option<i64> }
}

record! {
    #[derive(Debug, PartialEq)]
    struct PlanRow { product: String, slug: String, name: String, seeded_name: String, manifest: String, retired: bool, version: i64 }
}

/// All that seeding writes.
async fn tables(world: &World) -> (Vec<PlanRow>, Vec<ValueRow>) {
    let plans = sql(
        "SELECT product, slug, name, seeded_name, manifest, retired, version FROM plans ORDER BY product, slug LIMIT 1000",
    );
    let values = sql("SELECT plan, version, kind, name, value, seeded FROM plan_values \
             ORDER BY product, plan, version, kind, name LIMIT 1000");
    (plans.all(&world.db).await.unwrap(), values.all(&world.db).await.unwrap())
}

/// The retired plans of a product.
async fn retired(world: &World, product: &str) -> Vec<String> {
    sql("SELECT slug FROM plans WHERE product = $1 AND retired ORDER BY slug LIMIT 100")
        .bind(product)
        .all(&world.db)
        .await
        .unwrap()
}
