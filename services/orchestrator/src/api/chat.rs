//! `weft.orchestrator.v1.ChatService`.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing::{Instrument, Span};
use weft_auth::{Caller, Entitlements};
use weft_core::{Clock, Reason};
use weft_product::{Moderation, OnDisconnect, Product, Products};
use weft_proto::billing::v1 as billing;
use weft_proto::orchestrator::v1::chat_service_server::ChatService;
use weft_proto::orchestrator::v1::{
    CancelChatRequest, CancelChatResponse, ChatRequest, ChatResponse, ModelDecision, ResumeChatRequest,
};
use weft_runtime::Tasks;

use crate::agents::{Registries, Registry};
use crate::api::account::Account;
use crate::api::work::{self, Work};
use crate::config::Config;
use crate::conversations::{Answered, Conversations, Exchange};
use crate::cost::{Asker, Books, Payer};
use crate::domain::agent::Reach;
use crate::domain::chat::{Mode, Question};
use crate::domain::day::Day;
use crate::error::Error;
use crate::keys::Keys;
use crate::models::{ModelError, Models, Speaker};
use crate::plans::{Place, PlanCache, Runs};
use crate::sanitizer::{Sanitizer, Sanitizers, Unchecked};
use crate::telling::{Begun, Events, Owner, Position, RunId, Tellings};

/// The plan's limit on steps of plans that run at once, by name.
const RUNS_LIMIT: &str = "batch_active";
/// A running step's place outlasts its deadline by this, until the step itself gives it back.
const PLACE_LONGER: Duration = Duration::from_secs(10);
/// The role that is told how its models are chosen.
const ADMIN: &str = "admin";
/// What a client sends that reads on behind the event of this id.
const LAST_EVENT_ID: &str = "last-event-id";
/// Where the id of an answer is told before its first event.
const RUN_ID: &str = "x-run-id";
/// Pieces of text that may wait before the model has to wait too.
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
    /// The agents of each product.
    pub registries: Registries,
    /// Plans that were made before.
    pub plan_cache: PlanCache,
    /// Steps of plans that run.
    pub runs: Runs,
    /// The models.
    pub models: Arc<Models>,
    /// Who is paid for them.
    pub books: Books,
    /// Users' own keys.
    pub keys: Keys,
    /// Where answers are worked on.
    pub tasks: Tasks,
    /// What reads every answer before it is told.
    pub sanitizers: Sanitizers,
    /// Streamed answers while they are told.
    pub tellings: Tellings,
    /// What was said before, of products that keep it.
    pub conversations: Conversations,
}

impl Parts {
    /// What reads an answer of a product before it is told.
    ///
    /// # Errors
    /// [`Error::NoModeration`]: better no answer than one that slips past the judge. [`Error::NoAgent`].
    pub fn sanitizer(&self, product: &Product) -> Result<Sanitizer, Error> {
        match product.moderation {
            Moderation::HoldBack => Err(Error::NoModeration),
            Moderation::Off => self.sanitizers.of(&product.slug).ok_or(Error::NoAgent),
        }
    }
}

/// A request that may be answered.
struct Job {
    parts: Arc<Parts>,
    product: Arc<Product>,
    plan: Arc<billing::Entitlements>,
    payer: Payer,
    /// The account's own keys, where they may be used.
    keys: Option<Keys>,
    is_admin: bool,
    question: Question,
    /// Who is to answer; never empty.
    candidates: Vec<String>,
    /// Every agent that the caller may ask, in the product's order.
    callable: Vec<String>,
    /// What a running step takes up.
    _place: Option<Place>,
    sanitizer: Sanitizer,
    /// What it adds to a session.
    exchange: Option<Exchange>,
    deadline: Instant,
}

impl ChatApi {
    /// A service of these parts.
    pub fn new(parts: Arc<Parts>) -> ChatApi {
        ChatApi { parts }
    }

