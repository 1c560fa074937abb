//! Analytics: every number is what a recount of the rows gives.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::transport::Channel;
use weft_core::{Reason, new_id};
use weft_db::{record, sql};
use weft_proto::billing::v1::analytics_service_client::AnalyticsServiceClient;
use weft_proto::billing::v1::usage_service_client::UsageServiceClient;
use weft_proto::billing::v1::{
    GetPlatformAnalyticsRequest, GetUserAnalyticsRequest, PlatformAnalytics, RecordActivityRequest, RecordUsageRequest,
    Revenue, UserAnalytics,
};
use weft_testing::on_both_databases;

use crate::harness::{Chance, Headers, Node, World, reason};

on_both_databases! {
    an_account_that_did_nothing_has_thirty_empty_days
    thirty_messages_and_one_reply_are_a_rate_of_0_0333
    what_an_account_did_is_a_recount_of_its_rows
    what_a_product_did_is_a_recount_of_its_rows
    a_wallet_with_many_movements_is_read_fast_and_to_the_last_unit
    analytics_are_for_those_who_may_see_them
}

const DAY_MS: i64 = 24 * 3600 * 1000;
const PRODUCTS: [&str; 2] = ["zerobs", "companion"];
const USERS: [&str; 6] = ["ana", "ben", "cleo", "dan", "eva", "an organisation"];

async fn user_analytics(world: &World, node: &Node, product: &str, user_id: &str) -> UserAnalytics {
    let caller = Headers { access_token: Some(world.access_token(product, user_id, &[])), service_token: None };
    let answer = analytics(node).get_user_analytics(caller.around(GetUserAnalyticsRequest {})).await;
    answer.unwrap().into_inner()
}

async fn platform_analytics(world: &World, node: &Node, product: &str) -> PlatformAnalytics {
    let caller = Headers { access_token: Some(world.access_token(product, "root", &["admin"])), service_token: None };
    let answer = analytics(node).get_platform_analytics(caller.around(GetPlatformAnalyticsRequest {})).await;
    answer.unwrap().into_inner()
}

fn analytics(node: &Node) -> AnalyticsServiceClient<Channel> {
    AnalyticsServiceClient::new(node.channel())
}

async fn happened(node: &Node, product: &str, user_id: &str, kind: &str, count: i64) {
    let message = RecordActivityRequest {
        product: product.into(),
        user_id: user_id.into(),
        kind: kind.into(),
        count,
        idempotency_key: new_id(),
    };
    let outreach = Headers::of_service("outreach");
    UsageServiceClient::new(node.channel()).record_activity(outreach.around(message)).await.unwrap();
}

async fn called(node: &Node, product: &str, user_id: &str, input_tokens: i64, output_tokens: i64) {
    let message = RecordUsageRequest {
        product: product.into(),
        user_id: user_id.into(),
        model: "grok".into(),
        input_tokens,
        output_tokens,
        idempotency_key: new_id(),
        ..RecordUsageRequest::default()
    };
    let orchestrator = Headers::of_service("orchestrator");
    UsageServiceClient::new(node.channel()).record_usage(orchestrator.around(message)).await.unwrap();
}

async fn an_account_that_did_nothing_has_thirty_empty_days(world: &World) {
    let node = world.node().await;
    let seen = user_analytics(world, &node, "zerobs", "ana").await;
    assert_eq!((seen.total_credits_used, seen.total_searches, seen.total_campaigns), (0, 0, 0));
    assert!(seen.average_response_rate.abs() < f64::EPSILON);
    let dates: Vec<&str> = seen.last_30_days_activity.iter().map(|day| day.date.as_str()).collect();
    assert_eq!((dates.len(), dates[0], dates[20], dates[29]), (30, "2026-08-23", "2026-09-12", "2026-09-21"));
    assert!(
        seen.last_30_days_activity
            .iter()
            .all(|day| (day.credits_used, day.calls, day.tokens, day.events) == (0, 0, 0, 0))
    );
    node.stop().await;
}

