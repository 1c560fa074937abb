//! What administrators change in plans, and what manifests do.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use weft_auth::PRODUCT_HEADER;
use weft_core::Reason;
use weft_db::sql;
use weft_product::Products;
use weft_proto::billing::v1::catalogue_service_client::CatalogueServiceClient;
use weft_proto::billing::v1::{
    CreateCheckoutRequest, CreatePlanVersionRequest, ListMarketProductsRequest, ListMarketProductsResponse,
    ListPlansRequest, MigrateSubscribersRequest, ModelList, Plan, Price, PriceList, UpdatePlanRequest,
};
use weft_testing::on_both_databases;
use weft_testing::stripe::Misbehave;

use crate::harness::{Headers, Node, Outcome, Shop, World, products_with, reason};

on_both_databases! {
    an_edit_holds_everywhere_within_a_second_and_survives_restarts_and_manifests
    everything_of_a_plan_can_be_changed
    what_cannot_be_meant_is_refused_and_changes_nothing
    a_plan_or_version_that_there_is_not_is_not_found
    a_dearer_manifest_makes_a_version_and_subscribers_stay_on_theirs
    a_dearer_version_of_an_administrator_stays_through_restarts_and_manifests
    a_version_keeps_what_administrators_set_and_follows_the_manifest_for_the_rest
    subscribers_move_one_by_one_or_all
    servers_that_start_together_make_one_version
    a_price_that_leaves_its_manifest_leaves_the_market_and_not_its_subscribers
    prices_that_cannot_be_meant_are_refused
    a_package_follows_its_manifest_but_for_what_was_set
    only_administrators_of_the_product_see_and_change_plans
    versions_made_at_once_get_numbers_of_their_own
    subscribers_are_billed_by_the_version_that_they_are_on
    nobody_moves_while_stripe_does_not_answer
}

/// The manifest of a plan that has become dearer.
const DEARER: (&str, &str) = ("amount_minor = 1900", "amount_minor = 2500");

fn client(node: &Node) -> CatalogueServiceClient<Channel> {
    CatalogueServiceClient::new(node.channel())
}

fn told<T>(answer: Result<Response<T>, Status>) -> Outcome<T> {
    answer.map(Response::into_inner).map_err(|status| reason(&status))
}

/// What anybody is told of the market of a product.
pub async fn market(node: &Node, product: &str) -> Outcome<ListMarketProductsResponse> {
    let mut request = Request::new(ListMarketProductsRequest {});
    request.metadata_mut().insert(PRODUCT_HEADER, product.parse().unwrap());
    told(client(node).list_market_products(request).await)
}

/// What an administrator is told of the plans of a product.
pub async fn plans(world: &World, node: &Node, product: &str, all_versions: bool) -> Vec<Plan> {
    let request = world.admin(product).around(ListPlansRequest { all_versions });
    told(client(node).list_plans(request).await).unwrap().plans
}

async fn update(world: &World, node: &Node, product: &str, request: UpdatePlanRequest) -> Outcome<Plan> {
    told(client(node).update_plan(world.admin(product).around(request)).await)
}

async fn version(world: &World, node: &Node, product: &str, request: CreatePlanVersionRequest) -> Outcome<Plan> {
    told(client(node).create_plan_version(world.admin(product).around(request)).await)
}

async fn migrate(world: &World, node: &Node, user_id: &str, all: bool) -> Outcome<i64> {
    let request = MigrateSubscribersRequest { id: "pro".into(), user_id: user_id.into(), all };
    let answer = client(node).migrate_subscribers(world.admin("zerobs").around(request)).await;
    told(answer).map(|answer| answer.migrated)
}

fn limits<const N: usize>(limits: [(&str, i64); N]) -> HashMap<String, i64> {
    limits.into_iter().map(|(name, limit)| (name.to_owned(), limit)).collect()
}

