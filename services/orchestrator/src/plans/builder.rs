//! Puts plans together, and lets none out that could not be run.
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_proto::orchestrator::v1::PlanStep;

use super::template::Template;
use crate::domain::json;
use crate::sanitizer::without_thoughts;

/// Action of a step that asks a model.
pub const LLM: &str = "llm";
/// Action of a step that asks an agent.
pub const CALL_AGENT: &str = "call_agent";
/// Actions on a record.
const RECORD_ACTIONS: [&str; 3] = ["create_record", "update_record", "delete_record"];
/// Actions that only need data.
const DATA_ACTIONS: [&str; 2] = ["index_document", "send_notification"];
/// Tables of the client that steps may change.
const TABLES: [&str; 5] = ["tasks", "task_comments", "projects", "checkpoints", "notes"];
/// Most steps in a plan.
const STEPS: usize = 20;
/// Most steps that ask a model or an agent, for who may not build batches of them.
const CALLS_WITHOUT_BATCH: usize = 1;
/// Largest `variables` of a step, in bytes of JSON.
pub const VARIABLES_BYTES: usize = 8_192;

/// What is wrong with a plan: for the model only, since it may repeat what a user wrote. That is why it is no `Error` and
/// has no `Display`.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Flaw(pub String);

/// What one caller's plans may be made of.
pub struct Bounds<'a> {
    /// Agents that the caller may ask.
    pub agents: &'a [String],
    /// Whether a plan may ask models or agents more than once.
    pub may_batch: bool,
}

/// A plan that can be run.
#[derive(Clone)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Plan {
    /// Agent whose plan it is.
    pub agent: String,
    /// Its steps, in order.
    pub steps: Vec<PlanStep>,
}

/// A step before anybody has looked at it.
struct Draft {
    action: String,
    template: Option<String>,
    variables: Map<String, Value>,
    from: Option<i64>,
}

/// A plan that is being made.
#[derive(Default)]
pub struct PlanBuilder {
    drafts: Vec<Draft>,
}

impl PlanBuilder {
    /// Adds an action for the client.
    pub fn add_step(self, action: &str, variables: Map<String, Value>, from: Option<i64>) -> PlanBuilder {
        self.add(Draft { action: action.to_owned(), template: None, variables, from })
    }

    /// Adds a step that asks a model by a template.
    pub fn add_llm_step(self, template: &str, variables: Map<String, Value>, from: Option<i64>) -> PlanBuilder {
        self.add(Draft { action: LLM.to_owned(), template: Some(template.to_owned()), variables, from })
    }

    /// Adds an action on a table with the result of an earlier step.
    pub fn add_data_step(self, action: &str, table: &str, from: i64) -> PlanBuilder {
        let variables = Map::from_iter([("table".to_owned(), Value::from(table))]);
        self.add(Draft { action: action.to_owned(), template: None, variables, from: Some(from) })
    }

    fn add(mut self, draft: Draft) -> PlanBuilder {
        self.drafts.push(draft);
        self
    }

    /// The plan of these steps.
    ///
    /// # Errors
    /// What is wrong with which step: an unknown action, template, variable, table or agent, data that is missing, a
    /// reference to no earlier step, too much of anything.
    pub fn build(self, agent: &str, bounds: &Bounds<'_>) -> Result<Plan, Flaw> {
        if self.drafts.is_empty() || self.drafts.len() > STEPS {
            return Err(Flaw(format!("a plan has 1 to {STEPS} steps")));
        }
        let calls = self.drafts.iter().filter(|draft| [LLM, CALL_AGENT].contains(&draft.action.as_str())).count();
        if calls > CALLS_WITHOUT_BATCH && !bounds.may_batch {
            return Err(Flaw(format!("at most {CALLS_WITHOUT_BATCH} step may be llm or call_agent here")));
        }
        let step = |(at, draft): (usize, Draft)| {
            draft.check(at, bounds).map_err(|Flaw(why)| Flaw(format!("steps[{at}]: {why}")))
        };
        let steps = self.drafts.into_iter().enumerate().map(step).collect::<Result<_, _>>()?;
        Ok(Plan { agent: agent.to_owned(), steps })
    }
}