async fn thirty_messages_and_one_reply_are_a_rate_of_0_0333(world: &World) {
    let node = world.node().await;
    happened(&node, "zerobs", "ana", "campaign", 0).await;
    happened(&node, "zerobs", "ana", "message_sent", 25).await;
    world.clock.advance(Duration::from_secs(24 * 3600));
    happened(&node, "zerobs", "ana", "message_sent", 5).await;
    happened(&node, "zerobs", "ana", "reply", 1).await;
    let seen = user_analytics(world, &node, "zerobs", "ana").await;
    assert_eq!((seen.total_campaigns, seen.average_response_rate.to_string().as_str()), (1, "0.0333"));
    let events: Vec<i64> = seen.last_30_days_activity.iter().rev().map(|day| day.events).take(3).collect();
    assert_eq!(events, [6, 26, 0]);
    node.stop().await;
}

record! {
    struct Movement { user_id: String, kind: String, amount: i64, created_at: i64 }
}

/// A movement at the end of a wallet's chain.
async fn moved(world: &World, (product, user_id): (&str, &str), kind: &str, amount: i64) {
    sql("INSERT INTO ledger_entries (product, user_id, seq, id, bucket, kind, account, amount, balance_after, reference, \
         created_at, hash) VALUES ($1, $2, 1 + (SELECT COALESCE(MAX(seq), 0) FROM ledger_entries WHERE product = $1 \
         AND user_id = $2), $3, 'bonus', $4, 'spent', $5, 0, '', $6, $7)")
    .bind(product)
    .bind(user_id)
    .bind(new_id())
    .bind(kind)
    .bind(amount)
    .bind(world.clock.now_ms())
    .bind(&[0_u8; 32][..])
    .run(&world.db)
    .await
    .unwrap();
}

/// 400 things that happen over some hundred days in two products.
async fn some_life(world: &World, node: &Node, seed: u64) {
    let mut chance = Chance::new(seed);
    for _ in 0..400 {
        let (product, user_id) = (*chance.of(&PRODUCTS), *chance.of(&USERS[..5]));
        match chance.below(4) {
            0 => called(node, product, user_id, chance.below(100_000), chance.below(50_000)).await,
            1 => {
                let kind = *chance.of(&["search", "campaign", "message_sent", "message_sent", "reply", "other_things"]);
                happened(node, product, user_id, kind, chance.below(5)).await;
            }
            _ => {
                let kind = *chance.of(&["usage", "usage", "spend", "refund", "grant", "daily_refresh", "transfer_out"]);
                let given_back = matches!(kind, "grant" | "daily_refresh") || chance.below(6) == 0;
                let amount = 1 + chance.below(3_000_000);
                moved(world, (product, user_id), kind, if given_back { amount } else { -amount }).await;
            }
        }
        world.clock.advance(Duration::from_secs(chance.below(12 * 3600) as u64));
    }
}

/// `part` of `all` to four places by long division, as the text of a number.
fn rate(part: i64, all: i64) -> f64 {
    let places = if all == 0 { 0 } else { (2 * part.min(all) * 10_000 + all) / (2 * all) };
    format!("{}.{:04}", places / 10_000, places % 10_000).parse().unwrap()
}

