//! A completion that may be made, and its making.
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, Span};
use weft_auth::Caller;
use weft_core::new_id;
use weft_product::Product;
use weft_proto::billing::v1::Entitlements;
use weft_proto::orchestrator::v1::{ChatCompletion, CompletionAnswer, CompletionChoice, CompletionUsage};

use super::chunks::{Chunks, told_call};
use super::params::Params;
use crate::api::account::Account;
use crate::api::chat::Parts;
use crate::conversations::{Answered, Exchange};
use crate::cost::{Asked, Asker};
use crate::domain::model;
use crate::error::Error;
use crate::keys::OwnKey;
use crate::models::{Completion, Finish, ModelError, Piece, Speaker};
use crate::sanitizer::Sanitizer;

/// Who completions are for, where usage is listed and models are chosen.
const ROLE: &str = "completion";
/// Pieces that may wait for a slow reader before the model has to wait too.
const PIECES_WAITING: usize = 64;

/// A completion that may be made.
pub struct Job {
    parts: Arc<Parts>,
    product: Arc<Product>,
    params: Params,
    model: String,
    asker: Asker,
    sanitizer: Sanitizer,
    /// What it adds to a session.
    exchange: Option<Exchange>,
    deadline: Instant,
}

/// What stands in every answer and every chunk of it.
pub struct Head {
    /// Id of the answer.
    pub id: String,
    /// When it began, in s since 1970.
    pub created: i64,
}

/// How a completion ended.
pub struct Ended {
    /// All that the model said; where it was told piece by piece, not sanitized, and only for what it tells of its end.
    pub completion: Completion,
    /// The model that answered.
    pub model: String,
    /// What it took.
    pub usage: CompletionUsage,
}

/// A completion that is being made.
pub struct Started {
    /// How it ends.
    pub end: oneshot::Receiver<Result<Ended, Error>>,
    /// Dropping it ends the work.
    _waiting: DropGuard,
}

impl Job {
    /// Checks all that can be checked before anything is set aside.
    ///
    /// # Errors
    /// What is wrong with the request, the product, the plan or the model.
    pub async fn admit(parts: &Arc<Parts>, caller: &Caller, mut params: Params) -> Result<Job, Error> {
        let account = Account::of(caller)?;
        let product = Arc::clone(account.product(&parts.products)?);
        let sanitizer = parts.sanitizer(&product)?;
        sanitizer.answered_by(ROLE);
        let plan = account.plan(&parts.entitlements).await?;
        let (model, own) = choose(parts, &account, &product, &plan, params.model.as_deref()).await?;
        let tools = params.tools();
        if let Some(name) = parts.models.lacks(&model, own.is_some(), &params.call(&model, &tools))? {
            return Err(Error::Unsupported { name: name.into(), place: "by this model" });
        }
        drop(tools);
        let exchange = join(parts, &account, &product, &mut params).await?;
        let asker = account.asker(parts, &product).await?.within(exchange.clone());
        let latest = Instant::now() + parts.config.total();
        let deadline = caller.deadline.map_or(latest, |deadline| deadline.min(latest));
        Ok(Job { parts: Arc::clone(parts), product, params, model, asker, sanitizer, exchange, deadline })
    }

    /// Makes it, and tells all of it at once.
    ///
    /// # Errors
    /// Why there is no complete answer.
    pub async fn whole(self) -> Result<ChatCompletion, Error> {
        let (head, sanitizer) = (self.head(), self.sanitizer.clone());
        let check = move |completion| sanitizer.check_completion(completion);
        let Started { end, _waiting } = self.start(Speaker::collecting(), check);
        let Ended { completion, model, usage } = end.await.unwrap_or(Err(Error::Lost))?;
        let finish_reason = finish_reason(&completion).to_owned();
        let Completion { text, refusal, calls, .. } = completion;
        let content = (!text.is_empty() || (calls.is_empty() && refusal.is_empty())).then_some(text);
        let tool_calls = calls.into_iter().enumerate().map(|(at, call)| told_call(None, at, call)).collect();
        let refusal = (!refusal.is_empty()).then_some(refusal);
        let message = CompletionAnswer { role: "assistant".to_owned(), content, refusal, tool_calls };
        let choice = CompletionChoice { index: 0, message: Some(message), finish_reason };
        let Head { id, created } = head;
        let object = "chat.completion".to_owned();
        Ok(ChatCompletion { id, object, created, model, choices: vec![choice], usage: Some(usage) })
    }

