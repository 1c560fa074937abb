//! What an account may do.
use std::collections::HashMap;
use std::time::Duration;

use weft_core::Reason;
use weft_db::sql;
use weft_product::Products;
use weft_proto::billing::v1::Entitlements;
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, World};

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
    a_plan_given_counts_before_a_subscription_and_that_before_a_seat
    a_subscription_counts_while_its_status_says_so
    three_seats_are_six_hundred_requests_together_and_two_hundred_each
    what_is_set_for_one_account_stands_above_its_plan
    only_growth_is_refused
    who_asks_is_noted_once_a_day_in_the_background
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
        payer_id: "ana".into(),
        plan_version: 1,
        ..Entitlements::default()
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
                payer_id: user_id.clone(),
                user_id,
                plan: plan.slug.clone(),
                features: plan.features.clone().into_iter().collect(),
                limits,
                requests_per_minute: plan.requests_per_minute.value(),
                organization_requests_per_minute: None,
                plan_version: 1,
                micro_credits_per_token: plan.credits.map(|credits| credits.micro_credits_per_token),
                override_models: HashMap::new(),
                default_models: plan.models.default.clone().into_iter().collect(),
                allowed_models: plan.models.allowed.clone(),
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
    sql("UPDATE accounts SET assigned_plan = 'power' WHERE product = 'adiuva' AND user_id = 'ana'")
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
        "INSERT INTO account_overrides (product, user_id, kind, name, value) VALUES ('adiuva', 'ana', 'limit', 'a', -1)",
        "UPDATE prices SET amount_minor = 0 WHERE product = 'adiuva'",
        "INSERT INTO accounts (product, user_id, subscribed_plan) VALUES ('adiuva', 'ana', 'pro')",
        "INSERT INTO accounts (product, user_id, assigned_plan) VALUES ('adiuva', 'ana', 'outreach')",
    ];
    for statement in senseless {
        assert!(sql(statement).run(&world.db).await.is_err(), "{statement}");
    }
    node.stop().await;
}

/// Which plan counts, from which version, who pays.
async fn standing(node: &Node, user_id: &str) -> (String, i32, String) {
    let got = node.get("adiuva", user_id).await.unwrap();
    (got.plan, got.plan_version, got.payer_id)
}

async fn a_plan_given_counts_before_a_subscription_and_that_before_a_seat(world: &World) {
    let node = world.node().await;
    let is = |plan: &str, payer: &str| (plan.to_owned(), 1, payer.to_owned());
    world.subscribe("adiuva", "org", ("team", 1), 3, "active").await;
    assert_eq!(standing(&node, "ana").await, is("free", "ana"));
    sit(world, "ana", "org").await;
    assert_eq!(standing(&node, "ana").await, is("team", "org"));
    world.subscribe("adiuva", "ana", ("pro", 1), 1, "active").await;
    assert_eq!(standing(&node, "ana").await, is("pro", "ana"));
    world.put("adiuva", "ana", "power").await;
    assert_eq!(standing(&node, "ana").await, is("power", "ana"));
    // Another product's account of the same id has nothing of it.
    assert_eq!(node.get("zerobs", "ana").await.unwrap().plan, "free");
    node.stop().await;
}

async fn a_subscription_counts_while_its_status_says_so(world: &World) {
    let node = world.node().await;
    sit(world, "ben", "ana").await;
    for (status, plan) in [
        ("active", "team"),
        ("past_due", "team"),
        ("trialing", "team"),
        ("incomplete", "free"),
        ("unpaid", "free"),
        ("canceled", "free"),
        ("paused", "free"),
    ] {
        world.subscribe("adiuva", "ana", ("team", 1), 2, status).await;
        assert_eq!(node.get("adiuva", "ana").await.unwrap().plan, plan, "{status}");
        assert_eq!(node.get("adiuva", "ben").await.unwrap().plan, plan, "{status}, by a seat");
    }
    node.stop().await;
}

async fn three_seats_are_six_hundred_requests_together_and_two_hundred_each(world: &World) {
    let node = world.node().await;
    world.subscribe("adiuva", "org", ("team", 1), 3, "active").await;
    for user in ["ana", "ben"] {
        sit(world, user, "org").await;
        let rate = node.rate("adiuva", user).await.unwrap();
        assert_eq!(rate.requests_per_minute, Some(200));
        assert_eq!(rate.organization_requests_per_minute, Some(600));
        assert_eq!(rate.payer_id, "org");
    }
    world.put("adiuva", "cem", "team").await;
    assert_eq!(node.rate("adiuva", "cem").await.unwrap().organization_requests_per_minute, None);
    world.subscribe("adiuva", "dora", ("pro", 1), 1, "active").await;
    let rate = node.rate("adiuva", "dora").await.unwrap();
    assert_eq!((rate.requests_per_minute, rate.organization_requests_per_minute), (Some(60), None));
    node.stop().await;
}

