//! What tests stand on: real PostgreSQL and Redis on free ports, stubs of outside parties that speak their
//! real protocol and misbehave on order, fakes of services of the mesh, a whole mesh of processes, and personas to call it with.
//!
//! A development dependency only; nothing of it is in the product.
mod database;
mod fake;
pub mod github;
pub mod issuer;
pub mod llm;
mod logs;
pub mod mesh;
pub mod persona;
pub mod postgres;
pub mod redis;
pub mod smtp;
pub mod stripe;
mod wait;

pub use database::Database;
pub use fake::FakeService;
pub use logs::Logs;
pub use wait::eventually;
