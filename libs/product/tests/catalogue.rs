//! What the five products promise, number by number. These tables are written from the promises, not from the
//! manifests: a number that changes here changes what somebody was sold.
use std::fmt::Display;

use weft_product::{CredentialKind, DataPolicy, Interval, Limit, Moderation, OnDisconnect, Plan, Product, Products};

const ADIUVA: &str = "
adiuva                      | free   | pro             | power           | team
requests a minute           | 20     | 60              | 120             | 200 a seat
price                       | -      | 1500 EUR month  | 2900 EUR month  | 4900 EUR month a seat
credits                     | -      | -               | -               | -
feature batch_builder       | no     | no              | yes             | yes
feature plugin_marketplace  | no     | no              | yes             | yes
feature sso                 | no     | no              | no              | yes
limit agents                | 3      | unlimited       | unlimited       | unlimited
limit backup_gb             | 0      | 5               | 25              | unlimited
limit batch_active          | 2      | 10              | unlimited       | unlimited
limit cloud_storage_gb      | 0      | 5               | 25              | unlimited
limit providers             | 1      | unlimited       | unlimited       | unlimited
models                      | -      | -               | -               | -
";

const ASYNC_CODER: &str = "
async-coder                 | free              | pro                | enterprise
requests a minute           | 30                | 120                | 300 a seat
price                       | -                 | 2000 USD month     | 9900 USD month a seat
credits                     | 0 20000000 1000   | 0 200000000 1000   | 0 1000000000 1000
limit max_concurrent_tasks  | 1                 | 5                  | 20
limit max_repositories      | 3                 | 20                 | unlimited
limit max_tasks_per_day     | 10                | 100                | unlimited
models                      | -                 | -                  | -
package credits_500         | 500000000 for 500 USD
package credits_2000        | 2000000000 for 1800 USD
";

const COFOUNDER: &str = "
cofounder                   | bootstrapper                   | partner                               | cto_scale
requests a minute           | 60                             | 120                                   | 240
price                       | -                              | -                                     | -
credits                     | -                              | -                                     | -
limit max_projects          | 1                              | 3                                     | unlimited
limit max_sessions_per_day  | 10                             | 50                                    | unlimited
limit max_tokens_per_day    | 500000                         | 2000000                               | 10000000
models                      | architect=sonnet coder=sonnet of sonnet | architect=opus coder=sonnet of sonnet opus | architect=opus coder=opus of sonnet opus
";

const COMPANION: &str = "
companion                   | free             | premium                        | vip
requests a minute           | 5                | 30                             | 100
price                       | -                | premium_monthly 999 USD month +200000000, premium_yearly 9999 USD year +2500000000 | vip_monthly 2999 USD month +1000000000, vip_yearly 29999 USD year +13000000000
credits                     | 0 10000000 100   | 0 100000000 70                 | 0 500000000 50
feature advanced_rag        | no               | no                             | yes
feature basic_chat          | yes              | yes                            | yes
feature rag_memory          | no               | yes                            | yes
models                      | -                | -                              | -
package credits_10          | 10000000 for 99 USD
package credits_50          | 50000000 for 499 USD
package credits_100         | 100000000 for 899 USD (10% bonus)
package credits_500         | 550000000 for 3999 USD (20% bonus)
package credits_1000        | 1200000000 for 6999 USD (30% bonus)
";

const ZEROBS: &str = "
zerobs                      | free                     | pro                | outreach
requests a minute           | 30                       | 60                 | 120
price                       | -                        | 1900 USD month     | 4900 USD month
credits                     | 200000000 50000000 1000  | 0 150000000 1000   | 0 200000000 1000
feature advanced            | no                       | yes                | yes
feature basic               | yes                      | yes                | yes
feature campaigns           | no                       | no                 | yes
feature linkedin_automation | no                       | no                 | yes
feature priority_support    | no                       | yes                | yes
limit max_projects          | 1                        | 5                  | unlimited
models                      | -                        | -                  | -
";

#[test]
fn every_plan_has_exactly_the_numbers_that_were_promised() {
    let products = Products::builtin();
    let shown: Vec<String> = products.iter().flat_map(|product| matrix(product)).collect();
    let promised: Vec<String> =
        [ADIUVA, ASYNC_CODER, COFOUNDER, COMPANION, ZEROBS].iter().flat_map(|table| rows(table)).collect();
    assert_eq!(shown, promised);
}

