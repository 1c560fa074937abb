//! What one call adds to a session: what the user says, once the call may be made, and what came of it.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::{sleep, timeout};
use weft_core::{Reason, new_id};
use weft_product::Product;
use weft_proto::orchestrator::v1::ChatResponse;

use super::{Conversations, Kept};
use crate::domain::chat::{Joining, Role, Turn};
use crate::domain::conversation as rules;
use crate::error::Error;
use crate::store::conversation::MessageRow;

/// So long an answer waits until it is kept; then it is told, and kept behind its back.
const KEPT_WITHIN: Duration = Duration::from_secs(1);
/// Pauses between the attempts to keep an answer.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// What a call adds to a session. A clone is the same one.
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    kept: Kept,
    account: String,
    session_id: String,
    /// What the user says; None: nothing new.
    said: Option<String>,
    /// The ids of both messages, so that trying again adds neither twice.
    ids: [String; 2],
    begun: OnceCell<()>,
    /// The model that was asked last.
    model: Mutex<String>,
    ended: AtomicBool,
}

/// What came of a call, as the user may read it.
#[derive(Default)]
pub struct Answered {
    /// What was said.
    pub content: String,
    /// Agent that said it; empty: none.
    pub agent: String,
    /// Model that said it; empty: the one that was asked last.
    pub model: String,
    /// It was broken off.
    pub incomplete: bool,
}

impl Answered {
    /// A whole answer.
    pub fn whole(answer: &ChatResponse) -> Answered {
        let ChatResponse { response, agent, model, .. } = answer;
        Answered { content: response.clone(), agent: agent.clone(), model: model.clone(), incomplete: false }
    }
}

impl Conversations {
    /// A call to a session: what it will add to it, and what was said before, as far as there is room.
    ///
    /// # Errors
    /// [`Error::ZeroPlaintext`] of a product that keeps nothing, [`Error::NotFound`] for a session that is not the
    /// account's, [`Error::Quota`] for one that is full, [`Error::Invalid`] for a message that cannot be kept.
    pub async fn join(
        &self,
        product: &Product,
        account: &str,
        Joining { id, room }: &Joining,
        said: Option<String>,
    ) -> Result<(Exchange, Vec<Turn>), Error> {
        let kept = self.of(product)?;
        said.as_deref().map_or(Ok(()), rules::said)?;
        let turns = kept.history(account, id, *room).await?;
        let exchange = Inner {
            kept,
            account: account.to_owned(),
            session_id: id.clone(),
            said,
            ids: [new_id(), new_id()],
            begun: OnceCell::new(),
            model: Mutex::default(),
            ended: AtomicBool::new(false),
        };
        Ok((Exchange(Arc::new(exchange)), turns))
    }
}

impl Exchange {
    /// The session.
    pub fn session_id(&self) -> &str {
        &self.0.session_id
    }

    /// This model may be asked: with the first one, what the user says is kept.
    ///
    /// # Errors
    /// Those of the store; then nothing may be asked.
    pub async fn begin(&self, model: &str) -> Result<(), Error> {
        model.clone_into(&mut self.0.model.lock().unwrap_or_else(PoisonError::into_inner));
        // Boxed: it is deep within the futures of an answer, which are nested enough for the compiler.
        self.0.begun.get_or_try_init(|| self.keep_question().boxed()).await.map(drop)
    }

    /// The call ended: keeps what was said, once. Of a call that was refused nothing is kept. Never fails: whoever asked
    /// has the answer.
    pub async fn end(&self, answered: Answered) {
        let is_refused = answered.incomplete && !self.0.begun.initialized();
        if is_refused || self.0.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (told, kept) = oneshot::channel();
        let this = self.clone();
        self.0.kept.all.tasks.spawn("keep answer", async move {
            this.keep(answered).await;
            // The answer may not wait any more.
            let _gone_on = told.send(());
        });
        let _in_time = timeout(KEPT_WITHIN, kept).await;
    }

    async fn keep(&self, answered: Answered) {
        let answer = self.answer(answered);
        let mut pauses = PAUSES.into_iter();
        loop {
            let Err(error) = self.keep_both(&answer).await else { return };
            // Whoever has deleted the session wants none of it.
            if matches!(error, Error::NotFound(_)) {
                return;
            }
            let may_pass = matches!(error.reason(), Reason::Unavailable | Reason::Aborted);
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => sleep(pause).await,
                None => {
                    let product = self.0.kept.product().to_owned();
                    tracing::warn!(%error, product, "an answer could not be kept in its session");
                    metrics::counter!("weft_chat_messages_lost_total", "product" => product).increment(1);
                    return;
                }
            }
        }
    }

    async fn keep_both(&self, answer: &MessageRow) -> Result<(), Error> {
        // Who needed no model for it has not begun.
        self.0.begun.get_or_try_init(|| self.keep_question()).await?;
        if answer.content.is_empty() {
            return Ok(());
        }
        self.0.kept.add(&self.0.account, &self.0.session_id, answer).await
    }

    async fn keep_question(&self) -> Result<(), Error> {
        let Inner { kept, account, session_id, said, ids, .. } = &*self.0;
        let (Some(said), [id, _]) = (said, ids) else { return Ok(()) };
        let (content, whole) = rules::content(said);
        let question = MessageRow { incomplete: !whole, ..self.row(Role::User, id, content) };
        kept.add(account, session_id, &question).await
    }

    fn answer(&self, answered: Answered) -> MessageRow {
        let [_, id] = &self.0.ids;
        let (content, whole) = rules::content(&answered.content);
        let model = match answered.model {
            model if model.is_empty() => self.0.model.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            model => model,
        };
        let incomplete = answered.incomplete || !whole;
        MessageRow { agent: answered.agent, model, incomplete, ..self.row(Role::Assistant, id, content) }
    }

    fn row(&self, role: Role, id: &str, content: String) -> MessageRow {
        MessageRow {
            session_id: self.0.session_id.clone(),
            position: 0,
            id: id.to_owned(),
            role: rules::role_name(role).to_owned(),
            content,
            agent: String::new(),
            model: String::new(),
            created_at: self.0.kept.all.clock.now_ms(),
            incomplete: false,
        }
    }
}
