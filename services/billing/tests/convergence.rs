//! Whatever order events arrive in, and however often: one state, one ledger.
use serde_json::Value;
use weft_db::sql;
use weft_proto::billing::v1::ledger_service_client::LedgerServiceClient;
use weft_proto::billing::v1::{CreateCheckoutRequest, VerifyLedgerRequest};
use weft_testing::on_both_databases;
use weft_testing::stripe::Weather;

use crate::harness::{Shop, World, post};
use crate::webhooks::rows;

/// Random orders of a test; `WEFT_PROVE_ORDERS` asks for more.
const ORDERS: u64 = 6;
/// Tables that a history fills, in an order in which they can be emptied.
const TABLES: [&str; 11] = [
    "stripe_events",
    "disputes",
    "refunded_charges",
    "payment_links",
    "payments",
    "subscriptions",
    "ledger_entries",
    "ledger_totals",
    "holds",
    "wallets",
    "idempotency_keys",
];

on_both_databases! {
    a_history_in_any_order_on_three_servers_ends_in_one_state
}

/// The life of one subscription and a package beside it, of which 12 events or more are ours.
async fn history(shop: &Shop<'_>) -> Vec<Value> {
    let mut events = Vec::new();
    let wanted = CreateCheckoutRequest { plan_id: "premium_monthly".into(), ..Default::default() };
    let session = shop.checkout("companion", "ana", wanted).await.unwrap().session_id;
    let package = CreateCheckoutRequest { package_id: "credits_500".into(), ..Default::default() };
    let package = shop.checkout("companion", "ana", package).await.unwrap().session_id;
    shop.wait(2);
    events.extend(shop.stub.complete_checkout(&session));
    let first_invoice = shop.charge();
    let subscription = shop.subscription_of("ana");
    shop.wait(2);
    events.extend(shop.stub.complete_checkout(&package));
    let bought = shop.charge();
    shop.wait(2);
    events.extend(shop.stub.refund(&bought, Some(1000)));
    shop.wait(2);
    events.extend(shop.stub.refund(&bought, Some(500)));
    for _ in 0..2 {
        shop.wait(31 * 24 * 3600);
        events.extend(shop.stub.renew(&subscription));
    }
    events.extend(shop.stub.open_dispute(&first_invoice));
    shop.wait(2);
    let dispute = shop.stub.objects("du")[0]["id"].as_str().unwrap().to_owned();
    events.extend(shop.stub.close_dispute(&dispute, true));
    shop.wait(31 * 24 * 3600);
    events.extend(shop.stub.fail_payment(&subscription));
    shop.wait(2);
    events.extend(shop.stub.pay_subscription(&subscription));
    shop.wait(2);
    events.extend(shop.stub.cancel_at_period_end(&subscription));
    shop.wait(31 * 24 * 3600);
    events.extend(shop.stub.renew(&subscription));
    events
}

async fn empty(world: &World) {
    for table in TABLES {
        sql(weft_db::AssertSqlSafe(format!("DELETE FROM {table}"))).run(&world.db).await.unwrap();
    }
    sql("UPDATE accounts SET subscribed_plan = NULL, subscribed_version = NULL, seats = 0, subscription_status = ''")
        .run(&world.db)
        .await
        .unwrap();
}

async fn digest(shop: &Shop<'_>) -> String {
    let mut client = LedgerServiceClient::new(shop.node.channel());
    let request = shop.world.admin("companion").around(VerifyLedgerRequest::default());
    let verified = client.verify_ledger(request).await.unwrap().into_inner();
    assert!(verified.ok, "{verified:?}");
    verified.digest
}

/// What moved, by kind, bucket and reference.
async fn sums(world: &World) -> Vec<String> {
    sql("SELECT kind || ' ' || bucket || ' ' || reference || ' ' || CAST(SUM(amount) AS TEXT) FROM ledger_entries \
         WHERE product = 'companion' GROUP BY kind, bucket, reference HAVING SUM(amount) <> 0 ORDER BY 1 LIMIT 1000")
    .all(&world.db)
    .await
    .unwrap()
}

/// What an order must not change. How often a wallet moved is no part of it: a refund that came first moves once.
async fn state(shop: &Shop<'_>) -> (Vec<String>, String) {
    let mut all = rows(shop.world).await;
    all.retain(|row| !row.starts_with("wallets "));
    all.extend(sums(shop.world).await);
    (all, digest(shop).await)
}

async fn a_history_in_any_order_on_three_servers_ends_in_one_state(world: &World) {
    let shop = Shop::open(world).await;
    let others = [shop.another().await, shop.another().await];
    let events = history(&shop).await;
    empty(world).await;
    shop.deliver("companion", &events).await;
    let expected = state(&shop).await;
    let handled = expected.0.iter().filter(|row| row.starts_with("stripe_events")).count();
    assert!(handled >= 12, "{handled} events were ours");
    shop.deliver("companion", &events).await;
    assert_eq!(state(&shop).await, expected, "a replay changed something");

    let asked = orders();
    for seed in 0..asked.unwrap_or(ORDERS) {
        empty(world).await;
        let mut sent: Vec<Value> = events.clone();
        let more = Weather { seed, drop_percent: 70, ..Weather::fair() }.plan(&events);
        sent.extend(more.into_iter().map(|(event, _)| event));
        let order = Weather { seed, shuffle: 1000, ..Weather::fair() }.plan(&sent);
        let nodes = [&shop.node, &others[0], &others[1]];
        let posts = order.iter().enumerate().map(|(at, (event, _))| {
            let (node, signed) = (nodes[at % nodes.len()], shop.signed(event));
            async move { post(node, "companion", &signed).await }
        });
        use futures_util::StreamExt as _;
        let posts: Vec<_> = posts.collect();
        let answers: Vec<_> = futures_util::stream::iter(posts).buffer_unordered(8).collect().await;
        for answer in answers {
            answer.unwrap();
        }
        let reached = state(&shop).await;
        let differs = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|row| !other.contains(row)).cloned().collect()
        };
        let (more, less) = (differs(&reached.0, &expected.0), differs(&expected.0, &reached.0));
        assert_eq!(reached.1, expected.1, "order {seed} has {more:?} and lacks {less:?}");
        assert_eq!(reached.0, expected.0, "order {seed}");
    }
    for node in others {
        node.stop().await;
    }
    shop.node.stop().await;
}

fn orders() -> Option<u64> {
    weft_runtime::config::environment().get("WEFT_PROVE_ORDERS").and_then(|text| text.parse().ok())
}
