//! What an account may do, from the numbers of its plan.
use std::collections::BTreeMap;

use weft_product::Product;

use super::plan::{CreditTerms, Kind, REQUESTS_PER_MINUTE, REQUESTS_PER_SEAT, terms};
use crate::error::Error;

/// Which plan counts for an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Slug of the plan.
    pub plan: String,
    /// Its version.
    pub version: i64,
    /// The account whose subscription it is, or the account itself.
    pub payer_id: String,
    /// Seats of the subscription; 0 without one.
    pub seats: i64,
}

/// What was found about a plan and an account, by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Numbers of the plan; none is unlimited.
    pub numbers: BTreeMap<(String, String), Option<i64>>,
    /// Models of the plan.
    pub models: BTreeMap<(String, String), String>,
    /// Numbers that an administrator has set for the account; none is unlimited.
    pub own_numbers: BTreeMap<(String, String), Option<i64>>,
    /// Role -> model that an administrator has set for the account.
    pub own_models: BTreeMap<String, String>,
}

/// What a plan allows, with what was set for the account alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitled {
    /// Slug of the plan.
    pub plan: String,
    /// Its version.
    pub version: i64,
    /// The account whose subscription it is, or the account itself.
    pub payer_id: String,
    /// Every feature of the product, and whether the plan has it.
    pub features: BTreeMap<String, bool>,
    /// Every limit of the product that is not unlimited.
    pub limits: BTreeMap<String, i64>,
    /// None: unlimited.
    pub requests_per_minute: Option<i64>,
    /// The rate is per seat.
    pub requests_per_seat: bool,
    /// Of all that the payer pays for together. None: not limited together.
    pub organization_requests_per_minute: Option<i64>,
    /// None: the product has no credits.
    pub credits: Option<CreditTerms>,
    /// Role -> model set for the account; the first that counts.
    pub override_models: BTreeMap<String, String>,
    /// Role -> model of the plan; the second that counts.
    pub default_models: BTreeMap<String, String>,
    /// Models that the account may choose besides.
    pub allowed_models: Vec<String>,
}

impl Entitled {
    /// What the plan of `standing` allows by what was found for it.
    ///
    /// A retired plan, or one that somebody deleted numbers of, may lack what the product has since declared. A
    /// feature it lacks it does not have, a limit it lacks is 0: nothing is given away by omission. What the product
    /// no longer declares says nothing.
    ///
    /// # Errors
    /// [`Error::NoPlan`] without the plan's rate, which every seeded plan has.
    pub fn new(product: &Product, standing: Standing, found: Found) -> Result<Entitled, Error> {
        let key = |kind: Kind, name: &str| (kind.as_str().to_owned(), name.to_owned());
        let number = |kind: Kind, name: &str| found.numbers.get(&key(kind, name)).copied();
        let own = |kind: Kind, name: &str| found.own_numbers.get(&key(kind, name)).copied();
        let Some(rate) = number(Kind::Rate, REQUESTS_PER_MINUTE) else {
            return Err(Error::NoPlan { product: product.slug.clone(), plan: standing.plan });
        };
        let has = |name: &String| number(Kind::Feature, name).flatten() == Some(1);
        let limit = |name: &String| {
            let limit = own(Kind::Limit, name).or(number(Kind::Limit, name)).unwrap_or(Some(0));
            limit.map(|limit| (name.clone(), limit))
        };
        let features = product.features.keys().map(|name| (name.clone(), has(name))).collect();
        let limits = product.limits.keys().filter_map(limit).collect();
        let requests_per_seat = number(Kind::Rate, REQUESTS_PER_SEAT).flatten() == Some(1);
        let together =
            rate.filter(|_| requests_per_seat && standing.seats > 0).map(|rate| rate.saturating_mul(standing.seats));
        let requests_per_minute = own(Kind::Rate, REQUESTS_PER_MINUTE).unwrap_or(rate);
        let credits = terms(product, &standing.plan, |name| number(Kind::Credits, name).flatten());
        let Found { models, own_models, .. } = found;
        let allowed = models.get(&("allowed".to_owned(), String::new())).map(String::as_str).unwrap_or_default();
        let allowed_models = allowed.lines().map(str::to_owned).collect();
        let role = |role: &String| product.models.roles.contains_key(role);
        let defaults = models.into_iter().filter(|((kind, name), _)| kind == "default" && role(name));
        Ok(Entitled {
            plan: standing.plan,
            version: standing.version,
            payer_id: standing.payer_id,
            features,
            limits,
            requests_per_minute,
            requests_per_seat,
            organization_requests_per_minute: together,
            credits,
            override_models: own_models.into_iter().filter(|(name, _)| role(name)).collect(),
            default_models: defaults.map(|((_, name), model)| (name, model)).collect(),
            allowed_models,
        })
    }

    /// # Errors
    /// [`Error::UnknownFeature`] if the product has none of this name, [`Error::FeatureNotInPlan`] if the plan
    /// does not have it.
    pub fn check(&self, feature: &str) -> Result<(), Error> {
        match self.features.get(feature) {
            Some(true) => Ok(()),
            Some(false) => Err(Error::FeatureNotInPlan { plan: self.plan.clone(), feature: feature.to_owned() }),
            None => Err(Error::UnknownFeature(feature.to_owned())),
        }
    }

    /// What may still be added after `growth`; none if unlimited. Only growth is refused: who is over a limit after a
    /// change of plan can still read, shrink and delete.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit that the product does not have, or a negative `used`;
    /// [`Error::QuotaExceeded`].
    pub fn quota(&self, product: &Product, name: &str, used: i64, growth: i64) -> Result<Option<i64>, Error> {
        if !product.limits.contains_key(name) {
            return Err(Error::Invalid(format!("the product has no limit {name:?}, check limit")));
        }
        if used < 0 {
            return Err(Error::Invalid("used is negative, send how much there is".to_owned()));
        }
        let Some(&limit) = self.limits.get(name) else { return Ok(None) };
        let after = used.saturating_add(growth);
        if growth > 0 && after > limit {
            return Err(Error::QuotaExceeded { plan: self.plan.clone(), limit, name: name.to_owned() });
        }
        Ok(Some(limit.saturating_sub(after.max(0)).max(0)))
    }
}
