//! `weft.orchestrator.v1.ModelService`.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_cache::{Cache, Decision, Rate};
use weft_product::Product;
use weft_proto::billing::v1::Entitlements;
use weft_proto::orchestrator::v1::model_service_server::ModelService;
use weft_proto::orchestrator::v1::{
    GetModelRequest, ListModelsRequest, ListModelsResponse, Model, TestModelRequest, TestModelResponse,
};

use crate::api::account::Account;
use crate::api::chat::Parts;
use crate::domain::model::{OFFLINE, check};
use crate::error::Error;
use crate::keys::{OwnKey, open};
use crate::models::vendor::{COMPATIBLE, is_compatible};
use crate::models::{Aim, Call, Message, ModelError, Models, Speaker};
use crate::store::Ready;
use crate::store::provider_key::key_get;

/// Tests of one account.
const TESTS: Rate = Rate { per_minute: 10 };
/// It has its result in this time: who asks for it waits 30 s.
const TESTED_WITHIN: Duration = Duration::from_secs(25);
/// What a test asks.
const QUESTION: &str = "Answer with the word ok.";
/// Most tokens of its answer; no vendor takes less than 16.
const ANSWER_TOKENS: u32 = 16;
/// Who tests are for, where usage is listed.
const ROLE: &str = "model_test";

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ModelApi {
    /// What models are asked with.
    pub parts: Arc<Parts>,
    /// Where tests are counted.
    pub cache: Cache,
}

impl ModelApi {
    /// Every model that the account can ask, by id.
    ///
    /// # Errors
    /// What is not known of its plan or its keys.
    pub async fn list(&self, account: &Account) -> Result<Vec<Model>, Error> {
        let product = account.product(&self.parts.products)?;
        let plan = account.plan(&self.parts.entitlements).await?;
        let own = self.parts.keys.of(&account.product, &account.id).await?;
        Ok(self.reachable(product, &plan, &own))
    }

    /// Every model that the account can ask, by id.
    fn reachable(&self, product: &Product, plan: &Entitlements, own: &[OwnKey]) -> Vec<Model> {
        let models = &product.models;
        let of_product = [&models.default, &models.classifier].into_iter().chain(models.roles.values());
        let of_plan =
            plan.allowed_models.iter().chain(plan.default_models.values()).chain(plan.override_models.values());
        let named: BTreeSet<&str> = of_product.chain(of_plan).map(String::as_str).collect();
        let chosen = named.into_iter().filter(|model| check(model, product, plan).is_ok());
        let told = chosen.filter(|model| *model != OFFLINE).filter_map(|model| {
            let vendor = Models::own_vendor(model);
            let own_key = own.iter().any(|key| Some(key.provider.as_str()) == vendor);
            let provider = if own_key { vendor? } else { self.parts.models.provider_of(model)? };
            let price = product.model_prices.get(model);
            Some(Model {
                id: model.to_owned(),
                provider: provider.to_owned(),
                is_default: model == models.default,
                input_microdollars: price.map(|price| price.input),
                output_microdollars: price.map(|price| price.output),
                own_key,
            })
        });
        let mut told: Vec<Model> = told.collect();
        let is_default = !told.iter().any(|model| model.is_default)
            && self.parts.models.answering(&models.default).is_ok_and(|answering| answering == OFFLINE);
        let price = Some(0);
        told.push(Model {
            id: OFFLINE.to_owned(),
            provider: OFFLINE.to_owned(),
            is_default,
            input_microdollars: price,
            output_microdollars: price,
            own_key: false,
        });
        told.sort_by(|a, b| a.id.cmp(&b.id));
        told
    }

