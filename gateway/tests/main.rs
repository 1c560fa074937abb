//! The edge from outside: an edge, the services behind it and its clients in one process, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail loudly, and its servers end with it"
)]

mod access;
mod connections;
mod decimals;
mod endings;
mod grpc;
mod harness;
mod json;
mod keys;
mod limits;
mod openai_style;
mod paths;
mod streams;
mod trouble;
mod websocket;
