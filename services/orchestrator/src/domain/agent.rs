//! Which agents a caller may ask.
use weft_product::Product;
use weft_proto::billing::v1::Entitlements;

use crate::error::Error;

/// The plan's limit on agents, by name.
const AGENTS_LIMIT: &str = "agents";

/// The agents of a product as one caller sees them: what the manifest lists, in its order, as far as the plan
/// goes, and which of them exist in code.
pub struct Reach<'a> {
    available: &'a [String],
    included: usize,
}

impl<'a> Reach<'a> {
    /// The agents of a product within an account's plan.
    pub fn of(product: &'a Product, plan: &Entitlements) -> Reach<'a> {
        Reach::new(&product.agents.available, plan.limits.get(AGENTS_LIMIT).copied())
    }

    /// `limit` is the plan's number of agents: the first so many of the list. None: all.
    fn new(available: &'a [String], limit: Option<i64>) -> Reach<'a> {
        let included = limit.map_or(available.len(), |limit| usize::try_from(limit).unwrap_or(0).min(available.len()));
        Reach { available, included }
    }

    /// The names that can be called, in the product's order.
    pub fn callable(&self, exists: impl Fn(&str) -> bool) -> Vec<&'a str> {
        self.available[..self.included].iter().map(String::as_str).filter(|name| exists(name)).collect()
    }

    /// The agent that the caller asks for by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that the product does not have or that is not there yet,
    /// [`Error::AgentNotInPlan`] for one beyond the plan. None repeats what the caller wrote.
    pub fn named(&self, wanted: &str, exists: impl Fn(&str) -> bool) -> Result<&'a str, Error> {
        let Some(at) = self.available.iter().position(|name| name == wanted) else {
            let names = self.callable(exists).join(", ");
            return Err(Error::Invalid(format!("unknown agent; leave agent empty or choose one of: {names}").into()));
        };
        if at >= self.included {
            return Err(Error::AgentNotInPlan);
        }
        let name = self.available[at].as_str();
        if !exists(name) {
            return Err(Error::Invalid(format!("the agent {name} is not available yet; leave agent empty").into()));
        }
        Ok(name)
    }

    /// The agent whose work a template is.
    ///
    /// # Errors
    /// Those of [`Reach::named`], in words about the template.
    pub fn of_template(&self, agent: &str, exists: impl Fn(&str) -> bool) -> Result<&'a str, Error> {
        self.named(agent, exists).map_err(|error| match error {
            Error::Invalid(_) => {
                Error::Invalid("this product has no such prompt_template; take one from a plan".into())
            }
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["task_agent", "note_agent", "email_agent"].map(str::to_owned).to_vec()
    }

    fn exists(name: &str) -> bool {
        name != "note_agent"
    }

    #[test]
    fn a_plan_reaches_the_first_agents_of_the_list() {
        let names = names();
        assert_eq!(Reach::new(&names, Some(2)).callable(exists), ["task_agent"]);
        assert_eq!(Reach::new(&names, None).callable(exists), ["task_agent", "email_agent"]);
        assert!(Reach::new(&names, Some(0)).callable(exists).is_empty());
        assert!(Reach::new(&names, Some(-1)).callable(exists).is_empty());
    }

    #[test]
    fn an_agent_beyond_the_plan_is_a_matter_of_the_plan() {
        let names = names();
        let reach = Reach::new(&names, Some(2));
        assert_eq!(reach.named("task_agent", exists).unwrap(), "task_agent");
        assert!(matches!(reach.named("email_agent", exists), Err(Error::AgentNotInPlan)));
        assert!(matches!(reach.named("note_agent", exists), Err(Error::Invalid(_))));
        assert!(matches!(reach.of_template("email_agent", exists), Err(Error::AgentNotInPlan)));
        let told = reach.of_template("butler", exists).unwrap_err().to_string();
        assert!(told.contains("prompt_template"), "{told}");
    }

    #[test]
    fn an_unknown_name_is_not_repeated() {
        let names = names();
        let told = Reach::new(&names, None).named("CANARY", exists).unwrap_err().to_string();
        assert_eq!(told, "unknown agent; leave agent empty or choose one of: task_agent, email_agent");
    }
}
