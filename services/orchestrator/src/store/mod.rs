//! SQL, and nothing else. What is kept are keys, sealed, numbers, and of products that say so conversations: no other text
//! of a user, a prompt or a model comes here.
pub mod conversation;
pub mod conversation_end;
mod database;
pub mod personal;
pub mod provider_key;
pub mod provider_key_use;

pub use database::{Database, Ready, migrate, open};