async fn what_an_account_did_is_a_recount_of_its_rows(world: &World) {
    let node = world.node().await;
    some_life(world, &node, 11).await;
    let today = world.clock.now_ms() / DAY_MS;
    for (product, user_id) in PRODUCTS.iter().flat_map(|product| USERS.map(|user_id| (*product, user_id))) {
        let own = |text: &'static str| sql(text).bind(product).bind(user_id);
        let movements: Vec<Movement> = own("SELECT user_id, kind, amount, created_at FROM ledger_entries \
             WHERE product = $1 AND user_id = $2 LIMIT 10000")
        .all(&world.db)
        .await
        .unwrap();
        let calls: Vec<(i64, i64)> = own("SELECT total_tokens, created_at FROM usage_logs \
             WHERE product = $1 AND user_id = $2 LIMIT 10000")
        .all(&world.db)
        .await
        .unwrap();
        let events: Vec<(String, i64, i64)> = own("SELECT kind, events, day FROM activity_daily \
             WHERE product = $1 AND user_id = $2 LIMIT 10000")
        .all(&world.db)
        .await
        .unwrap();
        let spent = |row: &&Movement| matches!(row.kind.as_str(), "usage" | "spend");
        let kind = |name: &str| events.iter().filter(|row| row.0 == name).map(|row| row.1).sum::<i64>();

        let seen = user_analytics(world, &node, product, user_id).await;
        assert_eq!(seen.total_credits_used, -movements.iter().filter(spent).map(|row| row.amount).sum::<i64>());
        assert_eq!(seen.total_searches, kind("search"));
        assert_eq!(seen.total_campaigns, kind("campaign"));
        let expected = rate(kind("reply"), kind("message_sent"));
        assert_eq!(
            seen.average_response_rate.to_bits(),
            expected.to_bits(),
            "{} {expected}",
            seen.average_response_rate
        );
        assert_eq!(seen.last_30_days_activity.len(), 30);
        for (day, shown) in (today - 29..=today).zip(&seen.last_30_days_activity) {
            let at = |ms: i64| ms / DAY_MS == day;
            let credits =
                -movements.iter().filter(spent).filter(|row| at(row.created_at)).map(|row| row.amount).sum::<i64>();
            let tokens: Vec<i64> = calls.iter().filter(|row| at(row.1)).map(|row| row.0).collect();
            let happened = events.iter().filter(|row| row.2 == day).map(|row| row.1).sum::<i64>();
            let got = (shown.credits_used, shown.calls, shown.tokens, shown.events);
            assert_eq!(got, (credits, tokens.len() as i64, tokens.iter().sum(), happened), "{user_id} {}", shown.date);
        }
    }
    node.stop().await;
}

record! {
    struct AccountRow { user_id: String, subscription_status: String, created_at: i64, active_day: i64 }
}

record! {
    struct PaymentRow {
        user_id: String, kind: String, amount_minor: i64, currency: String, refunded_minor: i64, disputed_minor: i64,
        created_at: i64,
    }
}

/// Accounts with plans of all origins, written as other parts of billing write them.
async fn some_accounts(world: &World, seed: u64) {
    let mut chance = Chance::new(seed);
    let now = world.clock.now_ms();
    let plans: BTreeMap<&str, [&str; 3]> =
        [("zerobs", ["free", "pro", "outreach"]), ("companion", ["free", "premium", "vip"])].into();
    for (product, user_id) in PRODUCTS.iter().flat_map(|product| USERS.map(|user_id| (*product, user_id))) {
        let status = *chance.of(&["", "", "active", "past_due", "canceled", "trialing"]);
        let subscribed = (!status.is_empty()).then(|| *chance.of(&plans[product]));
        let assigned = (chance.below(4) == 0).then(|| *chance.of(&plans[product]));
        let known = user_id != "an organisation" && chance.below(6) > 0;
        sql("INSERT INTO accounts (product, user_id, assigned_plan, subscribed_plan, subscribed_version, \
             subscription_status, seats, payer_id, created_at, active_day) VALUES ($1, $2, $3, $4, $5, $6, 3, $7, $8, $9)")
        .bind(product)
        .bind(user_id)
        .bind(assigned)
        .bind(subscribed)
        .bind(subscribed.map(|_| 1_i64))
        .bind(status)
        .bind((chance.below(3) == 0).then_some("an organisation"))
        .bind(if known { now - chance.below(100) * DAY_MS } else { 0 })
        .bind(if known { now / DAY_MS - chance.below(60) } else { 0 })
        .run(&world.db)
        .await
        .unwrap();
    }
}

