//! What becomes of an admitted request: an answer, a plan, or the result of a plan's step.
use std::time::Duration;

use serde_json::Value;
use weft_product::Product;
use weft_proto::billing::v1::Entitlements;
use weft_proto::orchestrator::v1::{ChatResponse, ModelDecision};

use crate::agents::answer::{Answering, background, join};
use crate::agents::classifier::Classifier;
use crate::agents::desk::Desk;
use crate::agents::{Agent, Registry};
use crate::api::chat::Parts;
use crate::cost::Asker;
use crate::domain::chat::{Mode, Question};
use crate::domain::day::Day;
use crate::domain::model::{self, OFFLINE};
use crate::domain::record::as_text;
use crate::error::Error;
use crate::models::{Aim, Said, Speaker};
use crate::plans::{self, Bounds, Planner, Template};
use crate::prompts::Prompt;
use crate::sanitizer::{Sanitizer, Unchecked};

/// The feature of who may build batches of calls.
const BATCH_BUILDER: &str = "batch_builder";

/// A request that is worked on.
pub struct Work<'a> {
    /// What answers are made of.
    pub parts: &'a Parts,
    /// The caller's product.
    pub product: &'a Product,
    /// Its agents.
    pub registry: &'a Registry,
    /// What the caller's plan allows.
    pub plan: &'a Entitlements,
    /// What is asked.
    pub question: &'a Question,
    /// Who may answer; never empty. For a pipeline: who answers, in order.
    pub candidates: &'a [String],
    /// Every agent that the caller may ask.
    pub callable: &'a [String],
    /// The caller's account.
    pub account: &'a str,
    /// The way to the models.
    pub asker: &'a Asker,
    /// What has to know who answers.
    pub sanitizer: &'a Sanitizer,
}

