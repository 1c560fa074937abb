//! What Stripe's events mean for payments and credits, each with its effect once; for subscriptions: `subscription.rs`.
//!
//! Nothing here depends on the order of events. A subscription is what the greatest evidence says; money that goes
//! back is kept as a fact that only grows, and taken from the credits whenever its payment is there too.
use serde_json::Value;
use weft_db::{DbError, Tx};
use weft_product::Products;

use super::Payments;
use super::client::is_missing;
use super::subscription;
use crate::domain::event::{Dispute, Event, Fact, Invoice, Marks, Refund, Session, customer_of_object};
use crate::domain::ledger::{Bucket, Kind};
use crate::domain::payment::{balance, payment_id, share};
use crate::domain::subscription::gives_plan;
use crate::error::Error;
use crate::ledger::{Act, Ledger, Op};
use crate::revenue::{Change, sale_event};
use crate::store::customer::{account_is_known, customer_lock, customer_note, customer_of, customer_owner};
use crate::store::event::{event_insert, event_outcome};
use crate::store::payment::{
    DisputedCharge, PaymentRow, RefundedCharge, dispute_put, disputes_of, link_find, link_put, package_sold,
    payment_find_by_source, payment_insert, payment_settle, refund_put, refunded_of,
};
use crate::store::subscription::SubscriptionRow;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It had its effect.
    Applied,
    /// It was there already.
    Duplicate,
    /// What is known is newer.
    Stale,
    /// It is about nothing of ours, or does not fit what we know; why.
    Ignored(&'static str),
}

impl Outcome {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Stale => "stale",
            Outcome::Ignored(_) => "ignored",
        }
    }

    pub(super) fn of(changed: bool) -> Outcome {
        if changed { Outcome::Applied } else { Outcome::Stale }
    }
}

/// Why the transaction of an event keeps nothing.
pub(super) enum Stop {
    Ignored(&'static str),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

/// What events are applied with. Cheap to clone.
#[derive(Clone)]
pub struct Books {
    /// Where it all stands.
    pub db: weft_db::Db,
    /// Where credits move.
    pub ledger: Ledger,
    /// What time it is.
    pub clock: weft_core::Clock,
    /// Which products there are.
    pub products: std::sync::Arc<Products>,
    /// Their accounts at Stripe.
    pub payments: Payments,
}

/// An event whose product is known.
pub(super) struct Case<'a> {
    pub(super) product: &'a str,
    pub(super) event: &'a Event,
    pub(super) marks: Marks,
    customer: Option<String>,
    now_ms: i64,
}

impl Books {
    /// Takes an event of one of `products` in and applies it, in one transaction. The first product is that of the
    /// request. Of an event that is ignored nothing is kept.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an event that names another product, or that does not say what its kind says;
    /// [`Error::PaymentsUnavailable`] if Stripe has to be asked and does not answer; the database.
    pub async fn receive(&self, products: &[&str], event: &Event) -> Result<Outcome, Error> {
        if !event.is_handled() {
            return Ok(Outcome::Ignored("its kind"));
        }
        let fact = event.fact().ok_or_else(|| Error::Invalid(format!("the {} event is not complete", event.kind)))?;
        let outcome = match self.case(products, event, &fact).await? {
            Some(case) => {
                self.resolve(case.product, &fact, &case.marks).await?;
                let taken = self.db.write("stripe_event", async |tx: Tx| self.take_in(&tx, &case, &fact).await).await;
                match taken {
                    Ok(outcome) => outcome,
                    Err(Stop::Ignored(why)) => Outcome::Ignored(why),
                    Err(Stop::Failed(error)) => return Err(error),
                }
            }
            None => Outcome::Ignored("its product"),
        };
        if let Outcome::Ignored(why) = outcome {
            tracing::warn!(event = event.id, kind = event.kind, why, "an event of Stripe's does not fit");
        }
        metrics::counter!("weft_billing_stripe_events_total", "kind" => event.kind.clone(), "outcome" => outcome.as_str())
            .increment(1);
        Ok(outcome)
    }