/// Payments, some of them refunded or disputed.
async fn some_payments(world: &World, seed: u64) {
    let (mut chance, now) = (Chance::new(seed), world.clock.now_ms());
    for _ in 0..60 {
        let amount = chance.below(10_000);
        let refunded = if chance.below(3) == 0 { chance.below(amount + 1) } else { 0 };
        let disputed = if chance.below(8) == 0 { amount } else { 0 };
        sql("INSERT INTO payments (product, id, user_id, kind, item, source, amount_minor, currency, credits, \
             refunded_minor, disputed_minor, clawed, restored, created_at) \
             VALUES ($1, $2, $3, $4, '', $2, $5, $6, 0, $7, $8, 0, 0, $9)")
        .bind(*chance.of(&PRODUCTS))
        .bind(new_id())
        .bind(*chance.of(&["ana", "ben", "an organisation"]))
        .bind(*chance.of(&["package", "invoice"]))
        .bind(amount)
        .bind(*chance.of(&["USD", "EUR"]))
        .bind(refunded)
        .bind(disputed)
        .bind(now - chance.below(60 * DAY_MS))
        .run(&world.db)
        .await
        .unwrap();
    }
}

/// Sales of the marketplace, some of them refunded.
async fn some_sales(world: &World, seed: u64) {
    let (mut chance, now) = (Chance::new(seed), world.clock.now_ms());
    for _ in 0..20 {
        let (sale, product) = (new_id(), *chance.of(&PRODUCTS));
        let (buyer, currency) = (*chance.of(&["ana", "cleo"]), *chance.of(&["USD", "GBP"]));
        let amount = chance.below(2) * chance.below(2_000);
        sql("INSERT INTO sales (product, id, buyer_id, developer_id, item_id, amount_minor, currency, status, live, \
             tries, payment_intent, refunded_minor, disputed_minor, lost_minor, created_at, touched_at) \
             VALUES ($1, $2, $3, 'dev', $2, $4, $5, 'paid', TRUE, 1, $2, 0, 0, 0, $6, $6)")
        .bind(product)
        .bind(&sale)
        .bind(buyer)
        .bind(amount)
        .bind(currency)
        .bind(now)
        .run(&world.db)
        .await
        .unwrap();
        let developer = amount * 70 / 100;
        let mut events = vec![("sale", 1)];
        if chance.below(3) == 0 {
            events.push(("refund", -1));
        }
        for (kind, sign) in events {
            sql("INSERT INTO revenue_events (product, id, developer_id, sequence, kind, sale_id, buyer_id, item_id, amount_minor, \
                 developer_minor, platform_minor, currency, period, sales, created_at) \
                 VALUES ($1, $2, 'dev', \
                 1 + (SELECT COUNT(*) FROM revenue_events WHERE product = $1), $3, $4, $5, $4, $6, $7, $8, $9, '2026-09', $10, $11)")
            .bind(product)
            .bind(new_id())
            .bind(kind)
            .bind(&sale)
            .bind(buyer)
            .bind(sign * amount)
            .bind(sign * developer)
            .bind(sign * (amount - developer))
            .bind(currency)
            .bind(sign)
            .bind(now - chance.below(60 * DAY_MS))
            .run(&world.db)
            .await
            .unwrap();
        }
    }
}

record! {
    struct SaleMovement { buyer_id: String, kind: String, amount_minor: i64, platform_minor: i64, currency: String, created_at: i64 }
}

