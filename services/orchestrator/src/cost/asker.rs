//! The way to a model.
use std::sync::Arc;

use weft_core::new_id;
use weft_product::Product;
use weft_proto::orchestrator::v1::ChatUsage;

use super::books::{Books, Payer};
use super::figures::Figures;
use super::settle::Running;
use super::tab::Tab;
use super::tokens::most;
use crate::conversations::Exchange;
use crate::domain::model::OFFLINE;
use crate::error::Error;
use crate::keys::{Keys, OwnKey};
use crate::models::{Aim, Call, Completion, Models, Piece, Speaker};

/// Asks models for one answer, and has every call paid.
pub struct Asker {
    pub(super) models: Arc<Models>,
    pub(super) books: Books,
    product: Arc<Product>,
    pub(super) payer: Payer,
    /// What the holds are for: the answer, by an id of its own.
    pub(super) reference: String,
    /// So many tokens all calls together may use before no further one begins.
    run_tokens: i64,
    pub(super) tab: Arc<Tab>,
    /// Users' own keys, which go before ours.
    pub(super) keys: Option<Keys>,
    /// The session that the answer is a part of.
    exchange: Option<Exchange>,
}

/// What a model said.
pub struct Asked {
    /// All of it.
    pub completion: Completion,
    /// The model that said it: the one that was asked, or one that stands in for it.
    pub model: String,
}

impl Asker {
    /// For one answer.
    pub fn new(models: Arc<Models>, books: Books, product: Arc<Product>, payer: Payer, run_tokens: i64) -> Asker {
        let reference = format!("chat {}", new_id());
        Asker { models, books, product, payer, reference, run_tokens, tab: Arc::default(), keys: None, exchange: None }
    }

    /// The same, where the account's own keys, if there are any, are used instead of ours and such calls cost nothing.
    #[must_use]
    pub fn with_keys(self, keys: Option<Keys>) -> Asker {
        Asker { keys, ..self }
    }

    /// The same, where question and answer are added to a session: the question once the first call may be made.
    #[must_use]
    pub fn within(mut self, exchange: Option<Exchange>) -> Asker {
        self.exchange = exchange;
        self
    }

    /// Asks a model, for `role`: an agent, or what else the call is for. Where its provider cannot answer, and nobody has
    /// heard anything yet, those are asked that the product has for that.
    ///
    /// # Errors
    /// [`Error::Refused`] if the account cannot pay, [`Error::NoBilling`] if nobody knows whether it can, [`Error::Model`]
    /// if there is no complete answer; the speaker may have said a part of one.
    pub async fn ask(&self, role: &str, call: &Call<'_>, speaker: &mut Speaker) -> Result<Asked, Error> {
        let told = speaker.told();
        let mut model = call.model;
        let mut others = self.product.models.fallbacks.get(model).map_or(&[][..], Vec::as_slice).iter();
        loop {
            let own = self.own_key(model).await?;
            let is_own = own.is_some();
            let failure = match self.attempt(role, &Call { model, ..*call }, own, speaker).await {
                Ok(asked) => return Ok(asked),
                Err(Error::Model(failure)) if failure.is_the_providers() && speaker.told() == told => failure,
                Err(error) => return Err(error),
            };
            // Whose own key fails is told so, and does not pay for another model unasked.
            let can = |other: &&String| !is_own && self.models.lacks(other, false, call) == Ok(None);
            let Some(next) = others.find(can) else {
                return Err(failure.into());
            };
            let labels = [("model", model.to_owned()), ("instead", next.clone())];
            metrics::counter!("weft_model_fallbacks_total", &labels).increment(1);
            tracing::warn!(model, instead = next, ?failure, "another model is asked instead");
            model = next;
        }
    }

    /// One attempt, with a hold of its own; no other model stands in.
    ///
    /// # Errors
    /// As [`Asker::ask`].
    pub async fn once(&self, role: &str, call: &Call<'_>, speaker: &mut Speaker) -> Result<Asked, Error> {
        let own = self.own_key(call.model).await?;
        self.attempt(role, call, own, speaker).await
    }

