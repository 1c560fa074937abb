//! The templates of plans' `llm` steps.
use crate::agents::Agent;
use crate::domain::day::Day;
use crate::prompts::Prompt;

/// A template: what a model is told in one step of a plan. Values of its variables go beside it as data, never into it.
pub struct Template {
    /// Id in plans and requests.
    pub id: &'static str,
    /// Agent whose work it is; who may not ask the agent may not use the template.
    pub agent: &'static str,
    /// What it makes of what.
    pub description: &'static str,
    /// Names of its variables; each may be left out.
    pub variables: &'static [&'static str],
    /// Table that its result usually goes into.
    pub table: Option<&'static str>,
    text: &'static str,
}

impl Template {
    /// The template of this id.
    pub fn get(id: &str) -> Option<&'static Template> {
        TEMPLATES.iter().find(|template| template.id == id)
    }

    /// What the model is told on a day.
    pub fn instructions(&self, today: Day) -> String {
        self.as_agent().instructions(today)
    }

    /// The agent that does this step: without tools, and under the name of whose work it is.
    pub fn as_agent(&self) -> Agent {
        Agent::built_in(self.agent, self.description, Prompt::named(self.id, self.text), Vec::new())
    }

    /// As it stands in the list that a planning model reads.
    pub fn line(&self) -> String {
        format!("- {} ({}): {}", self.id, self.variables.join(", "), self.description)
    }
}

/// Every template.
pub static TEMPLATES: [Template; 9] = [
    Template {
        id: "email_to_task",
        agent: "task_agent",
        description: "makes the fields of one task out of a mail",
        variables: &[],
        table: Some("tasks"),
        text: include_str!("../prompts/steps/email_to_task.txt"),
    },
    Template {
        id: "meeting_to_tasks",
        agent: "task_agent",
        description: "makes the fields of several tasks out of minutes",
        variables: &[],
        table: Some("tasks"),
        text: include_str!("../prompts/steps/meeting_to_tasks.txt"),
    },
    Template {
        id: "weekly_report",
        agent: "task_agent",
        description: "reports on the week in Markdown, out of the records in the context",
        variables: &["focus"],
        table: Some("notes"),
        text: include_str!("../prompts/steps/weekly_report.txt"),
    },
    Template {
        id: "day_plan",
        agent: "task_agent",
        description: "puts the open tasks of the context in order for a day",
        variables: &[],
        table: None,
        text: include_str!("../prompts/steps/day_plan.txt"),
    },
    Template {
        id: "project_outline",
        agent: "project_agent",
        description: "makes the fields of a project out of an idea",
        variables: &["goal"],
        table: Some("projects"),
        text: include_str!("../prompts/steps/project_outline.txt"),
    },
    Template {
        id: "checkpoint_proposal",
        agent: "checkpoint_agent",
        description: "proposes the fields of checkpoints for a project",
        variables: &["count"],
        table: Some("checkpoints"),
        text: include_str!("../prompts/steps/checkpoint_proposal.txt"),
    },
    Template {
        id: "note_summary",
        agent: "note_agent",
        description: "condenses a long text into Markdown",
        variables: &["length"],
        table: Some("notes"),
        text: include_str!("../prompts/steps/note_summary.txt"),
    },
    Template {
        id: "email_reply",
        agent: "email_agent",
        description: "drafts the answer to a mail",
        variables: &["tone"],
        table: None,
        text: include_str!("../prompts/steps/email_reply.txt"),
    },
    Template {
        id: "progress_figures",
        agent: "analytics_agent",
        description: "works out figures on the records in the context",
        variables: &["period"],
        table: None,
        text: include_str!("../prompts/steps/progress_figures.txt"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_template_has_its_own_id_and_no_variable_in_its_text() {
        let day = Day::parse("2026-11-20").unwrap();
        for (at, template) in TEMPLATES.iter().enumerate() {
            assert!(TEMPLATES[at + 1..].iter().all(|other| other.id != template.id), "{}", template.id);
            assert_eq!(Template::get(template.id).unwrap().line(), template.line());
            let instructions = template.instructions(day);
            assert!(!instructions.contains("{{") && instructions.len() > 200, "{}", template.id);
            for variable in template.variables {
                assert!(template.text.contains(variable), "{} knows {variable}", template.id);
            }
        }
    }
}
