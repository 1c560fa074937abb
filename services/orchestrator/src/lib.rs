//! Agents and models: chat, tools, prompts.
//!
//! It owns no data. Everything an agent may know comes with the request and is forgotten with the answer; what an
//! agent wants changed goes back as actions for the client, which alone holds its data. No text of a user, a prompt
//! or a model reaches a log, a trace or an error.
mod agents;
mod api;
mod config;
mod domain;
mod error;
mod models;
mod prompts;
mod sanitizer;

use std::sync::Arc;

use tokio::net::TcpListener;
use weft_product::Products;
use weft_proto::orchestrator::v1::chat_service_server::ChatServiceServer;
use weft_runtime::{Mesh, Server};

use crate::agents::Registry;
use crate::api::chat::{ChatApi, Parts};
use crate::models::Models;
use crate::sanitizer::Sanitizers;

pub use config::Config;
pub use error::Error;
pub use models::{Break, ModelError};

/// Serves until the mesh shuts down.
///
/// # Errors
/// [`Error::Config`] or [`Error::Client`] before anything is served; [`Error::Runtime`] if serving fails.
pub async fn serve(config: Config, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Error> {
    let models = Models::new(&config, mesh.clock().clone())?;
    let registry = Registry::built_in();
    let sanitizers = Sanitizers::new(&registry, &products)?;
    let agents: Vec<&str> = registry.list().map(|agent| agent.name).collect();
    tracing::info!(?agents, providers = ?models.providers(), "answering");
    let clock = mesh.clock().clone();
    let entitlements = mesh.entitlements();
    let max_bytes = mesh.config().max_message_bytes();
    let api = ChatApi::new(Parts { config, clock, products, entitlements, registry, models, sanitizers });
    let service = ChatServiceServer::new(api).max_decoding_message_size(max_bytes);
    Server::new(&mesh, mesh.guard()).add(service).serve(listener).await?;
    Ok(())
}
