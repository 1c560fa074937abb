//! The marketplace's money.
use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};
use weft_product::Products;
use weft_proto::billing::v1::revenue_service_server::RevenueService;
use weft_proto::billing::v1::{
    ChargeRequest, DeveloperAccount, Earnings, GetEarningsRequest, ListRevenueEventsRequest, ListRevenueEventsResponse,
    OpenDeveloperAccountRequest, PayDeveloperRequest, Payout, PeriodEarnings, RefundSaleRequest, RevenueEvent, Sale,
};

use crate::api::page::{Pages, page_size};
use crate::domain::idempotency::{key_of, key_required};
use crate::domain::revenue::{MAX_SALE_MINOR, currency, finished_period, id, price, sale_status, split, taken_back};
use crate::error::Error;
use crate::revenue::{Paid, Revenue, Wanted};
use crate::store::payout::PayoutRow;
use crate::store::revenue::{Earned, EventRow, debts, earnings_list, events_list};
use crate::store::sale::SaleRow;

/// Sales, refunds, payouts and what they come to.
pub struct RevenueApi {
    /// What moves money.
    pub revenue: Revenue,
    /// Which products there are.
    pub products: Arc<Products>,
    /// Where lists go on.
    pub pages: Pages,
}

impl RevenueApi {
    fn product(&self, slug: &str) -> Result<(), Error> {
        self.products.get(slug).map(drop).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }
}

#[tonic::async_trait]
impl RevenueService for RevenueApi {
    async fn open_developer_account(
        &self,
        request: Request<OpenDeveloperAccountRequest>,
    ) -> Result<Response<DeveloperAccount>, Status> {
        let OpenDeveloperAccountRequest { product, developer_id, return_url } = request.into_inner();
        self.product(&product)?;
        id("developer_id", &developer_id)?;
        let (account, page) = self.revenue.open_account(&product, &developer_id, &return_url).await?;
        let payouts_enabled = account.payouts_enabled;
        Ok(Response::new(DeveloperAccount { account_id: account.id, onboarding_url: page, payouts_enabled }))
    }

    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<Sale>, Status> {
        let (metadata, _, mut message) = request.into_parts();
        let field = std::mem::take(&mut message.idempotency_key);
        let keyless = message.encode_to_vec();
        let ChargeRequest { product, buyer_id, developer_id, item_id, amount_minor, currency: code, .. } = message;
        self.product(&product)?;
        id("buyer_id", &buyer_id)?;
        id("developer_id", &developer_id)?;
        id("item_id", &item_id)?;
        price(amount_minor)?;
        currency(&code)?;
        let key = key_required(key_of("Charge", &product, "", &field, &metadata, &keyless)?)?;
        let wanted = Wanted { key, product, buyer_id, developer_id, item_id, amount_minor, currency: code };
        let sale = self.revenue.charge(&wanted).await?;
        Ok(Response::new(shown_sale(&sale)))
    }

    async fn refund_sale(&self, request: Request<RefundSaleRequest>) -> Result<Response<Sale>, Status> {
        let (metadata, _, message) = request.into_parts();
        let keyless = RefundSaleRequest { idempotency_key: String::new(), ..message.clone() }.encode_to_vec();
        let RefundSaleRequest { product, sale_id, amount_minor, idempotency_key } = message;
        self.product(&product)?;
        id("sale_id", &sale_id)?;
        if !(0..=MAX_SALE_MINOR).contains(&amount_minor) {
            return Err(Error::Invalid(format!("amount_minor must be 0 to {MAX_SALE_MINOR}")).into());
        }
        let key = key_required(key_of("RefundSale", &product, "", &idempotency_key, &metadata, &keyless)?)?;
        Ok(Response::new(self.revenue.refund(&key, &sale_id, amount_minor, shown_sale).await?))
    }

