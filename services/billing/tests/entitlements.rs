//! What an account may do.
use std::collections::HashMap;

use weft_core::Reason;
use weft_db::sql;
use weft_product::Products;
use weft_proto::billing::v1::Entitlements;
use weft_testing::on_both_databases;

use crate::harness::World;

on_both_databases! {
    an_account_that_billing_has_never_heard_of_is_on_the_default_plan
    every_plan_of_every_product_allows_what_its_manifest_says
    one_id_in_two_products_is_two_accounts
    a_changed_number_holds_from_the_next_call_on
    a_changed_plan_holds_from_the_next_call_on
    a_number_that_is_gone_gives_nothing_away
    a_feature_is_there_or_not_or_unknown
    a_call_that_names_no_known_product_or_no_account_is_refused
    the_tables_refuse_numbers_that_mean_nothing
}

async fn an_account_that_billing_has_never_heard_of_is_on_the_default_plan(world: &World) {
    let node = world.node().await;
    let expected = Entitlements {
        product: "adiuva".into(),
        user_id: "ana".into(),
        plan: "free".into(),
        features: named(&[("batch_builder", false), ("plugin_marketplace", false), ("sso", false)]),
        limits: named(&[
            ("agents", 3),
            ("batch_active", 2),
            ("cloud_storage_gb", 0),
            ("backup_gb", 0),
            ("providers", 1),
        ]),
        requests_per_minute: Some(20),
    };
    assert_eq!(node.get("adiuva", "ana").await, Ok(expected));
    assert_eq!(node.get("cofounder", "ana").await.unwrap().plan, "bootstrapper");
    node.stop().await;
}

async fn every_plan_of_every_product_allows_what_its_manifest_says(world: &World) {
    let node = world.node().await;
    for product in Products::builtin().iter() {
        for plan in &product.plans {
            let user_id = format!("on {}", plan.slug);
            world.put(&product.slug, &user_id, &plan.slug).await;
            let got = node.get(&product.slug, &user_id).await.unwrap();
            let limits = plan.limits.iter().filter_map(|(name, limit)| Some((name.clone(), limit.value()?))).collect();
            let expected = Entitlements {
                product: product.slug.clone(),
                user_id,
                plan: plan.slug.clone(),
                features: plan.features.clone().into_iter().collect(),
                limits,
                requests_per_minute: plan.requests_per_minute.value(),
            };
            assert_eq!(got, expected);
        }
    }
    node.stop().await;
}

async fn one_id_in_two_products_is_two_accounts(world: &World) {
    let node = world.node().await;
    world.put("adiuva", "ana", "team").await;
    assert_eq!(node.get("adiuva", "ana").await.unwrap().plan, "team");
    assert_eq!(node.get("zerobs", "ana").await.unwrap().plan, "free");
    assert_eq!(node.get("adiuva", "ben").await.unwrap().plan, "free");
    node.stop().await;
}

async fn a_changed_number_holds_from_the_next_call_on(world: &World) {
    let node = world.node().await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(1));
    world.edit_limit("cofounder", "bootstrapper", "max_projects", Some(2)).await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(2));
    world.edit_limit("cofounder", "bootstrapper", "max_projects", None).await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, None);
    node.stop().await;
}

async fn a_changed_plan_holds_from_the_next_call_on(world: &World) {
    let node = world.node().await;
    world.put("adiuva", "ana", "pro").await;
    assert_eq!(node.get("adiuva", "ana").await.unwrap().requests_per_minute, Some(60));
    sql("UPDATE accounts SET plan = 'power' WHERE product = 'adiuva' AND user_id = 'ana'")
        .run(&world.db)
        .await
        .unwrap();
    assert_eq!(node.get("adiuva", "ana").await.unwrap().requests_per_minute, Some(120));
    node.stop().await;
}

async fn a_number_that_is_gone_gives_nothing_away(world: &World) {
    let node = world.node().await;
    world.put("adiuva", "ana", "team").await;
    let gone =
        sql("DELETE FROM plan_values WHERE product = 'adiuva' AND plan = 'team' AND name IN ('sso', 'backup_gb')");
    assert_eq!(gone.run(&world.db).await.unwrap(), 2);
    let got = node.get("adiuva", "ana").await.unwrap();
    assert_eq!(got.limits, named(&[("backup_gb", 0)]));
    assert_eq!(got.features, named(&[("batch_builder", true), ("plugin_marketplace", true), ("sso", false)]));
    sql("DELETE FROM plan_values WHERE product = 'adiuva' AND plan = 'team'").run(&world.db).await.unwrap();
    assert_eq!(node.get("adiuva", "ana").await, Err(Reason::Internal));
    node.stop().await;
}

async fn a_feature_is_there_or_not_or_unknown(world: &World) {
    let node = world.node().await;
    world.put("adiuva", "ana", "power").await;
    assert_eq!(node.check("adiuva", "ana", "plugin_marketplace").await, Ok("power".into()));
    assert_eq!(node.check("adiuva", "ana", "sso").await, Err(Reason::FeatureNotInPlan));
    assert_eq!(node.check("adiuva", "ben", "plugin_marketplace").await, Err(Reason::FeatureNotInPlan));
    for feature in ["", "agents", "linkedin_automation", "requests_per_seat"] {
        assert_eq!(node.check("adiuva", "ana", feature).await, Err(Reason::InvalidArgument), "{feature}");
    }
    node.stop().await;
}

async fn a_call_that_names_no_known_product_or_no_account_is_refused(world: &World) {
    let node = world.node().await;
    for product in ["", "Adiuva", "adiuva\0", "somebody's"] {
        assert_eq!(node.get(product, "ana").await, Err(Reason::NotFound), "{product:?}");
        assert_eq!(node.check(product, "ana", "sso").await, Err(Reason::NotFound), "{product:?}");
    }
    for user_id in ["", "ana\0"] {
        assert_eq!(node.get("adiuva", user_id).await, Err(Reason::InvalidArgument), "{user_id:?}");
        assert_eq!(node.check("adiuva", user_id, "sso").await, Err(Reason::InvalidArgument), "{user_id:?}");
    }
    node.stop().await;
}

async fn the_tables_refuse_numbers_that_mean_nothing(world: &World) {
    let node = world.node().await;
    let senseless = [
        "UPDATE plan_values SET value = -1 WHERE product = 'adiuva' AND name = 'agents'",
        "UPDATE plan_values SET value = 2 WHERE product = 'adiuva' AND name = 'sso'",
        "UPDATE plan_values SET value = NULL WHERE product = 'adiuva' AND name = 'sso'",
        "UPDATE plan_values SET value = NULL WHERE product = 'companion' AND name = 'daily'",
        "INSERT INTO accounts (product, user_id, plan) VALUES ('adiuva', 'ana', 'outreach')",
    ];
    for statement in senseless {
        assert!(sql(statement).run(&world.db).await.is_err(), "{statement}");
    }
    node.stop().await;
}

fn named<T: Copy>(entries: &[(&str, T)]) -> HashMap<String, T> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}
