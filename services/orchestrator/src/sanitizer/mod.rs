//! Keeps what models are told from coming out in what they answer.
//!
//! Whatever an agent says or does is [`Unchecked`], and its pieces come through [`Pieces`]: nobody but this module
//! can open them, and it lets nothing go that it has not read.
mod automaton;
mod fingerprints;
mod normal;
mod parts;
mod stream;
#[cfg(test)]
mod tests;
mod thoughts;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use weft_proto::json::{Kind, Struct, Value};
use weft_proto::orchestrator::v1::{ChatResponse, ChatUsage, ModelDecision, PlanAction, PlanStep};

use self::automaton::Automaton;
use self::fingerprints::Fingerprints;
use self::stream::Stream;
use self::thoughts::Thoughts;
pub use self::thoughts::without_thoughts;
use crate::agents::{Agent, Registries};
use crate::error::Error;
use crate::models::{Completion, Piece, ToolCall};

pub use self::parts::{CallPart, Part, Parts};

/// What an agent answers, before anybody has looked whether it may be told.
pub struct Unchecked(ChatResponse);

impl Unchecked {
    /// An answer as the model gave it.
    pub fn new(response: ChatResponse) -> Unchecked {
        Unchecked(response)
    }

    /// The same, with what it took and, for who may know, how its model was chosen.
    #[must_use]
    pub fn with(mut self, usage: ChatUsage, decision: Option<ModelDecision>) -> Unchecked {
        self.0.usage = Some(usage);
        self.0.decision = decision;
        self
    }
}

/// The fingerprints of each product.
pub struct Sanitizers {
    by_product: HashMap<String, Arc<Automaton>>,
}

impl Sanitizers {
    /// Of what these products tell models.
    ///
    /// # Errors
    /// [`Error::Fingerprints`] if they are too many.
    pub fn new(registries: &Registries) -> Result<Sanitizers, Error> {
        let mut by_product = HashMap::new();
        for (product, registry) in registries.iter() {
            let agents: Vec<&Agent> = registry.all().collect();
            let automaton = Arc::new(Automaton::new(Fingerprints::of(&agents).texts())?);
            by_product.insert(product.to_owned(), automaton);
        }
        Ok(Sanitizers { by_product })
    }

    /// For one answer of a product. None: there is no such product.
    pub fn of(&self, product: &str) -> Option<Sanitizer> {
        let automaton = Arc::clone(self.by_product.get(product)?);
        let findings = Findings::of(product);
        Some(Sanitizer { automaton, findings: Arc::new(findings) })
    }
}

/// Reads one answer. What it found is counted and logged when nobody has it any more, so also of an answer that
/// broke off.
#[derive(Clone)]
pub struct Sanitizer {
    automaton: Arc<Automaton>,
    findings: Arc<Findings>,
}

impl Sanitizer {
    /// Says who answers, as soon as it is known.
    pub fn answered_by(&self, agent: &str) {
        // Only the first one answers.
        let _known = self.findings.agent.set(agent.to_owned());
    }

    /// Checks an answer that is told at once.
    pub fn check(&self, Unchecked(mut response): Unchecked) -> ChatResponse {
        let mut thoughts = Thoughts::new();
        let mut spoken = thoughts.push(&response.response);
        spoken.push_str(&thoughts.finish());
        self.findings.reasoning.fetch_add(thoughts.removed(), Ordering::Relaxed);
        response.response = self.clean(&spoken, &self.findings.content);
        self.check_actions(response)
    }

    /// Checks an answer that is told piece by piece: the sender takes the pieces.
    pub fn pieces(&self, waiting: usize) -> (mpsc::Sender<String>, Pieces) {
        let (sender, unchecked) = mpsc::channel(waiting);
        let stream = Stream::new(Arc::clone(&self.automaton));
        let open = Some((Thoughts::new(), stream));
        (sender, Pieces { sanitizer: self.clone(), unchecked, open, told: String::new() })
    }

    /// Checks a completion that is told piece by piece: the sender takes the pieces.
    pub fn parts(&self, waiting: usize) -> (mpsc::Sender<Piece>, Parts) {
        let (sender, unchecked) = mpsc::channel(waiting);
        (sender, Parts::new(self.clone(), unchecked))
    }

    /// Checks a completion that is told at once.
    pub fn check_completion(&self, mut completion: Completion) -> Completion {
        let content = &self.findings.content;
        completion.text = self.clean(&completion.text, content);
        completion.refusal = self.clean(&completion.refusal, content);
        for ToolCall { id, name, arguments, .. } in &mut completion.calls {
            *id = self.clean(id, &self.findings.action);
            *name = self.clean(name, &self.findings.action);
            *arguments = self.clean(arguments, &self.findings.action);
        }
        completion
    }

