//! Types and rules: no I/O.
pub mod agent;
pub mod chat;
pub mod checkpoint;
pub mod conversation;
pub mod day;
pub mod json;
pub mod model;
pub mod note;
pub mod project;
pub mod provider_key;
pub mod record;
pub mod task;
