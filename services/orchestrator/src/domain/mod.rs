//! Types and rules: no I/O.
pub mod agent;
pub mod chat;
pub mod day;
pub mod json;
pub mod model;
pub mod task;