/// A price in dollars for a month.
fn monthly(amount_minor: i64) -> Price {
    Price { amount_minor, currency: "USD".into(), interval: "month".into(), ..Price::default() }
}

fn dearer(amount_minor: i64) -> CreatePlanVersionRequest {
    let prices = Some(PriceList { prices: vec![monthly(amount_minor)] });
    CreatePlanVersionRequest { id: "pro".into(), prices, ..Default::default() }
}

/// The only price of a plan in a list.
fn price_of(plans: &[Plan], id: &str, version: i32) -> i64 {
    let plan = plans.iter().find(|plan| plan.id == id && plan.version == version).unwrap();
    assert_eq!(plan.prices.len(), 1, "{plan:?}");
    plan.prices[0].amount_minor
}

async fn an_edit_holds_everywhere_within_a_second_and_survives_restarts_and_manifests(world: &World) {
    let (one, other) = (world.node().await, world.node().await);
    assert_eq!(other.quota("cofounder", "ana", "max_projects", 1, 1).await, Err(Reason::QuotaExceeded));
    let request =
        UpdatePlanRequest { id: "bootstrapper".into(), limits: limits([("max_projects", 2)]), ..Default::default() };
    let edited = Instant::now();
    let plan = update(world, &one, "cofounder", request).await.unwrap();
    assert_eq!(plan.limits.get("max_projects"), Some(&2));
    assert_eq!(other.quota("cofounder", "ana", "max_projects", 1, 1).await, Ok((Some(2), Some(0))));
    assert!(edited.elapsed() < Duration::from_secs(1), "{:?}", edited.elapsed());
    one.stop().await;
    other.stop().await;

    let node = world.node().await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(2));
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(10));
    node.stop().await;

    let changed = products_with("cofounder", &[("max_sessions_per_day = 10,", "max_sessions_per_day = 12,")]);
    let node = world.node_with(changed).await;
    assert_eq!(node.limit("cofounder", "ana", "max_projects").await, Some(2));
    assert_eq!(node.limit("cofounder", "ana", "max_sessions_per_day").await, Some(12));
    assert_eq!(plans(world, &node, "cofounder", true).await.len(), 3, "numbers make no versions");
    node.stop().await;
}

async fn everything_of_a_plan_can_be_changed(world: &World) {
    let node = world.node().await;
    let before = plans(world, &node, "cofounder", false).await.remove(0);
    let request = UpdatePlanRequest {
        id: "bootstrapper".into(),
        name: Some("Starter".into()),
        limits: limits([("max_projects", -1), ("max_sessions_per_day", 0)]),
        requests_per_minute: Some(-1),
        default_models: HashMap::from([("coder".into(), "opus".into()), ("architect".into(), String::new())]),
        allowed_models: Some(ModelList { models: vec!["opus".into(), "sonnet".into(), "opus".into()] }),
        ..Default::default()
    };
    let plan = update(world, &node, "cofounder", request).await.unwrap();
    let expected = Plan {
        name: "Starter".into(),
        limits: limits([("max_sessions_per_day", 0), ("max_tokens_per_day", 500_000)]),
        requests_per_minute: None,
        default_models: HashMap::from([("coder".into(), "opus".into())]),
        allowed_models: vec!["opus".into(), "sonnet".into()],
        ..before
    };
    assert_eq!(plan, expected);
    let got = node.get("cofounder", "ana").await.unwrap();
    assert_eq!((got.limits, got.requests_per_minute), (expected.limits, None));
    assert_eq!((got.default_models, got.allowed_models), (expected.default_models, expected.allowed_models));

    let request = UpdatePlanRequest {
        id: "free".into(),
        features: HashMap::from([("rag_memory".into(), true)]),
        daily_credits: Some(12_000_000),
        micro_credits_per_token: Some(0),
        ..Default::default()
    };
    let plan = update(world, &node, "companion", request).await.unwrap();
    let credits = plan.credits.unwrap();
    assert_eq!((credits.daily, credits.micro_credits_per_token), (12_000_000, 0));
    assert_eq!(node.get("companion", "ana").await.unwrap().micro_credits_per_token, Some(0));
    assert_eq!(node.check("companion", "ana", "rag_memory").await, Ok("free".into()));
    node.stop().await;
}