#[test]
fn there_are_five_products_with_sixteen_plans() {
    let products = Products::builtin();
    assert_eq!(products.iter().map(|product| product.plans.len()).sum::<usize>(), 16);
    let defaults: Vec<_> =
        products.iter().map(|product| (product.slug.as_str(), product.default_plan.as_str())).collect();
    let expected = [
        ("adiuva", "free"),
        ("async-coder", "free"),
        ("cofounder", "bootstrapper"),
        ("companion", "free"),
        ("zerobs", "free"),
    ];
    assert_eq!(defaults, expected);
}

#[test]
fn every_product_signs_people_in_its_own_way() {
    use CredentialKind::{Clerk, Firebase, Password, Supabase};
    let expected: [(&str, &[CredentialKind], i64); 5] = [
        ("adiuva", &[Password], 900),
        ("async-coder", &[Password, Clerk], 900),
        ("cofounder", &[Clerk], 900),
        ("companion", &[Firebase], 900),
        ("zerobs", &[Password, Supabase], 24 * 3600),
    ];
    let products = Products::builtin();
    for (slug, credentials, access_ttl_s) in expected {
        let identity = &products.get(slug).unwrap().identity;
        assert_eq!(identity.credentials, credentials, "{slug}");
        assert_eq!(identity.access_ttl_s, access_ttl_s, "{slug}");
        assert_eq!((identity.refresh_ttl_s, identity.family_ttl_s), (30 * 86_400, 90 * 86_400), "{slug}");
    }
}

#[test]
fn what_touches_safety_is_as_promised() {
    use DataPolicy::{ServerSide, SessionOnly, ZeroPlaintext};
    let expected = [
        ("adiuva", ZeroPlaintext, Moderation::Off, OnDisconnect::Cancel),
        ("async-coder", ServerSide, Moderation::Off, OnDisconnect::Continue),
        ("cofounder", SessionOnly { ttl_s: 3600 }, Moderation::Off, OnDisconnect::Continue),
        ("companion", ServerSide, Moderation::HoldBack, OnDisconnect::Continue),
        ("zerobs", ServerSide, Moderation::Off, OnDisconnect::Continue),
    ];
    let products = Products::builtin();
    for (slug, data_policy, moderation, on_disconnect) in expected {
        let product = products.get(slug).unwrap();
        assert_eq!(
            (product.data_policy, product.moderation, product.on_disconnect),
            (data_policy, moderation, on_disconnect),
            "{slug}"
        );
    }
}

#[test]
fn the_first_three_agents_of_adiuva_are_those_of_its_free_plan() {
    let products = Products::builtin();
    let adiuva = products.get("adiuva").unwrap();
    let expected = [
        "task_agent",
        "checkpoint_agent",
        "project_agent",
        "note_agent",
        "calendar_agent",
        "email_agent",
        "analytics_agent",
    ];
    assert_eq!(adiuva.agents.available, expected);
    assert_eq!(adiuva.agents.default, "task_agent");
    let configured: Vec<&str> = adiuva.agents.configured.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(configured, expected[4..]);
    assert_eq!(adiuva.plan("free").unwrap().limits["agents"], Limit::At(3));
}

#[test]
fn the_co_founders_roles_and_adiuvas_classifier_have_their_models() {
    let products = Products::builtin();
    let roles: Vec<_> = products.get("cofounder").unwrap().models.roles.keys().cloned().collect();
    assert_eq!(roles, ["architect", "coder", "debugger", "reviewer"]);
    assert_eq!(products.get("adiuva").unwrap().models.classifier, "gpt-4o-mini");
    assert_eq!(products.get("zerobs").unwrap().models.default, "gemini-2.0-flash");
}