    async fn test(&self, account: &Account, request: TestModelRequest) -> Result<TestModelResponse, Error> {
        let (product_slug, id) = (&account.product, &account.id);
        if let Decision::Refused { retry_after } =
            self.cache.admit(&format!("model-test {product_slug} {id}"), TESTS).await
        {
            return Err(Error::TooOften(retry_after));
        }
        let product = account.product(&self.parts.products)?;
        let key = self.named_key(account, &request.key_id).await?;
        let models = self.list(account).await?;
        let model = self.wanted(&request.model, key.as_ref(), &models, product, account).await?;
        let asker = account.asker(&self.parts, product).await?;
        let messages = [Message::User(QUESTION.to_owned())];
        let (output_tokens, aim) = (ANSWER_TOKENS, Aim::Answer);
        let (messages, tools) = (&messages[..], &[][..]);
        let call = Call { model: &model, messages, tools, may_call: false, output_tokens, aim, wants: None };
        let (mut speaker, begun) = (Speaker::collecting(), Instant::now());
        let asked = async {
            match &key {
                Some(key) => asker.over(&self.parts.keys, key, &call, &mut speaker).await,
                None => asker.once(ROLE, &call, &mut speaker).await,
            }
        };
        let outcome = timeout(TESTED_WITHIN, asked).await.unwrap_or(Err(Error::Model(ModelError::TimedOut)));
        let latency_ms = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        asker.settled().await;
        match outcome {
            Ok(_) => Ok(TestModelResponse { ok: true, latency_ms, problem: String::new() }),
            Err(Error::Model(error)) => {
                Ok(TestModelResponse { ok: false, latency_ms, problem: error.problem().to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// The caller's key with this id, whether it is switched on or not; empty: none is named.
    async fn named_key(&self, account: &Account, id: &str) -> Result<Option<OwnKey>, Error> {
        if id.is_empty() {
            return Ok(None);
        }
        let Ready { db, keyring } = self.parts.keys.ready()?;
        let row = key_get(db, &account.product, &account.id, id).await?.ok_or(Error::NotFound("provider key"))?;
        open(keyring, row).await.map(Some)
    }

    /// The model to test. Over a key it is one of the key's provider.
    async fn wanted(
        &self,
        model: &str,
        key: Option<&OwnKey>,
        models: &[Model],
        product: &Product,
        account: &Account,
    ) -> Result<String, Error> {
        let goes_over = |model: &str| key.is_none_or(|key| Models::own_vendor(model) == Some(key.provider.as_str()));
        if model.is_empty() {
            let default = models.iter().find(|model| model.is_default && goes_over(&model.id));
            // A key that is switched off opens nothing, but may be tested.
            let of_product = [&product.models.default, &product.models.classifier].into_iter();
            let of_product = of_product.chain(product.models.roles.values());
            let first = || models.iter().map(|model| &model.id).chain(of_product).find(|model| goes_over(model));
            let chosen = default.map(|model| &model.id).or_else(first);
            let none = "name a model of the key's provider, such as compatible/<name>";
            return chosen.cloned().ok_or(Error::Invalid(none.into()));
        }
        let is_listed = models.iter().any(|listed| listed.id == model);
        let is_of_key = key.is_some() && goes_over(model);
        let has_server = || self.parts.keys.for_call(&account.product, &account.id, COMPATIBLE.name);
        let is_at_own_server = key.is_none() && is_compatible(model) && has_server().await?.is_some();
        let is_reachable = (is_listed && goes_over(model)) || is_of_key || is_at_own_server;
        if is_reachable { Ok(model.to_owned()) } else { Err(Error::NotFound("model")) }
    }
}

#[tonic::async_trait]
impl ModelService for ModelApi {
    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(ListModelsResponse { models: self.list(&account).await? }))
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<Model>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        let id = request.into_inner().id;
        let model = self.list(&account).await?.into_iter().find(|model| model.id == id);
        Ok(Response::new(model.ok_or(Error::NotFound("model"))?))
    }

    async fn test_model(&self, request: Request<TestModelRequest>) -> Result<Response<TestModelResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.test(&account, request.into_inner()).await?))
    }
}
