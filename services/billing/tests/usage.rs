//! What was used: calls, counters of the day, calls that are running.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tonic::transport::Channel;
use weft_core::Reason;
use weft_db::{record, sql};
use weft_product::Products;
use weft_proto::billing::v1::usage_service_client::UsageServiceClient;
use weft_proto::billing::v1::{
    AccountUsage, BeginUsageRequest, BeginUsageResponse, CountDailyRequest, DailyCount, GetAccountUsageRequest,
    GetDailyUsageRequest, GetProductUsageRequest, ProductUsage, RecordActivityRequest, RecordUsageRequest, UsageRecord,
    UsageTotals,
};
use weft_testing::on_both_databases;

use crate::harness::{Chance, Headers, Node, World, reason};

on_both_databases! {
    five_calls_use_up_the_tokens_of_a_day_and_midnight_brings_new_ones
    exactly_the_limit_is_counted_by_sixty_four_callers_on_three_nodes
    exactly_the_limit_is_counted_when_eight_callers_bring_an_accounts_first_use
    of_many_calls_that_begin_at_once_only_so_many_begin_as_fit
    a_call_that_nobody_ends_stops_counting_when_it_expires
    the_same_key_again_has_the_same_answer_and_no_effect
    the_same_key_at_once_on_three_nodes_has_one_effect
    calls_that_end_at_once_are_recorded_each_once_whatever_stands_among_them
    what_was_set_for_an_account_or_in_its_plan_counts_from_the_next_call_on
    every_limit_of_a_day_is_the_one_that_entitlements_tell
    numbers_that_cannot_be_are_refused_and_leave_nothing
    a_model_without_a_price_is_logged_flagged_and_free
    reports_are_a_recount_of_the_log
    calls_are_listed_newest_first_and_each_once
    usage_is_for_those_who_may_see_it
}

const DAY_MS: i64 = 24 * 3600 * 1000;

fn client(node: &Node) -> UsageServiceClient<Channel> {
    UsageServiceClient::new(node.channel())
}

fn orchestrator() -> Headers {
    Headers::of_service("orchestrator")
}

async fn begin(node: &Node, user_id: &str, tokens: i64, key: &str) -> Result<BeginUsageResponse, Reason> {
    let message = BeginUsageRequest {
        product: "cofounder".into(),
        user_id: user_id.into(),
        tokens,
        idempotency_key: key.into(),
        ttl_ms: 0,
    };
    begin_as(node, message).await
}

