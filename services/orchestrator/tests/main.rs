//! The orchestrator, black box over gRPC: real servers on loopback, a stub of the model's provider.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod agents;
mod answers;
mod authorization;
mod book;
mod conversation_chats;
mod conversation_ends;
mod conversations;
mod costs;
mod dialects;
mod embeddings;
mod failures;
mod harness;
mod limits;
mod models;
mod offline;
mod openai;
mod pipelines;
mod plans;
mod provider_keys;
mod resume;
mod sanitizer;
mod secrecy;