/// The money since a moment, by currency, counted one by one.
fn money(payments: &[PaymentRow], sales: &[SaleMovement], since_ms: i64) -> Vec<Revenue> {
    let mut revenue: BTreeMap<&str, Revenue> = BTreeMap::new();
    for row in payments.iter().filter(|row| row.created_at >= since_ms) {
        let kept = (row.amount_minor - row.refunded_minor - row.disputed_minor).max(0);
        let of = revenue.entry(&row.currency).or_default();
        *(if row.kind == "invoice" { &mut of.subscriptions_minor } else { &mut of.packages_minor }) += kept;
    }
    for row in sales.iter().filter(|row| row.created_at >= since_ms) {
        revenue.entry(&row.currency).or_default().marketplace_minor += row.platform_minor;
    }
    for (currency, of) in &mut revenue {
        of.currency = (*currency).to_owned();
        of.total_minor = of.subscriptions_minor + of.packages_minor + of.marketplace_minor;
    }
    revenue.into_values().collect()
}

async fn what_a_product_did_is_a_recount_of_its_rows(world: &World) {
    let node = world.node().await;
    some_life(world, &node, 23).await;
    some_accounts(world, 42).await;
    some_payments(world, 43).await;
    some_sales(world, 44).await;
    let today = world.clock.now_ms() / DAY_MS;
    let since = today - 29;
    for product in PRODUCTS {
        let own = |text: &'static str| sql(text).bind(product);
        let mut accounts: Vec<AccountRow> = own(
            "SELECT user_id, subscription_status, created_at, active_day FROM accounts WHERE product = $1 LIMIT 1000",
        )
        .all(&world.db)
        .await
        .unwrap();
        accounts.retain(|account| account.created_at > 0);
        let known: BTreeSet<&str> = accounts.iter().map(|account| account.user_id.as_str()).collect();
        let payments: Vec<PaymentRow> = own("SELECT user_id, kind, amount_minor, currency, refunded_minor, \
             disputed_minor, created_at FROM payments WHERE product = $1 LIMIT 1000")
        .all(&world.db)
        .await
        .unwrap();
        let sales: Vec<SaleMovement> =
            own("SELECT buyer_id, kind, amount_minor, platform_minor, currency, created_at \
             FROM revenue_events WHERE product = $1 LIMIT 1000")
            .all(&world.db)
            .await
            .unwrap();
        let callers: Vec<String> =
            own("SELECT user_id FROM usage_logs WHERE product = $1 LIMIT 10000").all(&world.db).await.unwrap();

        let among = |users: BTreeSet<&str>| users.intersection(&known).count() as i64;
        let payers = payments.iter().filter(|row| row.amount_minor > 0).map(|row| row.user_id.as_str());
        let buyers =
            sales.iter().filter(|row| row.kind == "sale" && row.amount_minor > 0).map(|row| row.buyer_id.as_str());
        let paid = among(payers.chain(buyers).collect());
        let active = accounts.iter().filter(|account| account.active_day >= since).count() as i64;
        let subscribed =
            |account: &&AccountRow| ["active", "trialing", "past_due"].contains(&account.subscription_status.as_str());
        let steps = [
            ("known", accounts.len() as i64),
            ("active_30d", active),
            ("used", among(callers.iter().map(String::as_str).collect())),
            ("paid", paid),
            ("subscribed", accounts.iter().filter(subscribed).count() as i64),
        ];
        let seen = platform_analytics(world, &node, product).await;
        let funnel: Vec<_> = seen.funnel.iter().map(|step| (step.name.as_str(), step.users)).collect();
        assert_eq!(funnel, steps, "{product}");
        assert_eq!((seen.total_users, seen.active_users_30d), (accounts.len() as i64, active));
        assert_eq!(seen.conversion_rate.to_bits(), rate(paid, accounts.len() as i64).to_bits());

        assert_eq!(seen.revenue_30d, money(&payments, &sales, since * DAY_MS), "{product}");

        let mut by_plan = BTreeMap::new();
        for user_id in known {
            *by_plan.entry(node.get(product, user_id).await.unwrap().plan).or_insert(0_i64) += 1;
        }
        assert_eq!(seen.users_by_plan.into_iter().collect::<BTreeMap<_, _>>(), by_plan, "{product}");
    }
    node.stop().await;
}