impl Work<'_> {
    /// Does it on these records. The speaker tells what the user reads.
    ///
    /// # Errors
    /// Those of [`Answering::answer`] and [`Planner::plan`].
    pub async fn run(&self, mut desk: Desk, mut speaker: Speaker) -> Result<(Unchecked, ModelDecision), Error> {
        let (model, agent, decision) = match self.question.mode {
            Mode::Plan => return self.plan(&desk, &speaker).await,
            Mode::Step(template) => self.step(template, &mut desk, &mut speaker).await?,
            Mode::Direct if self.question.pipeline.is_empty() => self.direct(&mut desk, &mut speaker).await?,
            Mode::Direct => self.pipeline(&mut desk, &mut speaker).await?,
        };
        let actions = desk.into_actions();
        tracing::debug!(product = %self.product.slug, agent, actions = actions.len(), "chat answered");
        let response = speaker.into_said();
        let answer = ChatResponse { response, actions, agent, model, ..ChatResponse::default() };
        Ok((Unchecked::new(answer), decision))
    }

    /// One agent answers. Gives the model, the agent, and how the model was chosen.
    async fn direct(&self, desk: &mut Desk, speaker: &mut Speaker) -> Result<(String, String, ModelDecision), Error> {
        let agent = self.choose().await?;
        self.sanitizer.answered_by(&agent.name);
        let decision = self.decide(&agent.name);
        let model = self.answering(agent, &decision).answer(self.question, &[], desk, speaker).await?;
        Ok((model, agent.name.to_string(), decision))
    }

    /// Several agents answer one after the other; only what is made of it is told.
    async fn pipeline(&self, desk: &mut Desk, speaker: &mut Speaker) -> Result<(String, String, ModelDecision), Error> {
        let mut said: Vec<Said> = Vec::new();
        for name in self.candidates {
            let agent = self.registry.get(name).ok_or(Error::NoAgent)?;
            let decision = self.decide(name);
            let mut unheard = Speaker::collecting().until(speaker.left());
            self.answering(agent, &decision).answer(self.question, &said, desk, &mut unheard).await?;
            said.push(Said { agent: name.clone(), response: unheard.into_said() });
        }
        let last = said.last().map(|last| last.agent.clone()).ok_or(Error::NoAgent)?;
        self.sanitizer.answered_by(&last);
        let decision = self.decide(Prompt::Synthesis.id());
        let model = join(self.asker, (&decision.model, self.output_tokens()), self.question, &said, speaker).await?;
        Ok((model, last, decision))
    }

    /// A plan's step is done by its template.
    async fn step(
        &self,
        template: &'static Template,
        desk: &mut Desk,
        speaker: &mut Speaker,
    ) -> Result<(String, String, ModelDecision), Error> {
        let agent = template.as_agent();
        self.sanitizer.answered_by(&agent.name);
        let decision = self.decide(&agent.name);
        let answering = Answering { aim: Aim::Step(template), ..self.answering(&agent, &decision) };
        let model = answering.answer(self.question, &[], desk, speaker).await?;
        Ok((model, agent.name.to_string(), decision))
    }

    /// A plan, or the one that was made of the same request before, if it was kept.
    async fn plan(&self, desk: &Desk, speaker: &Speaker) -> Result<(Unchecked, ModelDecision), Error> {
        let bounds = bounds(self.product, self.plan, self.callable);
        let batch = [u8::from(bounds.may_batch)];
        // Of the account, or everybody could learn what others asked for by what costs nothing.
        let mut parts = vec![self.product.slug.as_bytes(), self.account.as_bytes(), &batch, &self.question.asked];
        parts.extend(self.callable.iter().map(String::as_bytes));
        let key = self.parts.plan_cache.key(&parts);
        if let Some((plan, model)) = self.parts.plan_cache.get_plan(key).as_deref() {
            self.sanitizer.answered_by(&plan.agent);
            let decision = ModelDecision { model: model.clone(), ..self.decide(&plan.agent) };
            return Ok((Unchecked::new(plans::told(plan, model.clone())), decision));
        }
        let agent = self.choose().await?;
        self.sanitizer.answered_by(&agent.name);
        let decision = self.decide(&agent.name);
        let (asker, output_tokens) = (self.asker, self.output_tokens());
        let planner = Planner { agent, asker, model: &decision.model, output_tokens, bounds };
        let (plan, model) = planner.plan(self.question, desk, speaker).await?;
        tracing::debug!(product = %self.product.slug, agent = %agent.name, steps = plan.steps.len(), "planned");
        self.parts.plan_cache.keep(key, &plan, &model);
        Ok((Unchecked::new(plans::told(&plan, model)), decision))
    }

    /// Who answers.
    async fn choose(&self) -> Result<&Agent, Error> {
        let agents: Vec<&Agent> = self.candidates.iter().filter_map(|name| self.registry.get(name)).collect();
        let first = agents.first().copied().ok_or(Error::NoAgent)?;
        let default = agents.iter().copied().find(|agent| agent.name == self.product.agents.default).unwrap_or(first);
        let classifier = Classifier {
            asker: self.asker,
            // Who asks for the built-in model wants nothing sent elsewhere.
            model: if self.wants_offline() { OFFLINE } else { &self.product.models.classifier },
            within: Duration::from_millis(self.parts.config.weft_classifier_ms),
        };
        classifier.choose(self.question, &agents, default).await
    }

    fn wants_offline(&self) -> bool {
        self.question.model.as_deref() == Some(OFFLINE)
    }

    fn decide(&self, role: &str) -> ModelDecision {
        let environment = self.parts.config.role_models();
        model::decide(role, self.question.model.as_deref(), self.plan, &environment, self.product)
    }

    fn answering<'a>(&'a self, agent: &'a Agent, decision: &'a ModelDecision) -> Answering<'a> {
        let may_ask = |name: &&String| self.callable.contains(name);
        Answering {
            agent,
            others: agent.calls.iter().filter(may_ask).filter_map(|name| self.registry.get(name)).collect(),
            aim: Aim::Answer,
            asker: self.asker,
            model: &decision.model,
            output_tokens: self.output_tokens(),
        }
    }

    fn output_tokens(&self) -> u32 {
        self.question.max_tokens.unwrap_or(self.parts.config.weft_model_output_tokens)
    }
}

/// What plans of a caller may be made of. Where the product sells no batches, everybody may build them.
pub fn bounds<'a>(product: &Product, plan: &Entitlements, callable: &'a [String]) -> Bounds<'a> {
    let is_sold = product.features.contains_key(BATCH_BUILDER);
    Bounds { agents: callable, may_batch: !is_sold || plan.features.get(BATCH_BUILDER) == Some(&true) }
}

/// The desk of a question: its records are taken from it.
pub fn desk(question: &mut Question, today: Day) -> Desk {
    let mut words = format!("{}\n{}", question.message, Value::Object(background(question)));
    for turn in &question.turns {
        words.push('\n');
        words.push_str(&turn.content);
    }
    // A checkpoint names its project, also where no project came along.
    for checkpoint in &question.records.checkpoints {
        words.push('\n');
        words.push_str(&as_text(checkpoint.project_id.clone()));
    }
    Desk::new(std::mem::take(&mut question.records), today).with_words(&words)
}