    /// The account's own key that a call for a model goes over, with where such calls are remembered.
    pub(super) async fn own_key(&self, model: &str) -> Result<Option<(&Keys, OwnKey)>, Error> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let key = keys.of_model(&self.payer.product, &self.payer.account, model).await?;
        Ok(key.map(|key| (keys, key)))
    }

    async fn attempt(
        &self,
        role: &str,
        call: &Call<'_>,
        own: Option<(&Keys, OwnKey)>,
        speaker: &mut Speaker,
    ) -> Result<Asked, Error> {
        if let Some((keys, key)) = own {
            self.begin(call, call.model).await?;
            return self.over(keys, &key, call, speaker).await;
        }
        let model = self.models.answering(call.model)?.to_owned();
        speaker.tell(Piece::By(model.clone())).await?;
        if model == OFFLINE {
            self.begin(call, &model).await?;
            // It is built in: there is nothing to pay.
            return Ok(Asked { completion: self.models.ask(call, speaker).await?, model });
        }
        // What the calls before gave back can be held again.
        self.tab.settled().await;
        let tokens = most(call).saturating_add(i64::from(call.output_tokens));
        let opened = self.books.open(&self.payer, tokens, &self.reference).await?;
        let meter = speaker.begin_call();
        let running = Running {
            payer: self.payer.clone(),
            opened,
            session_id: self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.session_id().to_owned()),
            role: role.to_owned(),
            model: model.clone(),
            meter: meter.clone(),
            likely: self.books.likely.of(call),
            most: tokens,
        };
        let guard = running.follow(&self.books, &self.tab);
        self.begin(call, &model).await?;
        let completion = self.models.ask(call, speaker).await?;
        guard.succeed();
        if let Some(read) = meter.answers().last().and_then(|usage| usage.prompt_tokens) {
            self.books.likely.learn(call, read);
        }
        Ok(Asked { completion, model })
    }

    /// A call may be made. The one that only chooses who answers is no part of a conversation.
    async fn begin(&self, call: &Call<'_>, model: &str) -> Result<(), Error> {
        match &self.exchange {
            Some(exchange) if !matches!(call.aim, Aim::Choose(_)) => exchange.begin(model).await,
            _ => Ok(()),
        }
    }

    /// One attempt over a key of the account's own: nothing is held, and its provider charges its owner.
    ///
    /// # Errors
    /// [`Error::Model`] if there is no complete answer.
    pub async fn over(
        &self,
        keys: &Keys,
        key: &OwnKey,
        call: &Call<'_>,
        speaker: &mut Speaker,
    ) -> Result<Asked, Error> {
        speaker.tell(Piece::By(call.model.to_owned())).await?;
        let meter = speaker.begin_call();
        let using = keys.using(key, call.model, meter.clone());
        let outcome = self.models.ask_over(key, call, speaker).await;
        using.end(&outcome);
        if let Some(used) = Figures::of(&meter, self.books.likely.of(call)) {
            self.tab.add(used, 0);
        }
        Ok(Asked { completion: outcome?, model: call.model.to_owned() })
    }

    /// Whether the calls together have used all that one answer may.
    pub fn is_spent(&self) -> bool {
        self.tab.tokens() >= self.run_tokens
    }

    /// Waits, but not long, until billing has every call that ended.
    pub async fn settled(&self) {
        self.tab.settled().await;
    }

    /// What the calls used so far.
    pub fn usage(&self) -> ChatUsage {
        self.tab.usage()
    }
}

#[cfg(test)]
impl Asker {
    /// For tests of those who ask: the account has no credits to pay with, and nobody keeps the books.
    pub fn of_test(models: Models) -> Asker {
        let (config, clock) = (weft_runtime::MeshConfig::default(), weft_core::Clock::System);
        let mesh = weft_runtime::Mesh::new("orchestrator", config, clock, weft_runtime::Shutdown::new());
        let books = Books::new(mesh.channel("billing"), mesh.tasks().clone(), mesh.clock().clone());
        let product = Arc::clone(weft_product::Products::builtin().get("adiuva").expect("a built-in product"));
        let payer = Payer { product: "adiuva".into(), account: "a".into(), rate: None, is_limited: false, key: None };
        Asker::new(Arc::new(models), books, product, payer, i64::MAX)
    }
}
