//! Credits that move, once and exactly.
use futures_util::future::join_all;
use tonic::Response;
use weft_core::Reason;
use weft_db::sql;
use weft_proto::billing::v1::{
    AdjustWalletRequest, Bucket, DebitRequest, GetStatementRequest, ListTransactionsRequest,
    ListWalletTransactionsRequest, SpendCreditsRequest,
};
use weft_testing::on_both_databases;

use crate::harness::{COMPANION, CREDIT, Headers, Node, World, moved, reason};

on_both_databases! {
    a_new_account_has_what_its_plan_gives_for_the_day
    sixty_four_debits_on_two_nodes_spend_exactly_what_is_there
    the_same_key_fifty_times_at_once_has_one_effect_and_one_answer
    a_key_belongs_to_its_request_account_and_method
    a_refusal_is_not_remembered
    keys_are_in_the_field_or_in_the_metadata_and_required
    amounts_that_cannot_be_are_refused_and_leave_nothing
    credits_are_spent_daily_then_bonus_then_purchased
    what_is_transferred_stays_what_it_was
    an_administrator_gives_and_takes
    movements_are_paged_by_token_and_by_number
    a_statement_adds_up
    a_product_without_credits_has_empty_wallets
}

async fn a_new_account_has_what_its_plan_gives_for_the_day(world: &World) {
    let node = world.node().await;
    world.put(COMPANION, "vip", "vip").await;
    let (free, vip) = (node.balance(world, "ana").await, node.balance(world, "vip").await);
    assert_eq!((free.total, free.daily, free.held, free.debt), (10 * CREDIT, 10 * CREDIT, 0, 0));
    assert_eq!(vip.total, 500 * CREDIT);
    assert_eq!(free.daily_resets_at, (world.clock.now_ms() / 86_400_000 + 1) * 86_400_000);
    assert_eq!(node.story(world, "ana").await, [moved("daily_refresh", "daily", 10 * CREDIT)]);
    node.verified(world).await;
    node.stop().await;
}

