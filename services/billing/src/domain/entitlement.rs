//! What an account may do, from the numbers of its plan.
use std::collections::BTreeMap;

use weft_product::Product;

use super::plan::{Kind, REQUESTS_PER_MINUTE};
use crate::error::Error;

/// What a plan allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitled {
    /// Slug of the plan.
    pub plan: String,
    /// Every feature of the product, and whether the plan has it.
    pub features: BTreeMap<String, bool>,
    /// Every limit of the product that is not unlimited.
    pub limits: BTreeMap<String, i64>,
    /// None: unlimited.
    pub requests_per_minute: Option<i64>,
}

impl Entitled {
    /// What `plan` of `product` allows by the numbers that were found for it: (kind, name) -> number, or none
    /// for unlimited.
    ///
    /// A retired plan, or one that somebody deleted numbers of, may lack what the product has since declared. A
    /// feature it lacks it does not have, a limit it lacks is 0: nothing is given away by omission. Numbers that
    /// the product no longer declares say nothing.
    ///
    /// # Errors
    /// [`Error::NoPlan`] without the plan's rate, which every seeded plan has.
    pub fn new(
        product: &Product,
        plan: String,
        found: &BTreeMap<(String, String), Option<i64>>,
    ) -> Result<Entitled, Error> {
        let number = |kind: Kind, name: &str| found.get(&(kind.as_str().to_owned(), name.to_owned())).copied();
        let Some(requests_per_minute) = number(Kind::Rate, REQUESTS_PER_MINUTE) else {
            return Err(Error::NoPlan { product: product.slug.clone(), plan });
        };
        let has = |name: &String| number(Kind::Feature, name).flatten() == Some(1);
        let limit = |name: &String| number(Kind::Limit, name).unwrap_or(Some(0)).map(|limit| (name.clone(), limit));
        Ok(Entitled {
            plan,
            features: product.features.keys().map(|name| (name.clone(), has(name))).collect(),
            limits: product.limits.keys().filter_map(limit).collect(),
            requests_per_minute,
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
}
