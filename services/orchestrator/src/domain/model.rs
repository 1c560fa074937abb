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

#[cfg(test)]
mod tests {
    use weft_product::Products;

    use super::*;

    #[test]
    fn a_plan_opens_its_models_and_no_other_plan_does() {
        let products = Products::builtin();
        let product = products.get("cofounder").unwrap();
        let only_higher = product.plans.iter().find_map(|plan| {
            let first = &product.plans[0].models;
            let other =
                |name: &&String| !first.allowed.contains(name) && !first.default.values().any(|own| own == *name);
            let own = |name: &&String| choose(Some(name.as_str()), product, &product.plans[0].slug).is_ok();
            plan.models
                .allowed
                .iter()
                .find(|name| other(name) && !own(name))
                .map(|name| (plan.slug.clone(), name.clone()))
        });
        let (plan, model) = only_higher.expect("a model that the first plan lacks");
        assert_eq!(choose(Some(&model), product, &plan).unwrap(), model);
        assert!(choose(Some(&model), product, &product.plans[0].slug).is_err());
        assert!(choose(Some(&model), product, "no such plan").is_err());
    }

    #[test]
    fn the_default_needs_no_choice_and_offline_is_always_there() {
        let products = Products::builtin();
        for product in products.iter() {
            assert_eq!(choose(None, product, "free").unwrap(), product.models.default);
            assert_eq!(choose(Some(OFFLINE), product, "free").unwrap(), OFFLINE);
            assert!(choose(Some("a model of nobody"), product, "free").is_err());
        }
    }
}
