//! A plan as single numbers, each of which an administrator may change.
use weft_product::{Interval, Limit, Plan, Product};

/// The rate that the edge counts an account's requests by.
pub const REQUESTS_PER_MINUTE: &str = "requests_per_minute";
/// 1 if an organisation has the rate as often as it has seats.
pub const REQUESTS_PER_SEAT: &str = "requests_per_seat";

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1 if the plan has the feature, else 0.
    Feature,
    /// How much of something; none is unlimited.
    Limit,
    /// How often; none is unlimited.
    Rate,
    /// Micro-credits.
    Credits,
}

impl Kind {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Feature => "feature",
            Kind::Limit => "limit",
            Kind::Rate => "rate",
            Kind::Credits => "credits",
        }
    }
}

/// One number of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanValue {
    /// What it is.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: String,
    /// None: unlimited.
    pub value: Option<i64>,
}

/// Every number of a manifest's plan, always in the same order: replicas that start together then lock the same
/// rows in the same order.
pub fn values(plan: &Plan) -> Vec<PlanValue> {
    let of = |kind, name: &str, value| PlanValue { kind, name: name.to_owned(), value };
    let flag = |kind, name: &str, set: bool| of(kind, name, Some(i64::from(set)));
    let mut values: Vec<PlanValue> = plan.features.iter().map(|(name, has)| flag(Kind::Feature, name, *has)).collect();
    values.extend(plan.limits.iter().map(|(name, limit)| of(Kind::Limit, name, Limit::value(*limit))));
    values.push(of(Kind::Rate, REQUESTS_PER_MINUTE, plan.requests_per_minute.value()));
    values.push(flag(Kind::Rate, REQUESTS_PER_SEAT, plan.requests_per_seat));
    if let Some(credits) = &plan.credits {
        values.push(of(Kind::Credits, "initial", Some(credits.initial)));
        values.push(of(Kind::Credits, "daily", Some(credits.daily)));
        values.push(of(Kind::Credits, "micro_credits_per_token", Some(credits.micro_credits_per_token)));
    }
    values
}

/// What a model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// The model of a role.
    Default,
    /// What users may choose.
    Allowed,
}

impl ModelKind {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelKind::Default => "default",
            ModelKind::Allowed => "allowed",
        }
    }
}

/// The models of a role, or all that users may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanModel {
    /// What it is of.
    pub kind: ModelKind,
    /// The role; empty for what users may choose.
    pub name: String,
    /// The alias, or aliases one a line. None: the plan has none for the role.
    pub value: Option<String>,
}

/// Every model of a manifest's plan; a role of the product that it does not name has none.
pub fn models(product: &Product, plan: &Plan) -> Vec<PlanModel> {
    let of = |role: &String| PlanModel {
        kind: ModelKind::Default,
        name: role.clone(),
        value: plan.models.default.get(role).cloned(),
    };
    let mut models: Vec<PlanModel> = product.models.roles.keys().map(of).collect();
    models.push(allowed(&plan.models.allowed));
    models
}

/// What users may choose, as it is stored.
pub fn allowed(models: &[String]) -> PlanModel {
    PlanModel { kind: ModelKind::Allowed, name: String::new(), value: Some(models.join("\n")) }
}

/// The name of an interval in the table and on the wire.
pub fn period(interval: Interval) -> &'static str {
    match interval {
        Interval::Month => "month",
        Interval::Year => "year",
    }
}

/// A name on the wire as an interval.
pub fn interval(period: &str) -> Option<Interval> {
    match period {
        "month" => Some(Interval::Month),
        "year" => Some(Interval::Year),
        _ => None,
    }
}

/// What a plan gives and charges in credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditTerms {
    /// Once, when the wallet is first used, in micro-credits.
    pub initial: i64,
    /// Each UTC day, in micro-credits.
    pub daily: i64,
    /// What a token costs, in micro-credits.
    pub micro_credits_per_token: i64,
}

/// The credits of a plan by the numbers that were found for it. None: the product has no credits.
///
/// A plan that retired before its product had credits gives none, and pays the default plan's price for a token:
/// nothing is given away by omission.
pub fn terms(product: &Product, plan: &str, found: impl Fn(&str) -> Option<i64>) -> Option<CreditTerms> {
    let default = product.plan(&product.default_plan).and_then(|plan| plan.credits);
    let declared = match product.plan(plan) {
        Some(plan) => plan.credits,
        None => default,
    };
    let price = found("micro_credits_per_token").or(default.map(|credits| credits.micro_credits_per_token));
    declared.map(|declared| CreditTerms {
        initial: found("initial").unwrap_or(0),
        daily: found("daily").unwrap_or(0),
        micro_credits_per_token: price.unwrap_or(declared.micro_credits_per_token),
    })
}