async fn what_cannot_be_meant_is_refused_and_changes_nothing(world: &World) {
    let node = world.node().await;
    let before = plans(world, &node, "cofounder", true).await;
    let good = UpdatePlanRequest { id: "bootstrapper".into(), name: Some("X".into()), ..Default::default() };
    let with = |name: &str, limit| UpdatePlanRequest { limits: limits([(name, limit)]), ..good.clone() };
    let role = |role: &str, model: &str| UpdatePlanRequest {
        default_models: HashMap::from([(role.to_owned(), model.to_owned())]),
        ..good.clone()
    };
    let allowed = |model: &str| UpdatePlanRequest {
        allowed_models: Some(ModelList { models: vec![model.to_owned()] }),
        ..good.clone()
    };
    let senseless = [
        with("max_projects", -2),
        with("max_projects", i64::MIN),
        with("max_projects", i64::MAX),
        with("agents", 1),
        with("", 1),
        UpdatePlanRequest { features: HashMap::from([("sso".into(), true)]), ..good.clone() },
        UpdatePlanRequest { requests_per_minute: Some(0), ..good.clone() },
        UpdatePlanRequest { requests_per_minute: Some(-7), ..good.clone() },
        UpdatePlanRequest { requests_per_minute: Some(1_000_001), ..good.clone() },
        UpdatePlanRequest { daily_credits: Some(1), ..good.clone() },
        UpdatePlanRequest { name: Some(" ".into()), ..good.clone() },
        UpdatePlanRequest { name: Some("x".repeat(201)), ..good.clone() },
        role("painter", "sonnet"),
        role("coder", "no such model"),
        allowed("no such model"),
        allowed(""),
    ];
    for request in senseless {
        let refused = update(world, &node, "cofounder", request.clone()).await;
        assert_eq!(refused, Err(Reason::InvalidArgument), "{request:?}");
    }
    for credits in [-1, i64::MAX] {
        let request = UpdatePlanRequest { id: "free".into(), daily_credits: Some(credits), ..Default::default() };
        assert_eq!(update(world, &node, "companion", request).await, Err(Reason::InvalidArgument), "{credits}");
    }
    assert_eq!(plans(world, &node, "cofounder", true).await, before);
    node.stop().await;
}

async fn a_plan_or_version_that_there_is_not_is_not_found(world: &World) {
    let node = world.node().await;
    for (id, version) in [("", 0), ("team", 0), ("bootstrapper", 2), ("bootstrapper", -1)] {
        let request = UpdatePlanRequest { id: id.into(), version, ..Default::default() };
        assert_eq!(update(world, &node, "cofounder", request).await, Err(Reason::NotFound), "{id} {version}");
    }
    let request = CreatePlanVersionRequest { id: "team".into(), ..Default::default() };
    assert_eq!(version(world, &node, "cofounder", request).await, Err(Reason::NotFound));
    node.stop().await;
}

