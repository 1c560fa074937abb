//! Identity from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod accounts;
mod hashing;
mod keys;
mod logout;
mod me;
mod refresh;
mod secrecy;
mod throttle;
mod uses;