async fn what_is_set_for_one_account_stands_above_its_plan(world: &World) {
    let node = world.node().await;
    let set = "INSERT INTO account_overrides (product, user_id, kind, name, value, model) VALUES \
        ('cofounder', 'ana', 'limit', 'max_projects', 7, NULL), \
        ('cofounder', 'ana', 'limit', 'max_tokens_per_day', NULL, NULL), \
        ('cofounder', 'ana', 'limit', 'no_longer_there', 7, NULL), \
        ('cofounder', 'ana', 'rate', 'requests_per_minute', 999, NULL), \
        ('cofounder', 'ana', 'model', 'coder', NULL, 'opus')";
    sql(set).run(&world.db).await.unwrap();
    let got = node.get("cofounder", "ana").await.unwrap();
    assert_eq!(got.limits, named(&[("max_projects", 7), ("max_sessions_per_day", 10)]));
    assert_eq!(got.requests_per_minute, Some(999));
    assert_eq!(got.override_models, HashMap::from([("coder".to_owned(), "opus".to_owned())]));
    assert_eq!(got.default_models.get("coder").map(String::as_str), Some("sonnet"));
    assert_eq!(node.get("cofounder", "ben").await.unwrap().requests_per_minute, Some(60));
    node.stop().await;
}

async fn only_growth_is_refused(world: &World) {
    let node = world.node().await;
    let left = |remaining| Ok((Some(1), remaining));
    assert_eq!(node.quota("cofounder", "ana", "max_projects", 0, 1).await, left(Some(0)));
    assert_eq!(node.quota("cofounder", "ana", "max_projects", 1, 1).await, Err(Reason::QuotaExceeded));
    // Three projects of a better plan that has ended: they may be read and removed, none may be added.
    assert_eq!(node.quota("cofounder", "ana", "max_projects", 3, 1).await, Err(Reason::QuotaExceeded));
    for shrink in [0, -1, -3, i64::MIN] {
        assert_eq!(node.quota("cofounder", "ana", "max_projects", 3, shrink).await.map(|_| ()), Ok(()), "{shrink}");
    }
    assert_eq!(node.quota("cofounder", "ana", "max_projects", i64::MAX, i64::MAX).await, Err(Reason::QuotaExceeded));
    world.put("cofounder", "ana", "cto_scale").await;
    assert_eq!(node.quota("cofounder", "ana", "max_projects", i64::MAX, i64::MAX).await, Ok((None, None)));
    for (limit, used) in [("", 0), ("agents", 0), ("max_projects", -1)] {
        assert_eq!(
            node.quota("cofounder", "ana", limit, used, 1).await,
            Err(Reason::InvalidArgument),
            "{limit} {used}"
        );
    }
    assert_eq!(node.quota("nothing", "ana", "max_projects", 0, 1).await, Err(Reason::NotFound));
    node.stop().await;
}

async fn who_asks_is_noted_once_a_day_in_the_background(world: &World) {
    let node = world.node().await;
    let first = world.clock.now_ms();
    let noted = async || -> Option<(i64, i64)> {
        sql("SELECT created_at, active_day FROM accounts WHERE product = 'adiuva' AND user_id = 'ana'")
            .opt(&world.db)
            .await
            .unwrap()
    };
    node.get("adiuva", "ana").await.unwrap();
    let day = first / 86_400_000;
    eventually("the first note", Duration::from_secs(10), async || noted().await == Some((first, day))).await;
    world.clock.advance(Duration::from_secs(86_400));
    node.get("adiuva", "ana").await.unwrap();
    eventually("the next day", Duration::from_secs(10), async || noted().await == Some((first, day + 1))).await;
    // What nobody has written yet is written before the end.
    node.get("adiuva", "ben").await.unwrap();
    node.stop().await;
    let known: i64 =
        sql("SELECT COUNT(*) FROM accounts WHERE product = 'adiuva' AND user_id = 'ben'").one(&world.db).await.unwrap();
    assert_eq!(known, 1);
}

/// Gives somebody a seat, whether there is one or not.
async fn sit(world: &World, user_id: &str, payer_id: &str) {
    sql("INSERT INTO accounts (product, user_id, payer_id) VALUES ('adiuva', $1, $2) \
         ON CONFLICT (product, user_id) DO UPDATE SET payer_id = excluded.payer_id")
    .bind(user_id)
    .bind(payer_id)
    .run(&world.db)
    .await
    .unwrap();
}

fn named<T: Copy>(entries: &[(&str, T)]) -> HashMap<String, T> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}
