//! From what a client wants to buy to what Stripe is asked for.
use serde_json::Value;
use weft_core::new_id;
use weft_proto::billing::v1::{
    Checkout, CheckoutMode, CreateCheckoutRequest, PaymentIntent, UpdateSubscriptionRequest,
};

use super::apply::Books;
use super::client::key;
use super::requests::{Item, Metadata, Pays};
use crate::domain::event::sold_as;
use crate::domain::subscription::MAX_SEATS;
use crate::error::Error;
use crate::store::customer::{customer_note, customer_of};
use crate::store::plan::plan_current;
use crate::store::price::{PriceRow, package_find, price_at_version, price_find, price_find_of_plan};
use crate::store::seat::seats_taken;
use crate::store::subscription::{SubscriptionRow, plan_name};

/// Micro-credits of a credit.
const CREDIT: i64 = 1_000_000;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A plan by slug, for this long.
    Plan { slug: String, period: String },
    /// A plan by slug, or else a price by id.
    PlanOrPrice { id: String, period: String },
    /// A price by id.
    Price(String),
    /// A package by id.
    Package(String),
}

impl Wanted {
    /// # Errors
    /// [`Error::Invalid`] unless exactly one thing is wanted, for an unknown interval and for something that cannot be
    /// paid in this way.
    pub fn of(request: &CreateCheckoutRequest) -> Result<Wanted, Error> {
        let CreateCheckoutRequest { tier, plan_id, price_id, package_id, interval, .. } = request;
        if !matches!(interval.as_str(), "" | "month" | "year") {
            return Err(Error::Invalid("interval must be month or year".to_owned()));
        }
        let period = if interval.is_empty() { "month" } else { interval }.to_owned();
        let wanted = match [tier, plan_id, price_id, package_id].map(String::as_str) {
            [slug, "", "", ""] if !slug.is_empty() => Wanted::Plan { slug: slug.to_owned(), period },
            ["", id, "", ""] if !id.is_empty() => Wanted::PlanOrPrice { id: id.to_owned(), period },
            ["", "", id, ""] if !id.is_empty() => Wanted::Price(id.to_owned()),
            ["", "", "", id] if !id.is_empty() => Wanted::Package(id.to_owned()),
            _ => {
                return Err(Error::Invalid("name exactly one of tier, plan_id, price_id, package_id".to_owned()));
            }
        };
        if matches!(wanted, Wanted::Package(_)) && request.mode() == CheckoutMode::Elements {
            return Err(Error::Invalid("a package is paid on a page of its own, ask for mode HOSTED".to_owned()));
        }
        Ok(wanted)
    }
}

impl Books {
    /// What is wanted, as it is on sale now. `seats` 0 is 1.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], the database.
    pub async fn item(&self, product: &str, user_id: &str, wanted: &Wanted, seats: i64) -> Result<Item, Error> {
        let price = match wanted {
            Wanted::Package(id) if !matches!(seats, 0 | 1) => {
                return Err(Error::Invalid(format!("package {id} has no seats")));
            }
            Wanted::Package(id) => return self.package(product, user_id, id).await,
            Wanted::Plan { slug, period } => self.price_of_plan(product, slug, period).await?,
            Wanted::Price(id) => price_find(&self.db, product, id).await?.ok_or(Error::NotFound("price"))?,
            Wanted::PlanOrPrice { id, period } => match self.price_of_plan(product, id, period).await {
                Err(Error::NotFound(_)) => price_find(&self.db, product, id).await?.ok_or(Error::NotFound("plan"))?,
                price => price?,
            },
        };
        let seats = if seats == 0 { 1 } else { seats };
        self.seats_suffice(product, user_id, &price, seats).await?;
        self.item_of_price(product, user_id, &price, seats).await
    }

    /// # Errors
    /// [`Error::NotNow`] if more people sit than would have seats, the database.
    pub async fn seats_suffice(&self, product: &str, payer: &str, price: &PriceRow, seats: i64) -> Result<(), Error> {
        let taken = seats_taken(&self.db, product, payer).await?;
        let offered = if price.per_seat { seats } else { 0 };
        // A number that is none is told as that.
        if seats >= 1 && offered < taken {
            return Err(Error::NotNow(format!("{taken} seats are taken, release some first")));
        }
        Ok(())
    }