impl Draft {
    fn check(self, at: usize, bounds: &Bounds<'_>) -> Result<PlanStep, Flaw> {
        let earlier = |from: i64| usize::try_from(from).is_ok_and(|from| from < at);
        if self.from.is_some_and(|from| !earlier(from)) {
            return Err(Flaw("data_from_step must be the number of an earlier step, from 0".to_owned()));
        }
        if Value::Object(self.variables.clone()).to_string().len() > VARIABLES_BYTES {
            return Err(Flaw(format!("variables are over {VARIABLES_BYTES} bytes")));
        }
        match (self.action.as_str(), self.template.as_deref()) {
            (LLM, Some(template)) => self.check_template(template, bounds)?,
            (LLM, None) => return Err(Flaw("llm needs a prompt_template".to_owned())),
            (_, Some(_)) => return Err(Flaw("only llm has a prompt_template".to_owned())),
            (action, None) if RECORD_ACTIONS.contains(&action) => self.check_record()?,
            (CALL_AGENT, None) => self.check_agent(bounds)?,
            (action, None) if DATA_ACTIONS.contains(&action) => self.check_data(&[])?,
            _ => return Err(Flaw("there is no such action".to_owned())),
        }
        let data_from_step = self.from.and_then(|from| i32::try_from(from).ok());
        let variables = (!self.variables.is_empty()).then(|| json::message(self.variables));
        Ok(PlanStep { action: self.action, prompt_template: self.template, variables, data_from_step })
    }

    fn check_template(&self, id: &str, bounds: &Bounds<'_>) -> Result<(), Flaw> {
        let template = Template::get(id).filter(|template| bounds.agents.iter().any(|agent| agent == template.agent));
        let template = template.ok_or_else(|| Flaw("there is no such prompt_template".to_owned()))?;
        for (name, value) in &self.variables {
            if !template.variables.contains(&name.as_str()) {
                return Err(Flaw(format!("{id} has these variables: [{}]", template.variables.join(", "))));
            }
            if value.is_object() || value.is_array() {
                return Err(Flaw("the variables of a template are texts, numbers or flags".to_owned()));
            }
        }
        Ok(())
    }

    fn check_record(&self) -> Result<(), Flaw> {
        let table = self.variables.get("table").and_then(Value::as_str).unwrap_or_default();
        if !TABLES.contains(&table) {
            return Err(Flaw(format!("variables.table must be one of {}", TABLES.join(", "))));
        }
        self.check_data(&["table"])?;
        let id = self.variables.get("data").and_then(|data| data.get("id"));
        let has_id = id.is_some_and(|id| id.is_i64() || id.as_str().is_some_and(|id| !id.is_empty()));
        if self.action != "create_record" && self.from.is_none() && !has_id {
            return Err(Flaw("variables.data.id is missing".to_owned()));
        }
        Ok(())
    }

    fn check_agent(&self, bounds: &Bounds<'_>) -> Result<(), Flaw> {
        let agent = self.variables.get("agent").and_then(Value::as_str).unwrap_or_default();
        if !bounds.agents.iter().any(|known| known == agent) {
            return Err(Flaw(format!("variables.agent must be one of {}", bounds.agents.join(", "))));
        }
        self.check_data(&["agent"])
    }

    /// `data`, or an earlier step's, and nothing but these others.
    fn check_data(&self, others: &[&str]) -> Result<(), Flaw> {
        if self.variables.keys().any(|name| name != "data" && !others.contains(&name.as_str())) {
            return Err(Flaw(format!(
                "variables may only have data{}{}",
                [", "].repeat(others.len()).concat(),
                others.concat()
            )));
        }
        match self.variables.get("data") {
            Some(Value::Object(data)) if !data.is_empty() => Ok(()),
            None if self.from.is_some() => Ok(()),
            _ => Err(Flaw("variables.data must be an object with fields, or data_from_step must be given".to_owned())),
        }
    }
}

/// A plan as a model writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    steps: Vec<ProposedStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposedStep {
    action: String,
    #[serde(default)]
    prompt_template: Option<String>,
    #[serde(default)]
    variables: Option<Map<String, Value>>,
    #[serde(default)]
    data_from_step: Option<i64>,
}

/// What a model proposed, to be built. Models like to put a fence around JSON, and some think aloud before it.
///
/// # Errors
/// That it is no plan.
pub fn proposed(text: &str) -> Result<PlanBuilder, Flaw> {
    let said = without_thoughts(text);
    let bare = said.trim();
    let bare = bare.strip_prefix("```json").or_else(|| bare.strip_prefix("```")).unwrap_or(bare);
    let bare = bare.strip_suffix("```").unwrap_or(bare);
    let proposal: Proposal = serde_json::from_str(bare).map_err(|error| Flaw(error.to_string()))?;
    let drafts = proposal.steps.into_iter().map(|step| Draft {
        action: step.action,
        // Where there is none, some write an empty text or the -1 that tools take.
        template: step.prompt_template.filter(|template| !template.is_empty()),
        variables: step.variables.unwrap_or_default(),
        from: step.data_from_step.filter(|from| *from != -1),
    });
    Ok(PlanBuilder { drafts: drafts.collect() })
}

