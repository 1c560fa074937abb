//! What an administrator may set, in a plan or for one account.
use std::collections::HashMap;

use weft_product::{Product, default_price_id, is_currency};

use super::amount::MAX_MICRO_CREDITS;
use super::plan::{Kind, ModelKind, PlanModel, PlanValue, REQUESTS_PER_MINUTE, allowed, interval};
use crate::error::Error;

/// On the wire, for a number that has no limit.
pub const UNLIMITED: i64 = -1;
/// The largest limit, as in a manifest.
const LIMIT_MAX: i64 = 1_000_000_000_000_000;
/// The highest rate that the edge counts.
const RATE_MAX: i64 = 1_000_000;
/// The highest price, in minor units: Stripe takes eight digits.
/// <https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>
const PRICE_MAX: i64 = 99_999_999;
/// The longest name of a plan and the longest alias of a model, in bytes.
const TEXT_MAX: usize = 200;
/// The longest id of a price.
const ID_MAX: usize = 64;
/// Most models that a plan allows, and most prices that it has.
const LIST_MAX: usize = 100;

/// A price that an administrator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPrice {
    /// Empty: the default id.
    pub id: String,
    /// In minor units.
    pub amount_minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// `month` or `year`.
    pub period: String,
    /// For each seat.
    pub per_seat: bool,
    /// Micro-credits.
    pub bonus_credits: i64,
}

/// Limits to set, checked.
///
/// # Errors
/// [`Error::Invalid`] for one that the product does not have, or a number that cannot be meant.
pub fn limits(product: &Product, wanted: HashMap<String, i64>) -> Result<Vec<PlanValue>, Error> {
    let check = |(name, value): (String, i64)| match product.limits.contains_key(&name) {
        true => Ok(PlanValue { kind: Kind::Limit, value: number(&name, value, 0, LIMIT_MAX)?, name }),
        false => Err(Error::Invalid(format!("the product has no limit {name:?}, check limits"))),
    };
    sorted(wanted).into_iter().map(check).collect()
}

/// Features to switch, checked.
///
/// # Errors
/// [`Error::Invalid`] for one that the product does not have.
pub fn features(product: &Product, wanted: HashMap<String, bool>) -> Result<Vec<PlanValue>, Error> {
    let check = |(name, has): (String, bool)| match product.features.contains_key(&name) {
        true => Ok(PlanValue { kind: Kind::Feature, name, value: Some(i64::from(has)) }),
        false => Err(Error::Invalid(format!("the product has no feature {name:?}, check features"))),
    };
    sorted(wanted).into_iter().map(check).collect()
}

/// A rate to set, checked.
///
/// # Errors
/// [`Error::Invalid`] for a number that cannot be meant; 0 would lock everybody out.
pub fn rate(value: i64) -> Result<PlanValue, Error> {
    let value = number(REQUESTS_PER_MINUTE, value, 1, RATE_MAX)?;
    Ok(PlanValue { kind: Kind::Rate, name: REQUESTS_PER_MINUTE.to_owned(), value })
}

/// Credits to set, checked.
///
/// # Errors
/// [`Error::Invalid`] in a product without credits, or for a number that cannot be meant.
pub fn credits(product: &Product, name: &str, value: i64) -> Result<PlanValue, Error> {
    if product.plans.iter().all(|plan| plan.credits.is_none()) {
        return Err(Error::Invalid(format!("the product has no credits, leave {name} out")));
    }
    if !(0..=MAX_MICRO_CREDITS).contains(&value) {
        return Err(Error::Invalid(format!("{name} must be 0 to {MAX_MICRO_CREDITS} micro-credits")));
    }
    Ok(PlanValue { kind: Kind::Credits, name: name.to_owned(), value: Some(value) })
}

/// Models of roles to set, checked. An empty alias, where that is allowed, takes the role's model away.
///
/// # Errors
/// [`Error::Invalid`] for a role or a model that the product does not have.
pub fn role_models(
    product: &Product,
    wanted: HashMap<String, String>,
    may_be_empty: bool,
) -> Result<Vec<PlanModel>, Error> {
    let check = |(role, alias): (String, String)| {
        if !product.models.roles.contains_key(&role) {
            return Err(Error::Invalid(format!("the product has no model role {role:?}, check the roles")));
        }
        let value = if alias.is_empty() && may_be_empty { None } else { Some(model(product, alias)?) };
        Ok(PlanModel { kind: ModelKind::Default, name: role, value })
    };
    sorted(wanted).into_iter().map(check).collect()
}

