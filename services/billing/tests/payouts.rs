//! What developers are paid, and what comes back of it.
use weft_core::Reason;
use weft_proto::billing::v1::OpenDeveloperAccountRequest;
use weft_proto::billing::v1::revenue_service_client::RevenueServiceClient;
use weft_testing::on_both_databases;

use crate::harness::market::{DAYS_40_S, MONTH, Market, NEXT, PRODUCT, asked, moved, number, parts, payout, period};
use crate::harness::{Chance, Node, World, reason};

on_both_databases! {
    ten_payouts_at_once_transfer_once
    a_developer_without_an_account_is_not_paid_yet
    a_transfer_that_cannot_be_reversed_is_a_debt_of_the_next_payouts
    a_developer_has_one_account
    a_refund_after_the_payout_reverses_the_transfer
    a_refund_before_the_payout_is_not_paid_out
    the_books_agree_after_many_sales_refunds_and_payouts
}

/// What Stripe transferred less what it reversed.
fn transferred(market: &Market<'_>) -> i64 {
    let transfers = market.shop.stub.objects("tr");
    transfers
        .iter()
        .filter(|of| of["object"] == "transfer")
        .map(|of| number(&of["amount"]) - number(&of["amount_reversed"]))
        .sum()
}

async fn ten_payouts_at_once_transfer_once(world: &World) {
    let market = Market::ready(world).await;
    market.charge("plugin", 500).await.unwrap();
    market.shop.wait(DAYS_40_S);
    let other = market.shop.another().await;
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..10 {
        let node: &Node = if nth % 2 == 0 { &market.shop.node } else { &other };
        let mut client = RevenueServiceClient::new(node.channel());
        calls.spawn(async move { client.pay_developer(asked(payout("dora", MONTH))).await.unwrap().into_inner() });
    }
    let payouts = calls.join_all().await;
    assert!(payouts.iter().all(|of| of.id == payouts[0].id && of.amount_minor == 350), "{payouts:?}");
    assert_eq!(payouts.iter().filter(|of| !of.already_paid).count(), 1);
    assert_eq!(market.count("tr"), 1);
    other.stop().await;
    market.close().await;
}

async fn a_developer_without_an_account_is_not_paid_yet(world: &World) {
    let market = Market::open(world).await;
    market.buyer("ben", "pm_card_visa").await;
    market.shop.wait(1);
    market.charge("plugin", 500).await.unwrap();
    market.shop.wait(DAYS_40_S);
    assert_eq!(market.pay(MONTH).await, Err(Reason::FailedPrecondition));
    let account = market.account("dora").await;
    assert!(!account.payouts_enabled);
    assert_eq!(market.pay(MONTH).await, Err(Reason::FailedPrecondition));
    market.shop.stub.finish_onboarding(&account.account_id);
    assert_eq!(market.pay(MONTH).await.unwrap().amount_minor, 350);
    market.close().await;
}

async fn a_transfer_that_cannot_be_reversed_is_a_debt_of_the_next_payouts(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    market.shop.wait(DAYS_40_S);
    let paid = market.pay(MONTH).await.unwrap();
    // Somebody has reversed it by hand, so Stripe refuses to do it again.
    market.shop.stub.reverse_transfer(&paid.transfer_id);
    market.refund(&sale, 0, "all").await.unwrap();
    assert_eq!(market.earnings().await.debt_minor.get("USD"), Some(&350));
    market.charge("other", 1000).await.unwrap();
    market.shop.wait(DAYS_40_S);
    assert_eq!(market.pay(NEXT).await.unwrap().amount_minor, 350);
    assert!(market.earnings().await.debt_minor.is_empty());
    market.close().await;
}

