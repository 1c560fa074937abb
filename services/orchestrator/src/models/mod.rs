//! The port to models: one way to ask, whoever answers.
//!
//! `vendor` says who has which model; `provider` asks over HTTP in a `dialect` (`openai`, `anthropic`, `gemini`), whose
//! answers become the same events; `offline` is built in, deterministic and needs no key.
mod anthropic;
mod assembly;
mod body;
mod dialect;
pub mod embedding;
pub mod error;
mod event;
mod gemini;
#[cfg(test)]
mod golden;
pub mod offline;
mod openai;
pub mod piece;
pub mod provider;
mod refusal;
pub mod speaker;
mod turns;
pub mod usage;
pub mod vendor;
pub mod wants;

use std::borrow::Cow;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use weft_core::Clock;
use weft_runtime::outbound::{self, Client, Networks, Reach};

use crate::config::Config;
use crate::domain::model::OFFLINE;
use crate::error::Error;
use crate::keys::OwnKey;
use crate::models::embedding::Texts;
use crate::plans::Template;
pub use error::{Break, ModelError};
pub use event::Finish;
use offline::Offline;
pub use piece::Piece;
use provider::Provider;
pub use speaker::Speaker;
pub use usage::{Meter, Usage};
use vendor::VENDORS;
pub use wants::Wants;

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
    /// What the model wants back with the call in the next request, as it is.
    pub signature: Option<String>,
}

/// A tool as a model sees it.
pub struct ToolSpec {
    /// Name, unique within an agent or a request.
    pub name: Cow<'static, str>,
    /// What it does and when to use it.
    pub description: Cow<'static, str>,
    /// JSON schema of its arguments.
    pub parameters: Value,
    /// Whether the arguments have to fit the schema; None: as the provider usually does.
    pub strict: Option<bool>,
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
    /// Which model, as the product names it.
    pub model: &'a str,
    /// The conversation so far; the last message is the one to react to.
    pub messages: &'a [Message],
    /// The tools there are.
    pub tools: &'a [&'a ToolSpec],
    /// Whether it may call them now.
    pub may_call: bool,
    /// Most tokens it may say.
    pub output_tokens: u32,
    /// What it is for.
    pub aim: Aim<'a>,
    /// What a client asks for besides; None: nothing, it is a call of ours.
    pub wants: Option<&'a Wants>,
}

/// What a call is for. The prompt says so too: a provider's model reads that, the built-in one reads this.
#[derive(Clone, Copy)]
pub enum Aim<'a> {
    /// To answer, perhaps with tools.
    Answer,
    /// To say one of these words and nothing else.
    Choose(&'a [Choice<'a>]),
    /// To plan steps, with these templates.
    Plan(&'a [&'static Template]),
    /// To do the step of a plan that this template is for.
    Step(&'static Template),
    /// To make one answer of what was said before.
    Join(&'a [Said]),
}

/// What an agent said for the next ones to build on.
#[derive(Serialize)]
pub struct Said {
    /// The agent.
    pub agent: String,
    /// Its answer.
    pub response: String,
}

/// What a model said to one request. What it used is in the speaker's [`Meter`], which knows it of a failed one too.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Completion {
    /// Its text; the [`Speaker`] has already said it.
    pub text: String,
    /// Why it declined, in its own words; empty if it did not.
    pub refusal: String,
    /// What it thought aloud; nobody is told.
    pub reasoning: String,
    /// The tools it wants called.
    pub calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: Finish,
}

/// Every model that can be asked.
pub struct Models {
    /// In the order of [`VENDORS`]; None where the operator has no account.
    providers: Vec<Option<Provider>>,
    offline: Offline,
    /// Reaches who users name.
    public: Client,
    config: Config,
}

impl Models {
    /// The providers that the configuration names; the built-in model always.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL or key that cannot be used, [`Error::Client`] if TLS cannot be set up.
    pub fn new(config: &Config, clock: Clock) -> Result<Models, Error> {
        let provider =
            |(at, vendor)| config.account(at).map(|account| Provider::new(vendor, account, config)).transpose();
        let providers = VENDORS.iter().enumerate().map(provider).collect::<Result<_, _>>()?;
        let public = public(config, &Networks::default())?;
        Ok(Models { providers, offline: Offline::new(clock), public, config: config.clone() })
    }

