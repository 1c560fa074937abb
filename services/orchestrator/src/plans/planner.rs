//! Has a model make a plan.
use serde_json::json;
use weft_proto::orchestrator::v1::ChatResponse;

use super::builder::{Bounds, Flaw, Plan, proposed};
use super::template::{TEMPLATES, Template};
use crate::agents::Agent;
use crate::agents::answer;
use crate::agents::desk::Desk;
use crate::cost::Asker;
use crate::domain::chat::Question;
use crate::error::Error;
use crate::models::{Aim, Call, Message, Speaker};
use crate::prompts::Prompt;

/// A plan may be tried so often: once more after the model was told what is wrong.
const TRIES: usize = 2;

/// Who makes a plan, and within which bounds.
pub struct Planner<'a> {
    /// Agent whose plan it is.
    pub agent: &'a Agent,
    /// The way to the models.
    pub asker: &'a Asker,
    /// The model to ask first.
    pub model: &'a str,
    /// Most tokens it may say at once.
    pub output_tokens: u32,
    /// What the caller's plans may be made of.
    pub bounds: Bounds<'a>,
}

impl Planner<'_> {
    /// A plan for a request, and the model that made it. What it says is told to nobody.
    ///
    /// # Errors
    /// [`Error::Model`] if the provider fails, [`Error::Plan`] if the model makes no plan that can be run, told once.
    pub async fn plan(&self, question: &Question, desk: &Desk, speaker: &Speaker) -> Result<(Plan, String), Error> {
        let templates = templates(self.bounds.agents);
        let mut messages = vec![Message::System(instructions(&templates))];
        let mut background = answer::background(question);
        background.extend(desk.records());
        background.insert("agent".to_owned(), json!(&*self.agent.name));
        background.insert("agents".to_owned(), json!(self.bounds.agents));
        messages.push(Message::User(answer::around(&json!(background).to_string())));
        messages.extend(answer::conversation(&question.turns));
        messages.push(Message::User(question.message.clone()));
        let mut model = self.model.to_owned();
        for _ in 0..TRIES {
            let call = Call {
                model: &model,
                messages: &messages,
                tools: &[],
                may_call: false,
                output_tokens: self.output_tokens,
                aim: Aim::Plan(&templates),
                wants: None,
            };
            let mut unheard = Speaker::collecting().until(speaker.left());
            let asked = self.asker.ask(&self.agent.name, &call, &mut unheard).await?;
            let (text, answered_by) = (asked.completion.text, asked.model);
            let built = proposed(&text).and_then(|builder| builder.build(&self.agent.name, &self.bounds));
            let Flaw(why) = match built {
                Ok(plan) => return Ok((plan, answered_by)),
                Err(flaw) => flaw,
            };
            model = answered_by;
            let told = json!({"error": why, "advice": "reply with the corrected JSON object and nothing else"});
            messages.push(Message::Assistant { text, calls: Vec::new() });
            messages.push(Message::User(told.to_string()));
        }
        Err(Error::Plan)
    }
}

/// The templates of these agents.
pub fn templates(agents: &[String]) -> Vec<&'static Template> {
    TEMPLATES.iter().filter(|template| agents.iter().any(|agent| agent == template.agent)).collect()
}

/// What a model that has to plan is told.
pub fn instructions(templates: &[&Template]) -> String {
    let lines: Vec<String> = templates.iter().map(|template| template.line()).collect();
    Prompt::Planner.render(&[("templates", &lines.join("\n"))])
}

/// A plan as it is told.
pub fn told(plan: &Plan, model: String) -> ChatResponse {
    ChatResponse { agent: plan.agent.clone(), model, steps: plan.steps.clone(), ..ChatResponse::default() }
}
