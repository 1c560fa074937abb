//! What it all adds up to.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::Clock;
use weft_db::Db;
use weft_product::{Product, Products};
use weft_proto::billing::v1::analytics_service_server::AnalyticsService;
use weft_proto::billing::v1::{
    DayActivity, FunnelStep, GetPlatformAnalyticsRequest, GetUserAnalyticsRequest, PlatformAnalytics, Revenue,
    UserAnalytics,
};

use crate::domain::analytics::{Day, filled, last_days, rate};
use crate::domain::day::{begins_at, date, day_of};
use crate::error::Error;
use crate::store::activity::{activity_by_day, activity_by_kind};
use crate::store::analytics::{RevenueRow, accounts_by_plan, calls_by_day, credits_by_day, funnel, revenue};

/// Adds up at each call.
pub struct AnalyticsApi {
    /// Ledger, calls, events, payments, sales.
    pub db: Db,
    /// Which products there are.
    pub products: Arc<Products>,
    /// Which day it is.
    pub clock: Clock,
}

impl AnalyticsApi {
    fn product(&self, slug: &str) -> Result<&Product, Error> {
        self.products.get(slug).map(Arc::as_ref).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }

    async fn of_user(&self, product: &str, user_id: &str) -> Result<UserAnalytics, Error> {
        let product = self.product(product)?.slug.as_str();
        let days = last_days(day_of(self.clock.now_ms()));
        let (from, to) = (*days.start(), *days.end());
        let mut known: BTreeMap<i64, Day> = BTreeMap::new();
        let mut total_credits_used = 0_i64;
        for (day, spent) in credits_by_day(&self.db, product, user_id).await? {
            total_credits_used = total_credits_used.saturating_add(spent);
            known.entry(day).or_default().credits_used = spent;
        }
        for row in calls_by_day(&self.db, product, user_id, from, to).await? {
            let day = known.entry(row.day).or_default();
            (day.calls, day.tokens) = (row.calls, row.tokens);
        }
        for (day, events) in activity_by_day(&self.db, product, user_id, from, to).await? {
            known.entry(day).or_default().events = events;
        }
        let kinds = activity_by_kind(&self.db, product, user_id).await?;
        let events = |kind: &str| kinds.iter().find(|row| row.kind == kind).map_or(0, |row| row.events);
        Ok(UserAnalytics {
            total_credits_used,
            total_searches: events("search"),
            total_campaigns: events("campaign"),
            average_response_rate: rate(events("reply"), events("message_sent")),
            last_30_days_activity: filled(days, &known).into_iter().map(activity).collect(),
        })
    }

    async fn of_platform(&self, product: &str) -> Result<PlatformAnalytics, Error> {
        let product = self.product(product)?;
        let since = *last_days(day_of(self.clock.now_ms())).start();
        let reached = funnel(&self.db, &product.slug, since).await?;
        let revenue = revenue(&self.db, &product.slug, begins_at(since)).await?;
        let plans = accounts_by_plan(&self.db, product).await?;
        let steps = [
            ("known", reached.known),
            ("active_30d", reached.active),
            ("used", reached.used),
            ("paid", reached.paid),
            ("subscribed", reached.subscribed),
        ];
        Ok(PlatformAnalytics {
            total_users: reached.known,
            active_users_30d: reached.active,
            revenue_30d: revenue.into_iter().map(money).collect(),
            conversion_rate: rate(reached.paid, reached.known),
            funnel: steps.map(|(name, users)| FunnelStep { name: name.to_owned(), users }).into(),
            users_by_plan: HashMap::from_iter(plans),
        })
    }
}

#[tonic::async_trait]
impl AnalyticsService for AnalyticsApi {
    async fn get_user_analytics(
        &self,
        request: Request<GetUserAnalyticsRequest>,
    ) -> Result<Response<UserAnalytics>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.of_user(&caller.product, &caller.user()?.sub).await?))
    }

    async fn get_platform_analytics(
        &self,
        request: Request<GetPlatformAnalyticsRequest>,
    ) -> Result<Response<PlatformAnalytics>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.of_platform(&caller.product).await?))
    }
}

fn activity((day, did): (i64, Day)) -> DayActivity {
    let Day { credits_used, calls, tokens, events } = did;
    DayActivity { date: date(day), credits_used, calls, tokens, events }
}

fn money(row: RevenueRow) -> Revenue {
    let total = row.subscriptions.saturating_add(row.packages).saturating_add(row.marketplace);
    Revenue {
        currency: row.currency,
        subscriptions_minor: row.subscriptions,
        packages_minor: row.packages,
        marketplace_minor: row.marketplace,
        total_minor: total,
    }
}