async fn a_dearer_manifest_makes_a_version_and_subscribers_stay_on_theirs(world: &World) {
    let node = world.node().await;
    world.subscribe("zerobs", "ana", ("pro", 1), 1, "active").await;
    world.put("zerobs", "cem", "pro").await;
    node.stop().await;

    let more = [DEARER, ("max_projects = 5", "max_projects = 6")];
    let node = world.node_with(products_with("zerobs", &more)).await;
    world.subscribe("zerobs", "ben", ("pro", 2), 1, "active").await;
    for (user_id, version, projects) in [("ana", 1, 5), ("ben", 2, 6), ("cem", 2, 6)] {
        let got = node.get("zerobs", user_id).await.unwrap();
        assert_eq!((got.plan_version, got.limits["max_projects"]), (version, projects), "{user_id}");
    }
    let versions = plans(world, &node, "zerobs", true).await;
    assert_eq!((price_of(&versions, "pro", 1), price_of(&versions, "pro", 2)), (1900, 2500));
    let order: Vec<(&str, i32, bool)> =
        versions.iter().map(|plan| (plan.id.as_str(), plan.version, plan.current)).collect();
    assert_eq!(order, [("free", 1, true), ("pro", 2, true), ("pro", 1, false), ("outreach", 1, true)]);
    assert_eq!(price_of(&market(&node, "zerobs").await.unwrap().subscriptions, "pro", 2), 2500);
    node.stop().await;

    let node = world.node_with(products_with("zerobs", &more)).await;
    assert_eq!(plans(world, &node, "zerobs", true).await, versions, "seeding again makes nothing new");
    node.stop().await;
}

async fn a_dearer_version_of_an_administrator_stays_through_restarts_and_manifests(world: &World) {
    let node = world.node().await;
    world.subscribe("zerobs", "ana", ("pro", 1), 1, "active").await;
    let plan = version(world, &node, "zerobs", dearer(2500)).await.unwrap();
    assert_eq!((plan.version, plan.current), (2, true));
    assert_eq!((plan.prices[0].id.as_str(), plan.prices[0].amount_minor), ("pro_monthly", 2500));
    assert_eq!(node.get("zerobs", "ana").await.unwrap().plan_version, 1);
    node.stop().await;

    for manifest in [Products::builtin(), products_with("zerobs", &[("amount_minor = 1900", "amount_minor = 2200")])] {
        let node = world.node_with(manifest).await;
        let versions = plans(world, &node, "zerobs", true).await;
        assert_eq!((price_of(&versions, "pro", 1), price_of(&versions, "pro", 2)), (1900, 2500));
        assert_eq!(versions.len(), 4, "no third version");
        node.stop().await;
    }
}

async fn a_version_keeps_what_administrators_set_and_follows_the_manifest_for_the_rest(world: &World) {
    let node = world.node().await;
    let request = UpdatePlanRequest { id: "pro".into(), limits: limits([("max_projects", 8)]), ..Default::default() };
    update(world, &node, "zerobs", request).await.unwrap();
    world.subscribe("zerobs", "ana", ("pro", 1), 1, "active").await;
    node.stop().await;

    let manifest = [DEARER, ("max_projects = 5", "max_projects = 6"), ("daily = 150_000_000", "daily = 160_000_000")];
    let node = world.node_with(products_with("zerobs", &manifest)).await;
    let versions = plans(world, &node, "zerobs", true).await;
    let of = |version| versions.iter().find(|plan| plan.id == "pro" && plan.version == version).unwrap();
    for version in [1, 2] {
        assert_eq!(of(version).limits["max_projects"], 8);
    }
    let daily = |version| of(version).credits.unwrap().daily;
    assert_eq!((daily(1), daily(2)), (150_000_000, 160_000_000));

    // An old version can still be changed, and only for those on it.
    let request = UpdatePlanRequest { version: 1, ..request_of_projects(9) };
    update(world, &node, "zerobs", request).await.unwrap();
    world.put("zerobs", "ben", "pro").await;
    assert_eq!(node.limit("zerobs", "ana", "max_projects").await, Some(9));
    assert_eq!(node.limit("zerobs", "ben", "max_projects").await, Some(8));
    node.stop().await;
}

fn request_of_projects(projects: i64) -> UpdatePlanRequest {
    UpdatePlanRequest { id: "pro".into(), limits: limits([("max_projects", projects)]), ..Default::default() }
}