    async fn pay_developer(&self, request: Request<PayDeveloperRequest>) -> Result<Response<Payout>, Status> {
        let PayDeveloperRequest { product, developer_id, period, currency: code } = request.into_inner();
        self.product(&product)?;
        id("developer_id", &developer_id)?;
        currency(&code)?;
        finished_period(&period, self.revenue.clock.now_ms())?;
        let of = Earned { product: &product, developer_id: &developer_id, currency: &code, period: &period };
        let payout = match self.revenue.pay_developer(&of).await? {
            Paid::Now(payout) => shown_payout(payout, false),
            Paid::Before(payout) => shown_payout(payout, true),
            Paid::Nothing => Payout { currency: code, period, ..Payout::default() },
        };
        Ok(Response::new(payout))
    }

    async fn get_earnings(&self, request: Request<GetEarningsRequest>) -> Result<Response<Earnings>, Status> {
        let GetEarningsRequest { product, developer_id } = request.into_inner();
        self.product(&product)?;
        id("developer_id", &developer_id)?;
        let db = &self.revenue.db;
        let periods = earnings_list(db, &product, &developer_id).await.map_err(Error::from)?;
        let periods = periods.into_iter().map(|row| PeriodEarnings {
            period: row.period,
            currency: row.currency,
            earned_minor: row.earned_minor,
            paid_minor: row.paid_minor,
            sales: row.sales,
        });
        let debts = debts(db, &product, &developer_id).await.map_err(Error::from)?;
        Ok(Response::new(Earnings { periods: periods.collect(), debt_minor: debts.into_iter().collect() }))
    }

    async fn list_revenue_events(
        &self,
        request: Request<ListRevenueEventsRequest>,
    ) -> Result<Response<ListRevenueEventsResponse>, Status> {
        let ListRevenueEventsRequest { product, developer_id, page_size: size, page_token } = request.into_inner();
        self.product(&product)?;
        id("developer_id", &developer_id)?;
        let size = page_size(size, 0)?;
        let scope = ["ListRevenueEvents", &product, &developer_id];
        let before = if page_token.is_empty() { i64::MAX } else { self.pages.read(&scope, &page_token)? };
        let rows = events_list(&self.revenue.db, &product, &developer_id, before, size + 1).await;
        let mut rows = rows.map_err(Error::from)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| self.pages.sign(&scope, last.sequence));
        let events = rows.into_iter().map(shown_event).collect();
        Ok(Response::new(ListRevenueEventsResponse { events, next_page_token }))
    }
}

fn shown_sale(sale: &SaleRow) -> Sale {
    let split = split(sale.amount_minor);
    let refunded_minor = taken_back(sale.amount_minor, sale.refunded_minor, 0, sale.lost_minor);
    Sale {
        id: sale.id.clone(),
        item_id: sale.item_id.clone(),
        buyer_id: sale.buyer_id.clone(),
        developer_id: sale.developer_id.clone(),
        amount_minor: sale.amount_minor,
        developer_minor: split.developer,
        platform_minor: split.platform,
        currency: sale.currency.clone(),
        status: sale_status(sale.amount_minor, refunded_minor, sale.disputed_minor).to_owned(),
        refunded_minor,
        created_at: sale.created_at,
    }
}

fn shown_payout(payout: PayoutRow, already_paid: bool) -> Payout {
    Payout {
        id: payout.id,
        amount_minor: payout.amount_minor,
        currency: payout.currency,
        period: payout.period,
        transfer_id: payout.transfer_id.unwrap_or_default(),
        already_paid,
    }
}

fn shown_event(row: EventRow) -> RevenueEvent {
    RevenueEvent {
        id: row.id,
        kind: row.kind,
        sale_id: row.sale_id,
        item_id: row.item_id,
        amount_minor: row.amount_minor,
        developer_minor: row.developer_minor,
        platform_minor: row.platform_minor,
        currency: row.currency,
        period: row.period,
        created_at: row.created_at,
    }
}