    /// Checks all that can be checked before a model is asked.
    async fn admit(&self, caller: &Caller, request: ChatRequest) -> Result<Job, Error> {
        let parts = &self.parts;
        let mut question = Question::read(request, &parts.config)?;
        let account = Account::of(caller)?;
        let product = Arc::clone(account.product(&parts.products)?);
        let sanitizer = parts.sanitizer(&product)?;
        let is_admin = caller.user.as_ref().is_some_and(|user| user.has_role(ADMIN));
        let plan = account.plan(&parts.entitlements).await?;
        let registry = parts.registries.of(&product.slug).ok_or(Error::NoAgent)?;
        let (callable, candidates) = candidates(registry, &Reach::of(&product, &plan), &question)?;
        if let Some(wanted) = &question.model {
            account.choose(parts, &product, &plan, wanted).await?;
        }
        let exchange = join(parts, &product, &account, &mut question).await?;
        let _place = match question.mode {
            Mode::Step(_) => {
                let limit = plan.limits.get(RUNS_LIMIT).copied();
                parts.runs.begin(&account.product, &account.id, limit, parts.config.total() + PLACE_LONGER).await?
            }
            Mode::Direct | Mode::Plan => None,
        };
        let payer = Payer::of(&account.product, &account.id, account.key.as_ref(), &plan);
        let keys = account.keys(parts);
        let latest = Instant::now() + parts.config.total();
        let deadline = match product.on_disconnect {
            OnDisconnect::Continue => latest,
            OnDisconnect::Cancel => caller.deadline.map_or(latest, |deadline| deadline.min(latest)),
        };
        let parts = Arc::clone(parts);
        Ok(Job {
            parts,
            product,
            plan,
            payer,
            keys,
            is_admin,
            question,
            candidates,
            callable,
            _place,
            sanitizer,
            exchange,
            deadline,
        })
    }
}

/// What a request adds to the session that it names; what was said there goes before its message.
async fn join(
    parts: &Parts,
    product: &Product,
    account: &Account,
    question: &mut Question,
) -> Result<Option<Exchange>, Error> {
    let Some(session) = &question.session else { return Ok(None) };
    let said = Some(question.message.clone());
    let (exchange, turns) = parts.conversations.join(product, &account.id, session, said).await?;
    question.recall(turns);
    Ok(Some(exchange))
}

/// Every agent that the caller may ask, and those of them that are to answer: the one that was asked for, those of the
/// pipeline, whose step it is, or all that the classifier may choose from.
fn candidates(
    registry: &Registry,
    reach: &Reach<'_>,
    question: &Question,
) -> Result<(Vec<String>, Vec<String>), Error> {
    let exists = |name: &str| registry.get(name).is_some();
    let callable = reach.callable(exists);
    let names = match (&question.agent, question.mode) {
        (Some(wanted), _) => vec![reach.named(wanted, exists)?],
        (None, Mode::Step(template)) => vec![reach.of_template(template.agent, exists)?],
        (None, _) if !question.pipeline.is_empty() => {
            question.pipeline.iter().map(|wanted| reach.named(wanted, exists)).collect::<Result<_, _>>()?
        }
        (None, _) => callable.clone(),
    };
    if names.is_empty() {
        return Err(if registry.all().next().is_some() { Error::AgentNotInPlan } else { Error::NoAgent });
    }
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok((owned(callable), owned(names)))
}

impl Job {
    /// Works on the answer in a task of its own, so that whoever leaves cannot take along what has to be done after.
    fn start(self, speaker: Speaker) -> oneshot::Receiver<Result<Unchecked, Error>> {
        let (told, end) = oneshot::channel();
        let tasks = self.parts.tasks.clone();
        let work = async move {
            // Nobody may be there any more.
            let _left = told.send(self.run(speaker).await);
        };
        tasks.spawn("chat", work.instrument(Span::current()));
        end
    }

    /// The same for an answer that is told at once, which is kept in its session before that.
    fn start_plain(self, speaker: Speaker) -> oneshot::Receiver<Result<ChatResponse, Error>> {
        let (told, end) = oneshot::channel();
        let (tasks, sanitizer, exchange) = (self.parts.tasks.clone(), self.sanitizer.clone(), self.exchange.clone());
        let work = async move {
            let answer = self.run(speaker).await.map(|answer| sanitizer.check(answer));
            if let Some(exchange) = exchange {
                // Of an answer that broke off nobody has heard a word.
                let silent = Answered { incomplete: true, ..Answered::default() };
                exchange.end(answer.as_ref().map_or(silent, Answered::whole)).await;
            }
            // Nobody may be there any more.
            let _left = told.send(answer);
        };
        tasks.spawn("chat", work.instrument(Span::current()));
        end
    }

    /// Answers within the time there is, and waits for billing.
    async fn run(self, speaker: Speaker) -> Result<Unchecked, Error> {
        let Job { parts, product, payer, keys, is_admin, deadline, .. } = &self;
        let run_tokens = i64::try_from(parts.config.weft_chat_run_tokens).unwrap_or(i64::MAX);
        let (models, books) = (Arc::clone(&parts.models), parts.books.clone());
        let asker = Asker::new(models, books, Arc::clone(product), payer.clone(), run_tokens);
        let asker = asker.with_keys(keys.clone()).within(self.exchange.clone());
        let (is_admin, deadline) = (*is_admin, *deadline);
        let answered = timeout_at(deadline, self.answer(&asker, speaker)).await.unwrap_or(Err(Error::TookTooLong));
        asker.settled().await;
        let (answer, decision) = answered?;
        Ok(answer.with(asker.usage(), is_admin.then_some(decision)))
    }

