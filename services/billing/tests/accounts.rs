//! What administrators set for one account, lists of accounts, and seats.
use std::collections::HashMap;

use tonic::transport::Channel;
use tonic::{Response, Status};
use weft_core::Reason;
use weft_db::sql;
use weft_proto::billing::v1::account_service_client::AccountServiceClient;
use weft_proto::billing::v1::{
    Account, AssignSeatRequest, BatchGetAccountsRequest, GetAccountRequest, GetSeatsRequest, ReleaseSeatRequest, Seats,
    UpdateAccountRequest,
};
use weft_testing::on_both_databases;

use crate::harness::{Headers, Node, Outcome, World, products_with, reason};

on_both_databases! {
    an_account_without_a_row_is_on_the_default_plan
    a_plan_is_given_and_taken_back
    overrides_are_set_hold_at_once_and_are_taken_back
    what_cannot_be_meant_is_refused_and_changes_nothing
    many_accounts_are_told_in_the_order_asked_for
    fifty_who_want_three_seats_at_once_get_three
    a_seat_is_given_once_kept_and_released
    a_seat_needs_a_subscription_with_seats
    nobody_sits_on_two_seats
    only_who_may_asks
}

fn client(node: &Node) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(node.channel())
}

fn told<T>(answer: Result<Response<T>, Status>) -> Outcome<T> {
    answer.map(Response::into_inner).map_err(|status| reason(&status))
}

async fn get(world: &World, node: &Node, user_id: &str) -> Account {
    let request = world.admin("cofounder").around(GetAccountRequest { user_id: user_id.into() });
    told(client(node).get_account(request).await).unwrap()
}

async fn update(world: &World, node: &Node, request: UpdateAccountRequest) -> Outcome<Account> {
    told(client(node).update_account(world.admin("cofounder").around(request)).await)
}

async fn batch(node: &Node, user_ids: Vec<String>) -> Outcome<Vec<Account>> {
    let request = BatchGetAccountsRequest { product: "cofounder".into(), user_ids };
    let answer = client(node).batch_get_accounts(Headers::of_service("identity").around(request)).await;
    told(answer).map(|answer| answer.accounts)
}

async fn assign(node: &Node, payer_id: &str, user_id: &str) -> Outcome<Seats> {
    let request = AssignSeatRequest { product: "adiuva".into(), payer_id: payer_id.into(), user_id: user_id.into() };
    told(client(node).assign_seat(Headers::of_service("identity").around(request)).await)
}

async fn release(node: &Node, payer_id: &str, user_id: &str) -> Outcome<Seats> {
    let request = ReleaseSeatRequest { product: "adiuva".into(), payer_id: payer_id.into(), user_id: user_id.into() };
    told(client(node).release_seat(Headers::of_service("identity").around(request)).await)
}

async fn seats(node: &Node, payer_id: &str) -> Seats {
    let request = GetSeatsRequest { product: "adiuva".into(), payer_id: payer_id.into() };
    told(client(node).get_seats(Headers::of_service("identity").around(request)).await).unwrap()
}

fn of(user_id: &str) -> UpdateAccountRequest {
    UpdateAccountRequest { user_id: user_id.into(), ..Default::default() }
}

fn on_default(user_id: &str) -> Account {
    Account {
        user_id: user_id.into(),
        plan: "bootstrapper".into(),
        plan_version: 1,
        plan_source: "default".into(),
        ..Account::default()
    }
}

async fn an_account_without_a_row_is_on_the_default_plan(world: &World) {
    let node = world.node().await;
    assert_eq!(get(world, &node, "ana").await, on_default("ana"));
    node.stop().await;
}

