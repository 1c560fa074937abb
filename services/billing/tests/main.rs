//! Billing from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod entitlements;
mod seeding;
mod starting;
