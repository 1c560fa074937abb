//! The sixteen plans and every price, written by hand from what the products promise; not read from the manifests.
use std::collections::HashMap;

use weft_proto::billing::v1::{Plan, PlanCredits, Price};
use weft_testing::on_both_databases;

use crate::catalogue::{market, plans};
use crate::harness::World;

on_both_databases! {
    every_plan_of_every_product_is_what_was_promised
    every_plan_entitles_to_what_was_promised
    five_packages_and_four_prices_bring_exactly_what_was_promised
    only_what_can_be_bought_and_the_free_plan_are_on_the_market
}

/// Without a limit.
const ALL: i64 = -1;
/// A million micro-credits.
const CREDIT: i64 = 1_000_000;

/// Product, plan, requests a minute, per seat.
type Rate = (&'static str, &'static str, i64, bool);

const RATES: [Rate; 16] = [
    ("adiuva", "free", 20, false),
    ("adiuva", "pro", 60, false),
    ("adiuva", "power", 120, false),
    ("adiuva", "team", 200, true),
    ("async-coder", "free", 30, false),
    ("async-coder", "pro", 120, false),
    ("async-coder", "enterprise", 300, true),
    ("cofounder", "bootstrapper", 60, false),
    ("cofounder", "partner", 120, false),
    ("cofounder", "cto_scale", 240, false),
    ("companion", "free", 5, false),
    ("companion", "premium", 30, false),
    ("companion", "vip", 100, false),
    ("zerobs", "free", 30, false),
    ("zerobs", "pro", 60, false),
    ("zerobs", "outreach", 120, false),
];

/// Product, name of a limit, its number in each plan in the plans' order.
const LIMITS: [(&str, &str, &[i64]); 12] = [
    ("adiuva", "agents", &[3, ALL, ALL, ALL]),
    ("adiuva", "batch_active", &[2, 10, ALL, ALL]),
    ("adiuva", "cloud_storage_gb", &[0, 5, 25, ALL]),
    ("adiuva", "backup_gb", &[0, 5, 25, ALL]),
    ("adiuva", "providers", &[1, ALL, ALL, ALL]),
    ("async-coder", "max_repositories", &[3, 20, ALL]),
    ("async-coder", "max_concurrent_tasks", &[1, 5, 20]),
    ("async-coder", "max_tasks_per_day", &[10, 100, ALL]),
    ("cofounder", "max_projects", &[1, 3, ALL]),
    ("cofounder", "max_sessions_per_day", &[10, 50, ALL]),
    ("cofounder", "max_tokens_per_day", &[500_000, 2_000_000, 10_000_000]),
    ("zerobs", "max_projects", &[1, 5, ALL]),
];

/// Product, name of a feature, whether each plan has it.
const FEATURES: [(&str, &str, &[bool]); 11] = [
    ("adiuva", "batch_builder", &[false, false, true, true]),
    ("adiuva", "plugin_marketplace", &[false, false, true, true]),
    ("adiuva", "sso", &[false, false, false, true]),
    ("companion", "basic_chat", &[true, true, true]),
    ("companion", "rag_memory", &[false, true, true]),
    ("companion", "advanced_rag", &[false, false, true]),
    ("zerobs", "basic", &[true, true, true]),
    ("zerobs", "advanced", &[false, true, true]),
    ("zerobs", "priority_support", &[false, true, true]),
    ("zerobs", "linkedin_automation", &[false, false, true]),
    ("zerobs", "campaigns", &[false, false, true]),
];

/// Product, plan, credits at the beginning and each day, micro-credits for a token.
const CREDITS: [(&str, &str, i64, i64, i64); 9] = [
    ("async-coder", "free", 0, 20, 1000),
    ("async-coder", "pro", 0, 200, 1000),
    ("async-coder", "enterprise", 0, 1000, 1000),
    ("companion", "free", 0, 10, 100),
    ("companion", "premium", 0, 100, 70),
    ("companion", "vip", 0, 500, 50),
    ("zerobs", "free", 200, 50, 1000),
    ("zerobs", "pro", 0, 150, 1000),
    ("zerobs", "outreach", 0, 200, 1000),
];

