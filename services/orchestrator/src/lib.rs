//! Agents and models: chat, tools, prompts.
//!
//! Everything an agent may know comes with the request and is forgotten with the answer; what an agent wants changed goes
//! back as actions for the client, which alone holds its data. It owns users' own keys and, for products that keep them,
//! conversations. No text of a user, a prompt or a model reaches a log, a trace or an error.
mod agents;
mod api;
mod completions;
mod config;
mod conversations;
mod cost;
mod domain;
mod error;
mod keys;
mod models;
mod plans;
mod prompts;
mod sanitizer;
mod store;
mod telling;

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use weft_cache::Cache;
use weft_core::Clock;
use weft_product::Products;
use weft_proto::orchestrator::v1::chat_service_server::ChatServiceServer;
use weft_proto::orchestrator::v1::conversation_service_server::ConversationServiceServer;
use weft_proto::orchestrator::v1::embedding_service_server::EmbeddingServiceServer;
use weft_proto::orchestrator::v1::model_service_server::ModelServiceServer;
use weft_proto::orchestrator::v1::open_ai_service_server::OpenAiServiceServer;
use weft_proto::orchestrator::v1::personal_data_service_server::PersonalDataServiceServer;
use weft_proto::orchestrator::v1::plan_service_server::PlanServiceServer;
use weft_proto::orchestrator::v1::provider_key_service_server::ProviderKeyServiceServer;
use weft_runtime::{Mesh, Server};

use crate::agents::Registries;
use crate::api::chat::{ChatApi, Parts};
use crate::api::conversation::ConversationApi;
use crate::api::embedding::EmbeddingApi;
use crate::api::model::ModelApi;
use crate::api::openai::OpenAiApi;
use crate::api::page::Pages;
use crate::api::personal::PersonalDataApi;
use crate::api::plan::PlanApi;
use crate::api::provider_key::ProviderKeyApi;
use crate::conversations::Conversations;
use crate::cost::Books;
use crate::keys::Keys;
use crate::models::Models;
use crate::plans::{PlanCache, Runs};
use crate::prompts::Prompts;
use crate::sanitizer::Sanitizers;
use crate::store::Database;
use crate::telling::Tellings;

pub use config::Config;
pub use error::Error;
pub use models::{Break, ModelError};

/// Brings the database to this version.
///
/// # Errors
/// [`Error::Database`], in one sentence what is wrong with it.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    store::migrate(config).await
}

/// Makes a new key to seal users' keys with; running instances use it within a second. Gives its id.
///
/// # Errors
/// [`Error::Database`], [`Error::Keyring`].
pub async fn rotate_keys(config: &Config, clock: &Clock) -> Result<String, Error> {
    let ready = store::open(config, clock).await?;
    let id = ready.keyring.rotate().await?;
    ready.db.close().await;
    Ok(id)
}

/// Serves until the mesh shuts down.
///
/// # Errors
/// [`Error::Config`] or [`Error::Client`] before anything is served; [`Error::Runtime`] if serving fails.
pub async fn serve(config: Config, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Error> {
    let networks = &mesh.config().weft_allow_private_addresses;
    let models = Arc::new(Models::new(&config, mesh.clock().clone())?.allowing(networks)?);
    let database = Database::start(&config, &mesh).await?;
    let keys = Keys::start(database.clone(), &mesh);
    let books = Books::new(mesh.channel("billing"), mesh.tasks().clone(), mesh.clock().clone());
    let prompts = config.weft_prompts_dir.as_deref().map_or_else(|| Ok(Prompts::default()), Prompts::load)?;
    let registries = Registries::new(&products, &prompts)?;
    let sanitizers = Sanitizers::new(&registries)?;
    tracing::info!(agents = ?registries.names(), providers = ?models.providers(), "answering");
    let plan_cache = PlanCache::new();
    let clock = mesh.clock().clone();
    let entitlements = mesh.entitlements();
    let max_bytes = mesh.config().max_message_bytes();
    let tasks = mesh.tasks().clone();
    let shared = cache(&config, &mesh).await?;
    let runs = Runs::new(shared.clone(), tasks.clone());
    let tellings = Tellings::start(&config, shared.clone(), &mesh);
    let conversations = Conversations::start(&config, database.clone(), shared.clone(), &mesh);
    let personal =
        PersonalDataApi { keys: keys.clone(), conversations: conversations.clone(), products: Arc::clone(&products) };
    let pages = Pages::new(mesh.config());
    let conversation_api =
        ConversationApi::new(conversations.clone(), Arc::clone(&products), clock.clone(), pages.clone());
    let own_keys = ProviderKeyApi {
        keys: keys.clone(),
        entitlements: entitlements.clone(),
        clock: clock.clone(),
        pages,
        networks: networks.clone(),
    };
    let parts = Arc::new(Parts {
        config,
        clock,
        products,
        entitlements,
        registries,
        plan_cache,
        runs,
        models,
        books,
        keys,
        tasks,
        sanitizers,
        tellings,
        conversations,
    });
    let chat = ChatServiceServer::new(ChatApi::new(Arc::clone(&parts))).max_decoding_message_size(max_bytes);
    let embedding_api = EmbeddingApi(Arc::clone(&parts));
    let model_api = ModelApi { parts: Arc::clone(&parts), cache: shared };
    let embeddings = EmbeddingServiceServer::new(embedding_api.clone()).max_decoding_message_size(max_bytes);
    let openai = OpenAiApi { embeddings: embedding_api, models: model_api.clone(), parts: Arc::clone(&parts) };
    let openai = OpenAiServiceServer::new(openai).max_decoding_message_size(max_bytes);
    let models = ModelServiceServer::new(model_api);
    let plans = PlanServiceServer::new(PlanApi::new(parts));
    let served = Server::new(&mesh, mesh.guard())
        .add(chat)
        .add(plans)
        .add(models)
        .add(embeddings)
        .add(openai)
        .add(ConversationServiceServer::new(conversation_api).max_decoding_message_size(max_bytes))
        .add(ProviderKeyServiceServer::new(own_keys))
        .add(PersonalDataServiceServer::new(personal))
        .serve(listener)
        .await;
    database.close().await;
    Ok(served?)
}

/// Where what happens at once is counted: for all replicas together if there is a Redis.
async fn cache(config: &Config, mesh: &Mesh) -> Result<Cache, Error> {
    let clock = mesh.clock().clone();
    match &config.redis_url {
        None => Ok(Cache::local(clock)),
        // Its share of a rate limit, should Redis be away, is that of one.
        Some(url) => Cache::redis(url.expose_secret(), 1, clock).await.map_err(Error::Cache),
    }
}
