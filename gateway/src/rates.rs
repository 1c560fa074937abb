//! How often users may call, as their plans say.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::Code;
use weft_auth::Entitlements;
use weft_product::{Limit, Products};
use weft_proto::billing::v1 as billing;
use weft_runtime::Tasks;

/// How long the last known rates of a user serve while billing is away.
const REMEMBER: Duration = Duration::from_secs(600);
/// How long a call of a user whose rates were known waits for billing.
const BILLING_WITHIN: Duration = Duration::from_millis(100);
/// How long billing is not asked after it did not answer, so that not every call waits.
const BILLING_AWAY: Duration = Duration::from_millis(500);
/// Users whose rates are remembered.
const REMEMBERED_USERS: u64 = 100_000;

/// How often users may call.
pub struct Rates {
    entitlements: Entitlements,
    products: Arc<Products>,
    /// By user, for when billing is away.
    last_known: moka::sync::Cache<String, PlanRates>,
    /// When billing last did not answer.
    billing_failed: Mutex<Option<Instant>>,
    tasks: Tasks,
}

/// Requests a minute of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanRates {
    /// Of the user alone; None is unlimited.
    pub user: Option<u32>,
    /// Of all that one account pays for together: that account, and the limit.
    pub organization: Option<(Arc<str>, u32)>,
}

impl Rates {
    /// Rates that billing tells.
    pub fn new(entitlements: Entitlements, products: Arc<Products>, tasks: Tasks) -> Rates {
        let last_known = moka::sync::Cache::builder().max_capacity(REMEMBERED_USERS).time_to_live(REMEMBER).build();
        Rates { entitlements, products, last_known, billing_failed: Mutex::default(), tasks }
    }

    /// The rates of a user. While billing is away or slow the last known ones serve, then that of the product's
    /// default plan: never unlimited, never an error.
    pub async fn of(&self, product: &str, user: &str) -> PlanRates {
        let key = format!("{product}/{user}");
        let known = self.last_known.get(&key);
        let fallback = || known.clone().unwrap_or_else(|| self.default_rates(product));
        if self.billing_failed_just_now() {
            return fallback();
        }
        let patience = if known.is_some() { BILLING_WITHIN } else { Duration::MAX };
        match timeout(patience, self.entitlements.of(product, user)).await {
            Ok(Ok(plan)) => {
                let rates = PlanRates::of(&plan, user);
                if known.as_ref() != Some(&rates) {
                    self.last_known.insert(key, rates.clone());
                }
                rates
            }
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), "a user's plan is not known, the last known limit serves");
                if status.code() == Code::Unavailable {
                    self.remember_failure();
                }
                fallback()
            }
            Err(_elapsed) => {
                self.remember_failure();
                self.ask_on(key, product, user);
                fallback()
            }
        }
    }

    /// Goes on asking: a billing that is always slow would otherwise never be heard.
    fn ask_on(&self, key: String, product: &str, user: &str) {
        let (entitlements, last_known) = (self.entitlements.clone(), self.last_known.clone());
        let (product, user) = (product.to_owned(), user.to_owned());
        self.tasks.spawn("rate", async move {
            if let Ok(plan) = entitlements.of(&product, &user).await {
                last_known.insert(key, PlanRates::of(&plan, &user));
            }
        });
    }

    fn billing_failed_just_now(&self) -> bool {
        let failed = *self.billing_failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < BILLING_AWAY)
    }

    fn remember_failure(&self) {
        *self.billing_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn default_rates(&self, product: &str) -> PlanRates {
        let default = || {
            let product = self.products.get(product)?;
            match product.plan(&product.default_plan)?.requests_per_minute {
                Limit::Unlimited => None,
                Limit::At(limit) => Some(number(limit)),
            }
        };
        PlanRates { user: default(), organization: None }
    }
}

impl PlanRates {
    fn of(plan: &billing::Entitlements, user: &str) -> PlanRates {
        let payer = if plan.payer_id.is_empty() { user } else { &plan.payer_id };
        PlanRates {
            user: plan.requests_per_minute.map(number),
            organization: plan.organization_requests_per_minute.map(|limit| (payer.into(), number(limit))),
        }
    }
}

/// A limit of a plan as a rate.
fn number(limit: i64) -> u32 {
    u32::try_from(limit.max(0)).unwrap_or(u32::MAX)
}
