//! Which models a caller may choose.
use weft_product::Product;

use crate::error::Error;

/// Name of the built-in model that needs no key.
pub const OFFLINE: &str = "offline";

/// The model for an answer: the product's default, or the one that the request names if the product has it (as
/// default, classifier or for a role) or the caller's plan allows it. `offline` is always allowed.
///
/// # Errors
/// [`Error::Invalid`], which does not repeat the name.
pub fn choose<'a>(wanted: Option<&'a str>, product: &'a Product, plan: &str) -> Result<&'a str, Error> {
    let Some(wanted) = wanted else { return Ok(&product.models.default) };
    let models = &product.models;
    let of_product = [&models.default, &models.classifier].into_iter().chain(models.roles.values());
    let plan = product.plans.iter().find(|candidate| candidate.slug == plan);
    let of_plan = plan.into_iter().flat_map(|plan| plan.models.allowed.iter().chain(plan.models.default.values()));
    if wanted == OFFLINE || of_product.chain(of_plan).any(|name| name == wanted) {
        return Ok(wanted);
    }
    Err(Error::Invalid("this model cannot be chosen here; leave model empty for the default, or use offline".into()))
}
