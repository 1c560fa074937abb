//! Plans that are made already.
use serde_json::Map;

use super::builder::{Bounds, Flaw, Plan, PlanBuilder};

/// A plan with a name.
pub struct Playbook {
    /// Its id.
    pub id: &'static str,
    /// What it does, in a sentence.
    pub description: &'static str,
    /// Agent whose steps these are.
    pub agent: &'static str,
    steps: fn(PlanBuilder) -> PlanBuilder,
}

impl Playbook {
    /// The plan, if these bounds allow it: its agents have to be among the caller's, and a playbook that asks models more
    /// than once is for who may build batches.
    ///
    /// # Errors
    /// Why it is not the caller's.
    pub fn plan(&self, bounds: &Bounds<'_>) -> Result<Plan, Flaw> {
        if !bounds.agents.iter().any(|agent| agent == self.agent) {
            return Err(Flaw("the agent is not the caller's".to_owned()));
        }
        (self.steps)(PlanBuilder::default()).build(self.agent, bounds)
    }
}

/// Every playbook, by id.
pub static PLAYBOOKS: [Playbook; 7] = [
    Playbook {
        id: "create_task_from_email",
        description: "Reads a mail and creates the task that it asks for.",
        agent: "task_agent",
        steps: |plan| plan.add_llm_step("email_to_task", Map::new(), None).add_data_step("create_record", "tasks", 0),
    },
    Playbook {
        id: "create_tasks_from_meeting",
        description: "Reads the minutes of a meeting and creates a task for each promise.",
        agent: "task_agent",
        steps: |plan| {
            plan.add_llm_step("meeting_to_tasks", Map::new(), None).add_data_step("create_record", "tasks", 0)
        },
    },
    Playbook {
        id: "generate_weekly_report",
        description: "Writes a report on the week and keeps it as a note.",
        agent: "task_agent",
        steps: |plan| plan.add_llm_step("weekly_report", Map::new(), None).add_data_step("create_record", "notes", 0),
    },
    Playbook {
        id: "plan_my_day",
        description: "Puts the open tasks into an order for today.",
        agent: "task_agent",
        steps: |plan| plan.add_llm_step("day_plan", Map::new(), None),
    },
    Playbook {
        id: "reply_to_email",
        description: "Drafts an answer to a mail and creates a task for what it asks.",
        agent: "email_agent",
        steps: |plan| {
            plan.add_llm_step("email_reply", Map::new(), None)
                .add_llm_step("email_to_task", Map::new(), None)
                .add_data_step("create_record", "tasks", 1)
        },
    },
    Playbook {
        id: "start_project",
        description: "Turns an idea into a project with checkpoints to approve.",
        agent: "project_agent",
        steps: |plan| {
            plan.add_llm_step("project_outline", Map::new(), None)
                .add_data_step("create_record", "projects", 0)
                .add_llm_step("checkpoint_proposal", Map::new(), Some(1))
                .add_data_step("create_record", "checkpoints", 2)
        },
    },
    Playbook {
        id: "summarise_note",
        description: "Condenses a long text into a new note.",
        agent: "note_agent",
        steps: |plan| plan.add_llm_step("note_summary", Map::new(), None).add_data_step("create_record", "notes", 0),
    },
];

#[cfg(test)]
mod tests {
    use weft_product::Products;

    use super::*;

    fn ids(agents: &[String], may_batch: bool) -> Vec<&'static str> {
        let bounds = Bounds { agents, may_batch };
        PLAYBOOKS.iter().filter(|playbook| playbook.plan(&bounds).is_ok()).map(|playbook| playbook.id).collect()
    }

    #[test]
    fn a_plan_has_the_playbooks_of_its_agents_and_batches() {
        let products = Products::builtin();
        let all = &products.get("adiuva").unwrap().agents.available;
        let free = ["create_task_from_email", "create_tasks_from_meeting", "generate_weekly_report", "plan_my_day"];
        assert_eq!(ids(&all[..3], false), free);
        assert_eq!(ids(all, false), [&free[..], &["summarise_note"]].concat());
        assert_eq!(ids(all, true).len(), PLAYBOOKS.len());
        assert!(ids(&[], true).is_empty());
    }

    #[test]
    fn they_are_in_the_order_of_their_ids() {
        assert!(PLAYBOOKS.is_sorted_by_key(|playbook| playbook.id));
    }
}