/// A plan as a model would write it.
pub fn written(plan: &Plan) -> String {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            json!({"action": step.action, "prompt_template": step.prompt_template,
                "variables": step.variables.clone().map(json::object), "data_from_step": step.data_from_step})
        })
        .collect();
    json!({ "steps": steps }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents() -> Vec<String> {
        ["task_agent", "project_agent"].map(str::to_owned).to_vec()
    }

    fn built(text: &str, may_batch: bool) -> Result<Plan, Flaw> {
        proposed(text)?.build("task_agent", &Bounds { agents: &agents(), may_batch })
    }

    #[test]
    fn a_plan_by_hand_is_the_plan_that_a_model_writes() {
        let by_hand = PlanBuilder::default()
            .add_llm_step("email_to_task", Map::new(), None)
            .add_data_step("create_record", "tasks", 0)
            .build("task_agent", &Bounds { agents: &agents(), may_batch: false })
            .unwrap();
        let text = r#"{"steps":[{"action":"llm","prompt_template":"email_to_task","data_from_step":-1},
            {"action":"create_record","prompt_template":"","variables":{"table":"tasks"},"data_from_step":0}]}"#;
        for text in [
            text.to_owned(),
            format!("```json\n{text}\n```"),
            format!("<think>\nHm.\n</think>\n\n{text}"),
            written(&by_hand),
        ] {
            assert_eq!(built(&text, false).unwrap(), by_hand);
        }
        assert_eq!(by_hand.steps[1].data_from_step, Some(0));
        assert_eq!(by_hand.steps[0].prompt_template.as_deref(), Some("email_to_task"));
    }

    #[test]
    fn every_kind_of_step_can_be_built() {
        let text = json!({"steps": [
            {"action": "llm", "prompt_template": "weekly_report", "variables": {"focus": "boats"}},
            {"action": "create_record", "variables": {"table": "notes", "data": {"title": "Week"}}, "data_from_step": 0},
            {"action": "update_record", "variables": {"table": "tasks", "data": {"id": 3, "status": "done"}}},
            {"action": "delete_record", "variables": {"table": "projects"}, "data_from_step": 1},
            {"action": "index_document", "data_from_step": 1},
            {"action": "send_notification", "variables": {"data": {"text": "done"}}},
            {"action": "call_agent", "variables": {"agent": "project_agent", "data": {"message": "go on"}}},
        ]});
        assert_eq!(built(&text.to_string(), true).unwrap().steps.len(), 7);
        assert!(built(&text.to_string(), false).unwrap_err().0.contains("at most 1 step"));
    }

    #[test]
    fn what_could_not_be_run_is_refused_by_its_step() {
        let create = json!({"action": "create_record", "variables": {"table": "tasks", "data": {"title": "x"}}});
        for (step, why) in [
            (json!({"action": "llm"}), "needs a prompt_template"),
            (json!({"action": "llm", "prompt_template": "planner"}), "no such prompt_template"),
            (json!({"action": "llm", "prompt_template": "note_summary"}), "no such prompt_template"),
            (json!({"action": "llm", "prompt_template": "day_plan", "variables": {"x": 1}}), "has these variables: []"),
            (
                json!({"action": "llm", "prompt_template": "weekly_report", "variables": {"focus": {}}}),
                "texts, numbers",
            ),
            (json!({"action": "create_record", "prompt_template": "day_plan"}), "only llm"),
            (json!({"action": "drop_table"}), "no such action"),
            (json!({"action": "create_record", "variables": {"table": "users", "data": {"a": 1}}}), "variables.table"),
            (json!({"action": "create_record", "variables": {"table": "tasks"}}), "variables.data"),
            (
                json!({"action": "create_record", "variables": {"table": "tasks", "data": {"a": 1}, "b": 2}}),
                "only have data, table",
            ),
            (json!({"action": "delete_record", "variables": {"table": "tasks", "data": {"title": "x"}}}), "data.id"),
            (
                json!({"action": "call_agent", "variables": {"agent": "note_agent", "data": {"a": 1}}}),
                "variables.agent",
            ),
            (json!({"action": "index_document"}), "variables.data"),
            (json!({"action": "index_document", "data_from_step": 1}), "earlier step"),
            (json!({"action": "index_document", "data_from_step": 2}), "earlier step"),
            (json!({"action": "index_document", "data_from_step": -2}), "earlier step"),
            (json!({"action": "index_document", "variables": {"data": {"text": "x".repeat(9_000)}}}), "8192 bytes"),
        ] {
            let text = json!({"steps": [create, step]}).to_string();
            let Flaw(told) = built(&text, true).unwrap_err();
            assert!(told.starts_with("steps[1]: ") && told.contains(why), "{step}: {told}");
        }
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let step = json!({"action": "index_document", "variables": {"data": {"a": 1}}});
        for text in [
            String::new(),
            "Sure, here is your plan!".to_owned(),
            json!({"steps": []}).to_string(),
            json!({"steps": vec![step.clone(); 21]}).to_string(),
            json!({"steps": [step.clone()], "comment": "hello"}).to_string(),
            json!([step]).to_string(),
        ] {
            assert!(built(&text, true).is_err(), "{text}");
        }
        assert!(built(&json!({"steps": vec![step; 20]}).to_string(), true).is_ok());
    }
}
