//! Identity from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod accounts;
mod admin;
mod hashing;
mod keys;
mod logout;
mod me;
mod password;
mod profile;
mod refresh;
mod roles;
mod secrecy;
mod sessions;
mod throttle;
mod uses;
