//! `weft.orchestrator.v1.ChatService`.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument, Span};
use weft_auth::{Caller, Entitlements};
use weft_core::{Clock, Reason};
use weft_product::{Moderation, Product, Products};
use weft_proto::billing::v1 as billing;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::chat_service_server::ChatService;
use weft_proto::orchestrator::v1::{ChatEvent, ChatRequest, ChatResponse};

use crate::agents::answer::Answering;
use crate::agents::classifier::Classifier;
use crate::agents::{Agent, Registry};
use crate::config::Config;
use crate::domain::agent::Reach;
use crate::domain::chat::Question;
use crate::domain::model::{self, OFFLINE};
use crate::error::Error;
use crate::models::{ModelError, Models, Speaker};
use crate::sanitizer::{Pieces, Sanitizer, Sanitizers, Unchecked};

/// Billing answers in this time or is away: the caller learns it within a second.
const ENTITLEMENTS_WITHIN: Duration = Duration::from_millis(800);
/// The plan's limit on agents, by name.
const AGENTS_LIMIT: &str = "agents";
/// Pieces of text that may wait for a slow reader before the model has to wait too.
const PIECES_WAITING: usize = 16;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ChatApi {
    parts: Arc<Parts>,
}

/// What answers are made of.
pub struct Parts {
    /// Limits.
    pub config: Config,
    /// Where today comes from.
    pub clock: Clock,
    /// The products.
    pub products: Arc<Products>,
    /// What callers' plans allow.
    pub entitlements: Entitlements,
    /// The agents.
    pub registry: Registry,
    /// The models.
    pub models: Models,
    /// What reads every answer before it is told.
    pub sanitizers: Sanitizers,
}

/// A request that may be answered.
struct Job {
    parts: Arc<Parts>,
    product: Arc<Product>,
    question: Question,
    /// Who may answer, in the product's order; never empty.
    candidates: Vec<String>,
    model: String,
    sanitizer: Sanitizer,
    deadline: Instant,
}

impl ChatApi {
    /// A service of these parts.
    pub fn new(parts: Parts) -> ChatApi {
        ChatApi { parts: Arc::new(parts) }
    }

    /// Checks all that can be checked before a model is asked.
    async fn admit(&self, caller: &Caller, request: ChatRequest) -> Result<Job, Error> {
        let parts = &self.parts;
        let question = Question::read(request, &parts.config)?;
        let product = parts.products.get(&caller.product).cloned();
        let sanitizer = parts.sanitizers.of(&caller.product);
        let (product, sanitizer) =
            product.zip(sanitizer).ok_or(Error::Invalid("unknown product; name one in x-weft-product".into()))?;
        // Better no answer than one that slips past the judge.
        if product.moderation == Moderation::HoldBack {
            return Err(Error::NoModeration);
        }
        let plan = self.plan_of(caller).await?;
        let candidates = candidates(&parts.registry, &product, &plan, question.agent.as_deref())?;
        let wanted = model::choose(question.model.as_deref(), &product, &plan.plan)?;
        let model = parts.models.answering(wanted)?.to_owned();
        let latest = Instant::now() + parts.config.total();
        let deadline = caller.deadline.map_or(latest, |deadline| deadline.min(latest));
        Ok(Job { parts: Arc::clone(parts), product, question, candidates, model, sanitizer, deadline })
    }

    async fn plan_of(&self, caller: &Caller) -> Result<Arc<billing::Entitlements>, Error> {
        let user = caller.user().map_err(|status| Error::Refused(Box::new(status)))?;
        match timeout(ENTITLEMENTS_WITHIN, self.parts.entitlements.of(&caller.product, &user.sub)).await {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(status)) if status.code() == Code::NotFound => Err(Error::Refused(Box::new(status))),
            Ok(Err(_)) | Err(_) => Err(Error::NoEntitlements),
        }
    }
}