async fn begin_as(node: &Node, message: BeginUsageRequest) -> Result<BeginUsageResponse, Reason> {
    let answer = client(node).begin_usage(orchestrator().around(message)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn record(node: &Node, message: RecordUsageRequest) -> Result<UsageRecord, Reason> {
    let answer = client(node).record_usage(orchestrator().around(message)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn count_of(node: &Node, message: CountDailyRequest) -> Result<DailyCount, Reason> {
    let answer = client(node).count_daily(orchestrator().around(message)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn note(node: &Node, message: RecordActivityRequest) -> Result<(), Reason> {
    let answer = client(node).record_activity(orchestrator().around(message)).await;
    answer.map(drop).map_err(|status| reason(&status))
}

fn count(user_id: &str, limit: &str, amount: i64, key: &str) -> CountDailyRequest {
    CountDailyRequest {
        product: "cofounder".into(),
        user_id: user_id.into(),
        limit: limit.into(),
        amount,
        idempotency_key: key.into(),
    }
}

/// A call of `stub-60000-40000`.
fn call(user_id: &str, key: &str) -> RecordUsageRequest {
    RecordUsageRequest {
        product: "cofounder".into(),
        user_id: user_id.into(),
        session_id: "session".into(),
        agent_role: "architect".into(),
        model: "sonnet".into(),
        input_tokens: 60_000,
        output_tokens: 40_000,
        idempotency_key: key.into(),
        ..RecordUsageRequest::default()
    }
}

/// The counters of the day as the user sees them, by name.
async fn today(world: &World, node: &Node, product: &str, user_id: &str) -> BTreeMap<String, DailyCount> {
    let caller = Headers { access_token: Some(world.access_token(product, user_id, &[])), service_token: None };
    let usage = client(node).get_daily_usage(caller.around(GetDailyUsageRequest {})).await.unwrap().into_inner();
    usage.counts.into_iter().map(|count| (count.name.clone(), count)).collect()
}

fn admin(world: &World, product: &str) -> Headers {
    Headers { access_token: Some(world.access_token(product, "root", &["admin"])), service_token: None }
}

async fn of_product(world: &World, node: &Node, product: &str) -> ProductUsage {
    let asked = client(node).get_product_usage(admin(world, product).around(GetProductUsageRequest {})).await;
    asked.unwrap().into_inner()
}

async fn of_account(world: &World, node: &Node, request: GetAccountUsageRequest) -> Result<AccountUsage, Reason> {
    let answer = client(node).get_account_usage(admin(world, "cofounder").around(request)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn five_calls_use_up_the_tokens_of_a_day_and_midnight_brings_new_ones(world: &World) {
    let node = world.node().await;
    for turn in 0..5_i64 {
        let begun = begin(&node, "ana", 100_000, &format!("begin {turn}")).await.unwrap();
        assert_eq!(begun.remaining, Some(400_000 - turn * 100_000));
        let done = RecordUsageRequest { usage_id: begun.usage_id, ..call("ana", &format!("call {turn}")) };
        let done = record(&node, done).await.unwrap();
        assert_eq!((done.total_tokens, done.tokens_today), (100_000, (turn + 1) * 100_000));
        assert_eq!((done.cost_microdollars, done.priced), (60_000 * 3 + 40_000 * 15, true));
    }
    assert_eq!(begin(&node, "ana", 100_000, "begin 5").await, Err(Reason::DailyTokensExceeded));
    assert_eq!(begin(&node, "ana", 1, "begin 6").await, Err(Reason::DailyTokensExceeded));
    assert!(begin(&node, "ben", 100_000, "begin 5").await.is_ok(), "one account's tokens are not another's");
    let logged: (i64, i64, i64) = sql(
        "SELECT COUNT(*), CAST(SUM(total_tokens) AS BIGINT), CAST(SUM(cost_microdollars) AS BIGINT) FROM usage_logs \
         WHERE product = 'cofounder' AND user_id = 'ana' AND model_used = 'sonnet' AND session_id = 'session'",
    )
    .one(&world.db)
    .await
    .unwrap();
    assert_eq!(logged, (5, 500_000, 3_900_000));

    let midnight = (world.clock.now_ms() / DAY_MS + 1) * DAY_MS;
    let used = today(world, &node, "cofounder", "ana").await;
    let tokens = &used["max_tokens_per_day"];
    assert_eq!((tokens.used, tokens.limit, tokens.resets_at), (500_000, Some(500_000), midnight));
    world.clock.advance(Duration::from_millis((midnight - 1 - world.clock.now_ms()) as u64));
    assert_eq!(begin(&node, "ana", 1, "the last moment").await, Err(Reason::DailyTokensExceeded));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(today(world, &node, "cofounder", "ana").await["max_tokens_per_day"].used, 0);
    assert_eq!(begin(&node, "ana", 100_000, "a new day").await.unwrap().remaining, Some(400_000));
    node.stop().await;
}

/// How many of the answers let their caller in; the others must have this reason.
fn admitted<T: std::fmt::Debug>(answers: Vec<Result<T, Reason>>, otherwise: Reason) -> usize {
    answers
        .into_iter()
        .filter(|answer| {
            assert!(answer.is_ok() || matches!(answer, Err(reason) if *reason == otherwise), "{answer:?}");
            answer.is_ok()
        })
        .count()
}

async fn exactly_the_limit_is_counted_by_sixty_four_callers_on_three_nodes(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let calls = (0..64).map(|turn| {
        let node = &nodes[turn % 3];
        async move { count_of(node, count("ana", "max_sessions_per_day", 0, &format!("session {turn}"))).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let mut numbers: Vec<i64> = answers.iter().flatten().map(|count| count.used).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    assert_eq!(admitted(answers, Reason::QuotaExceeded), 10);
    assert_eq!(today(world, &nodes[0], "cofounder", "ana").await["max_sessions_per_day"].used, 10);
    for node in nodes {
        node.stop().await;
    }
}

async fn exactly_the_limit_is_counted_when_eight_callers_bring_an_accounts_first_use(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    for account in 0..5 {
        let user_id = format!("new {account}");
        let calls = (0..8).map(|turn| {
            let (node, user_id) = (&nodes[turn % 3], &user_id);
            async move { count_of(node, count(user_id, "max_sessions_per_day", 3, &format!("{turn}"))).await }
        });
        let answers = futures_util::future::join_all(calls).await;
        assert_eq!(admitted(answers, Reason::QuotaExceeded), 3);
        assert_eq!(today(world, &nodes[0], "cofounder", &user_id).await["max_sessions_per_day"].used, 9);
    }
    for node in nodes {
        node.stop().await;
    }
}

async fn of_many_calls_that_begin_at_once_only_so_many_begin_as_fit(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let calls = (0..16).map(|turn| {
        let node = &nodes[turn % 3];
        async move { begin(node, "ana", 100_000, &format!("{turn}")).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let begun: Vec<BeginUsageResponse> = answers.iter().flatten().cloned().collect();
    let mut left: Vec<_> = begun.iter().map(|begun| begun.remaining.unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 100_000, 200_000, 300_000, 400_000]);
    assert_eq!(admitted(answers, Reason::DailyTokensExceeded), 5);

    // One ends with less than it might have used: there is room for one more, however much that one may use.
    let small = RecordUsageRequest {
        input_tokens: 1,
        output_tokens: 0,
        usage_id: begun[0].usage_id.clone(),
        ..call("ana", "end")
    };
    assert_eq!(record(&nodes[1], small).await.unwrap().tokens_today, 1);
    assert_eq!(begin(&nodes[2], "ana", 900_000, "one more").await.unwrap().remaining, Some(0));
    assert_eq!(begin(&nodes[0], "ana", 1, "too many").await, Err(Reason::DailyTokensExceeded));
    for node in nodes {
        node.stop().await;
    }
}

async fn a_call_that_nobody_ends_stops_counting_when_it_expires(world: &World) {
    let node = world.node().await;
    assert!(begin(&node, "ana", 500_000, "lost").await.is_ok());
    assert_eq!(begin(&node, "ana", 1, "waits").await, Err(Reason::DailyTokensExceeded));
    world.clock.advance(Duration::from_millis(599_999));
    assert_eq!(begin(&node, "ana", 1, "waits").await, Err(Reason::DailyTokensExceeded));
    world.clock.advance(Duration::from_millis(1));
    let begun = begin(&node, "ana", 1, "waits").await.unwrap();
    assert_eq!(begun.remaining, Some(499_999));
    let small = RecordUsageRequest { input_tokens: 1, output_tokens: 0, ..call("ana", "end") };
    record(&node, RecordUsageRequest { usage_id: begun.usage_id, ..small }).await.unwrap();
    assert_eq!(rows(world).await.2, 0, "the lost one is gone, too");

    let unlimited = BeginUsageRequest {
        product: "adiuva".into(),
        user_id: "ana".into(),
        tokens: 1_000_000_000,
        idempotency_key: "key".into(),
        ttl_ms: 1_000,
    };
    assert_eq!(begin_as(&node, unlimited).await.unwrap().remaining, None);
    node.stop().await;
}

/// Rows of everything that usage writes.
async fn rows(world: &World) -> (i64, i64, i64, i64, i64) {
    let number = async |text: &'static str| sql(text).one::<i64>(&world.db).await.unwrap();
    (
        number("SELECT COUNT(*) FROM usage_logs").await,
        number("SELECT CAST(COALESCE(SUM(used), 0) AS BIGINT) FROM daily_counters").await,
        number("SELECT COUNT(*) FROM usage_reservations").await,
        number("SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) FROM activity_daily").await,
        number("SELECT CAST(COALESCE(SUM(calls), 0) AS BIGINT) FROM usage_daily").await,
    )
}

fn event(key: &str, events: i64) -> RecordActivityRequest {
    RecordActivityRequest {
        product: "cofounder".into(),
        user_id: "ana".into(),
        kind: "search".into(),
        count: events,
        idempotency_key: key.into(),
    }
}

async fn the_same_key_again_has_the_same_answer_and_no_effect(world: &World) {
    let node = world.node().await;
    let begun = begin(&node, "ana", 10, "key").await.unwrap();
    let recorded = record(&node, call("ana", "key")).await.unwrap();
    let counted = count_of(&node, count("ana", "max_sessions_per_day", 10, "key")).await.unwrap();
    note(&node, event("key", 2)).await.unwrap();
    let before = rows(world).await;
    assert_eq!(before, (1, 100_010, 1, 2, 1));

    // Although there is no room for another one.
    assert_eq!(count_of(&node, count("ana", "max_sessions_per_day", 10, "key")).await, Ok(counted));
    assert_eq!(begin(&node, "ana", 10, "key").await, Ok(begun));
    assert_eq!(record(&node, call("ana", "key")).await, Ok(recorded.clone()));
    assert_eq!(note(&node, event("key", 2)).await, Ok(()));
    assert_eq!(rows(world).await, before);

    // The key may stand in the metadata, too.
    let mut by_header = orchestrator().around(call("ana", ""));
    by_header.metadata_mut().insert("idempotency-key", "key".parse().unwrap());
    assert_eq!(client(&node).record_usage(by_header).await.unwrap().into_inner(), recorded);

    let reused = Reason::IdempotencyKeyReused;
    assert_eq!(begin(&node, "ana", 11, "key").await, Err(reused));
    assert_eq!(record(&node, RecordUsageRequest { output_tokens: 1, ..call("ana", "key") }).await, Err(reused));
    assert_eq!(count_of(&node, count("ana", "max_sessions_per_day", 1, "key")).await, Err(reused));
    assert_eq!(note(&node, event("key", 3)).await, Err(reused));
    assert_eq!(rows(world).await, before);
    assert!(record(&node, call("ben", "key")).await.is_ok(), "another account's key is another key");
    node.stop().await;
}

async fn the_same_key_at_once_on_three_nodes_has_one_effect(world: &World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let calls = (0..12).map(|turn| {
        let node = &nodes[turn % 3];
        async move {
            (
                begin(node, "ana", 10, "key").await.unwrap(),
                record(node, call("ana", "key")).await.unwrap(),
                count_of(node, count("ana", "max_sessions_per_day", 1, "key")).await.unwrap(),
                note(node, event("key", 1)).await,
            )
        }
    });
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:#?}");
    assert_eq!(rows(world).await, (1, 100_001, 1, 1, 1));
    for node in nodes {
        node.stop().await;
    }
}

/// 40 calls each of three accounts, each twice, among keys that were used for something else.
async fn calls_that_end_at_once_are_recorded_each_once_whatever_stands_among_them(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let users = ["ana", "ben", "cem"];
    for user in users {
        record(&nodes[0], RecordUsageRequest { input_tokens: 7, output_tokens: 0, ..call(user, "old") }).await.unwrap();
    }
    let calls = (0..240).map(|turn| {
        let (user, number) = (users[turn % 3], turn / 6);
        // Of the even ones both come to the same node, of the others to each.
        let node = &nodes[if number % 2 == 0 { number / 2 % 2 } else { turn % 2 }];
        let ended = RecordUsageRequest {
            agent_role: format!("role_{}", number % 2),
            input_tokens: 1,
            output_tokens: 0,
            ..call(user, &format!("call {number}"))
        };
        async move {
            if number % 8 == 0 {
                assert_eq!(record(node, call(user, "old")).await, Err(Reason::IdempotencyKeyReused));
            }
            (user, record(node, ended).await.unwrap())
        }
    });
    let answers = futures_util::future::join_all(calls).await;
    for user in users {
        let ids: BTreeSet<&str> = answers.iter().filter(|it| it.0 == user).map(|it| it.1.id.as_str()).collect();
        assert_eq!(ids.len(), 40, "a key that comes twice is one call");
        let counted: BTreeSet<i64> = answers.iter().filter(|it| it.0 == user).map(|it| it.1.tokens_today).collect();
        assert!(counted.iter().all(|tokens| (8..=47).contains(tokens)), "{counted:?}");
        assert_eq!(today(world, &nodes[0], "cofounder", user).await["max_tokens_per_day"].used, 47);
    }
    assert_eq!(rows(world).await, (123, 3 * 47, 0, 0, 123));
    let by_role: Vec<(String, i64, i64)> =
        sql("SELECT agent_role, CAST(SUM(calls) AS BIGINT), CAST(SUM(input_tokens) AS BIGINT) FROM usage_daily \
         WHERE agent_role LIKE 'role_%' GROUP BY agent_role ORDER BY agent_role LIMIT 3")
        .all(&world.db)
        .await
        .unwrap();
    assert_eq!(by_role, [("role_0".to_owned(), 60, 60), ("role_1".to_owned(), 60, 60)]);
    for node in nodes {
        node.stop().await;
    }
}

async fn what_was_set_for_an_account_or_in_its_plan_counts_from_the_next_call_on(world: &World) {
    let node = world.node().await;
    let set = async |value: Option<i64>| {
        sql("INSERT INTO account_overrides (product, user_id, kind, name, value, model) \
             VALUES ('cofounder', 'ana', 'limit', 'max_sessions_per_day', $1, NULL) \
             ON CONFLICT (product, user_id, kind, name) DO UPDATE SET value = excluded.value")
        .bind(value)
        .run(&world.db)
        .await
        .unwrap();
    };
    let counted = async |user_id: &str, amount: i64, key: &str| {
        count_of(&node, count(user_id, "max_sessions_per_day", amount, key))
            .await
            .map(|count| (count.used, count.limit))
    };
    set(Some(3)).await;
    assert_eq!(counted("ana", 3, "a").await, Ok((3, Some(3))));
    assert_eq!(counted("ana", 1, "b").await, Err(Reason::QuotaExceeded));
    set(Some(4)).await;
    assert_eq!(counted("ana", 1, "b").await, Ok((4, Some(4))));
    set(Some(0)).await;
    assert_eq!(counted("ana", 1, "c").await, Err(Reason::QuotaExceeded));
    set(None).await;
    assert_eq!(counted("ana", 1_000, "c").await, Ok((1_004, None)));
    assert_eq!(today(world, &node, "cofounder", "ana").await["max_sessions_per_day"].limit, None);

    world.edit_limit("cofounder", "bootstrapper", "max_sessions_per_day", Some(2)).await;
    assert_eq!(counted("ben", 3, "a").await, Err(Reason::QuotaExceeded));
    assert_eq!(counted("ben", 2, "a").await, Ok((2, Some(2))));
    world.put("cofounder", "cleo", "cto_scale").await;
    assert_eq!(counted("cleo", 500, "a").await, Ok((500, None)));
    // Counted by whom it concerns, they are the day's tokens.
    world.edit_limit("cofounder", "bootstrapper", "max_tokens_per_day", Some(5)).await;
    let tokens = count_of(&node, count("ben", "max_tokens_per_day", 6, "t")).await;
    assert_eq!(tokens, Err(Reason::DailyTokensExceeded));
    node.stop().await;
}

async fn every_limit_of_a_day_is_the_one_that_entitlements_tell(world: &World) {
    let node = world.node().await;
    let mut seen = 0;
    for product in Products::builtin().iter() {
        for plan in &product.plans {
            let user_id = format!("on {}", plan.slug);
            world.put(&product.slug, &user_id, &plan.slug).await;
            let told = node.get(&product.slug, &user_id).await.unwrap().limits;
            let today = today(world, &node, &product.slug, &user_id).await;
            let expected: BTreeSet<&String> = product.limits.keys().filter(|name| name.ends_with("_per_day")).collect();
            assert_eq!(today.keys().collect::<BTreeSet<_>>(), expected);
            for (name, count) in today {
                assert_eq!(count.limit, told.get(&name).copied(), "{} {name}", plan.slug);
                let one = CountDailyRequest {
                    product: product.slug.clone(),
                    user_id: user_id.clone(),
                    limit: name.clone(),
                    amount: 1,
                    idempotency_key: name.clone(),
                };
                assert_eq!(count_of(&node, one).await.unwrap().limit, count.limit, "{} {name}", plan.slug);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 9, "three plans of two products have three limits");
    node.stop().await;
}

async fn numbers_that_cannot_be_are_refused_and_leave_nothing(world: &World) {
    let node = world.node().await;
    let (invalid, missing) = (Err(Reason::InvalidArgument), Err(Reason::NotFound));
    let bad_calls = [
        RecordUsageRequest { input_tokens: -1, ..call("ana", "k") },
        RecordUsageRequest { output_tokens: -60_000, ..call("ana", "k") },
        RecordUsageRequest { input_tokens: i64::MAX, ..call("ana", "k") },
        RecordUsageRequest { input_tokens: i64::MAX, output_tokens: i64::MAX, ..call("ana", "k") },
        RecordUsageRequest { input_tokens: 1_000_000_000_000, output_tokens: 1, ..call("ana", "k") },
        RecordUsageRequest { charged: -1, ..call("ana", "k") },
        RecordUsageRequest { latency_ms: -1, ..call("ana", "k") },
        RecordUsageRequest { model: String::new(), ..call("ana", "k") },
        RecordUsageRequest { model: "m\0".into(), ..call("ana", "k") },
        RecordUsageRequest { agent_role: "what somebody wrote".into(), ..call("ana", "k") },
        RecordUsageRequest { session_id: "s".repeat(201), ..call("ana", "k") },
        call("ana", ""),
        call("ana", &"k".repeat(256)),
        call("", "k"),
        call("ana\0", "k"),
    ];
    for bad in bad_calls {
        assert_eq!(record(&node, bad.clone()).await.map(drop), invalid, "{bad:?}");
    }
    let elsewhere = RecordUsageRequest { product: "nowhere".into(), ..call("ana", "k") };
    assert_eq!(record(&node, elsewhere).await.map(drop), missing);
    for tokens in [0, -1, 1_000_000_000_001, i64::MIN] {
        assert_eq!(begin(&node, "ana", tokens, "k").await.map(drop), invalid, "{tokens}");
    }
    let limits = [("max_projects", 1), ("max_tasks_per_day", 1), ("", 1), ("max_sessions_per_day", -1)];
    for (limit, amount) in limits {
        assert_eq!(count_of(&node, count("ana", limit, amount, "k")).await.map(drop), invalid, "{limit} {amount}");
    }
    for kind in ["", "Search", "a b", "söker", &"a".repeat(41)] {
        assert_eq!(note(&node, RecordActivityRequest { kind: kind.into(), ..event("k", 1) }).await, invalid, "{kind}");
    }
    for events in [-1, 1_000_000_000_001, i64::MAX] {
        assert_eq!(note(&node, event("k", events)).await, invalid, "{events}");
    }
    assert_eq!(rows(world).await, (0, 0, 0, 0, 0));
    let keys: i64 = sql("SELECT COUNT(*) FROM idempotency_keys").one(&world.db).await.unwrap();
    assert_eq!(keys, 0, "a refusal is not kept");

    // Sums stay within 64 bits.
    sql("INSERT INTO daily_counters (product, user_id, day, name, used) \
         VALUES ('cofounder', 'ana', $1, 'max_tokens_per_day', $2)")
    .bind(world.clock.now_ms() / DAY_MS)
    .bind(i64::MAX - 100_000)
    .run(&world.db)
    .await
    .unwrap();
    assert_eq!(record(&node, call("ana", "fits")).await.unwrap().tokens_today, i64::MAX);
    assert_eq!(record(&node, call("ana", "k")).await.map(drop), invalid);
    assert_eq!(begin(&node, "ana", 1, "k").await, Err(Reason::DailyTokensExceeded));
    node.stop().await;
}

async fn a_model_without_a_price_is_logged_flagged_and_free(world: &World) {
    let node = world.node().await;
    let unknown = RecordUsageRequest { model: "somebody/model:7b".into(), ..call("ana", "a") };
    let recorded = record(&node, unknown).await.unwrap();
    assert_eq!((recorded.cost_microdollars, recorded.priced, recorded.total_tokens), (0, false, 100_000));
    let elsewhere = RecordUsageRequest { product: "companion".into(), ..call("ana", "b") };
    assert!(!record(&node, elsewhere).await.unwrap().priced, "a product has its own prices");
    let stored: Vec<bool> =
        sql("SELECT priced FROM usage_logs ORDER BY product LIMIT 10").all(&world.db).await.unwrap();
    assert_eq!(stored, [false, false]);
    node.stop().await;
}

record! {
    #[derive(Clone, Debug)]
    struct LogRow {
        product: String, id: String, user_id: String, agent_role: String, model_used: String, input_tokens: i64,
        output_tokens: i64, total_tokens: i64, cost_microdollars: i64, latency_ms: i64, failed: bool, created_at: i64,
    }
}

async fn log(world: &World) -> Vec<LogRow> {
    sql("SELECT product, id, user_id, agent_role, model_used, input_tokens, output_tokens, total_tokens, \
         cost_microdollars, latency_ms, failed, created_at FROM usage_logs LIMIT 100000")
    .all(&world.db)
    .await
    .unwrap()
}

/// What these rows add up to, counted one by one.
fn recount<'a>(rows: impl IntoIterator<Item = &'a LogRow>) -> UsageTotals {
    let (mut totals, mut users) = (UsageTotals::default(), BTreeSet::new());
    for row in rows {
        totals.calls += 1;
        totals.input_tokens += row.input_tokens;
        totals.output_tokens += row.output_tokens;
        totals.total_tokens += row.total_tokens;
        totals.cost_microdollars += row.cost_microdollars;
        totals.failed += i64::from(row.failed);
        totals.latency_ms += row.latency_ms;
        users.insert(&row.user_id);
    }
    totals.users = users.len() as i64;
    totals
}

/// Calls of three accounts over some 40 days in two products.
async fn some_calls(world: &World, node: &Node) {
    let mut chance = Chance::new(7);
    let users = ["ana", "ben", "cleo"];
    for turn in 0..150 {
        let (model, role) = (chance.of(&["sonnet", "opus", "unknown"]), chance.of(&["architect", "coder", ""]));
        let message = RecordUsageRequest {
            product: (*chance.of(&["cofounder", "cofounder", "adiuva"])).into(),
            model: (*model).into(),
            agent_role: (*role).into(),
            input_tokens: chance.below(1_000_000),
            output_tokens: chance.below(100_000),
            latency_ms: chance.below(60_000),
            failed: chance.below(5) == 0,
            ..call(chance.of::<&str>(&users), &format!("call {turn}"))
        };
        record(node, message).await.unwrap();
        world.clock.advance(Duration::from_secs(chance.below(12 * 3600) as u64));
    }
}

async fn reports_are_a_recount_of_the_log(world: &World) {
    let node = world.node().await;
    some_calls(world, &node).await;
    let log = log(world).await;
    assert_eq!(log.len(), 150);
    let now = world.clock.now_ms();
    // 2026-09-21 14:13, a Monday, and what has passed since.
    let today = now / DAY_MS;
    let monday = today - (today - 20_717) % 7;
    let firsts = [20_697, 20_727, 20_758, 20_788, 20_819];
    let first = *firsts.iter().rev().find(|first| **first <= today).unwrap();
    for product in ["cofounder", "adiuva", "zerobs"] {
        let since =
            |day: i64| recount(log.iter().filter(|row| row.product == product && row.created_at / DAY_MS >= day));
        let usage = of_product(world, &node, product).await;
        assert_eq!(usage.today, Some(since(today)), "{product}");
        assert_eq!(usage.week, Some(since(monday)), "{product}");
        assert_eq!(usage.month, Some(since(first)), "{product}");
        for group in &usage.by_model {
            let of_model = log.iter().filter(|row| {
                row.product == product && row.created_at / DAY_MS >= first && row.model_used == group.model
            });
            assert_eq!(group.totals, Some(recount(of_model)), "{product} {}", group.model);
        }
        let calls: i64 = usage.by_model.iter().map(|group| group.totals.unwrap().calls).sum();
        assert_eq!(calls, usage.month.unwrap().calls);
    }
    for user_id in ["ana", "ben", "cleo", "nobody"] {
        let own = |row: &&LogRow| row.product == "cofounder" && row.user_id == user_id;
        let since = |day: i64| recount(log.iter().filter(own).filter(|row| row.created_at / DAY_MS >= day));
        let request = GetAccountUsageRequest { user_id: user_id.into(), ..GetAccountUsageRequest::default() };
        let usage = of_account(world, &node, request).await.unwrap();
        assert_eq!(usage.today, Some(since(today)), "{user_id}");
        assert_eq!(usage.week, Some(since(monday)), "{user_id}");
        assert_eq!(usage.month, Some(since(first)), "{user_id}");
        for group in &usage.breakdown {
            let of_group = log.iter().filter(own).filter(|row| {
                row.created_at / DAY_MS >= first
                    && (&row.model_used, &row.agent_role) == (&group.model, &group.agent_role)
            });
            assert_eq!(group.totals, Some(recount(of_group)), "{user_id} {group:?}");
        }
        let calls: i64 = usage.breakdown.iter().map(|group| group.totals.unwrap().calls).sum();
        assert_eq!(calls, usage.month.unwrap().calls);
    }
    node.stop().await;
}

async fn calls_are_listed_newest_first_and_each_once(world: &World) {
    let node = world.node().await;
    some_calls(world, &node).await;
    let mut own: Vec<LogRow> = log(world).await;
    own.retain(|row| row.product == "cofounder" && row.user_id == "ana");
    own.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let expected: Vec<&String> = own.iter().map(|row| &row.id).collect();
    assert!(expected.len() > 14, "{}", expected.len());
    let mut listed = Vec::new();
    let mut request = GetAccountUsageRequest { user_id: "ana".into(), page_size: 7, page_token: String::new() };
    loop {
        let page = of_account(world, &node, request.clone()).await.unwrap();
        assert!(page.calls.len() <= 7);
        listed.extend(page.calls.into_iter().map(|call| call.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
    for bad in [("ana", -1, ""), ("ana", 1001, ""), ("ana", 7, "page 2"), ("", 7, "")] {
        let request = GetAccountUsageRequest { user_id: bad.0.into(), page_size: bad.1, page_token: bad.2.into() };
        assert_eq!(of_account(world, &node, request).await.map(drop), Err(Reason::InvalidArgument), "{bad:?}");
    }
    node.stop().await;
}

async fn usage_is_for_those_who_may_see_it(world: &World) {
    let node = world.node().await;
    let denied = Some(Reason::PermissionDenied);
    let user = Headers { access_token: Some(world.access_token("cofounder", "ana", &[])), service_token: None };
    let refusal = |answer: Result<(), tonic::Status>| answer.err().map(|status| reason(&status));
    let product = client(&node).get_product_usage(user.around(GetProductUsageRequest {})).await.map(drop);
    assert_eq!(refusal(product), denied);
    let of_ana = GetAccountUsageRequest { user_id: "ana".into(), ..GetAccountUsageRequest::default() };
    assert_eq!(refusal(client(&node).get_account_usage(user.around(of_ana)).await.map(drop)), denied);
    assert_eq!(refusal(client(&node).record_usage(user.around(call("ana", "k"))).await.map(drop)), denied);
    let identity = Headers::of_service("identity");
    assert_eq!(refusal(client(&node).record_usage(identity.around(call("ana", "k"))).await.map(drop)), denied);
    let nobody = Headers::default().around(GetDailyUsageRequest {});
    assert_eq!(refusal(client(&node).get_daily_usage(nobody).await.map(drop)), Some(Reason::Unauthenticated));
    assert_eq!(rows(world).await, (0, 0, 0, 0, 0));
    node.stop().await;
}