    /// Which product an event is about, and whom: what it names, else whose customer it names. A dispute names
    /// neither, its charge does.
    async fn case<'a>(&self, products: &[&'a str], event: &'a Event, fact: &Fact) -> Result<Option<Case<'a>>, Error> {
        let (mut marks, mut customer) = (event.marks(), event.customer());
        let now_ms = self.clock.now_ms();
        if let Fact::Dispute(dispute) = fact {
            for product in products {
                if let Some(user_id) = self.payer_of(product, dispute).await? {
                    let marks = Marks { user_id: Some(user_id), ..Marks::default() };
                    return Ok(Some(Case { product, event, marks, customer: None, now_ms }));
                }
            }
            let Some(charge) = self.charge(products, &dispute.charge).await? else { return Ok(None) };
            (marks, customer) = (Marks::of(&charge), customer_of_object(&charge));
        }
        if let Some(named) = &marks.product {
            return match products.iter().find(|slug| *slug == named) {
                Some(product) => Ok(Some(Case { product, event, marks, customer, now_ms })),
                None => Err(Error::Invalid("the event is for a product that its secret is not for".to_owned())),
            };
        }
        for product in products {
            if let Some(customer) = &customer
                && customer_owner(&self.db, product, customer).await?.is_some()
            {
                return Ok(Some(Case { product, event, marks, customer: Some(customer.clone()), now_ms }));
            }
        }
        Ok(None)
    }

    /// Whose payment is disputed, if the payment is known.
    async fn payer_of(&self, product: &str, dispute: &Dispute) -> Result<Option<String>, Error> {
        for paid_by in dispute.payment_intent.iter().chain([&dispute.charge]) {
            if let Some(source) = link_find(&self.db, product, paid_by).await?
                && let Some(paid) = payment_find_by_source(&self.db, product, &source).await?
            {
                return Ok(Some(paid.user_id));
            }
        }
        Ok(None)
    }

