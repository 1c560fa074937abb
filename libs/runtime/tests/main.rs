//! Configuration, server, channels and life of a service, over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod client;
mod config;
mod life;
mod neighbours;
mod server;
mod server_health;
mod server_limits;
mod support;
mod telemetry;