/// Product, plan, id of the price, minor units, currency, interval, per seat, credits with each invoice.
type Sold = (&'static str, &'static str, &'static str, i64, &'static str, &'static str, bool, i64);

const PRICES: [Sold; 11] = [
    ("adiuva", "pro", "pro_monthly", 1500, "EUR", "month", false, 0),
    ("adiuva", "power", "power_monthly", 2900, "EUR", "month", false, 0),
    ("adiuva", "team", "team_monthly", 4900, "EUR", "month", true, 0),
    ("async-coder", "pro", "pro_monthly", 2000, "USD", "month", false, 0),
    ("async-coder", "enterprise", "enterprise_monthly", 9900, "USD", "month", true, 0),
    ("companion", "premium", "premium_monthly", 999, "USD", "month", false, 200),
    ("companion", "premium", "premium_yearly", 9999, "USD", "year", false, 2500),
    ("companion", "vip", "vip_monthly", 2999, "USD", "month", false, 1000),
    ("companion", "vip", "vip_yearly", 29999, "USD", "year", false, 13000),
    ("zerobs", "pro", "pro_monthly", 1900, "USD", "month", false, 0),
    ("zerobs", "outreach", "outreach_monthly", 4900, "USD", "month", false, 0),
];

/// Product, plan, models of the architect and the coder.
const MODELS: [(&str, &str, &str, &str); 3] = [
    ("cofounder", "bootstrapper", "sonnet", "sonnet"),
    ("cofounder", "partner", "opus", "sonnet"),
    ("cofounder", "cto_scale", "opus", "opus"),
];

const PRODUCTS: [&str; 5] = ["adiuva", "async-coder", "cofounder", "companion", "zerobs"];

/// What a table says for the plans of a product, by name.
fn named<T: Copy>(table: &[(&str, &str, &[T])], product: &str, place: usize) -> HashMap<String, T> {
    let of_product = table.iter().filter(|row| row.0 == product);
    of_product.map(|row| (row.1.to_owned(), row.2[place])).collect()
}

fn limits(product: &str, place: usize) -> HashMap<String, i64> {
    let mut limits = named(&LIMITS, product, place);
    limits.retain(|_, limit| *limit != ALL);
    limits
}

fn prices(product: &str, plan: &str) -> Vec<Price> {
    let price = |row: &Sold| Price {
        id: row.2.into(),
        amount_minor: row.3,
        currency: row.4.into(),
        interval: row.5.into(),
        per_seat: row.6,
        bonus_credits: row.7 * CREDIT,
    };
    PRICES.iter().filter(|row| (row.0, row.1) == (product, plan)).map(price).collect()
}

fn credits(product: &str, plan: &str) -> Option<PlanCredits> {
    let row = CREDITS.iter().find(|row| (row.0, row.1) == (product, plan))?;
    Some(PlanCredits { initial: row.2 * CREDIT, daily: row.3 * CREDIT, micro_credits_per_token: row.4 })
}

fn models(product: &str, plan: &str) -> HashMap<String, String> {
    let of_plan = MODELS.iter().find(|row| (row.0, row.1) == (product, plan));
    let roles = |row: &(&str, &str, &str, &str)| [("architect".into(), row.2.into()), ("coder".into(), row.3.into())];
    of_plan.map(roles).into_iter().flatten().collect()
}

fn rates(product: &str) -> Vec<(usize, Rate)> {
    RATES.into_iter().filter(|row| row.0 == product).enumerate().collect()
}

async fn every_plan_of_every_product_is_what_was_promised(world: &World) {
    let node = world.node().await;
    for product in PRODUCTS {
        let expected: Vec<Plan> = rates(product)
            .into_iter()
            .map(|(place, (_, plan, rate, per_seat))| Plan {
                id: plan.into(),
                version: 1,
                prices: prices(product, plan),
                features: named(&FEATURES, product, place),
                limits: limits(product, place),
                requests_per_minute: Some(rate),
                requests_per_seat: per_seat,
                credits: credits(product, plan),
                default_models: models(product, plan),
                current: true,
                is_default: place == 0,
                ..Plan::default()
            })
            .collect();
        let told = plans(world, &node, product, false).await;
        // The names and the models to choose from are ours.
        let told: Vec<Plan> =
            told.into_iter().map(|plan| Plan { name: String::new(), allowed_models: Vec::new(), ..plan }).collect();
        assert_eq!(told, expected, "{product}");
    }
    node.stop().await;
}

async fn every_plan_entitles_to_what_was_promised(world: &World) {
    let node = world.node().await;
    for product in PRODUCTS {
        for (place, (_, plan, rate, _)) in rates(product) {
            world.put(product, plan, plan).await;
            let got = node.get(product, plan).await.unwrap();
            assert_eq!(got.plan, plan, "{product}");
            assert_eq!(got.features, named(&FEATURES, product, place), "{product} {plan}");
            assert_eq!(got.limits, limits(product, place), "{product} {plan}");
            assert_eq!(got.requests_per_minute, Some(rate), "{product} {plan}");
            let price = credits(product, plan).map(|credits| credits.micro_credits_per_token);
            assert_eq!(got.micro_credits_per_token, price, "{product} {plan}");
            assert_eq!(got.default_models, models(product, plan), "{product} {plan}");
        }
    }
    node.stop().await;
}

async fn five_packages_and_four_prices_bring_exactly_what_was_promised(world: &World) {
    let node = world.node().await;
    let market = market(&node, "companion").await.unwrap();
    let packages: Vec<(&str, i64, i64, &str, &str)> = market
        .packages
        .iter()
        .map(|row| (row.id.as_str(), row.credits, row.amount_minor, row.currency.as_str(), row.label.as_str()))
        .collect();
    let promised = [
        ("credits_10", 10 * CREDIT, 99, "USD", ""),
        ("credits_50", 50 * CREDIT, 499, "USD", ""),
        ("credits_100", 100 * CREDIT, 899, "USD", "10% bonus"),
        ("credits_500", 550 * CREDIT, 3999, "USD", "20% bonus"),
        ("credits_1000", 1200 * CREDIT, 6999, "USD", "30% bonus"),
    ];
    assert_eq!(packages, promised);
    let prices = market.subscriptions.iter().flat_map(|plan| &plan.prices);
    let bonus: Vec<(&str, i64)> = prices.map(|price| (price.id.as_str(), price.bonus_credits)).collect();
    let promised = [
        ("premium_monthly", 200 * CREDIT),
        ("premium_yearly", 2500 * CREDIT),
        ("vip_monthly", 1000 * CREDIT),
        ("vip_yearly", 13000 * CREDIT),
    ];
    assert_eq!(bonus, promised);
    node.stop().await;
}

async fn only_what_can_be_bought_and_the_free_plan_are_on_the_market(world: &World) {
    let node = world.node().await;
    let expected: [(&str, &[&str]); 5] = [
        ("adiuva", &["free", "pro", "power", "team"]),
        ("async-coder", &["free", "pro", "enterprise"]),
        ("cofounder", &["bootstrapper"]),
        ("companion", &["free", "premium", "vip"]),
        ("zerobs", &["free", "pro", "outreach"]),
    ];
    for (product, plans) in expected {
        let market = market(&node, product).await.unwrap();
        let told: Vec<&str> = market.subscriptions.iter().map(|plan| plan.id.as_str()).collect();
        assert_eq!(told, plans, "{product}");
    }
    node.stop().await;
}