async fn subscribers_move_one_by_one_or_all(world: &World) {
    let node = world.node().await;
    for user_id in ["ana", "ben", "cem"] {
        world.subscribe("zerobs", user_id, ("pro", 1), 1, "active").await;
    }
    world.subscribe("zerobs", "dora", ("outreach", 1), 1, "active").await;
    let more = CreatePlanVersionRequest { limits: limits([("max_projects", 6)]), ..dearer(2500) };
    version(world, &node, "zerobs", more).await.unwrap();
    assert_eq!(node.limit("zerobs", "ana", "max_projects").await, Some(5));

    assert_eq!(migrate(world, &node, "ana", false).await, Ok(1));
    assert_eq!(node.limit("zerobs", "ana", "max_projects").await, Some(6));
    assert_eq!(node.limit("zerobs", "ben", "max_projects").await, Some(5));
    assert_eq!(migrate(world, &node, "ana", false).await, Ok(0));
    assert_eq!(migrate(world, &node, "", true).await, Ok(2));
    assert_eq!(migrate(world, &node, "", true).await, Ok(0));
    assert_eq!(node.limit("zerobs", "cem", "max_projects").await, Some(6));
    assert_eq!(node.get("zerobs", "dora").await.unwrap().plan_version, 1);

    for stranger in ["dora", "nobody"] {
        assert_eq!(migrate(world, &node, stranger, false).await, Err(Reason::NotFound), "{stranger}");
    }
    assert_eq!(migrate(world, &node, "", false).await, Err(Reason::InvalidArgument));
    assert_eq!(migrate(world, &node, "ana", true).await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn servers_that_start_together_make_one_version(world: &World) {
    world.node().await.stop().await;
    let dearer = || products_with("zerobs", &[DEARER]);
    let nodes = tokio::join!(world.node_with(dearer()), world.node_with(dearer()), world.node_with(dearer()));
    let versions = plans(world, &nodes.0, "zerobs", true).await;
    assert_eq!(versions.iter().filter(|plan| plan.id == "pro").count(), 2);
    assert_eq!(price_of(&versions, "pro", 2), 2500);
    nodes.0.stop().await;
    nodes.1.stop().await;
    nodes.2.stop().await;
}

async fn a_price_that_leaves_its_manifest_leaves_the_market_and_not_its_subscribers(world: &World) {
    world.node().await.stop().await;
    world.subscribe("zerobs", "ana", ("pro", 1), 1, "active").await;
    let without = [("prices = [{ amount_minor = 1900, currency = \"USD\", interval = \"month\" }]\n", "")];
    let node = world.node_with(products_with("zerobs", &without)).await;
    let on_sale: Vec<String> =
        market(&node, "zerobs").await.unwrap().subscriptions.into_iter().map(|plan| plan.id).collect();
    assert_eq!(on_sale, ["free", "outreach"]);
    assert_eq!(node.limit("zerobs", "ana", "max_projects").await, Some(5));
    assert_eq!(price_of(&plans(world, &node, "zerobs", true).await, "pro", 1), 1900);
    node.stop().await;
}

async fn prices_that_cannot_be_meant_are_refused(world: &World) {
    let node = world.node().await;
    let good = monthly(2500);
    let senseless: Vec<Vec<Price>> = vec![
        vec![Price { amount_minor: 0, ..good.clone() }],
        vec![Price { amount_minor: -1, ..good.clone() }],
        vec![Price { amount_minor: i64::MAX, ..good.clone() }],
        vec![Price { currency: "usd".into(), ..good.clone() }],
        vec![Price { currency: "XXX".into(), ..good.clone() }],
        vec![Price { interval: "week".into(), ..good.clone() }],
        vec![Price { interval: String::new(), ..good.clone() }],
        vec![Price { bonus_credits: -1, ..good.clone() }],
        vec![Price { id: "Pro Monthly".into(), ..good.clone() }],
        vec![Price { id: "outreach_monthly".into(), ..good.clone() }],
        vec![Price { id: "outreach".into(), ..good.clone() }],
        vec![good.clone(), Price { id: "another".into(), ..good.clone() }],
        vec![good.clone(), Price { currency: "EUR".into(), ..good.clone() }],
    ];
    for prices in senseless {
        let request = CreatePlanVersionRequest { prices: Some(PriceList { prices: prices.clone() }), ..dearer(1) };
        assert_eq!(version(world, &node, "zerobs", request).await, Err(Reason::InvalidArgument), "{prices:?}");
    }
    let bonus = CreatePlanVersionRequest {
        id: "pro".into(),
        prices: Some(PriceList { prices: vec![Price { bonus_credits: 1, ..good }] }),
        ..Default::default()
    };
    assert_eq!(version(world, &node, "adiuva", bonus).await, Err(Reason::InvalidArgument));
    assert_eq!(plans(world, &node, "zerobs", true).await.len(), 3, "no version was made");

    let none = CreatePlanVersionRequest { prices: Some(PriceList::default()), ..dearer(1) };
    assert!(version(world, &node, "zerobs", none).await.unwrap().prices.is_empty());
    let same = CreatePlanVersionRequest { prices: None, ..dearer(1) };
    assert!(version(world, &node, "zerobs", same).await.unwrap().prices.is_empty());
    node.stop().await;
}

async fn a_package_follows_its_manifest_but_for_what_was_set(world: &World) {
    world.node().await.stop().await;
    sql("UPDATE credit_packages SET amount_minor = 79 WHERE product = 'companion' AND id = 'credits_10'")
        .run(&world.db)
        .await
        .unwrap();
    let changes = [
        ("credits = 10_000_000\namount_minor = 99", "credits = 11_000_000\namount_minor = 89"),
        ("id = \"credits_50\"", "id = \"credits_60\""),
    ];
    let node = world.node_with(products_with("companion", &changes)).await;
    let packages = market(&node, "companion").await.unwrap().packages;
    let first = &packages[0];
    assert_eq!((first.id.as_str(), first.credits, first.amount_minor), ("credits_10", 11_000_000, 79));
    let ids: Vec<&str> = packages.iter().map(|package| package.id.as_str()).collect();
    assert_eq!(ids, ["credits_10", "credits_60", "credits_100", "credits_500", "credits_1000"]);
    node.stop().await;
}

async fn only_administrators_of_the_product_see_and_change_plans(world: &World) {
    let node = world.node().await;
    let user = Headers { access_token: Some(world.access_token("zerobs", "ana", &[])), service_token: None };
    for (headers, expected) in [
        (Headers::default(), Reason::Unauthenticated),
        (user, Reason::PermissionDenied),
        (Headers::of_service("gateway"), Reason::Unauthenticated),
    ] {
        let listed = client(&node).list_plans(headers.around(ListPlansRequest::default())).await;
        assert_eq!(told(listed).map(drop), Err(expected));
        let updated = client(&node).update_plan(headers.around(request_of_projects(9))).await;
        assert_eq!(told(updated).map(drop), Err(expected));
        let made = client(&node).create_plan_version(headers.around(dearer(1))).await;
        assert_eq!(told(made).map(drop), Err(expected));
        let all = MigrateSubscribersRequest { id: "pro".into(), all: true, ..Default::default() };
        assert_eq!(told(client(&node).migrate_subscribers(headers.around(all)).await).map(drop), Err(expected));
    }
    // An administrator of one product is nobody in another, and changes a plan of the same name only at home.
    let mut foreign = world.admin("adiuva").around(request_of_projects(9));
    foreign.metadata_mut().insert(PRODUCT_HEADER, "zerobs".parse().unwrap());
    assert_eq!(told(client(&node).update_plan(foreign).await).map(drop), Err(Reason::ProductMismatch));
    assert_eq!(update(world, &node, "adiuva", request_of_projects(9)).await, Err(Reason::InvalidArgument));
    assert_eq!(market(&node, "somebody").await.map(drop), Err(Reason::NotFound));
    node.stop().await;
}

async fn versions_made_at_once_get_numbers_of_their_own(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let make = |turn: usize| version(world, &nodes[turn % 2], "zerobs", dearer(2000 + turn as i64));
    let made = tokio::join!(make(0), make(1), make(2), make(3), make(4), make(5));
    let made = [made.0, made.1, made.2, made.3, made.4, made.5];
    let mut numbers: Vec<i32> = made.iter().map(|plan| plan.as_ref().unwrap().version).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
    let current: Vec<Plan> = plans(world, &nodes[0], "zerobs", false).await;
    assert_eq!(current[1].version, 7);
    let [one, other] = nodes;
    one.stop().await;
    other.stop().await;
}

/// Buys the plan `pro` and pays the first invoice.
async fn buy_pro(shop: &Shop<'_>, user_id: &str) {
    let wanted = CreateCheckoutRequest { tier: "pro".into(), ..Default::default() };
    let session = shop.checkout("zerobs", user_id, wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver("zerobs", &events).await;
}

/// Lets a month pass; what the account then pays, and the version that it is on.
async fn renewed(shop: &Shop<'_>, user_id: &str) -> (i64, i32) {
    let events = shop.stub.renew(&shop.subscription_of(user_id));
    shop.deliver("zerobs", &events).await;
    let paid = shop.payments("zerobs", user_id).await;
    (paid[0].amount_minor, shop.subscription("zerobs", user_id).await.plan_version)
}

async fn subscribers_are_billed_by_the_version_that_they_are_on(world: &World) {
    let shop = Shop::open(world).await;
    for user_id in ["ana", "ben"] {
        buy_pro(&shop, user_id).await;
    }
    let more = CreatePlanVersionRequest { limits: limits([("max_projects", 6)]), ..dearer(2500) };
    version(world, &shop.node, "zerobs", more).await.unwrap();
    buy_pro(&shop, "cem").await;
    for (user_id, paid, version, projects) in [("ana", 1900, 1, 5), ("ben", 1900, 1, 5), ("cem", 2500, 2, 6)] {
        assert_eq!(shop.payments("zerobs", user_id).await[0].amount_minor, paid, "{user_id}");
        assert_eq!(shop.subscription("zerobs", user_id).await.plan_version, version, "{user_id}");
        assert_eq!(shop.node.limit("zerobs", user_id, "max_projects").await, Some(projects), "{user_id}");
    }

    assert_eq!(migrate(world, &shop.node, "ana", false).await, Ok(1));
    assert_eq!(shop.node.limit("zerobs", "ana", "max_projects").await, Some(6));
    shop.wait(2);
    shop.deliver("zerobs", &shop.stub.events()).await;
    assert_eq!(shop.payments("zerobs", "ana").await.len(), 1, "what changes, changes with the next invoice");
    shop.wait(31 * 24 * 3600);
    assert_eq!(renewed(&shop, "ana").await, (2500, 2));
    assert_eq!(renewed(&shop, "ben").await, (1900, 1));
    assert_eq!(renewed(&shop, "cem").await, (2500, 2));
    assert_eq!(shop.node.limit("zerobs", "ana", "max_projects").await, Some(6));
    assert_eq!(shop.node.limit("zerobs", "ben", "max_projects").await, Some(5));
    shop.node.stop().await;
}

async fn nobody_moves_while_stripe_does_not_answer(world: &World) {
    let shop = Shop::open(world).await;
    buy_pro(&shop, "ana").await;
    version(world, &shop.node, "zerobs", dearer(2500)).await.unwrap();
    for _ in 0..20 {
        shop.stub.misbehave(Misbehave::ServerError);
    }
    assert_eq!(migrate(world, &shop.node, "ana", false).await, Err(Reason::Unavailable));
    assert_eq!(shop.node.get("zerobs", "ana").await.unwrap().plan_version, 1);
    shop.stub.behave();
    assert_eq!(migrate(world, &shop.node, "ana", false).await, Ok(1));
    assert_eq!(shop.node.get("zerobs", "ana").await.unwrap().plan_version, 2);
    shop.node.stop().await;
}