    /// The same, where users' own keys may lead to these networks too.
    ///
    /// # Errors
    /// [`Error::Outbound`] if TLS cannot be set up.
    pub fn allowing(self, networks: &Networks) -> Result<Models, Error> {
        Ok(Models { public: public(&self.config, networks)?, ..self })
    }

    /// Names of the providers that can be asked.
    pub fn providers(&self) -> Vec<&'static str> {
        self.providers.iter().flatten().map(Provider::name).collect()
    }

    /// The model that answers when this one is asked for: itself, or `offline` where there is no provider at all.
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`], or [`ModelError::NotConfigured`] if others have a key and its provider has none.
    pub fn answering<'a>(&self, model: &'a str) -> Result<&'a str, ModelError> {
        Ok(self.provider(model)?.map_or(OFFLINE, |_| model))
    }

    /// Whose key of ours a model is asked over; None: it cannot be asked, or the built-in one answers for it.
    pub fn provider_of(&self, model: &str) -> Option<&'static str> {
        self.provider(model).ok().flatten().map(|(provider, _)| provider.name())
    }

    /// Asks a model. Text goes to the speaker as it comes, and what it used to the speaker's meter.
    ///
    /// # Errors
    /// Why there is no complete answer; the speaker may have said a part of one.
    pub async fn ask(&self, call: &Call<'_>, speaker: &mut Speaker) -> Result<Completion, ModelError> {
        let (begun, answered_before) = (Instant::now(), speaker.meter().answers().len());
        let (answering, outcome) = match self.provider(call.model)? {
            Some((provider, model)) => (call.model, provider.ask(call, model, speaker).await),
            None => (OFFLINE, self.offline.ask(call, speaker).await),
        };
        measure(answering, begun, &outcome, &speaker.meter().answers()[answered_before..]);
        outcome
    }

    /// The parameter of a client's that the model's provider knows nothing like, by OpenAI's name; None: there is none.
    /// `over_own`: the call goes over a key of the account's own.
    ///
    /// # Errors
    /// As [`Models::answering`].
    pub fn lacks(&self, model: &str, over_own: bool, call: &Call<'_>) -> Result<Option<&'static str>, ModelError> {
        let dialect = if over_own {
            vendor::of_own_key(model).map(|(vendor, _)| vendor.dialect)
        } else {
            self.provider(model)?.map(|(provider, _)| provider.dialect())
        };
        Ok(dialect.and_then(|dialect| dialect.lacks(call)))
    }

    /// Whose own key a call for this model would go over; None: nobody's.
    pub fn own_vendor(model: &str) -> Option<&'static str> {
        if model == OFFLINE { None } else { vendor::of_own_key(model).map(|(vendor, _)| vendor.name) }
    }

    /// Asks a model over a key of the caller's own, as [`Models::ask`] does.
    ///
    /// # Errors
    /// Why there is no complete answer; the speaker may have said a part of one.
    pub async fn ask_over(
        &self,
        key: &OwnKey,
        call: &Call<'_>,
        speaker: &mut Speaker,
    ) -> Result<Completion, ModelError> {
        let (provider, model) = self.over(key, call.model)?;
        let (begun, answered_before) = (Instant::now(), speaker.meter().answers().len());
        let outcome = provider.ask(call, model, speaker).await.map_err(of_own_key);
        measure(&key.provider, begun, &outcome, &speaker.meter().answers()[answered_before..]);
        outcome
    }

    /// Makes vectors of texts, as [`Models::ask`] asks.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn embed(&self, model: &str, texts: Texts<'_>, meter: &Meter) -> Result<Vec<Vec<f32>>, ModelError> {
        let Some((provider, own)) = self.provider(model)? else {
            let dimensions = texts.dimensions.unwrap_or(embedding::offline::DIMENSIONS);
            return Ok(texts.texts.iter().map(|text| embedding::offline::embed(text, dimensions)).collect());
        };
        let begun = Instant::now();
        let outcome = provider.embed(texts, own, meter).await;
        measure_vectors(model, begun, &outcome, meter);
        outcome
    }

    /// The same over a key of the caller's own.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn embed_over(
        &self,
        key: &OwnKey,
        model: &str,
        texts: Texts<'_>,
        meter: &Meter,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let (provider, own) = self.over(key, model)?;
        let begun = Instant::now();
        let outcome = provider.embed(texts, own, meter).await.map_err(of_own_key);
        measure_vectors(&key.provider, begun, &outcome, meter);
        outcome
    }

    /// Who is asked over a key, and under which name the model is known there.
    fn over<'a>(&self, key: &OwnKey, model: &'a str) -> Result<(Provider, &'a str), ModelError> {
        let (vendor, model) = vendor::of_own_key(model).ok_or(ModelError::UnknownModel)?;
        if vendor.name != key.provider {
            return Err(ModelError::UnknownModel);
        }
        let operators = self.providers.iter().flatten().find(|provider| provider.name() == vendor.name);
        Ok((Provider::own(vendor, key, &self.public, operators, &self.config)?, model))
    }

    /// Who has a model, and under which name; None: the built-in one answers.
    fn provider<'a>(&self, model: &'a str) -> Result<Option<(&Provider, &'a str)>, ModelError> {
        if model == OFFLINE || self.providers.iter().all(Option::is_none) {
            return Ok(None);
        }
        // Without the key that says where it is, it is nowhere.
        if vendor::is_compatible(model) {
            return Err(ModelError::UnknownModel);
        }
        let takes_any = |at: usize| self.providers[at].as_ref().is_some_and(Provider::takes_any_model);
        let target = vendor::target(model, takes_any).ok_or(ModelError::UnknownModel)?;
        let missing = ModelError::NotConfigured { key: VENDORS[target.vendor].key };
        self.providers[target.vendor].as_ref().map(|provider| Some((provider, target.model))).ok_or(missing)
    }
}

fn public(config: &Config, allowed: &Networks) -> Result<Client, Error> {
    Ok(outbound::client(Reach::Public, allowed, provider::client_builder(config))?)
}

/// A refused key is the caller's own, and not the operator's trouble.
fn of_own_key(error: ModelError) -> ModelError {
    if let ModelError::RefusedKey { .. } = error { ModelError::RefusedOwnKey } else { error }
}

fn measure_vectors(model: &str, begun: Instant, outcome: &Result<Vec<Vec<f32>>, ModelError>, meter: &Meter) {
    let outcome = outcome.as_ref().map(|_| Completion::default()).map_err(Clone::clone);
    measure(model, begun, &outcome, &meter.answers());
}

/// A failed answer costs too, so its tokens count as well. Over a user's own key `model` is the provider: whoever has one
/// may make up names of models, and those are neither repeated nor counted one by one.
fn measure(model: &str, begun: Instant, outcome: &Result<Completion, ModelError>, answers: &[Usage]) {
    let label = match outcome {
        Ok(_) => "ok",
        Err(error) => error.label(),
    };
    metrics::counter!("weft_model_calls_total", "model" => model.to_owned(), "outcome" => label).increment(1);
    metrics::histogram!("weft_model_seconds", "model" => model.to_owned()).record(begun.elapsed().as_secs_f64());
    for usage in answers {
        for (kind, tokens) in [("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)] {
            // What no count can be is billing's business; a counter only grows.
            let tokens = tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0);
            metrics::counter!("weft_model_tokens_total", "model" => model.to_owned(), "kind" => kind).increment(tokens);
        }
    }
    let (finish, thought_bytes) =
        outcome.as_ref().map_or((None, 0), |whole| (Some(whole.finish), whole.reasoning.len()));
    let ms = begun.elapsed().as_millis();
    tracing::debug!(model, outcome = label, ms, ?answers, ?finish, thought_bytes, "model asked");
}
