//! A shop with a marketplace: a buyer `ben`, a developer `dora`, and what they do.
use serde_json::Value;
use tonic::Request;
use tonic::transport::Channel;
use weft_core::Reason;
use weft_proto::billing::v1::revenue_service_client::RevenueServiceClient;
use weft_proto::billing::v1::{
    ChargeRequest, CreateCheckoutRequest, DeveloperAccount, Earnings, GetEarningsRequest, ListRevenueEventsRequest,
    OpenDeveloperAccountRequest, PayDeveloperRequest, Payout, PeriodEarnings, RefundSaleRequest, RevenueEvent, Sale,
};

use super::{Headers, Shop, World, reason};

/// The product whose marketplace it is.
pub const PRODUCT: &str = "companion";
/// The month of the harness' clock.
pub const MONTH: &str = "2026-09";
/// The month after it.
pub const NEXT: &str = "2026-10";
/// From one month into the next, in seconds.
pub const DAYS_40_S: u64 = 40 * 24 * 3600;

/// A shop with a marketplace.
pub struct Market<'a> {
    pub shop: Shop<'a>,
}

impl<'a> Market<'a> {
    /// A shop where nobody has come yet.
    pub async fn open(world: &'a World) -> Market<'a> {
        Market { shop: Shop::open(world).await }
    }

    /// A market with a buyer `ben` and a developer `dora` who is paid out.
    pub async fn ready(world: &'a World) -> Market<'a> {
        let market = Market::open(world).await;
        market.buyer("ben", "pm_card_visa").await;
        market.developer("dora").await;
        market
    }

    /// For calls of the marketplace.
    pub fn client(&self) -> RevenueServiceClient<Channel> {
        RevenueServiceClient::new(self.shop.node.channel())
    }

    /// Makes a customer who pays with this method; Stripe's id.
    pub async fn buyer(&self, user_id: &str, method: &str) -> String {
        let wanted = CreateCheckoutRequest { package_id: "credits_10".into(), ..Default::default() };
        self.shop.checkout(PRODUCT, user_id, wanted).await.unwrap();
        let customer = self.shop.stub.objects("cus").last().unwrap()["id"].as_str().unwrap().to_owned();
        self.shop.stub.save_payment_method(&customer, method);
        customer
    }

    /// A developer who is paid out.
    pub async fn developer(&self, developer_id: &str) -> DeveloperAccount {
        let account = self.account(developer_id).await;
        self.shop.stub.finish_onboarding(&account.account_id);
        account
    }

    /// A developer's account as it is.
    pub async fn account(&self, developer_id: &str) -> DeveloperAccount {
        let message = OpenDeveloperAccountRequest {
            product: PRODUCT.into(),
            developer_id: developer_id.into(),
            return_url: String::new(),
        };
        self.client().open_developer_account(asked(message)).await.unwrap().into_inner()
    }

    /// `ben` buys from `dora`.
    pub async fn charge(&self, item_id: &str, amount_minor: i64) -> Result<Sale, Reason> {
        self.charge_for("ben", item_id, amount_minor).await
    }

    /// Somebody buys from `dora`.
    pub async fn charge_for(&self, buyer_id: &str, item_id: &str, amount_minor: i64) -> Result<Sale, Reason> {
        let answer = self.client().charge(asked(wanted(buyer_id, item_id, amount_minor))).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    /// A sale is paid back.
    pub async fn refund(&self, sale: &Sale, amount_minor: i64, key: &str) -> Result<Sale, Reason> {
        let answer = self.client().refund_sale(asked(refund(sale, amount_minor, key))).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    /// `dora` is paid out.
    pub async fn pay(&self, period: &str) -> Result<Payout, Reason> {
        let answer = self.client().pay_developer(asked(payout("dora", period))).await;
        answer.map(tonic::Response::into_inner).map_err(|status| reason(&status))
    }

    /// What `dora` earned.
    pub async fn earnings(&self) -> Earnings {
        let message = GetEarningsRequest { product: PRODUCT.into(), developer_id: "dora".into() };
        self.client().get_earnings(asked(message)).await.unwrap().into_inner()
    }

    /// What moved for `dora`.
    pub async fn events(&self) -> Vec<RevenueEvent> {
        let message = ListRevenueEventsRequest {
            product: PRODUCT.into(),
            developer_id: "dora".into(),
            ..ListRevenueEventsRequest::default()
        };
        self.client().list_revenue_events(asked(message)).await.unwrap().into_inner().events
    }

    /// How often Stripe has such an object.
    pub fn count(&self, prefix: &str) -> usize {
        self.shop.stub.objects(prefix).len()
    }

    /// What Stripe has charged buyers in all.
    pub fn charged(&self) -> i64 {
        let paid = self.shop.stub.objects("ch");
        paid.iter().filter(|charge| charge["status"] == "succeeded").map(|charge| number(&charge["amount"])).sum()
    }

    /// Events arrive.
    pub async fn deliver(&self, events: &[Value]) {
        self.shop.deliver(PRODUCT, events).await;
    }

    /// The books agree, and the servers end.
    pub async fn close(self) {
        let faults = weft_billing::verify_revenue(&self.shop.world.config, PRODUCT).await.unwrap();
        assert_eq!(faults, Vec::<String>::new());
        self.shop.node.stop().await;
    }
}

/// A call of the marketplace.
pub fn asked<M>(message: M) -> Request<M> {
    Headers::of_service("marketplace").around(message)
}

/// What somebody buys from `dora`, as an order of its own.
pub fn wanted(buyer_id: &str, item_id: &str, amount_minor: i64) -> ChargeRequest {
    ChargeRequest {
        product: PRODUCT.into(),
        buyer_id: buyer_id.into(),
        developer_id: "dora".into(),
        item_id: item_id.into(),
        amount_minor,
        currency: "USD".into(),
        idempotency_key: weft_core::new_id(),
    }
}

/// What is paid back.
pub fn refund(sale: &Sale, amount_minor: i64, key: &str) -> RefundSaleRequest {
    RefundSaleRequest { product: PRODUCT.into(), sale_id: sale.id.clone(), amount_minor, idempotency_key: key.into() }
}

/// Who is paid out.
pub fn payout(developer_id: &str, period: &str) -> PayDeveloperRequest {
    PayDeveloperRequest {
        product: PRODUCT.into(),
        developer_id: developer_id.into(),
        period: period.into(),
        currency: "USD".into(),
    }
}

/// A number of Stripe's.
pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

/// The developer's, the platform's, what was paid back, the status.
pub fn parts(sale: &Sale) -> (i64, i64, i64, &str) {
    (sale.developer_minor, sale.platform_minor, sale.refunded_minor, &sale.status)
}

/// A period of somebody's earnings.
pub fn period(period: &str, earned_minor: i64, paid_minor: i64, sales: i64) -> PeriodEarnings {
    PeriodEarnings { period: period.into(), currency: "USD".into(), earned_minor, paid_minor, sales }
}

/// Kind, amount, the developer's, the platform's.
pub fn moved(events: &[RevenueEvent]) -> Vec<(&str, i64, i64, i64)> {
    events.iter().map(|of| (of.kind.as_str(), of.amount_minor, of.developer_minor, of.platform_minor)).collect()
}
