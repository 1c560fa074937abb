//! Which agents there are: those in code, and for each product those that its manifest configures.
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weft_product::{ConfiguredAgent, Product, Products};

use crate::agents::tool::Tool;
use crate::agents::{checkpoint_agent, note_agent, project_agent, task_agent};
use crate::domain::day::Day;
use crate::error::Error;
use crate::models::Choice;
use crate::prompts::{Prompt, Prompts};

/// An agent: a prompt and the tools it may use.
pub struct Agent {
    /// Name in manifests and requests.
    pub name: Cow<'static, str>,
    /// What it is for; the classifier chooses by it.
    pub description: Cow<'static, str>,
    /// What the model is told about its part.
    pub prompt: Prompt,
    /// What it can do.
    pub tools: Vec<Tool>,
    /// Other agents that it may ask.
    pub calls: Vec<String>,
}

impl Agent {
    /// An agent of code.
    pub fn built_in(name: &'static str, description: &'static str, prompt: Prompt, tools: Vec<Tool>) -> Agent {
        Agent { name: Cow::Borrowed(name), description: Cow::Borrowed(description), prompt, tools, calls: Vec::new() }
    }

    /// An agent of a manifest.
    fn configured(agent: &ConfiguredAgent, prompt: Prompt) -> Agent {
        let (name, description) = (agent.name.clone().into(), agent.description.clone().into());
        Agent { name, description, prompt, tools: Vec::new(), calls: Vec::new() }
    }

    /// What a model is told about this agent's part on a day.
    pub fn instructions(&self, today: Day) -> String {
        self.prompt.render(&[("today", &today.to_string()), ("today_ms", &today.start_ms().to_string())])
    }

    /// Its tool of this name; no other agent's.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.spec.name == name)
    }

    /// Name and description.
    pub fn choice(&self) -> Choice<'_> {
        Choice { name: &self.name, description: &self.description }
    }
}

/// The agents of one product that exist, in the manifest's order.
#[derive(Default)]
pub struct Registry {
    agents: Vec<Agent>,
}

impl Registry {
    /// The agents of this version that are code.
    #[cfg(test)]
    pub fn built_in() -> Registry {
        let mut registry = Registry::default();
        built_in().into_iter().for_each(|agent| registry.register(agent));
        registry
    }

    /// The agents of a product: what its manifest configures, or else what is code.
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`] for a configured agent whose prompt nobody has.
    pub fn of(product: &Product, prompts: &Prompts) -> Result<Registry, Error> {
        let mut registry = Registry::default();
        let mut built_in = built_in();
        for name in &product.agents.available {
            let mut agent = if let Some(agent) = product.agents.configured.iter().find(|agent| agent.name == *name) {
                let unknown = || Error::UnknownPrompt {
                    product: product.slug.clone(),
                    agent: agent.name.clone(),
                    prompt: agent.prompt.clone(),
                };
                Agent::configured(agent, prompts.get(&agent.prompt).ok_or_else(unknown)?)
            } else if let Some(at) = built_in.iter().position(|agent| agent.name == *name) {
                built_in.swap_remove(at)
            } else {
                continue;
            };
            agent.calls = product.agents.calls.get(name).cloned().unwrap_or_default();
            registry.register(agent);
        }
        Ok(registry)
    }

    /// Adds an agent; one of the same name is replaced.
    pub fn register(&mut self, agent: Agent) {
        self.agents.retain(|known| known.name != agent.name);
        self.agents.push(agent);
    }

    /// The agent of this name.
    pub fn get(&self, name: &str) -> Option<&Agent> {
        self.all().find(|agent| agent.name == name)
    }

    /// Every agent.
    pub fn all(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter()
    }

    /// Name and description of each.
    pub fn list(&self) -> impl Iterator<Item = Choice<'_>> {
        self.all().map(Agent::choice)
    }
}

fn built_in() -> Vec<Agent> {
    vec![task_agent::agent(), checkpoint_agent::agent(), project_agent::agent(), note_agent::agent()]
}

/// The agents of each product.
pub struct Registries {
    by_product: HashMap<String, Registry>,
}

impl Registries {
    /// Of these products.
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`].
    pub fn new(products: &Products, prompts: &Prompts) -> Result<Registries, Error> {
        let of = |product: &Arc<Product>| Ok((product.slug.clone(), Registry::of(product, prompts)?));
        Ok(Registries { by_product: products.iter().map(of).collect::<Result<_, Error>>()? })
    }

    /// Name of every agent that some product has.
    pub fn names(&self) -> BTreeSet<&str> {
        self.by_product.values().flat_map(|registry| registry.list().map(|agent| agent.name)).collect()
    }

    /// Slug and agents of each product.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Registry)> {
        self.by_product.iter().map(|(product, registry)| (product.as_str(), registry))
    }

    /// Of a product.
    pub fn of(&self, product: &str) -> Option<&Registry> {
        self.by_product.get(product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_the_same_name_is_replaced() {
        let mut registry = Registry::default();
        registry.register(task_agent::agent());
        registry.register(Agent::built_in("task_agent", "another", Prompt::TaskAgent, Vec::new()));
        let listed: Vec<&str> = registry.list().map(|agent| agent.description).collect();
        assert_eq!(listed, ["another"]);
        assert!(registry.get("task_agent").unwrap().tool("list_tasks").is_none());
        assert!(registry.get("note_agent").is_none());
    }

    #[test]
    fn a_product_has_what_is_code_and_what_it_configures_in_its_order() {
        let products = Products::builtin();
        let registries = Registries::new(&products, &Prompts::default()).unwrap();
        let adiuva = registries.of("adiuva").unwrap();
        let names: Vec<&str> = adiuva.list().map(|agent| agent.name).collect();
        assert_eq!(names, products.get("adiuva").unwrap().agents.available);
        assert!(adiuva.get("email_agent").unwrap().tools.is_empty());
        assert_eq!(registries.of("companion").unwrap().list().count(), 0);
        assert!(registries.of("nobody").is_none());
    }

    #[test]
    fn a_configured_agent_needs_its_prompt() {
        let mut product = Product::clone(Products::builtin().get("adiuva").unwrap());
        product.agents.configured[0].prompt = "nowhere".to_owned();
        let Err(error) = Registry::of(&product, &Prompts::default()) else { panic!("it was accepted") };
        let told = error.to_string();
        assert!(told.contains("adiuva") && told.contains("calendar_agent") && told.contains("nowhere"), "{told}");
    }

    /// The binding list: 23 tools of 4 agents, by name and parameters.
    #[test]
    fn the_tools_are_those_of_the_golden_list() {
        let mut lines = Vec::new();
        for agent in Registry::built_in().all() {
            for tool in &agent.tools {
                let properties = tool.spec.parameters["properties"].as_object().unwrap();
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                lines.push(format!("{}.{}({})", agent.name, tool.spec.name, names.join(", ")));
            }
        }
        assert_eq!(lines.len(), 23);
        assert_eq!(lines.join("\n"), include_str!("golden_tools.txt").trim_end());
    }
}