async fn a_plan_is_given_and_taken_back(world: &World) {
    let node = world.node().await;
    world.subscribe("cofounder", "ana", ("partner", 1), 1, "past_due").await;
    let subscribed = Account {
        plan: "partner".into(),
        plan_source: "subscription".into(),
        subscription_status: "past_due".into(),
        ..on_default("ana")
    };
    assert_eq!(get(world, &node, "ana").await, subscribed);

    let given = update(world, &node, UpdateAccountRequest { plan: Some("cto_scale".into()), ..of("ana") }).await;
    let expected = Account { plan: "cto_scale".into(), plan_source: "admin".into(), ..subscribed.clone() };
    assert_eq!(given, Ok(expected));
    assert_eq!(node.get("cofounder", "ana").await.unwrap().plan, "cto_scale");
    let other = update(world, &node, UpdateAccountRequest { plan: Some("cto_scale".into()), ..of("ben") }).await;
    assert_eq!(other.unwrap().plan_source, "admin");

    let taken = update(world, &node, UpdateAccountRequest { plan: Some(String::new()), ..of("ana") }).await.unwrap();
    assert_eq!(taken.plan, "partner");
    node.stop().await;

    // A plan that its manifest has given up is given to nobody any more.
    let changed = [("slug = \"partner\"", "slug = \"ally\"")];
    let node = world.node_with(products_with("cofounder", &changed)).await;
    let retired = update(world, &node, UpdateAccountRequest { plan: Some("partner".into()), ..of("cem") }).await;
    assert_eq!(retired, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn overrides_are_set_hold_at_once_and_are_taken_back(world: &World) {
    let node = world.node().await;
    let request = UpdateAccountRequest {
        override_limits: HashMap::from([("max_projects".into(), 4), ("max_tokens_per_day".into(), -1)]),
        override_requests_per_minute: Some(7),
        override_models: HashMap::from([("coder".into(), "opus".into())]),
        ..of("ana")
    };
    let account = update(world, &node, request.clone()).await.unwrap();
    assert_eq!(account.override_limits, request.override_limits);
    assert_eq!(account.override_requests_per_minute, Some(7));
    assert_eq!(account.override_models, request.override_models);
    assert_eq!(account.plan_source, "default");
    let got = node.get("cofounder", "ana").await.unwrap();
    assert_eq!(got.limits, HashMap::from([("max_projects".into(), 4), ("max_sessions_per_day".into(), 10)]));
    assert_eq!(got.requests_per_minute, Some(7));
    assert_eq!(got.override_models, request.override_models);
    assert_eq!(node.limit("cofounder", "ben", "max_projects").await, Some(1));

    let clear = ["max_projects", "coder", "max_sessions_per_day"].map(str::to_owned).to_vec();
    let account = update(world, &node, UpdateAccountRequest { clear, ..of("ana") }).await.unwrap();
    assert_eq!(account.override_limits, HashMap::from([("max_tokens_per_day".into(), -1)]));
    assert!(account.override_models.is_empty());
    assert_eq!(account.override_requests_per_minute, Some(7));
    let clear = vec!["requests_per_minute".to_owned(), "max_tokens_per_day".to_owned()];
    update(world, &node, UpdateAccountRequest { clear, ..of("ana") }).await.unwrap();
    let got = node.get("cofounder", "ana").await.unwrap();
    assert_eq!((got.requests_per_minute, got.limits.len()), (Some(60), 3));
    node.stop().await;
}

async fn what_cannot_be_meant_is_refused_and_changes_nothing(world: &World) {
    let node = world.node().await;
    let good = UpdateAccountRequest { plan: Some("partner".into()), ..of("ana") };
    let limit = |name: &str, limit| UpdateAccountRequest {
        override_limits: HashMap::from([(name.to_owned(), limit)]),
        ..good.clone()
    };
    let model = |role: &str, model: &str| UpdateAccountRequest {
        override_models: HashMap::from([(role.to_owned(), model.to_owned())]),
        ..good.clone()
    };
    let senseless = [
        of(""),
        of(&"a".repeat(201)),
        UpdateAccountRequest { plan: Some("team".into()), ..of("ana") },
        limit("max_projects", -2),
        limit("max_projects", i64::MAX),
        limit("agents", 1),
        UpdateAccountRequest { override_requests_per_minute: Some(0), ..good.clone() },
        model("painter", "opus"),
        model("coder", ""),
        model("coder", "no such model"),
        UpdateAccountRequest { clear: vec!["agents".into()], ..good.clone() },
    ];
    for request in senseless {
        assert_eq!(update(world, &node, request.clone()).await, Err(Reason::InvalidArgument), "{request:?}");
    }
    assert_eq!(get(world, &node, "ana").await, on_default("ana"));
    node.stop().await;
}

async fn many_accounts_are_told_in_the_order_asked_for(world: &World) {
    let node = world.node().await;
    world.put("cofounder", "u7", "partner").await;
    world.put("adiuva", "u8", "team").await;
    let set = "INSERT INTO account_overrides (product, user_id, kind, name, value) \
        VALUES ('cofounder', 'u950', 'limit', 'max_projects', 3)";
    sql(set).run(&world.db).await.unwrap();
    let today = world.clock.now_ms() / 86_400_000;
    for (day, name, used) in [
        (today, "max_tokens_per_day", 1234),
        (today, "max_sessions_per_day", 5),
        (today - 1, "max_tokens_per_day", 999_999),
    ] {
        sql("INSERT INTO daily_counters (product, user_id, day, name, used) VALUES ('cofounder', 'u7', $1, $2, $3)")
            .bind(day)
            .bind(name)
            .bind(used)
            .run(&world.db)
            .await
            .unwrap();
    }
    let mut ids: Vec<String> = (0..999).map(|number| format!("u{number}")).rev().collect();
    ids.push("u7".into());
    let expected: Vec<Account> = ids
        .iter()
        .map(|id| match id.as_str() {
            "u7" => Account {
                plan: "partner".into(),
                plan_source: "admin".into(),
                tokens_today: 1234,
                sessions_today: 5,
                ..on_default(id)
            },
            "u950" => Account { override_limits: HashMap::from([("max_projects".into(), 3)]), ..on_default(id) },
            _ => on_default(id),
        })
        .collect();
    assert_eq!(batch(&node, ids.clone()).await, Ok(expected));
    assert_eq!(batch(&node, Vec::new()).await, Ok(Vec::new()));
    ids.push("one too many".into());
    assert_eq!(batch(&node, ids).await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn fifty_who_want_three_seats_at_once_get_three(world: &World) {
    let nodes = [world.node().await, world.node().await];
    world.subscribe("adiuva", "org", ("team", 1), 3, "active").await;
    let wanted = (0..50).map(|number: usize| {
        let node = &nodes[number % 2];
        async move { assign(node, "org", &format!("u{number}")).await.map(drop) }
    });
    let answers = futures_util::future::join_all(wanted).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Err(Reason::QuotaExceeded)).count(), 47, "{answers:?}");
    assert_eq!(seats(&nodes[0], "org").await.user_ids.len(), 3);
    let [one, other] = nodes;
    one.stop().await;
    other.stop().await;
}

async fn a_seat_is_given_once_kept_and_released(world: &World) {
    let node = world.node().await;
    world.subscribe("adiuva", "org", ("team", 1), 1, "active").await;
    let taken = Seats { total: 1, user_ids: vec!["ana".into()] };
    assert_eq!(assign(&node, "org", "ana").await, Ok(taken.clone()));
    assert_eq!(assign(&node, "org", "ana").await, Ok(taken.clone()));
    assert_eq!(node.get("adiuva", "ana").await.unwrap().plan, "team");
    assert_eq!(assign(&node, "org", "ben").await, Err(Reason::QuotaExceeded));

    // Fewer seats than people: nobody is thrown out, nobody is let in.
    world.subscribe("adiuva", "org", ("team", 1), 2, "active").await;
    assign(&node, "org", "ben").await.unwrap();
    world.subscribe("adiuva", "org", ("team", 1), 1, "active").await;
    assert_eq!(seats(&node, "org").await, Seats { total: 1, user_ids: vec!["ana".into(), "ben".into()] });
    assert_eq!(assign(&node, "org", "cem").await, Err(Reason::QuotaExceeded));

    for _ in 0..2 {
        assert_eq!(release(&node, "org", "ben").await, Ok(taken.clone()));
    }
    assert_eq!(release(&node, "other", "ana").await, Ok(Seats::default()));
    assert_eq!(seats(&node, "org").await, taken);
    release(&node, "org", "ana").await.unwrap();
    assert_eq!(node.get("adiuva", "ana").await.unwrap().plan, "free");
    assert_eq!(assign(&node, "org", "cem").await.unwrap().user_ids, ["cem"]);
    node.stop().await;
}

async fn a_seat_needs_a_subscription_with_seats(world: &World) {
    let node = world.node().await;
    assert_eq!(assign(&node, "org", "ana").await, Err(Reason::FailedPrecondition));
    world.put("adiuva", "org", "team").await;
    assert_eq!(assign(&node, "org", "ana").await, Err(Reason::FailedPrecondition), "nobody pays for it");
    world.subscribe("adiuva", "org", ("pro", 1), 5, "active").await;
    assert_eq!(assign(&node, "org", "ana").await, Err(Reason::FailedPrecondition), "a plan without seats");
    world.subscribe("adiuva", "org", ("team", 1), 5, "canceled").await;
    assert_eq!(assign(&node, "org", "ana").await, Err(Reason::FailedPrecondition), "it has ended");
    assert_eq!(seats(&node, "org").await, Seats::default());
    node.stop().await;
}

async fn nobody_sits_on_two_seats(world: &World) {
    let node = world.node().await;
    for payer in ["org", "other"] {
        world.subscribe("adiuva", payer, ("team", 1), 3, "active").await;
    }
    let (one, two) = tokio::join!(assign(&node, "org", "ana"), assign(&node, "other", "ana"));
    let refused = [one, two].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refused, [Reason::FailedPrecondition]);
    node.stop().await;
}

async fn only_who_may_asks(world: &World) {
    let node = world.node().await;
    let user = || Headers { access_token: Some(world.access_token("cofounder", "ana", &[])), service_token: None };
    for (headers, expected) in [(Headers::default(), Reason::Unauthenticated), (user(), Reason::PermissionDenied)] {
        let got = client(&node).get_account(headers.around(GetAccountRequest { user_id: "ana".into() })).await;
        assert_eq!(told(got).map(drop), Err(expected));
        let updated = client(&node).update_account(headers.around(of("ana"))).await;
        assert_eq!(told(updated).map(drop), Err(expected));
    }
    let admin = world.admin("cofounder");
    for headers in [user(), admin, Headers::of_service("gateway"), Headers::of_service("orchestrator")] {
        let many = BatchGetAccountsRequest { product: "cofounder".into(), user_ids: vec!["ana".into()] };
        let got = client(&node).batch_get_accounts(headers.around(many)).await;
        assert_eq!(told(got).map(drop), Err(Reason::PermissionDenied));
        let seat = AssignSeatRequest { product: "adiuva".into(), payer_id: "org".into(), user_id: "ana".into() };
        assert_eq!(
            told(client(&node).assign_seat(headers.around(seat)).await).map(drop),
            Err(Reason::PermissionDenied)
        );
    }
    let unknown = GetSeatsRequest { product: "somebody's".into(), payer_id: "org".into() };
    let answer = client(&node).get_seats(Headers::of_service("identity").around(unknown)).await;
    assert_eq!(told(answer).map(drop), Err(Reason::NotFound));
    node.stop().await;
}
