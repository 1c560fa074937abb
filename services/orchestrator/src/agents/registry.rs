//! Which agents exist in code. A product's manifest says which of them it has.
use crate::agents::task_agent;
use crate::agents::tool::Tool;
use crate::domain::day::Day;
use crate::models::Choice;
use crate::prompts::Prompt;

/// An agent: a prompt and the tools it may use.
pub struct Agent {
    /// Name in manifests and requests.
    pub name: &'static str,
    /// What it is for; the classifier chooses by it.
    pub description: &'static str,
    /// What the model is told about its part.
    pub prompt: Prompt,
    /// What it can do.
    pub tools: Vec<Tool>,
}

impl Agent {
    /// What a model is told about this agent's part on a day.
    pub fn instructions(&self, today: Day) -> String {
        self.prompt.render(&[("today", &today.to_string()), ("today_ms", &today.start_ms().to_string())])
    }

    /// Its tool of this name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.spec.name == name)
    }
}

/// Every agent that exists, in the order of registration.
#[derive(Default)]
pub struct Registry {
    agents: Vec<Agent>,
}

impl Registry {
    /// The agents of this version.
    pub fn built_in() -> Registry {
        let mut registry = Registry::default();
        registry.register(task_agent::agent());
        registry
    }

    /// Adds an agent; one of the same name is replaced.
    pub fn register(&mut self, agent: Agent) {
        self.agents.retain(|known| known.name != agent.name);
        self.agents.push(agent);
    }

    /// The agent of this name.
    pub fn get(&self, name: &str) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// Name and description of each.
    pub fn list(&self) -> impl Iterator<Item = Choice<'_>> {
        self.agents.iter().map(|agent| Choice { name: agent.name, description: agent.description })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_the_same_name_is_replaced() {
        let mut registry = Registry::built_in();
        registry.register(Agent {
            name: "task_agent",
            description: "another",
            prompt: Prompt::TaskAgent,
            tools: Vec::new(),
        });
        let listed: Vec<&str> = registry.list().map(|agent| agent.description).collect();
        assert_eq!(listed, ["another"]);
        assert!(registry.get("task_agent").unwrap().tool("list_tasks").is_none());
        assert!(registry.get("note_agent").is_none());
    }
}