    /// Makes it, and tells it while it comes.
    pub fn told(self) -> Chunks {
        let (sender, parts): (mpsc::Sender<Piece>, _) = self.sanitizer.parts(PIECES_WAITING);
        let (head, include_usage) = (self.head(), self.params.include_usage);
        // What was told has been checked.
        Chunks::new(head, include_usage, parts, self.start(Speaker::telling_all(sender), |completion| completion))
    }

    fn head(&self) -> Head {
        Head { id: format!("chatcmpl-{}", new_id()), created: self.parts.clock.now_ms() / 1000 }
    }

    /// Works in a task of its own, so that whoever leaves cannot take along what has to be done after. Leaving stops the
    /// model whatever the product does with its own answers: nobody can come back for this one.
    fn start(self, speaker: Speaker, check: impl FnOnce(Completion) -> Completion + Send + 'static) -> Started {
        let (told, end) = oneshot::channel();
        let left = CancellationToken::new();
        let speaker = speaker.until(left.clone());
        let tasks = self.parts.tasks.clone();
        let work = async move {
            // Nobody may be there any more.
            let _left = told.send(self.run(speaker, check).await);
        };
        tasks.spawn("completion", work.instrument(Span::current()));
        Started { end, _waiting: left.drop_guard() }
    }

    /// Answers within the time there is, and waits for billing. The speaker ends first: who listens hears that all is told.
    async fn run(self, mut speaker: Speaker, check: impl FnOnce(Completion) -> Completion) -> Result<Ended, Error> {
        let tools = self.params.tools();
        let call = self.params.call(&self.model, &tools);
        let answered = timeout_at(self.deadline, self.asker.ask(ROLE, &call, &mut speaker)).await;
        let answered = answered.unwrap_or(Err(Error::TookTooLong));
        let said = self.exchange.as_ref().map(|_| self.sanitizer.as_told(speaker.said()));
        drop(speaker);
        let checked = async {
            // Billing is asked first, and writes while this is read.
            yield_now().await;
            answered.map(|asked| Asked { completion: check(asked.completion), ..asked })
        };
        let (answered, ()) = tokio::join!(checked, self.asker.settled());
        if let (Some(exchange), Some(content)) = (&self.exchange, said) {
            exchange.end(Answered { content, incomplete: answered.is_err(), ..Answered::default() }).await;
        }
        let Asked { completion, model } = answered.map_err(not_accepted)?;
        let used = self.asker.usage();
        let usage = CompletionUsage {
            prompt_tokens: used.prompt_tokens,
            completion_tokens: used.completion_tokens,
            total_tokens: used.total_tokens,
        };
        tracing::debug!(product = %self.product.slug, calls = completion.calls.len(), "completed");
        Ok(Ended { completion, model, usage })
    }
}

/// What a completion adds to the session that it names.
async fn join(
    parts: &Parts,
    account: &Account,
    product: &Product,
    params: &mut Params,
) -> Result<Option<Exchange>, Error> {
    let Some(session) = &params.session else { return Ok(None) };
    let said = params.said().map(str::to_owned);
    let (exchange, turns) = parts.conversations.join(product, &account.id, session, said).await?;
    params.recall(&turns);
    Ok(Some(exchange))
}

/// The model that answers, and the account's own key for it.
async fn choose(
    parts: &Parts,
    account: &Account,
    product: &Product,
    plan: &Entitlements,
    wanted: Option<&str>,
) -> Result<(String, Option<OwnKey>), Error> {
    let decision = model::decide(ROLE, wanted, plan, &parts.config.role_models(), product);
    let own = match wanted {
        Some(wanted) => account.choose(parts, product, plan, wanted).await.map_err(about_model)?,
        None => account.own_key(parts, &decision.model).await?,
    };
    Ok((decision.model, own))
}

/// Says which parameter it is about.
fn about_model(error: Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::Parameter { name: "model".into(), problem },
        Error::Model(ModelError::UnknownModel) => {
            Error::Parameter { name: "model".into(), problem: ModelError::UnknownModel.to_string().into() }
        }
        other => other,
    }
}

/// What a client asks for itself may be what a provider does not take, and the same again goes no better.
fn not_accepted(error: Error) -> Error {
    match error {
        Error::Model(ModelError::Rejected { status: status @ (400 | 404 | 422), code }) => {
            tracing::warn!(status, code, "the model provider did not accept a completion");
            Error::NotAccepted
        }
        other => other,
    }
}

/// Why it ended, in OpenAI's words.
pub fn finish_reason(completion: &Completion) -> &'static str {
    match completion.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        // Who declines in words has said all.
        Finish::Refused if !completion.refusal.is_empty() => "stop",
        Finish::Refused => "content_filter",
    }
}