    async fn answer(mut self, asker: &Asker, speaker: Speaker) -> Result<(Unchecked, ModelDecision), Error> {
        let today = Day::of_ms(self.parts.clock.now_ms());
        let desk = work::desk(&mut self.question, today);
        let registry = self.parts.registries.of(&self.product.slug).ok_or(Error::NoAgent)?;
        let Job { parts, product, plan, payer, question, candidates, callable, sanitizer, .. } = &self;
        let account = payer.account.as_str();
        let work = Work { parts, product, registry, plan, question, candidates, callable, account, asker, sanitizer };
        work.run(desk, speaker).await
    }
}

#[tonic::async_trait]
impl ChatService for ChatApi {
    async fn chat(&self, request: Request<ChatRequest>) -> Result<Response<ChatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let job = self.admit(&caller, request.into_inner()).await.map_err(refuse)?;
        let left = CancellationToken::new();
        // Nobody can come back for a plain answer.
        let (speaker, _waiting) = match job.product.on_disconnect {
            OnDisconnect::Cancel => (Speaker::collecting().until(left.clone()), Some(left.drop_guard())),
            OnDisconnect::Continue => (Speaker::collecting(), None),
        };
        let answer = job.start_plain(speaker).await.unwrap_or(Err(Error::Lost)).map_err(refuse)?;
        Ok(Response::new(answer))
    }

    type StreamChatStream = Events;

    async fn stream_chat(&self, request: Request<ChatRequest>) -> Result<Response<Self::StreamChatStream>, Status> {
        let caller = Caller::of(&request)?;
        let owner = owner(&caller)?;
        let tellings = &self.parts.tellings;
        if let Some(place) = last_event(request.metadata())? {
            return Ok(named(place.run, tellings.resume(owner, place).await?));
        }
        let job = self.admit(&caller, request.into_inner()).await.map_err(refuse)?;
        let (sender, pieces) = job.sanitizer.pieces(PIECES_WAITING);
        let Begun { id, events, telling } = tellings.begin(owner, job.product.on_disconnect)?;
        let exchange = job.exchange.clone();
        let end = job.start(Speaker::telling(sender).until(telling.stop()));
        telling.spawn(pieces, async move { end.await.unwrap_or(Err(Error::Lost)).map_err(refuse) }, exchange);
        Ok(named(id, events))
    }

    type ResumeChatStream = Events;

    async fn resume_chat(
        &self,
        request: Request<ResumeChatRequest>,
    ) -> Result<Response<Self::ResumeChatStream>, Status> {
        let caller = Caller::of(&request)?;
        let last = last_event(request.metadata())?;
        let ResumeChatRequest { run_id, after } = request.into_inner();
        let run = RunId::read(&run_id).ok_or(Error::NotFound("answer"))?;
        if last.as_ref().is_some_and(|last| last.run != run) {
            return Err(Error::Invalid("last-event-id is of another answer".into()).into());
        }
        let after = after.map(u64::try_from).transpose();
        let after = after.map_err(|_negative| Error::Invalid("after is below 0".into()))?;
        // Who reconnects to the same address has heard more than it says there.
        let next = after.map_or(0, |after| after.saturating_add(1)).max(last.map_or(0, |last| last.next));
        let events = self.parts.tellings.resume(owner(&caller)?, Position { run, next }).await?;
        Ok(named(run, events))
    }

    async fn cancel_chat(&self, request: Request<CancelChatRequest>) -> Result<Response<CancelChatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let run = RunId::read(&request.get_ref().run_id).ok_or(Error::NotFound("answer"))?;
        self.parts.tellings.stop(owner(&caller)?, run).await?;
        Ok(Response::new(CancelChatResponse { ok: true }))
    }
}

/// Whose answers the caller may read.
fn owner(caller: &Caller) -> Result<Owner<'_>, Status> {
    Ok(Owner { product: &caller.product, account: &caller.user()?.sub })
}

/// The events of the answer of this id.
fn named(id: RunId, events: Events) -> Response<Events> {
    let mut response = Response::new(events);
    if let Ok(id) = id.text().parse() {
        response.metadata_mut().insert(RUN_ID, id);
    }
    response
}

/// Where a client wants to read on that lost its connection.
fn last_event(metadata: &MetadataMap) -> Result<Option<Position>, Error> {
    let Some(last) = metadata.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) else { return Ok(None) };
    Position::behind(last.to_str().unwrap_or_default()).map(Some)
}

/// Tells the caller, and the log where the operator can do something about it.
pub fn refuse(error: Error) -> Status {
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