async fn a_wallet_with_many_movements_is_read_fast_and_to_the_last_unit(world: &World) {
    const MOVEMENTS: i64 = 120_001;
    let nodes = [world.node().await, world.node().await, world.node().await];
    // One every minute, every fifth one not spent: the wallet is some 83 days old.
    let first = world.clock.now_ms() - MOVEMENTS * 60_000;
    sql("INSERT INTO ledger_entries (product, user_id, seq, id, bucket, kind, account, amount, balance_after, reference, \
         created_at, hash) WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
         SELECT 'zerobs', 'ana', i, CAST(i AS TEXT), 'bonus', CASE i % 5 WHEN 0 THEN 'grant' WHEN 1 THEN 'spend' ELSE 'usage' END, \
         'spent', CASE i % 5 WHEN 0 THEN 50 ELSE -(i % 7) - 1 END, 0, '', $2 + i * 60000, $3 FROM n")
    .bind(MOVEMENTS)
    .bind(first)
    .bind(&[0_u8; 32][..])
    .run(&world.db)
    .await
    .unwrap();
    let by_day = |day: i64| {
        (1..=MOVEMENTS).filter(|i| i % 5 != 0 && (first + i * 60_000) / DAY_MS == day).map(|i| i % 7 + 1).sum::<i64>()
    };
    let total: i64 = (1..=MOVEMENTS).filter(|i| i % 5 != 0).map(|i| i % 7 + 1).sum();

    let asked =
        futures_util::future::join_all((0..6).map(|turn| user_analytics(world, &nodes[turn % 3], "zerobs", "ana")))
            .await;
    for seen in &asked {
        assert_eq!(seen, &asked[0]);
    }
    assert_eq!(asked[0].total_credits_used, total);
    let today = world.clock.now_ms() / DAY_MS;
    for (day, shown) in (today - 29..=today).zip(&asked[0].last_30_days_activity) {
        assert_eq!(shown.credits_used, by_day(day), "{}", shown.date);
    }
    let rolled: i64 = sql("SELECT seq FROM credits_rolled WHERE product = 'zerobs' AND user_id = 'ana'")
        .one(&world.db)
        .await
        .unwrap();
    assert!((MOVEMENTS - 1_000..=MOVEMENTS).contains(&rolled), "{rolled}");

    for _ in 0..10 {
        moved(world, ("zerobs", "ana"), "usage", -1_000).await;
    }
    moved(world, ("zerobs", "ana"), "usage", 500).await;
    let after = user_analytics(world, &nodes[0], "zerobs", "ana").await;
    assert_eq!(after.total_credits_used, total + 9_500);
    assert_eq!(after.last_30_days_activity[29].credits_used, by_day(today) + 9_500);
    for node in nodes {
        node.stop().await;
    }
}

async fn analytics_are_for_those_who_may_see_them(world: &World) {
    let node = world.node().await;
    let user = Headers { access_token: Some(world.access_token("zerobs", "ana", &[])), service_token: None };
    let platform = analytics(&node).get_platform_analytics(user.around(GetPlatformAnalyticsRequest {})).await;
    assert_eq!(reason(&platform.unwrap_err()), Reason::PermissionDenied);
    let nobody = Headers::default();
    let own = analytics(&node).get_user_analytics(nobody.around(GetUserAnalyticsRequest {})).await;
    assert_eq!(reason(&own.unwrap_err()), Reason::Unauthenticated);
    happened(&node, "zerobs", "ben", "search", 3).await;
    assert_eq!(user_analytics(world, &node, "zerobs", "ana").await.total_searches, 0, "another's events are not mine");
    assert_eq!(user_analytics(world, &node, "companion", "ben").await.total_searches, 0);
    assert_eq!(user_analytics(world, &node, "zerobs", "ben").await.total_searches, 3);
    node.stop().await;
}