/// Models that users may choose, checked.
///
/// # Errors
/// [`Error::Invalid`] for a model that the product does not have, or too many.
pub fn allowed_models(product: &Product, wanted: Vec<String>) -> Result<PlanModel, Error> {
    if wanted.len() > LIST_MAX {
        return Err(Error::Invalid(format!("allowed_models has more than {LIST_MAX} models")));
    }
    let mut models: Vec<String> = Vec::new();
    for alias in wanted {
        let alias = model(product, alias)?;
        if !models.contains(&alias) {
            models.push(alias);
        }
    }
    Ok(allowed(&models))
}

/// A model is the product's if it has a price there: another one would cost nothing and answer nothing.
fn model(product: &Product, alias: String) -> Result<String, Error> {
    if product.model_prices.contains_key(&alias) {
        return Ok(alias);
    }
    Err(Error::Invalid(format!("the product has no model {:?}, add it to [model_prices] first", shortened(&alias))))
}

/// A plan's name, checked.
///
/// # Errors
/// [`Error::Invalid`] for none, or a very long one.
pub fn plan_name(name: String) -> Result<String, Error> {
    if name.trim().is_empty() || name.len() > TEXT_MAX || name.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("name must be 1 to {TEXT_MAX} bytes on one line")));
    }
    Ok(name)
}

/// Prices to set, checked, each with its id.
///
/// # Errors
/// [`Error::Invalid`], in one sentence what is wrong with which.
pub fn prices(product: &Product, plan: &str, wanted: Vec<NewPrice>) -> Result<Vec<NewPrice>, Error> {
    if wanted.len() > LIST_MAX {
        return Err(Error::Invalid(format!("a plan has at most {LIST_MAX} prices")));
    }
    let mut prices: Vec<NewPrice> = Vec::new();
    for price in wanted {
        let price = price_checked(product, plan, price)?;
        let same = |other: &NewPrice| (&other.currency, &other.period) == (&price.currency, &price.period);
        if prices.iter().any(same) {
            return Err(Error::Invalid("a plan has one price for each currency and interval".to_owned()));
        }
        if prices.iter().any(|other| other.id == price.id) {
            return Err(Error::Invalid(format!("price {:?} is there twice, give each its own id", price.id)));
        }
        prices.push(price);
    }
    Ok(prices)
}

fn price_checked(product: &Product, plan: &str, price: NewPrice) -> Result<NewPrice, Error> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let Some(interval) = interval(&price.period) else {
        return invalid("interval must be month or year".to_owned());
    };
    if !(1..=PRICE_MAX).contains(&price.amount_minor) {
        return invalid(format!("amount_minor must be 1 to {PRICE_MAX}"));
    }
    if !is_currency(&price.currency) {
        return invalid("currency must be an ISO 4217 code such as EUR".to_owned());
    }
    if !(0..=MAX_MICRO_CREDITS).contains(&price.bonus_credits) {
        return invalid(format!("bonus_credits must be 0 to {MAX_MICRO_CREDITS} micro-credits"));
    }
    if price.bonus_credits > 0 && product.plans.iter().all(|plan| plan.credits.is_none()) {
        return invalid("the product has no credits, leave bonus_credits out".to_owned());
    }
    let id = if price.id.is_empty() { default_price_id(plan, interval) } else { price.id };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if id.len() > ID_MAX || !id.bytes().all(allowed) {
        return invalid(format!("a price's id must be 1 to {ID_MAX} lower-case letters, digits, - or _"));
    }
    Ok(NewPrice { id, ..price })
}

/// A number on the wire; none is unlimited.
fn number(name: &str, value: i64, least: i64, most: i64) -> Result<Option<i64>, Error> {
    if value == UNLIMITED {
        return Ok(None);
    }
    if !(least..=most).contains(&value) {
        return Err(Error::Invalid(format!("{name} must be {least} to {most}, or {UNLIMITED} for unlimited")));
    }
    Ok(Some(value))
}

/// By name, so that what is changed together is locked in one order, and the first mistake is always the same.
fn sorted<T>(wanted: HashMap<String, T>) -> Vec<(String, T)> {
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    wanted
}

/// A caller's text for a message.
fn shortened(text: &str) -> String {
    text.chars().take(ID_MAX).collect()
}