async fn sixty_four_debits_on_two_nodes_spend_exactly_what_is_there(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let debits = (0..64).map(|n| {
        let node = &nodes[n % 2];
        async move { node.debit("ana", CREDIT, &format!("debit {n}")).await }
    });
    let done = join_all(debits).await;
    let refused: Vec<Reason> = done.iter().filter_map(|done| done.as_ref().err().copied()).collect();
    assert_eq!(refused, vec![Reason::InsufficientCredits; 54]);
    assert_eq!(nodes[0].balance(world, "ana").await.total, 0);
    nodes[1].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn the_same_key_fifty_times_at_once_has_one_effect_and_one_answer(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let debits = (0..50).map(|n| nodes[n % 2].debit("ana", CREDIT, "the key"));
    let done: Vec<_> = join_all(debits).await.into_iter().map(Result::unwrap).collect();
    assert!(done.iter().all(|answer| *answer == done[0] && !answer.transaction_id.is_empty()));
    assert_eq!(nodes[0].balance(world, "ana").await.total, 9 * CREDIT);
    nodes[0].debit("ana", CREDIT, "another").await.unwrap();
    assert_eq!(nodes[1].debit("ana", CREDIT, "the key").await.unwrap(), done[0]);
    nodes[0].verified(world).await;
    for node in nodes {
        node.stop().await;
    }
}

async fn a_key_belongs_to_its_request_account_and_method(world: &World) {
    let node = world.node().await;
    node.debit("ana", CREDIT, "k").await.unwrap();
    assert_eq!(node.debit("ana", 2 * CREDIT, "k").await, Err(Reason::IdempotencyKeyReused));
    let at_once = join_all((1..=8).map(|n| node.debit("eva", n, "k"))).await;
    assert_eq!(at_once.iter().filter(|done| done.is_ok()).count(), 1);
    assert!(at_once.iter().flat_map(|done| done.as_ref().err()).all(|error| *error == Reason::IdempotencyKeyReused));
    node.debit("ben", CREDIT, "k").await.unwrap();
    node.grant("ana", Bucket::Bonus, CREDIT, "k").await.unwrap();
    assert_eq!(node.balance(world, "ana").await.total, 10 * CREDIT);
    node.stop().await;
}

async fn a_refusal_is_not_remembered(world: &World) {
    let node = world.node().await;
    assert_eq!(node.debit("ana", 11 * CREDIT, "k").await, Err(Reason::InsufficientCredits));
    node.grant("ana", Bucket::Purchased, CREDIT, "g").await.unwrap();
    assert_eq!(node.debit("ana", 11 * CREDIT, "k").await.unwrap().balance.unwrap().total, 0);
    node.stop().await;
}

async fn keys_are_in_the_field_or_in_the_metadata_and_required(world: &World) {
    let node = world.node().await;
    assert_eq!(node.debit("ana", CREDIT, "").await, Err(Reason::InvalidArgument));
    assert_eq!(node.debit("ana", CREDIT, &"k".repeat(256)).await, Err(Reason::InvalidArgument));
    let with_header = async |field: &str, header: &str| {
        let (product, user_id, reference) = (COMPANION.into(), "ana".into(), "a run".into());
        let message = DebitRequest { product, user_id, amount: CREDIT, idempotency_key: field.into(), reference };
        let mut request = Headers::of_service("marketplace").around(message);
        request.metadata_mut().insert("idempotency-key", header.parse().unwrap());
        node.wallets().debit(request).await.map(Response::into_inner).map_err(|status| reason(&status))
    };
    let done = with_header("", "k").await.unwrap();
    assert_eq!(node.debit("ana", CREDIT, "k").await.unwrap(), done);
    assert_eq!(with_header("k", "k").await.unwrap(), done);
    assert_eq!(with_header("k", "other").await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn amounts_that_cannot_be_are_refused_and_leave_nothing(world: &World) {
    let node = world.node().await;
    for amount in [i64::MIN, -1, 0, 1_000_000_000_000_001, i64::MAX] {
        let key = amount.to_string();
        assert_eq!(node.debit("ana", amount, &key).await, Err(Reason::InvalidArgument), "{amount}");
        assert_eq!(node.grant("ana", Bucket::Bonus, amount, &key).await, Err(Reason::InvalidArgument), "{amount}");
        assert_eq!(node.transfer("ana", "ben", amount, &key).await, Err(Reason::InvalidArgument), "{amount}");
        if amount != 0 {
            assert_eq!(node.reserve("ana", amount, &key).await, Err(Reason::InvalidArgument), "{amount}");
        }
    }
    assert_eq!(node.grant("ana", Bucket::Daily, 1, "k").await, Err(Reason::InvalidArgument));
    assert_eq!(node.debit("", 1, "k").await, Err(Reason::InvalidArgument));
    assert_eq!(node.debit("a\0b", 1, "k").await, Err(Reason::InvalidArgument));
    assert_eq!(node.debit(&"u".repeat(256), 1, "k").await, Err(Reason::InvalidArgument));
    assert_eq!(sql("SELECT COUNT(*) FROM ledger_entries").one::<i64>(&world.db).await.unwrap(), 0);
    node.grant("ana", Bucket::Bonus, 1_000_000_000_000_000, "most").await.unwrap();
    let full = "UPDATE wallets SET bonus = 1000000000000000000 WHERE user_id = 'ana'";
    sql(full).run(&world.db).await.unwrap();
    let other = world.node().await;
    assert_eq!(other.grant("ana", Bucket::Bonus, 1, "too much").await, Err(Reason::InvalidArgument));
    other.stop().await;
    node.stop().await;
}

async fn credits_are_spent_daily_then_bonus_then_purchased(world: &World) {
    let node = world.node().await;
    node.grant("ana", Bucket::Purchased, 20 * CREDIT, "p").await.unwrap();
    node.grant("ana", Bucket::Bonus, 5 * CREDIT, "b").await.unwrap();
    let left = node.debit("ana", 18 * CREDIT, "d").await.unwrap().balance.unwrap();
    assert_eq!((left.daily, left.bonus, left.purchased, left.total), (0, 0, 17 * CREDIT, 17 * CREDIT));
    let spent = [
        moved("usage", "daily", -10 * CREDIT),
        moved("usage", "bonus", -5 * CREDIT),
        moved("usage", "purchased", -3 * CREDIT),
    ];
    assert_eq!(node.story(world, "ana").await[3..], spent);
    node.verified(world).await;
    node.stop().await;
}

async fn what_is_transferred_stays_what_it_was(world: &World) {
    let node = world.node().await;
    node.grant("ana", Bucket::Bonus, 5 * CREDIT, "b").await.unwrap();
    node.grant("ana", Bucket::Purchased, 5 * CREDIT, "p").await.unwrap();
    assert_eq!(node.transfer("ana", "ben", 11 * CREDIT, "t").await, Err(Reason::InsufficientCredits));
    assert_eq!(node.transfer("ana", "ana", CREDIT, "t").await, Err(Reason::InvalidArgument));
    let left = node.transfer("ana", "ben", 7 * CREDIT, "t").await.unwrap();
    assert_eq!(node.transfer("ana", "ben", 7 * CREDIT, "t").await.unwrap(), left);
    let (ana, ben) = (node.balance(world, "ana").await, node.balance(world, "ben").await);
    assert_eq!((ana.daily, ana.bonus, ana.purchased), (10 * CREDIT, 0, 3 * CREDIT));
    assert_eq!((ben.daily, ben.bonus, ben.purchased), (10 * CREDIT, 5 * CREDIT, 2 * CREDIT));
    // Both ways at once: whoever locks second waits.
    let both = (0..20).map(|n| {
        let (from, to) = if n % 2 == 0 { ("ana", "ben") } else { ("ben", "ana") };
        let node = &node;
        async move { node.transfer(from, to, 10_000, &format!("{n}")).await.unwrap() }
    });
    join_all(both).await;
    node.verified(world).await;
    node.stop().await;
}

async fn an_administrator_gives_and_takes(world: &World) {
    let node = world.node().await;
    let adjust = async |amount: i64, reason_text: &str, key: &str| {
        let (user_id, idempotency_key, text) = ("ana".into(), key.into(), reason_text.into());
        let message = AdjustWalletRequest { user_id, amount, bucket: 0, idempotency_key, reason: text };
        let answer = node.ledgers().adjust_wallet(world.admin(COMPANION).around(message)).await;
        answer.map(|balance| balance.into_inner().total).map_err(|status| reason(&status))
    };
    assert_eq!(adjust(5 * CREDIT, "sorry", "1").await, Ok(15 * CREDIT));
    assert_eq!(adjust(-6 * CREDIT, "too much", "2").await, Err(Reason::InsufficientCredits));
    assert_eq!(adjust(-2 * CREDIT, "a mistake", "3").await, Ok(13 * CREDIT));
    assert_eq!(adjust(-2 * CREDIT, "a mistake", "3").await, Ok(13 * CREDIT));
    for (amount, text) in [(0, "x"), (i64::MIN, "x"), (1, "")] {
        assert_eq!(adjust(amount, text, "4").await, Err(Reason::InvalidArgument), "{amount}");
    }
    assert_eq!(
        node.story(world, "ana").await[1..],
        [moved("adjustment", "bonus", 5 * CREDIT), moved("adjustment", "bonus", -2 * CREDIT)]
    );
    let message = || AdjustWalletRequest { user_id: "ana".into(), amount: 1, ..AdjustWalletRequest::default() };
    let refused = node.ledgers().adjust_wallet(world.user(COMPANION, "ana").around(message())).await;
    assert_eq!(refused.map_err(|status| reason(&status)).unwrap_err(), Reason::PermissionDenied);
    node.stop().await;
}

async fn page(node: &Node, headers: &Headers, message: ListTransactionsRequest) -> Result<(Vec<i64>, String), Reason> {
    let answer = node.wallets().list_transactions(headers.around(message)).await.map_err(|status| reason(&status))?;
    let answer = answer.into_inner();
    Ok((answer.transactions.iter().map(|it| it.amount).collect(), answer.next_page_token))
}

async fn movements_are_paged_by_token_and_by_number(world: &World) {
    let node = world.node().await;
    for n in 1..=5 {
        node.debit("ana", n, &n.to_string()).await.unwrap();
    }
    let (ana, ben) = (world.user(COMPANION, "ana"), world.user(COMPANION, "ben"));
    let by_token = |page_token: &str| ListTransactionsRequest {
        page_size: 2,
        page_token: page_token.into(),
        ..ListTransactionsRequest::default()
    };
    let (first, token) = page(&node, &ana, by_token("")).await.unwrap();
    assert_eq!(first, [-5, -4]);
    node.debit("ana", 9, "meanwhile").await.unwrap();
    let (second, next) = page(&node, &ana, by_token(&token)).await.unwrap();
    assert_eq!(second, [-3, -2]);
    assert_eq!(page(&node, &ana, by_token(&next)).await.unwrap(), (vec![-1, 10 * CREDIT], String::new()));
    assert_eq!(page(&node, &ben, by_token(&token)).await, Err(Reason::InvalidArgument));
    assert_eq!(page(&node, &ana, by_token("forged")).await, Err(Reason::InvalidArgument));
    let by_number = |page, limit| ListTransactionsRequest { page, limit, ..ListTransactionsRequest::default() };
    assert_eq!(page(&node, &ana, by_number(1, 3)).await.unwrap().0, [-9, -5, -4]);
    assert_eq!(page(&node, &ana, by_number(3, 3)).await.unwrap().0, [10 * CREDIT]);
    assert_eq!(page(&node, &ana, by_number(4, 3)).await.unwrap().0, Vec::<i64>::new());
    assert_eq!(page(&node, &ana, by_number(i32::MAX, 1000)).await.unwrap().0, Vec::<i64>::new());
    for bad in [by_number(-1, 3), by_number(1, 1001), by_number(0, -1)] {
        assert_eq!(page(&node, &ana, bad).await, Err(Reason::InvalidArgument));
    }
    let message = ListWalletTransactionsRequest { user_id: "ana".into(), page_size: 1, page_token: token };
    let refused = node.ledgers().list_wallet_transactions(world.admin(COMPANION).around(message)).await;
    assert_eq!(refused.map_err(|status| reason(&status)).unwrap_err(), Reason::InvalidArgument);
    node.stop().await;
}

async fn a_statement_adds_up(world: &World) {
    let node = world.node().await;
    node.debit("ana", 3 * CREDIT, "1").await.unwrap();
    let (from, minute) = (world.clock.now_ms() + 60_000, std::time::Duration::from_secs(60));
    world.clock.advance(minute);
    node.debit("ana", CREDIT, "2").await.unwrap();
    node.debit("ana", CREDIT, "3").await.unwrap();
    node.grant("ana", Bucket::Bonus, 4 * CREDIT, "4").await.unwrap();
    world.clock.advance(minute);
    let to = world.clock.now_ms();
    node.debit("ana", CREDIT, "5").await.unwrap();
    let statement = async |from: i64, to: i64| {
        let request = world.user(COMPANION, "ana").around(GetStatementRequest { from, to });
        node.wallets().get_statement(request).await.map(Response::into_inner).map_err(|status| reason(&status))
    };
    let told = statement(from, to).await.unwrap();
    assert_eq!((told.opening, told.closing), (7 * CREDIT, 9 * CREDIT));
    let lines: Vec<_> =
        told.lines.iter().map(|it| (it.kind.as_str(), it.bucket.as_str(), it.amount, it.count)).collect();
    assert_eq!(lines, [("grant", "bonus", 4 * CREDIT, 1), ("usage", "daily", -2 * CREDIT, 2)]);
    let all = statement(0, to + 1).await.unwrap();
    assert_eq!((all.opening, all.closing), (0, 8 * CREDIT));
    assert_eq!(all.lines.iter().map(|line| line.amount).sum::<i64>(), 8 * CREDIT);
    assert_eq!(statement(to, from).await, Err(Reason::InvalidArgument));
    assert_eq!(statement(1, 1 + 401 * 86_400_000).await, Err(Reason::InvalidArgument));
    node.stop().await;
}

async fn a_product_without_credits_has_empty_wallets(world: &World) {
    let node = world.node().await;
    let debit = async |product: &str, amount: i64| {
        let (product, user_id, key) = (product.into(), "ana".into(), format!("{amount}"));
        let message = DebitRequest { product, user_id, amount, idempotency_key: key, reference: String::new() };
        let answer = node.wallets().debit(Headers::of_service("storage").around(message)).await;
        answer.map(drop).map_err(|status| reason(&status))
    };
    assert_eq!(debit("adiuva", 1).await, Err(Reason::InsufficientCredits));
    assert_eq!(debit("nothing", 1).await, Err(Reason::NotFound));
    let spend = SpendCreditsRequest { amount: 1, idempotency_key: "k".into(), reference: "a hat".into() };
    let spent = async |product: &str| {
        let answer = node.wallets().spend_credits(world.user(product, "ana").around(spend.clone())).await;
        answer.map(|answer| answer.into_inner().balance.unwrap().total).map_err(|status| reason(&status))
    };
    assert_eq!(spent("adiuva").await, Err(Reason::InsufficientCredits));
    assert_eq!(spent(COMPANION).await, Ok(10 * CREDIT - 1));
    node.stop().await;
}
