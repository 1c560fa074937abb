//! The gRPC services.
pub mod chat;
