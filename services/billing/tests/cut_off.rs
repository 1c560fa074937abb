//! The marketplace's money when Stripe, the network or the caller goes away in the middle.
use std::time::Duration;

use weft_core::Reason;
use weft_db::sql;
use weft_testing::stripe::Misbehave;
use weft_testing::{eventually, on_both_databases};

use crate::harness::World;
use crate::harness::market::{MONTH, Market, parts, period};

on_both_databases! {
    a_charge_that_is_cut_off_anywhere_is_made_once
    a_refund_that_is_cut_off_anywhere_is_made_once
    a_payout_that_is_cut_off_anywhere_is_made_once
    what_nobody_asks_for_again_is_finished_all_the_same
}

/// What Stripe does wrong to one request, and how long the caller waits before it gives up.
fn mishaps() -> Vec<(Misbehave, bool)> {
    vec![
        (Misbehave::ServerError, false),
        (Misbehave::CutAfter, false),
        (Misbehave::Malformed, false),
        (Misbehave::RateLimited(1), false),
        // The caller is gone, and so is what was at work for it: after Stripe did it, and before.
        (Misbehave::Slow(Duration::from_millis(300)), true),
        (Misbehave::Hang, true),
    ]
}

/// Makes a call meet a mishap at a request of this path, perhaps gives it up there, and repeats it until it answers.
async fn survive<T, F: Future<Output = Result<T, Reason>>>(
    market: &Market<'_>,
    path: &str,
    (mishap, gives_up): (Misbehave, bool),
    call: impl Fn() -> F,
) -> T {
    let before = market.shop.stub.calls().len();
    market.shop.stub.misbehave_at(path, mishap);
    let met = async || market.shop.stub.calls()[before..].iter().any(|call| call.path.starts_with(path));
    if gives_up {
        tokio::select! {
            _ = call() => panic!("{path} answered in spite of {mishap:?}"),
            () = eventually("the request", Duration::from_secs(20), met) => {}
        }
    }
    for _ in 0..6 {
        match call().await {
            Ok(answer) => {
                assert!(met().await, "{path} was not asked");
                return answer;
            }
            Err(Reason::Unavailable) => {}
            Err(other) => panic!("{path} after {mishap:?}: {other:?}"),
        }
    }
    panic!("{path} never answers after {mishap:?}");
}

async fn a_charge_that_is_cut_off_anywhere_is_made_once(world: &World) {
    let market = Market::ready(world).await;
    let mut sales = 0;
    for path in ["/v1/customers", "/v1/payment_intents", "/v1/payment_intents/pi"] {
        for mishap in mishaps() {
            let item = format!("{path} {mishap:?}");
            let sale = survive(&market, path, mishap, || market.charge(&item, 500)).await;
            assert_eq!(parts(&sale), (350, 150, 0, "paid"));
            sales += 1;
            assert_eq!(market.charged(), 500 * sales, "{item}");
        }
    }
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 350 * sales, 0, sales)]);
    market.close().await;
}

async fn a_refund_that_is_cut_off_anywhere_is_made_once(world: &World) {
    let market = Market::ready(world).await;
    for (nth, mishap) in mishaps().into_iter().enumerate() {
        let sale = market.charge(&format!("item {nth}"), 500).await.unwrap();
        let key = format!("key {nth}");
        let back = survive(&market, "/v1/refunds", mishap, || market.refund(&sale, 200, &key)).await;
        assert_eq!(back.refunded_minor, 200, "{mishap:?}");
        assert_eq!(market.count("re"), nth + 1, "{mishap:?}");
    }
    market.close().await;
}

async fn a_payout_that_is_cut_off_anywhere_is_made_once(world: &World) {
    let market = Market::ready(world).await;
    let months = ["2026-09", "2026-10", "2026-11", "2026-12", "2027-01", "2027-02"];
    for (nth, (mishap, month)) in mishaps().into_iter().zip(months).enumerate() {
        market.charge(&format!("item {nth}"), 500).await.unwrap();
        market.shop.wait(31 * 24 * 3600);
        let paid = survive(&market, "/v1/transfers", mishap, || market.pay(month)).await;
        assert_eq!((paid.amount_minor, paid.period.as_str()), (350, month), "{mishap:?}");
        assert_eq!(market.count("tr"), nth + 1, "{mishap:?}");
        assert!(market.pay(month).await.unwrap().already_paid);
    }
    market.close().await;
}

async fn what_nobody_asks_for_again_is_finished_all_the_same(world: &World) {
    let market = Market::ready(world).await;
    let sale = market.charge("refunded", 100).await.unwrap();
    let gone = async |path: &str, call: &mut (dyn Future<Output = ()> + Unpin)| {
        let before = market.shop.stub.calls().len();
        market.shop.stub.misbehave_at(path, Misbehave::Slow(Duration::from_millis(200)));
        let met = async || market.shop.stub.calls()[before..].iter().any(|call| call.path.starts_with(path));
        tokio::select! {
            () = call => panic!("{path} answered"),
            () = eventually("the request", Duration::from_secs(20), met) => {}
        }
    };
    gone("/v1/payment_intents/pi", &mut Box::pin(async { drop(market.charge("charged", 500).await) })).await;
    gone("/v1/refunds", &mut Box::pin(async { drop(market.refund(&sale, 100, "key").await) })).await;
    gone("/v1/payment_intents", &mut Box::pin(async { drop(market.charge("never charged", 700).await) })).await;
    let pending = async || {
        let sql = sql("SELECT (SELECT COUNT(*) FROM sales WHERE status = 'pending') \
             + (SELECT COUNT(*) FROM sale_refunds WHERE status = 'pending')");
        sql.one::<i64>(&world.db).await.unwrap()
    };
    assert_eq!(pending().await, 3);
    market.shop.wait(120);
    eventually("that all is finished", Duration::from_secs(20), async || pending().await == 0).await;
    assert_eq!(market.earnings().await.periods, vec![period(MONTH, 350, 0, 1)]);
    assert_eq!((market.charged(), market.count("re")), (600, 1));
    market.charge("charged", 500).await.unwrap();
    assert_eq!(market.charged(), 600);
    market.charge("never charged", 700).await.unwrap();
    assert_eq!(market.charged(), 1300);
    market.close().await;
}
