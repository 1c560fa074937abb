//! Which model answers.
use std::collections::BTreeMap;

use weft_product::Product;
use weft_proto::billing::v1::Entitlements;
use weft_proto::orchestrator::v1::ModelDecision;

use crate::error::Error;

/// Name of the built-in model that needs no key.
pub const OFFLINE: &str = "offline";

/// Checks the model that a request names: one of the product's, which the plan lets its account choose. That is what the
/// plan lists; where it lists nothing, what the product and the plan use themselves. What an administrator has set for
/// the account, and `offline`, may always be chosen.
///
/// # Errors
/// [`Error::Invalid`] for a model that the product does not have, [`Error::ModelNotInPlan`] for another plan's. Neither
/// repeats the name.
pub fn check(wanted: &str, product: &Product, plan: &Entitlements) -> Result<(), Error> {
    let models = &product.models;
    let is_set = plan.override_models.values().any(|model| model == wanted);
    if wanted == OFFLINE || is_set || plan.allowed_models.iter().any(|model| model == wanted) {
        return Ok(());
    }
    if !product.model_prices.contains_key(wanted) {
        return Err(Error::Invalid("this model cannot be chosen here; leave model empty, or use offline".into()));
    }
    let of_product = [&models.default, &models.classifier].into_iter().chain(models.roles.values());
    let is_used = of_product.chain(plan.default_models.values()).any(|model| model == wanted);
    if plan.allowed_models.is_empty() && is_used { Ok(()) } else { Err(Error::ModelNotInPlan) }
}

/// The model for a role: the request's, which was checked; else what an administrator has set for the account; else the
/// plan's; else the environment's, if it is one of those that the plan lists; else the product's.
pub fn decide(
    role: &str,
    wanted: Option<&str>,
    plan: &Entitlements,
    environment: &BTreeMap<&'static str, String>,
    product: &Product,
) -> ModelDecision {
    let of_product = || product.models.roles.get(role).unwrap_or(&product.models.default).as_str();
    let (model, source) = None
        .or(wanted.map(|model| (model, "request")))
        .or_else(|| plan.override_models.get(role).map(|model| (model.as_str(), "override")))
        .or_else(|| plan.default_models.get(role).map(|model| (model.as_str(), "plan")))
        .or_else(|| {
            environment.get(role).filter(|model| may_use(plan, model)).map(|model| (model.as_str(), "environment"))
        })
        .unwrap_or_else(|| (of_product(), "product"));
    ModelDecision { role: role.to_owned(), model: model.to_owned(), source: source.to_owned() }
}

/// Whether a plan's list of models, if it has one, has this one.
fn may_use(plan: &Entitlements, model: &str) -> bool {
    plan.allowed_models.is_empty() || plan.allowed_models.iter().any(|allowed| allowed == model)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use weft_product::Products;

    use super::*;

    fn cofounder() -> Arc<Product> {
        Arc::clone(Products::builtin().get("cofounder").unwrap())
    }

    fn of(role: &str, model: &str) -> HashMap<String, String> {
        HashMap::from([(role.to_owned(), model.to_owned())])
    }

    #[test]
    fn each_step_stands_above_the_next() {
        let product = cofounder();
        let plan = Entitlements {
            override_models: of("architect", "overridden"),
            default_models: [of("architect", "planned"), of("coder", "planned")].into_iter().flatten().collect(),
            ..Entitlements::default()
        };
        let environment = BTreeMap::from([("coder", "set".to_owned()), ("debugger", "set".to_owned())]);
        for (role, wanted, model, source) in [
            ("architect", Some("wanted"), "wanted", "request"),
            ("architect", None, "overridden", "override"),
            ("coder", None, "planned", "plan"),
            ("debugger", None, "set", "environment"),
            ("reviewer", None, "sonnet", "product"),
            ("task_agent", None, "sonnet", "product"),
        ] {
            let decision = decide(role, wanted, &plan, &environment, &product);
            assert_eq!((decision.model.as_str(), decision.source.as_str()), (model, source), "{role}");
            assert_eq!(decision.role, role);
        }
    }

    #[test]
    fn the_environment_gives_nobody_what_the_plan_has_not() {
        let product = cofounder();
        let environment = BTreeMap::from([("debugger", "opus".to_owned())]);
        for (allowed, model, source) in [
            (&[][..], "opus", "environment"),
            (&["sonnet", "opus"], "opus", "environment"),
            (&["sonnet"], "sonnet", "product"),
        ] {
            let allowed_models = allowed.iter().map(|model| (*model).to_owned()).collect();
            let plan = Entitlements { allowed_models, ..Entitlements::default() };
            let decision = decide("debugger", None, &plan, &environment, &product);
            assert_eq!((decision.model.as_str(), decision.source.as_str()), (model, source));
        }
    }

    #[test]
    fn a_plan_says_what_may_be_chosen() {
        let product = cofounder();
        let plan = |allowed: &[&str]| Entitlements {
            allowed_models: allowed.iter().map(|model| (*model).to_owned()).collect(),
            default_models: of("coder", "sonnet"),
            ..Entitlements::default()
        };
        assert!(check("opus", &product, &plan(&["sonnet", "opus"])).is_ok());
        assert!(check("sonnet", &product, &plan(&[])).is_ok());
        for few in [plan(&["sonnet"]), plan(&[])] {
            assert!(matches!(check("opus", &product, &few), Err(Error::ModelNotInPlan)));
        }
        assert!(matches!(check("sonnet", &product, &plan(&["opus"])), Err(Error::ModelNotInPlan)));
        let given = Entitlements { override_models: of("architect", "opus"), ..plan(&["sonnet"]) };
        assert!(check("opus", &product, &given).is_ok());
    }

    #[test]
    fn a_model_of_nobody_is_refused_and_offline_never() {
        for product in Products::builtin().iter() {
            let plan = Entitlements::default();
            assert!(check(OFFLINE, product, &plan).is_ok());
            assert!(check(&product.models.default, product, &plan).is_ok());
            assert!(matches!(check("a model of nobody", product, &plan), Err(Error::Invalid(_))));
        }
    }
}