    /// A charge, from the first of the products' accounts at Stripe that has it.
    async fn charge(&self, products: &[&str], id: &str) -> Result<Option<Value>, Error> {
        for product in products {
            let Ok(stripe) = self.payments.stripe(product) else { continue };
            match stripe.charge_get(id).await {
                Ok(charge) => return Ok(Some(charge)),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Asks Stripe which invoice a payment intent has paid, if money of it goes back and nobody has told.
    async fn resolve(&self, product: &str, fact: &Fact, marks: &Marks) -> Result<(), Error> {
        let intent = match fact {
            // What a package was paid by is told by its session.
            _ if marks.package_id.is_some() => &None,
            Fact::Refund(of) if of.invoice.is_none() => &of.payment_intent,
            Fact::Dispute(of) => &of.payment_intent,
            _ => &None,
        };
        match intent {
            Some(intent) => self.resolve_intent(product, intent).await,
            None => Ok(()),
        }
    }

    /// Notes which invoice a payment intent has paid, if it is not known.
    ///
    /// # Errors
    /// [`Error::PaymentsUnavailable`], the database.
    pub async fn resolve_intent(&self, product: &str, intent: &str) -> Result<(), Error> {
        let Ok(stripe) = self.payments.stripe(product) else { return Ok(()) };
        if link_find(&self.db, product, intent).await?.is_some() {
            return Ok(());
        }
        if let Some(invoice) = stripe.invoice_of_intent(intent).await? {
            link_put(&self.db, product, intent, &invoice).await?;
        }
        Ok(())
    }

    async fn take_in(&self, tx: &Tx, case: &Case<'_>, fact: &Fact) -> Result<Outcome, Stop> {
        let Event { id, kind, created, .. } = case.event;
        if !event_insert(tx, case.product, (id, kind, *created), case.now_ms).await? {
            return Ok(Outcome::Duplicate);
        }
        let outcome = self.apply(tx, case, fact).await?;
        if outcome == Outcome::Stale {
            event_outcome(tx, case.product, id, outcome.as_str()).await?;
        }
        Ok(outcome)
    }

    async fn apply(&self, tx: &Tx, case: &Case<'_>, fact: &Fact) -> Result<Outcome, Stop> {
        let Some(user_id) = owner(tx, case).await? else { return Err(Stop::Ignored("its customer")) };
        customer_lock(tx, case.product, &user_id, case.now_ms).await?;
        match fact {
            Fact::Session(session) if !session.paid => Err(Stop::Ignored("it is not paid")),
            Fact::Session(session) if session.subscription.is_some() => {
                subscription::begin(tx, case, &user_id, session).await
            }
            Fact::Session(session) => self.sell(tx, case, &user_id, session).await,
            Fact::Subscription(subscription) => subscription::change(tx, case, &user_id, subscription).await,
            Fact::Invoice(invoice) => self.bill(tx, case, &user_id, invoice).await,
            Fact::Refund(refund)
                if sold(tx, case, &refund.payment_intent, Change::Refunded(refund.refunded)).await? =>
            {
                Ok(Outcome::Applied)
            }
            Fact::Dispute(dispute) if sold(tx, case, &dispute.payment_intent, Change::of(dispute)).await? => {
                Ok(Outcome::Applied)
            }
            Fact::Refund(refund) => Ok(self.refund(tx, case.product, &user_id, refund).await?),
            Fact::Dispute(dispute) => Ok(self.dispute(tx, case.product, &user_id, dispute).await?),
            Fact::Other => Err(Stop::Ignored("its kind")),
        }
    }

    /// A package is paid.
    async fn sell(&self, tx: &Tx, case: &Case<'_>, user_id: &str, session: &Session) -> Result<Outcome, Stop> {
        let Some(package_id) = &case.marks.package_id else { return Err(Stop::Ignored("its package")) };
        let Some(package) = package_sold(tx, case.product, package_id).await? else {
            return Err(Stop::Ignored("its package"));
        };
        // The price may have changed since the purchase began.
        let on_sale = session.subtotal == package.amount_minor && session.currency == package.currency;
        let sold = case.marks.sold_credits(package_id, session.subtotal, &session.currency);
        let Some(credits) = sold.or(on_sale.then_some(package.credits)) else {
            return Err(Stop::Ignored("its amount"));
        };
        let paid = PaymentRow {
            id: payment_id(case.product, &session.id),
            user_id: user_id.to_owned(),
            kind: "package".to_owned(),
            item: package_id.clone(),
            source: session.id.clone(),
            amount_minor: session.total,
            currency: session.currency.clone(),
            credits,
            created_at: session.created.saturating_mul(1000),
            refunded_minor: 0,
            disputed_minor: 0,
            clawed: 0,
            restored: 0,
        };
        let grant = Act::Grant { bucket: Bucket::Purchased, amount: credits, kind: Kind::Purchase };
        Ok(self.pay(tx, case.product, &paid, session.payment_intent.as_slice(), grant).await?)
    }

    /// An invoice of a subscription is paid, or its payment has failed.
    async fn bill(&self, tx: &Tx, case: &Case<'_>, user_id: &str, invoice: &Invoice) -> Result<Outcome, Stop> {
        let Some(subscription) = &invoice.subscription else { return Err(Stop::Ignored("it is of no subscription")) };
        let Some(price) = subscription::price_of(tx, case).await? else { return Err(Stop::Ignored("its price")) };
        if invoice.currency != price.currency {
            return Err(Stop::Ignored("its currency"));
        }
        if !invoice.paid && case.event.kind == "invoice.paid" {
            return Err(Stop::Ignored("it is not paid"));
        }
        // What never began owes nothing: the first payment of a subscription failed. Its own events say the rest.
        if !invoice.paid
            && !subscription::known(tx, case, user_id, subscription).await?.is_some_and(|row| gives_plan(&row.status))
        {
            return Ok(Outcome::Stale);
        }
        let status = if invoice.paid { "active" } else { "past_due" };
        let row = SubscriptionRow {
            seats: invoice.seats,
            period_end: invoice.period_end.saturating_mul(1000),
            ..subscription::inferred(user_id, subscription, &price, status, invoice.created)
        };
        let inferred = subscription::put(tx, case, &row).await?;
        if !invoice.paid {
            return Ok(Outcome::of(inferred));
        }
        // A trial, or the rest of a period after a change: not the price of a period, so not its credits.
        let whole = !invoice.is_change && invoice.periods >= price.amount_minor;
        let credits = if whole { share(price.bonus_credits, invoice.fresh, invoice.periods) } else { 0 };
        let paid = PaymentRow {
            id: payment_id(case.product, &invoice.id),
            user_id: user_id.to_owned(),
            kind: "invoice".to_owned(),
            item: price.id,
            source: invoice.id.clone(),
            amount_minor: invoice.total,
            currency: invoice.currency.clone(),
            credits,
            created_at: invoice.created.saturating_mul(1000),
            refunded_minor: 0,
            disputed_minor: 0,
            clawed: 0,
            restored: 0,
        };
        let grant = Act::Grant { bucket: Bucket::Bonus, amount: credits, kind: Kind::SubscriptionBonus };
        Ok(self.pay(tx, case.product, &paid, &invoice.paid_by, grant).await?)
    }

    /// Books a payment with what it brings, and what of it went back already.
    async fn pay(
        &self,
        tx: &Tx,
        product: &str,
        paid: &PaymentRow,
        paid_by: &[String],
        grant: Act,
    ) -> Result<Outcome, Error> {
        if !payment_insert(tx, product, paid).await? {
            return Ok(Outcome::Stale);
        }
        for paid_by in paid_by {
            link_put(tx, product, paid_by, &paid.source).await?;
        }
        if paid.credits > 0 {
            self.ledger.apply(tx, vec![op(product, paid, grant)]).await?;
        }
        self.settle(tx, product, &paid.source).await?;
        Ok(Outcome::Applied)
    }

    async fn refund(&self, tx: &Tx, product: &str, user_id: &str, refund: &Refund) -> Result<Outcome, Error> {
        let stored = RefundedCharge {
            charge: &refund.charge,
            payment_intent: refund.payment_intent.as_deref().unwrap_or_default(),
            user_id,
            currency: &refund.currency,
            refunded_minor: refund.refunded,
        };
        let changed = refund_put(tx, product, &stored).await?;
        if let Some(invoice) = &refund.invoice {
            link_put(tx, product, &refund.charge, invoice).await?;
        }
        self.settle_charge(tx, product, &refund.payment_intent, &refund.charge).await?;
        Ok(Outcome::of(changed))
    }

    async fn dispute(&self, tx: &Tx, product: &str, user_id: &str, dispute: &Dispute) -> Result<Outcome, Error> {
        let stored = DisputedCharge {
            id: &dispute.id,
            charge: &dispute.charge,
            payment_intent: dispute.payment_intent.as_deref().unwrap_or_default(),
            user_id,
            amount_minor: dispute.amount,
            taken: dispute.taken,
            returned: dispute.returned,
        };
        let changed = dispute_put(tx, product, &stored).await?;
        self.settle_charge(tx, product, &dispute.payment_intent, &dispute.charge).await?;
        Ok(Outcome::of(changed))
    }

    async fn settle_charge(
        &self,
        tx: &Tx,
        product: &str,
        payment_intent: &Option<String>,
        charge: &str,
    ) -> Result<(), Error> {
        for paid_by in payment_intent.iter().map(String::as_str).chain([charge]) {
            if let Some(source) = link_find(tx, product, paid_by).await? {
                return self.settle(tx, product, &source).await;
            }
        }
        Ok(())
    }

    /// Takes back, and gives back, what the facts say and the books do not.
    pub async fn settle(&self, tx: &Tx, product: &str, source: &str) -> Result<(), Error> {
        let Some(paid) = payment_find_by_source(tx, product, source).await? else { return Ok(()) };
        let refunded = refunded_of(tx, product, source, (&paid.user_id, &paid.currency)).await?.min(paid.amount_minor);
        let disputes = disputes_of(tx, product, source, &paid.user_id).await?;
        let wanted = balance(paid.credits, paid.amount_minor, refunded, &disputes);
        let kept = disputes.iter().filter(|(_, returned)| !returned).map(|(amount, _)| *amount);
        let (take, give) = (wanted.clawed - paid.clawed, wanted.restored - paid.restored);
        let bucket = if paid.kind == "package" { Bucket::Purchased } else { Bucket::Bonus };
        let mut ops = Vec::new();
        if take > 0 {
            ops.push(op(product, &paid, Act::ClawBack { bucket, amount: take }));
        }
        if give > 0 {
            ops.push(op(product, &paid, Act::Restore { bucket, amount: give }));
        }
        if !ops.is_empty() {
            self.ledger.apply(tx, ops).await?;
        }
        let settled = PaymentRow {
            refunded_minor: refunded,
            disputed_minor: kept.fold(0, i64::saturating_add),
            clawed: wanted.clawed.max(paid.clawed),
            restored: wanted.restored.max(paid.restored),
            ..paid
        };
        Ok(payment_settle(tx, product, &settled).await?)
    }
}

/// Whether the payment was for a sale of the marketplace, whose books are its own; then it is booked there.
async fn sold(tx: &Tx, case: &Case<'_>, intent: &Option<String>, change: Change<'_>) -> Result<bool, DbError> {
    match intent {
        Some(intent) => sale_event(tx, case.product, intent, change, case.now_ms).await,
        None => Ok(false),
    }
}

fn op(product: &str, paid: &PaymentRow, act: Act) -> Op {
    Op { product: product.to_owned(), user_id: paid.user_id.clone(), key: None, reference: paid.id.clone(), act }
}

/// Whose event it is. None: what it says does not fit what we know.
async fn owner(tx: &Tx, case: &Case<'_>) -> Result<Option<String>, Error> {
    let product = case.product;
    let by_customer = match &case.customer {
        Some(customer) => customer_owner(tx, product, customer).await?,
        None => None,
    };
    let Some(named) = &case.marks.user_id else { return Ok(by_customer) };
    if let Some(by_customer) = by_customer {
        return Ok((by_customer == *named).then_some(by_customer));
    }
    if !account_is_known(tx, product, named).await? {
        return Ok(None);
    }
    let Some(customer) = &case.customer else { return Ok(Some(named.clone())) };
    if customer_of(tx, product, named).await?.is_some() {
        return Ok(None);
    }
    // Made by hand at Stripe with our marks: the account's first customer.
    let noted = customer_note(tx, product, named, customer, case.now_ms).await?;
    Ok((noted.as_deref() == Some(customer.as_str())).then(|| named.clone()))
}