    /// The text of a completion, or of the beginning of one, as it is told. What is removed is counted where that is.
    pub fn as_told(&self, text: &str) -> String {
        self.read(text).0
    }

    fn check_actions(&self, mut response: ChatResponse) -> ChatResponse {
        for PlanAction { data, .. } in &mut response.actions {
            data.iter_mut().for_each(|data| self.check_fields(data));
        }
        for PlanStep { variables, .. } in &mut response.steps {
            variables.iter_mut().for_each(|variables| self.check_fields(variables));
        }
        response
    }

    fn check_fields(&self, data: &mut Struct) {
        for field in &mut data.fields {
            field.key = self.clean(&field.key, &self.findings.action);
            field.value.iter_mut().for_each(|value| self.check_value(value));
        }
        // Two may have become one, and JSON has each name once.
        let mut names = HashSet::new();
        data.fields.retain(|field| names.insert(field.key.clone()));
    }

    fn check_value(&self, value: &mut Value) {
        match &mut value.kind {
            Some(Kind::StringValue(text)) => *text = self.clean(text, &self.findings.action),
            Some(Kind::StructValue(data)) => self.check_fields(data),
            Some(Kind::ListValue(list)) => list.values.iter_mut().for_each(|value| self.check_value(value)),
            Some(Kind::NullValue(_) | Kind::NumberValue(_) | Kind::BoolValue(_)) | None => {}
        }
    }

    fn clean(&self, text: &str, found: &AtomicU64) -> String {
        let (clean, removed) = self.read(text);
        found.fetch_add(removed, Ordering::Relaxed);
        clean
    }

    fn read(&self, text: &str) -> (String, u64) {
        let mut stream = Stream::new(Arc::clone(&self.automaton));
        let mut clean = stream.push(text);
        clean.push_str(&stream.finish());
        (clean, stream.removed())
    }
}

/// The text of an answer while it comes.
pub struct Pieces {
    sanitizer: Sanitizer,
    unchecked: mpsc::Receiver<String>,
    /// None after the last piece.
    open: Option<(Thoughts, Stream)>,
    told: String,
}

impl Pieces {
    /// The next piece that may be told; None after the last one. A wait that is given up loses nothing.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let (thoughts, stream) = self.open.as_mut()?;
            let piece = match self.unchecked.recv().await {
                Some(piece) => stream.push(&thoughts.push(&piece)),
                None => {
                    let rest = stream.push(&thoughts.finish()) + &stream.finish();
                    self.close();
                    rest
                }
            };
            if !piece.is_empty() {
                self.told.push_str(&piece);
                return Some(piece);
            }
        }
    }

    /// The whole answer, with the text that was told.
    pub fn whole(&mut self, Unchecked(mut response): Unchecked) -> ChatResponse {
        response.response = std::mem::take(&mut self.told);
        self.sanitizer.check_actions(response)
    }

    /// What was told so far, and by whom, as far as that is known.
    pub fn told(&self) -> (&str, &str) {
        (&self.told, self.sanitizer.findings.agent.get().map_or("", String::as_str))
    }

    /// Counts what was removed.
    fn close(&mut self) {
        let Some((thoughts, stream)) = self.open.take() else { return };
        let Findings { content, reasoning, .. } = &*self.sanitizer.findings;
        content.fetch_add(stream.removed(), Ordering::Relaxed);
        reasoning.fetch_add(thoughts.removed(), Ordering::Relaxed);
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // A reader who left has seen what was removed before.
        self.close();
    }
}

/// How often something was removed from one answer.
struct Findings {
    product: String,
    agent: OnceLock<String>,
    content: AtomicU64,
    action: AtomicU64,
    reasoning: AtomicU64,
}

impl Findings {
    fn of(product: &str) -> Findings {
        let [content, action, reasoning] = [const { AtomicU64::new(0) }; 3];
        Findings { product: product.to_owned(), agent: OnceLock::new(), content, action, reasoning }
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        let agent = self.agent.get().cloned().unwrap_or_default();
        let (content, action) = (*self.content.get_mut(), *self.action.get_mut());
        let reasoning = *self.reasoning.get_mut();
        for (field, matches) in [("content", content), ("action", action), ("reasoning", reasoning)] {
            if matches > 0 {
                let labels = [("product", self.product.clone()), ("agent", agent.clone()), ("field", field.to_owned())];
                metrics::counter!("weft_sanitizer_matches_total", &labels).increment(matches);
            }
        }
        if content + action > 0 {
            tracing::warn!(
                product = self.product,
                agent,
                content,
                action,
                "a model repeated what it was told; removed"
            );
        }
        if reasoning > 0 {
            // Some models do so in every answer.
            tracing::info!(product = self.product, agent, reasoning, "a model thought aloud in its answer; removed");
        }
    }
}