    async fn price_of_plan(&self, product: &str, slug: &str, period: &str) -> Result<PriceRow, Error> {
        match price_find_of_plan(&self.db, product, slug, period).await? {
            Some(price) => Ok(price),
            None if plan_current(&self.db, product, slug).await?.is_some() => {
                Err(Error::Invalid(format!("plan {slug} has no price by the {period}")))
            }
            None => Err(Error::NotFound("plan")),
        }
    }

    async fn package(&self, product: &str, user_id: &str, id: &str) -> Result<Item, Error> {
        let package = package_find(&self.db, product, id).await?.ok_or(Error::NotFound("package"))?;
        let sold = sold_as(id, package.amount_minor, &package.currency, package.credits);
        let metadata = [("product", product), ("user_id", user_id), ("package_id", id), ("sold", &sold)];
        Ok(Item {
            name: format!("{} credits", package.credits / CREDIT),
            product_id: format!("weft_{product}_{id}"),
            amount_minor: package.amount_minor,
            currency: package.currency,
            period: None,
            quantity: 1,
            metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        })
    }

    /// A price with its number of seats.
    ///
    /// # Errors
    /// [`Error::Invalid`] for seats that the price does not have, the database.
    pub async fn item_of_price(
        &self,
        product: &str,
        user_id: &str,
        price: &PriceRow,
        seats: i64,
    ) -> Result<Item, Error> {
        let most = if price.per_seat { MAX_SEATS } else { 1 };
        if !(1..=most).contains(&seats) {
            return Err(Error::Invalid(match price.per_seat {
                true => format!("seats must be 1 to {MAX_SEATS}"),
                false => format!("plan {} has no seats", price.plan),
            }));
        }
        let name = plan_name(&self.db, product, &price.plan).await?.unwrap_or_else(|| price.plan.clone());
        let metadata: Metadata = [
            ("product", product.to_owned()),
            ("user_id", user_id.to_owned()),
            ("plan", price.plan.clone()),
            ("version", price.version.to_string()),
            ("price_id", price.id.clone()),
            ("seats", seats.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        Ok(Item {
            name,
            product_id: format!("weft_{product}_{}", price.plan),
            amount_minor: price.amount_minor,
            currency: price.currency.clone(),
            period: Some(price.period.clone()),
            quantity: seats,
            metadata,
        })
    }

    /// Begins a purchase. `intent` tells one purchase from the next.
    ///
    /// # Errors
    /// What Stripe says, the database.
    pub async fn checkout(
        &self,
        (product, user_id, email): (&str, &str, &str),
        item: &Item,
        mode: CheckoutMode,
        urls: (&str, &str),
        intent: &str,
    ) -> Result<Checkout, Error> {
        let stripe = self.payments.stripe(product)?;
        let customer = self.customer((product, user_id, email)).await?;
        let key = key(&["checkout", product, user_id, intent]);
        if item.period.is_some() {
            // Whoever pays on two pages pays twice.
            stripe.sessions_expire(product, &customer, &key).await?;
        }
        if mode != CheckoutMode::Elements {
            let session = stripe.session_create((&customer, user_id), item, urls, &key).await?;
            let checkout_url = session.url.unwrap_or_default();
            return Ok(Checkout { checkout_url, session_id: session.id, ..Checkout::default() });
        }
        let made = stripe.subscription_create(&customer, item, &key).await?;
        let invoice = &made["latest_invoice"];
        let secrets = [&invoice["confirmation_secret"]["client_secret"], &invoice["payment_intent"]["client_secret"]];
        let secret = secrets.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned();
        if secret.is_empty() {
            return Err(Error::PaymentsUnavailable("the new subscription has no client secret".into()));
        }
        Ok(Checkout {
            subscription_id: made["id"].as_str().unwrap_or_default().to_owned(),
            client_secret: secret.clone(),
            payment_intent: Some(PaymentIntent { client_secret: secret }),
            ..Checkout::default()
        })
    }

    /// The account's customer at Stripe, made at its first purchase, once.
    async fn customer(&self, (product, user_id, email): (&str, &str, &str)) -> Result<String, Error> {
        if let Some(customer) = customer_of(&self.db, product, user_id).await? {
            return Ok(customer);
        }
        let made = self.payments.stripe(product)?.customer_create(product, user_id, email).await?;
        let noted = customer_note(&self.db, product, user_id, &made, self.clock.now_ms()).await?;
        noted.ok_or_else(|| Error::PaymentsUnavailable("the new customer is another account's".into()))
    }

    /// The price that a subscription is to have: what is named, else what it has, in its own version.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], the database.
    pub async fn changed_price(
        &self,
        product: &str,
        row: &SubscriptionRow,
        request: &UpdateSubscriptionRequest,
    ) -> Result<PriceRow, Error> {
        let (plan, price_id) = (&request.plan_id, &request.price_id);
        let own = price_at_version(&self.db, product, &row.plan, row.plan_version, &row.price_id).await?;
        let keeps_plan = plan.is_empty() || *plan == row.plan;
        if keeps_plan && (price_id.is_empty() || *price_id == row.price_id) {
            return own.ok_or(Error::NotFound("price"));
        }
        if price_id.is_empty() {
            let period = own.map_or_else(|| "month".to_owned(), |own| own.period);
            return self.price_of_plan(product, plan, &period).await;
        }
        let price = price_find(&self.db, product, price_id).await?.ok_or(Error::NotFound("price"))?;
        if !plan.is_empty() && price.plan != *plan {
            return Err(Error::Invalid(format!("price {price_id} is not of plan {plan}")));
        }
        Ok(price)
    }

    /// Gives a subscription another price or number of seats, unless Stripe has it so already: what is known here may
    /// be older. What gets dearer within a period is paid at once, or nothing changes.
    ///
    /// # Errors
    /// What Stripe says.
    pub async fn change(&self, product: &str, id: &str, item: &Item, prorated: bool, key: &str) -> Result<(), Error> {
        let stripe = self.payments.stripe(product)?;
        let now = stripe.subscription_get(id).await?;
        if is_already(&now, item) {
            return Ok(());
        }
        let has = &now["items"]["data"][0];
        let pays = match prorated {
            false => Pays::NextPeriod,
            true if is_dearer(has, item) => Pays::Now,
            true => Pays::WithTheNext,
        };
        let item_id = has["id"].as_str().unwrap_or_default();
        stripe.subscription_change((id, item_id), item, pays, key).await.map(drop)
    }

    /// Moves an account's subscription to another version of its plan: what it pays changes with its next invoice.
    /// Nothing happens without a subscription at Stripe to that plan. Again: no change.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the version has no such price; what Stripe says, the database.
    pub async fn reprice(&self, product: &str, user_id: &str, plan: &str, version: i64) -> Result<(), Error> {
        let all = crate::store::subscription::subscription_list(&self.db, product, user_id).await?;
        let mut behind = all.into_iter().filter(|row| row.plan == plan && row.plan_version != version);
        let Some(row) = behind.find(|row| crate::domain::subscription::is_living(&row.status)) else { return Ok(()) };
        let price = price_at_version(&self.db, product, plan, version, &row.price_id).await?;
        let price = price.ok_or(Error::NotFound("price"))?;
        let item = self.item_of_price(product, user_id, &price, row.seats).await?;
        self.change(product, &row.id, &item, false, &key(&["migrate", product, user_id, &new_id()])).await
    }
}

/// Whether a subscription of Stripe's is what is wanted, and nothing else waits to be paid for.
fn is_already(subscription: &Value, item: &Item) -> bool {
    let has = &subscription["items"]["data"][0];
    let said = &subscription["metadata"];
    subscription["pending_update"].is_null()
        && has["price"]["unit_amount"] == item.amount_minor
        && has["quantity"] == item.quantity
        && ["plan", "version", "price_id"]
            .iter()
            .all(|name| said[*name].as_str() == item.metadata.get(*name).map(String::as_str))
}

/// Whether a period costs more than it did, or begins anew.
fn is_dearer(has: &Value, item: &Item) -> bool {
    let price = &has["price"];
    let before =
        price["unit_amount"].as_i64().unwrap_or_default().saturating_mul(has["quantity"].as_i64().unwrap_or(1));
    let other_period = price["recurring"]["interval"].as_str() != item.period.as_deref();
    other_period || item.amount_minor.saturating_mul(item.quantity) > before
}
