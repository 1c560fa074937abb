//! Billing with a Stripe of its own: buyers, events and what they lead to.
use std::time::Duration;

use serde_json::Value;
use tonic::{Request, Status};
use weft_auth::PRODUCT_HEADER;
use weft_billing::Config;
use weft_core::Reason;
use weft_db::sql;
use weft_product::Products;
use weft_proto::billing::v1::subscription_service_client::SubscriptionServiceClient;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::webhook_service_client::WebhookServiceClient;
use weft_proto::billing::v1::{
    Balance, Checkout, CreateCheckoutRequest, GetBalanceRequest, GetSubscriptionRequest, ListPaymentsRequest, Payment,
    RefundPaymentRequest, Subscription,
};
use weft_proto::google::api::HttpBody;
use weft_testing::eventually;
use weft_testing::stripe::{Signed, StripeStub};

use super::{Headers, Node, World, reason};

/// Minutes that no test lives for.
const NEVER: u32 = 50_000_000;

/// A server that sells, and its Stripe.
pub struct Shop<'a> {
    pub world: &'a World,
    pub stub: StripeStub,
    pub node: Node,
}

impl<'a> Shop<'a> {
    /// One that compares its events with Stripe's only at its start.
    pub async fn open(world: &'a World) -> Shop<'a> {
        Shop::open_comparing(world, NEVER).await
    }

    /// One that compares them every so many minutes.
    pub async fn open_comparing(world: &'a World, minutes: u32) -> Shop<'a> {
        let stub = StripeStub::start().await;
        stub.set_clock(world.clock.clone());
        let config = Config { weft_billing_sync_minutes: minutes, ..Shop::config(world, &stub) };
        let node = world.node_of(config).await;
        let compared = async || {
            let done: i64 = sql("SELECT COUNT(*) FROM stripe_syncs").one(&world.db).await.unwrap();
            done == i64::try_from(Products::builtin().iter().count()).unwrap()
        };
        eventually("the first comparison", Duration::from_secs(20), compared).await;
        Shop { world, stub, node }
    }

    /// Another server on the same database and Stripe.
    pub async fn another(&self) -> Node {
        self.world.node_of(Shop::config(self.world, &self.stub)).await
    }

    fn config(world: &World, stub: &StripeStub) -> Config {
        let mut config = world.config.clone();
        config.stripe.stripe_secret_key = Some(stub.secret_key().into());
        config.stripe.stripe_webhook_secret = Some(stub.webhook_secret().into());
        config.stripe.stripe_api_base = Some(stub.url().into());
        config.weft_billing_sync_minutes = NEVER;
        config.weft_app_url = "https://app.example.com".into();
        config
    }

    /// A call of a user.
    pub fn by<M>(&self, product: &str, user_id: &str, message: M) -> Request<M> {
        let token = self.world.access_token(product, user_id, &[]);
        Headers { access_token: Some(token), service_token: None }.around(message)
    }

    pub async fn checkout(
        &self,
        product: &str,
        user_id: &str,
        wanted: CreateCheckoutRequest,
    ) -> Result<Checkout, Reason> {
        let mut client = SubscriptionServiceClient::new(self.node.channel());
        let answer = client.create_checkout(self.by(product, user_id, wanted)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    pub async fn subscription(&self, product: &str, user_id: &str) -> Subscription {
        let mut client = SubscriptionServiceClient::new(self.node.channel());
        client.get_subscription(self.by(product, user_id, GetSubscriptionRequest {})).await.unwrap().into_inner()
    }

    pub async fn payments(&self, product: &str, user_id: &str) -> Vec<Payment> {
        let mut client = SubscriptionServiceClient::new(self.node.channel());
        let request = self.by(product, user_id, ListPaymentsRequest::default());
        client.list_payments(request).await.unwrap().into_inner().payments
    }

    pub async fn refund(&self, payment_id: &str, amount_minor: i64, key: &str) -> Result<Payment, Reason> {
        let mut client = SubscriptionServiceClient::new(self.node.channel());
        let message = RefundPaymentRequest { payment_id: payment_id.into(), amount_minor, idempotency_key: key.into() };
        let answer = client.refund_payment(self.world.admin("companion").around(message)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    pub async fn balance(&self, product: &str, user_id: &str) -> Balance {
        let mut client = WalletServiceClient::new(self.node.channel());
        let request = self.by(product, user_id, GetBalanceRequest::default());
        client.get_balance(request).await.unwrap().into_inner()
    }

    /// An event as Stripe sends it.
    pub fn signed(&self, event: &Value) -> Signed {
        Signed::genuine(self.stub.webhook_secret(), event, self.world.clock.now_ms() / 1000)
    }

    /// Delivers something to a product; what became of it.
    pub async fn post(&self, product: &str, signed: &Signed) -> Result<String, Reason> {
        post(&self.node, product, signed).await.map_err(|status| reason(&status))
    }

    /// Delivers events to a product in their order; what became of each.
    pub async fn deliver(&self, product: &str, events: &[Value]) -> Vec<String> {
        let mut outcomes = Vec::new();
        for event in events {
            outcomes.push(self.post(product, &self.signed(event)).await.unwrap());
        }
        outcomes
    }

    /// Time goes by: Stripe tells events of one second apart by nothing.
    pub fn wait(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }

    /// Buys a package, pays it and lets the events arrive.
    pub async fn buy(&self, user_id: &str, package: &str) -> Vec<Value> {
        let wanted = CreateCheckoutRequest { package_id: package.into(), ..Default::default() };
        let session = self.checkout("companion", user_id, wanted).await.unwrap().session_id;
        self.wait(2);
        let events = self.stub.complete_checkout(&session);
        self.deliver("companion", &events).await;
        events
    }

    /// The id of the first subscription of an account, as Stripe has it.
    pub fn subscription_of(&self, user_id: &str) -> String {
        let all = self.stub.objects("sub");
        let own = all.iter().find(|of| of["metadata"]["user_id"] == user_id).unwrap();
        own["id"].as_str().unwrap().to_owned()
    }

    /// The id of the newest charge at Stripe.
    pub fn charge(&self) -> String {
        self.stub.objects("ch").last().unwrap()["id"].as_str().unwrap().to_owned()
    }
}

/// Delivers something to a server.
pub async fn post(node: &Node, product: &str, signed: &Signed) -> Result<String, Status> {
    let body = HttpBody {
        content_type: "application/json".into(),
        data: signed.body.clone().into_bytes(),
        extensions: Vec::new(),
    };
    let mut request = Request::new(body);
    request.metadata_mut().insert("stripe-signature", signed.header.parse().unwrap());
    request.metadata_mut().insert(PRODUCT_HEADER, product.parse().unwrap());
    let answer = WebhookServiceClient::new(node.channel()).receive_stripe_event(request).await?.into_inner();
    assert!(answer.ok);
    Ok(answer.outcome)
}
