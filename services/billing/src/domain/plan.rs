//! A plan as single numbers, each of which an administrator may change.
use weft_product::{Limit, Plan};

/// The rate that the edge counts an account's requests by.
pub const REQUESTS_PER_MINUTE: &str = "requests_per_minute";

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
    values.push(flag(Kind::Rate, "requests_per_seat", plan.requests_per_seat));
    if let Some(credits) = &plan.credits {
        values.push(of(Kind::Credits, "initial", Some(credits.initial)));
        values.push(of(Kind::Credits, "daily", Some(credits.daily)));
        values.push(of(Kind::Credits, "micro_credits_per_token", Some(credits.micro_credits_per_token)));
    }
    values
}
