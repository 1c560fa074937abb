//! What billing knows of somebody: to take along, and to be forgotten.
use serde_json::Value;
use weft_db::sql;
use weft_proto::billing::v1::personal_data_service_client::PersonalDataServiceClient;
use weft_proto::billing::v1::{CreateCheckoutRequest, EraseAccountRequest, ExportAccountRequest};
use weft_testing::on_both_databases;
use weft_testing::stripe::Misbehave;

use crate::harness::{Headers, Shop, World};

on_both_databases! {
    an_export_has_what_was_paid_and_nothing_of_others
    an_erasure_ends_subscriptions_and_keeps_what_the_law_wants
    an_erasure_waits_for_the_payment_provider
}

const PRODUCT: &str = "companion";

fn client(shop: &Shop<'_>) -> PersonalDataServiceClient<tonic::transport::Channel> {
    PersonalDataServiceClient::new(shop.node.channel())
}

/// As identity asks.
fn about<M>(message: M) -> tonic::Request<M> {
    let mut request = Headers::of_service("identity").around(message);
    request.metadata_mut().insert("x-weft-product", PRODUCT.parse().unwrap());
    request
}

async fn export(shop: &Shop<'_>, user_id: &str) -> Vec<(String, Value)> {
    let message = ExportAccountRequest { account_id: user_id.to_owned() };
    let request = about(message);
    let mut parts = client(shop).export_account(request).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        got.push((part.name, serde_json::from_str(&part.json).unwrap()));
    }
    got
}

async fn erase(shop: &Shop<'_>, user_id: &str) -> Result<(), tonic::Status> {
    let message = EraseAccountRequest { account_id: user_id.to_owned() };
    let request = about(message);
    client(shop).erase_account(request).await.map(drop)
}

async fn count(world: &World, text: &'static str, user_id: &str) -> i64 {
    sql(text).bind(user_id).one(&world.db).await.unwrap()
}

async fn subscribe(shop: &Shop<'_>, user_id: &str) -> String {
    let wanted = CreateCheckoutRequest { plan_id: "vip_monthly".into(), ..Default::default() };
    let session = shop.checkout(PRODUCT, user_id, wanted).await.unwrap().session_id;
    shop.wait(2);
    let events = shop.stub.complete_checkout(&session);
    shop.deliver(PRODUCT, &events).await;
    shop.subscription_of(user_id)
}

async fn an_export_has_what_was_paid_and_nothing_of_others(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_500").await;
    shop.buy("ben", "credits_10").await;
    let parts = export(&shop, "ana").await;
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["plan", "subscriptions", "overrides", "payments", "transactions", "usage"]);
    assert_eq!(parts[3].1.as_array().unwrap().len(), 1, "{:?}", parts[3]);
    assert_eq!(parts[3].1[0]["item"], "credits_500");
    assert!(!parts[4].1.as_array().unwrap().is_empty());
    assert!(!format!("{parts:?}").contains("credits_10\""));
    shop.node.stop().await;
}

async fn an_erasure_ends_subscriptions_and_keeps_what_the_law_wants(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_500").await;
    let subscription = subscribe(&shop, "ana").await;
    let other = subscribe(&shop, "ben").await;
    for _ in 0..2 {
        erase(&shop, "ana").await.unwrap();
    }
    assert_eq!(shop.stub.object(&subscription).unwrap()["status"], "canceled");
    assert_eq!(shop.stub.object(&other).unwrap()["status"], "active", "somebody else's");
    assert_eq!(count(world, "SELECT COUNT(*) FROM customers WHERE user_id = $1", "ana").await, 0);
    assert_eq!(count(world, "SELECT COUNT(*) FROM accounts WHERE user_id = $1", "ana").await, 0);
    assert!(count(world, "SELECT COUNT(*) FROM ledger_entries WHERE user_id = $1", "ana").await > 0);
    assert!(count(world, "SELECT COUNT(*) FROM payments WHERE user_id = $1", "ana").await > 0);
    assert_eq!(count(world, "SELECT COUNT(*) FROM customers WHERE user_id = $1", "ben").await, 1);
    shop.node.stop().await;
}

async fn an_erasure_waits_for_the_payment_provider(world: &World) {
    let shop = Shop::open(world).await;
    shop.buy("ana", "credits_500").await;
    for _ in 0..20 {
        shop.stub.misbehave_at("/v1/customers", Misbehave::ServerError);
    }
    assert!(erase(&shop, "ana").await.is_err());
    assert_eq!(count(world, "SELECT COUNT(*) FROM customers WHERE user_id = $1", "ana").await, 1, "it is asked again");
    shop.stub.behave();
    erase(&shop, "ana").await.unwrap();
    assert_eq!(count(world, "SELECT COUNT(*) FROM customers WHERE user_id = $1", "ana").await, 0);
    shop.node.stop().await;
}