async fn a_developer_has_one_account(world: &World) {
    let market = Market::open(world).await;
    let other = market.shop.another().await;
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..8 {
        let node: &Node = if nth % 2 == 0 { &market.shop.node } else { &other };
        let mut client = RevenueServiceClient::new(node.channel());
        let message = OpenDeveloperAccountRequest {
            product: PRODUCT.into(),
            developer_id: "dora".into(),
            return_url: "/studio".into(),
        };
        calls.spawn(async move { client.open_developer_account(asked(message)).await.unwrap().into_inner() });
    }
    let accounts = calls.join_all().await;
    assert!(accounts.iter().all(|of| of.account_id == accounts[0].account_id), "{accounts:?}");
    assert_eq!(market.count("acct"), 1);
    let links = market.shop.stub.calls();
    let mut links = links.iter().filter(|call| call.path == "/v1/account_links");
    assert!(links.all(|call| call.field("return_url") == Some("https://app.example.com/studio")));
    let elsewhere = OpenDeveloperAccountRequest {
        product: PRODUCT.into(),
        developer_id: "dora".into(),
        return_url: "https://evil.example.com/".into(),
    };
    let status = market.client().open_developer_account(asked(elsewhere)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidArgument);
    other.stop().await;
    market.close().await;
}

async fn a_refund_after_the_payout_reverses_the_transfer(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    market.shop.wait(DAYS_40_S);
    assert_eq!(market.pay(MONTH).await.unwrap().amount_minor, 350);
    let back = market.refund(&sale, 0, "all").await.unwrap();
    assert_eq!(parts(&back), (350, 150, 500, "refunded"));
    let events = market.events().await;
    assert_eq!(moved(&events), vec![("refund", -500, -350, -150), ("sale", 500, 350, 150)]);
    let earnings = market.earnings().await;
    assert_eq!(earnings.periods, vec![period(NEXT, -350, 0, -1), period(MONTH, 350, 0, 1)]);
    assert!(earnings.debt_minor.is_empty(), "{earnings:?}");
    assert_eq!(number(&market.shop.stub.objects("tr")[0]["amount_reversed"]), 350);
    market.shop.wait(DAYS_40_S);
    assert_eq!(market.pay(NEXT).await.unwrap().amount_minor, 0);
    assert_eq!(market.count("trr"), 1);
    market.close().await;
}

async fn a_refund_before_the_payout_is_not_paid_out(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("plugin", 500).await.unwrap();
    market.charge("other", 100).await.unwrap();
    market.shop.wait(DAYS_40_S);
    // The refund is of the next month, and still nothing is paid out that would have to come back.
    market.refund(&sale, 0, "all").await.unwrap();
    assert_eq!(market.pay(MONTH).await.unwrap().amount_minor, 70);
    market.charge("third", 1000).await.unwrap();
    market.shop.wait(DAYS_40_S);
    assert_eq!(market.pay(NEXT).await.unwrap().amount_minor, 700);
    assert_eq!(market.count("trr"), 0);
    market.close().await;
}

async fn the_books_agree_after_many_sales_refunds_and_payouts(world: &World) {
    let market = Market::ready(world).await;
    let mut dice = Chance::new(7);
    let months = ["2026-09", "2026-10", "2026-11"];
    for (nth, month) in months.into_iter().enumerate() {
        for item in 0..6 {
            let amount = 1 + dice.below(10_000);
            let sale = market.charge(&format!("{nth} {item}"), amount).await.unwrap();
            if dice.below(2) == 0 {
                let part = 1 + dice.below(amount);
                market.refund(&sale, part, &format!("{nth} {item}")).await.unwrap();
            }
        }
        market.shop.wait(31 * 24 * 3600);
        let earned: i64 = market.events().await.iter().map(|event| event.developer_minor).sum();
        let before = transferred(&market);
        let paid = market.pay(month).await.unwrap();
        assert_eq!(before + paid.amount_minor, earned, "{month}");
    }
    let earned: i64 = market.events().await.iter().map(|event| event.developer_minor).sum();
    let kept: i64 = market.events().await.iter().map(|event| event.amount_minor).sum();
    let refunded: i64 = market.shop.stub.objects("re").iter().map(|refund| number(&refund["amount"])).sum();
    assert_eq!(kept, market.charged() - refunded);
    assert_eq!(earned, transferred(&market));
    let earnings = market.earnings().await.periods;
    assert_eq!(earnings.iter().map(|of| of.earned_minor).sum::<i64>(), earned);
    assert_eq!(earnings.iter().map(|of| of.paid_minor).sum::<i64>(), earned);
    market.close().await;
}
