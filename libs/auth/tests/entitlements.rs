//! How old an entitlement may be, and what holds while billing is away.
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_auth::Entitlements;
use weft_core::{Clock, Reason};
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;

use crate::fakes::{Billing, Mood, PRODUCT, START_MS, connect, eventually, nobody};

struct Setting {
    billing: Billing,
    entitlements: Entitlements,
    clock: Clock,
    _tasks: JoinSet<()>,
}

async fn setting() -> Setting {
    let mut tasks = JoinSet::new();
    let billing = Billing::with_features(&[("chat", true)]);
    let clock = Clock::manual(START_MS);
    let entitlements = Entitlements::new(billing.client(&mut tasks).await, clock.clone());
    Setting { billing, entitlements, clock, _tasks: tasks }
}

impl Setting {
    /// The reason why the entitlements of `user` cannot be had.
    async fn refusal(&self, user: &str) -> Option<Reason> {
        let outcome = timeout(Duration::from_secs(5), self.entitlements.of(PRODUCT, user)).await.expect("never hangs");
        Reason::of(&outcome.expect_err("refused"))
    }
}

#[tokio::test]
async fn questions_about_one_account_at_once_are_asked_once() {
    let setting = setting().await;
    setting.billing.is(Mood::Slow);
    let answers = join_all((0..100).map(|_| setting.entitlements.of(PRODUCT, "ada"))).await;
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!((answer.user_id.as_str(), answer.features.get("chat")), ("ada", Some(&true)));
    }
    assert_eq!(setting.billing.asked_about("ada"), 1);
    assert_eq!(setting.entitlements.of(PRODUCT, "eve").await.unwrap().user_id, "eve");
}

#[tokio::test]
async fn a_change_of_plan_holds_after_a_second() {
    let setting = setting().await;
    assert!(!setting.entitlements.of(PRODUCT, "ada").await.unwrap().features.contains_key("voice"));
    setting.billing.sells("voice");
    setting.clock.advance(Duration::from_secs(1));
    assert!(setting.entitlements.of(PRODUCT, "ada").await.unwrap().features.contains_key("voice"));
    assert_eq!(setting.billing.asked_about("ada"), 2);
}

#[tokio::test]
async fn a_change_of_plan_holds_after_a_second_also_where_the_clock_stands_still() {
    let setting = setting().await;
    setting.entitlements.of(PRODUCT, "ada").await.unwrap();
    setting.billing.sells("voice");
    let sold = async || setting.entitlements.of(PRODUCT, "ada").await.unwrap().features.contains_key("voice");
    let waiting = async {
        while !sold().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(5), waiting).await.unwrap();
}

#[tokio::test]
async fn nothing_older_than_a_second_is_served_while_billing_is_away() {
    let setting = setting().await;
    setting.entitlements.of(PRODUCT, "ada").await.unwrap();
    setting.billing.is(Mood::Away);
    setting.clock.advance(Duration::from_secs(1));
    assert_eq!(setting.refusal("ada").await, Some(Reason::Unavailable));
    setting.billing.is(Mood::Hanging);
    assert_eq!(setting.refusal("ada").await, Some(Reason::Unavailable));

    setting.billing.is(Mood::Well);
    setting.entitlements.of(PRODUCT, "ada").await.expect("and it is back at once");
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let client = EntitlementServiceClient::new(connect(&nobody().await));
    let entitlements = Entitlements::new(client, Clock::manual(START_MS));
    let outcome = timeout(Duration::from_secs(5), entitlements.of(PRODUCT, "ada")).await.unwrap();
    assert_eq!(Reason::of(&outcome.unwrap_err()), Some(Reason::Unavailable));
}

#[tokio::test]
async fn an_unknown_product_is_not_found_and_a_refusal_of_ourselves_is_our_trouble() {
    let setting = setting().await;
    setting.billing.refuses(Some(Reason::NotFound));
    assert_eq!(setting.refusal("ada").await, Some(Reason::NotFound));
    for ours in [Reason::Unauthenticated, Reason::PermissionDenied, Reason::Internal] {
        setting.billing.refuses(Some(ours));
        assert_eq!(setting.refusal("ada").await, Some(Reason::Unavailable), "{ours:?}");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_keep_the_others_from_an_answer() {
    let setting = setting().await;
    setting.billing.is(Mood::Hanging);
    let gone = timeout(Duration::from_millis(50), setting.entitlements.of(PRODUCT, "ada")).await;
    assert!(gone.is_err(), "left before the answer");
    eventually("the question has arrived", || setting.billing.asked_about("ada") == 1).await;
    setting.billing.is(Mood::Well);
    setting.entitlements.of(PRODUCT, "ada").await.unwrap();
}
