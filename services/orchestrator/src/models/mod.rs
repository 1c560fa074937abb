//! The port to models: one way to ask, two implementations.
//!
//! `openai` is any provider that speaks the OpenAI dialect; `offline` is built in, deterministic and needs no key.
pub mod error;
pub mod offline;
pub mod openai;
pub mod speaker;

use std::time::Instant;

use serde_json::Value;
use weft_core::Clock;

use crate::config::Config;
use crate::domain::model::OFFLINE;
use crate::error::Error;
pub use error::{Break, ModelError};
use offline::Offline;
use openai::OpenAi;
pub use speaker::Speaker;

/// One message of a conversation with a model. It has no `Debug`: neither prompts nor what users write may reach a log.
#[derive(Clone)]
pub enum Message {
    /// A prompt of ours.
    System(String),
    /// What the user says, or data of theirs.
    User(String),
    /// What the model said before.
    Assistant {
        /// Its text.
        text: String,
        /// The tools it wants called.
        calls: Vec<ToolCall>,
    },
    /// What a tool gave back.
    Tool {
        /// The call it answers.
        call_id: String,
        /// The result, JSON text.
        content: String,
    },
}

/// A model's wish to call a tool.
#[derive(Clone, Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct ToolCall {
    /// The provider's id of the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments as the model wrote them: hopefully a JSON object.
    pub arguments: String,
}

/// A tool as a model sees it.
pub struct ToolSpec {
    /// Name, unique within an agent.
    pub name: &'static str,
    /// What it does and when to use it.
    pub description: &'static str,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// One of the words that an answer may be, when a model has to choose.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// The word.
    pub name: &'a str,
    /// What it stands for.
    pub description: &'a str,
}

/// One request to a model.
pub struct Call<'a> {
    /// Which model.
    pub model: &'a str,
    /// The conversation so far; the last message is the one to react to.
    pub messages: &'a [Message],
    /// The tools there are.
    pub tools: &'a [&'a ToolSpec],
    /// Whether it may call them now.
    pub may_call: bool,
    /// Most tokens it may say.
    pub output_tokens: u32,
    /// What the answer has to be one of; empty: anything. The prompt says so too: a provider's model reads that,
    /// the built-in one reads this.
    pub choices: &'a [Choice<'a>],
}

/// What a model said to one request.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Completion {
    /// Its text; the [`Speaker`] has already said it.
    pub text: String,
    /// The tools it wants called.
    pub calls: Vec<ToolCall>,
    /// What it cost, if the provider told.
    pub usage: Option<Usage>,
    /// Whether it, or its provider's filter, declined to answer.
    pub refused: bool,
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens said.
    pub completion_tokens: u64,
}

/// Every model that can be asked.
pub struct Models {
    provider: Option<OpenAi>,
    offline: Offline,
}

impl Models {
    /// A provider if the configuration names one; the built-in model always.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL or key that cannot be used, [`Error::Client`] if TLS cannot be set up.
    pub fn new(config: &Config, clock: Clock) -> Result<Models, Error> {
        let provider = config.provider().map(|(url, key)| OpenAi::new(&url, key, config)).transpose()?;
        Ok(Models { provider, offline: Offline::new(clock) })
    }

    /// The model that answers when this one is asked for: itself, or `offline` where there is no provider.
    pub fn answering<'a>(&self, model: &'a str) -> &'a str {
        if self.provider.is_some() { model } else { OFFLINE }
    }

    /// Asks a model. Text goes to the speaker as it comes.
    ///
    /// # Errors
    /// Why there is no complete answer; the speaker may have said a part of one.
    pub async fn ask(&self, call: &Call<'_>, speaker: &mut Speaker) -> Result<Completion, ModelError> {
        let begun = Instant::now();
        let outcome = match &self.provider {
            Some(provider) if call.model != OFFLINE => provider.ask(call, speaker).await,
            _ => self.offline.ask(call, speaker).await,
        };
        measure(self.answering(call.model), begun, &outcome);
        outcome
    }
}

fn measure(model: &str, begun: Instant, outcome: &Result<Completion, ModelError>) {
    let label = match outcome {
        Ok(_) => "ok",
        Err(error) => error.label(),
    };
    metrics::counter!("weft_model_calls_total", "model" => model.to_owned(), "outcome" => label).increment(1);
    metrics::histogram!("weft_model_seconds", "model" => model.to_owned()).record(begun.elapsed().as_secs_f64());
    let usage = outcome.as_ref().ok().and_then(|completion| completion.usage);
    for (kind, tokens) in
        usage.iter().flat_map(|usage| [("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)])
    {
        metrics::counter!("weft_model_tokens_total", "model" => model.to_owned(), "kind" => kind).increment(tokens);
    }
    tracing::debug!(model, outcome = label, ms = begun.elapsed().as_millis(), ?usage, "model asked");
}