/// The agent that was asked for, or all that the classifier may choose from.
fn candidates(
    registry: &Registry,
    product: &Product,
    plan: &billing::Entitlements,
    wanted: Option<&str>,
) -> Result<Vec<String>, Error> {
    let reach = Reach::new(&product.agents.available, plan.limits.get(AGENTS_LIMIT).copied());
    let exists = |name: &str| registry.get(name).is_some();
    let names = match wanted {
        Some(wanted) => vec![reach.named(wanted, exists)?],
        None => reach.callable(exists),
    };
    if names.is_empty() {
        let beyond_the_plan = product.agents.available.iter().any(|name| exists(name));
        return Err(if beyond_the_plan { Error::AgentNotInPlan } else { Error::NoAgent });
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

impl Job {
    /// Answers within the time there is.
    async fn run(self, speaker: Speaker) -> Result<Unchecked, Error> {
        let deadline = self.deadline;
        timeout_at(deadline, self.answer(speaker)).await.unwrap_or(Err(Error::TookTooLong))
    }

    async fn answer(self, speaker: Speaker) -> Result<Unchecked, Error> {
        let Job { parts, product, question, candidates, model, sanitizer, .. } = self;
        let agents: Vec<&Agent> = candidates.iter().filter_map(|name| parts.registry.get(name)).collect();
        let first = agents.first().copied().ok_or(Error::NoAgent)?;
        let default = agents.iter().copied().find(|agent| agent.name == product.agents.default).unwrap_or(first);
        let classifier = Classifier {
            models: &parts.models,
            // Who asks for the built-in model wants nothing sent elsewhere.
            model: if model == OFFLINE { OFFLINE } else { &product.models.classifier },
            within: Duration::from_millis(parts.config.weft_classifier_ms),
        };
        let agent = classifier.choose(&question, &agents, default).await;
        sanitizer.answered_by(agent.name);
        let answering = Answering {
            agent,
            models: &parts.models,
            model: &model,
            output_tokens: parts.config.weft_model_output_tokens,
            clock: &parts.clock,
        };
        let response = answering.answer(question, speaker).await?;
        tracing::debug!(product = %product.slug, agent = agent.name, model, actions = response.actions(), "chat answered");
        Ok(response)
    }
}

#[tonic::async_trait]
impl ChatService for ChatApi {
    async fn chat(&self, request: Request<ChatRequest>) -> Result<Response<ChatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let job = self.admit(&caller, request.into_inner()).await.map_err(refuse)?;
        let sanitizer = job.sanitizer.clone();
        let answer = job.run(Speaker::collecting()).await.map_err(refuse)?;
        Ok(Response::new(sanitizer.check(answer)))
    }

    type StreamChatStream = BoxStream<'static, Result<ChatEvent, Status>>;

    async fn stream_chat(&self, request: Request<ChatRequest>) -> Result<Response<Self::StreamChatStream>, Status> {
        let caller = Caller::of(&request)?;
        let job = self.admit(&caller, request.into_inner()).await.map_err(refuse)?;
        let (sender, pieces) = job.sanitizer.pieces(PIECES_WAITING);
        let work = job.run(Speaker::telling(sender)).instrument(Span::current());
        Ok(Response::new(events(work, pieces).boxed()))
    }
}

/// The pieces as they come, then the end. The work lives inside the stream: a reader that leaves drops both, and
/// with them the call to the provider. (A product that wants its answers finished for a reader who comes back has
/// nowhere to keep them yet.)
fn events(
    work: impl Future<Output = Result<Unchecked, Error>> + Send + 'static,
    pieces: Pieces,
) -> impl Stream<Item = Result<ChatEvent, Status>> + Send + 'static {
    let telling = Telling { work: Some(Box::pin(work)), end: None, pieces };
    stream::unfold(Some(telling), |telling| async move {
        let mut telling = telling?;
        if let Some(piece) = telling.next_piece().await {
            return Some((Ok(ChatEvent { event: Some(Event::Token(piece)) }), Some(telling)));
        }
        let Telling { end, mut pieces, .. } = telling;
        let end = end?.map(|answer| ChatEvent { event: Some(Event::Done(pieces.whole(answer))) });
        Some((end.map_err(refuse), None))
    })
}

/// A streamed answer on its way.
struct Telling {
    work: Option<BoxFuture<'static, Result<Unchecked, Error>>>,
    end: Option<Result<Unchecked, Error>>,
    pieces: Pieces,
}

impl Telling {
    /// The next piece; None when the work has ended and all pieces are told.
    async fn next_piece(&mut self) -> Option<String> {
        while let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                Some(piece) = self.pieces.next() => return Some(piece),
                end = work => {
                    self.end = Some(end);
                    // The speaker goes with it, so that the pieces come to an end.
                    self.work = None;
                }
            }
        }
        self.pieces.next().await
    }
}

/// Tells the caller, and the log where the operator can do something about it.
fn refuse(error: Error) -> Status {
    match &error {
        Error::Model(ModelError::RefusedKey { key }) => {
            tracing::error!(key, "the model provider refused our key; check it, its rights and its balance");
        }
        Error::Model(ModelError::Left) => {}
        Error::Model(cause) => tracing::warn!(?cause, "the model provider failed"),
        error if error.reason() == Reason::ProviderStreamInterrupted => tracing::warn!(%error, "the model failed"),
        _ => {}
    }
    error.into()
}
