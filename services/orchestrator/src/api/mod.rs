//! The gRPC services.
pub mod account;
pub mod chat;
pub mod conversation;
pub mod embedding;
pub mod model;
pub mod openai;
mod openai_embedding;
pub mod page;
pub mod personal;
pub mod plan;
pub mod provider_key;
pub mod work;