#[test]
fn every_model_that_is_named_has_its_list_price() {
    let dollars = |cents: i64| cents * 10_000;
    /// Model, dollars a million tokens in and out, in cents.
    type ListPrice = (&'static str, i64, i64);
    let expected: [(&str, &[ListPrice]); 5] = [
        ("adiuva", &[("gpt-4o", 250, 1000), ("gpt-4o-mini", 15, 60)]),
        ("async-coder", &[("gpt-4o-mini", 15, 60), ("sonnet", 300, 1500)]),
        ("cofounder", &[("opus", 500, 2500), ("sonnet", 300, 1500)]),
        ("companion", &[("grok", 300, 1500)]),
        ("zerobs", &[("gemini-2.0-flash", 10, 40)]),
    ];
    let products = Products::builtin();
    for (slug, prices) in expected {
        let expected: Vec<_> =
            prices.iter().map(|(model, i, o)| ((*model).to_owned(), (dollars(*i), dollars(*o)))).collect();
        let product = products.get(slug).unwrap();
        let got: Vec<_> = product.model_prices.iter().map(|(m, p)| (m.clone(), (p.input, p.output))).collect();
        assert_eq!(got, expected, "{slug}");
    }
}

#[test]
fn each_product_answers_to_its_test_host() {
    let products = Products::builtin();
    let hosts = [
        ("adiuva.test", "adiuva"),
        ("asynccoder.test:8080", "async-coder"),
        ("CoFounder.Test", "cofounder"),
        ("companion.test", "companion"),
        ("zerobs.test:443", "zerobs"),
    ];
    for (host, slug) in hosts {
        assert_eq!(products.by_host(host).unwrap().slug, slug);
    }
    assert!(products.by_host("adiuva.test.example").is_none());
    assert!(products.by_host("").is_none());
}

/// The lines of a table with the padding taken out.
fn rows(table: &str) -> Vec<String> {
    let tidy = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
    table.trim().lines().map(tidy).collect()
}

fn matrix(product: &Product) -> Vec<String> {
    let row = |title: String, cell: &dyn Fn(&Plan) -> String| {
        let cells: Vec<String> = product.plans.iter().map(cell).collect();
        format!("{title} | {}", cells.join(" | "))
    };
    let mut rows = vec![
        row(product.slug.clone(), &|plan| plan.slug.clone()),
        row("requests a minute".into(), &|plan| {
            format!("{}{}", limit(plan.requests_per_minute), if plan.requests_per_seat { " a seat" } else { "" })
        }),
        row("price".into(), &prices),
        row("credits".into(), &|plan| {
            or_dash(plan.credits.map(|c| format!("{} {} {}", c.initial, c.daily, c.micro_credits_per_token)))
        }),
    ];
    for name in product.features.keys() {
        rows.push(row(format!("feature {name}"), &|plan| if plan.features[name] { "yes".into() } else { "no".into() }));
    }
    for name in product.limits.keys() {
        rows.push(row(format!("limit {name}"), &|plan| limit(plan.limits[name])));
    }
    rows.push(row("models".into(), &models));
    for package in &product.credit_packages {
        let label = package.label.as_ref().map_or(String::new(), |label| format!(" ({label})"));
        rows.push(format!(
            "package {} | {} for {} {}{label}",
            package.id, package.credits, package.amount_minor, package.currency
        ));
    }
    rows
}

fn limit(limit: Limit) -> String {
    limit.value().map_or("unlimited".into(), |number| number.to_string())
}

fn prices(plan: &Plan) -> String {
    let shown: Vec<String> = plan
        .prices
        .iter()
        .map(|price| {
            let id = price.id.as_ref().map_or(String::new(), |id| format!("{id} "));
            let interval = match price.interval {
                Interval::Month => "month",
                Interval::Year => "year",
            };
            let seat = if price.per_seat { " a seat" } else { "" };
            let bonus = if price.bonus_credits == 0 { String::new() } else { format!(" +{}", price.bonus_credits) };
            format!("{id}{} {} {interval}{seat}{bonus}", price.amount_minor, price.currency)
        })
        .collect();
    or_dash((!shown.is_empty()).then(|| shown.join(", ")))
}

fn models(plan: &Plan) -> String {
    let defaults: Vec<String> = plan.models.default.iter().map(|(role, model)| format!("{role}={model}")).collect();
    or_dash((!defaults.is_empty()).then(|| format!("{} of {}", defaults.join(" "), plan.models.allowed.join(" "))))
}

fn or_dash(shown: Option<impl Display>) -> String {
    shown.map_or("-".into(), |shown| shown.to_string())
}
