//! Billing from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod accounts;
mod analytics;
mod catalogue;
mod checkout;
mod convergence;
mod daily;
mod cut_off;
mod entitlements;
mod golden;
mod holds;
mod ledger;
mod payouts;
mod refunds;
mod revenue;
mod seeding;
mod starting;
mod usage;
mod wallet;
mod webhooks;
