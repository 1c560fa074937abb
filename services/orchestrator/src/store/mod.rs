//! SQL, and nothing else. No text of a user, a prompt or a model comes here: what is kept are keys, sealed, and numbers.
mod database;
pub mod personal;
pub mod provider_key;
pub mod provider_key_use;

pub use database::{Database, Ready, migrate, open};
