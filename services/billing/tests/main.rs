//! Billing from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod accounts;
mod analytics;
mod catalogue;
mod changes;
mod checkout;
mod convergence;
mod cut_off;
mod daily;
mod entitlements;
mod golden;
mod holds;
mod key_budget;
mod late;
mod ledger;
mod money;
mod payouts;
mod personal;
mod refunds;
mod revenue;
mod seeding;
mod starting;
mod usage;
mod wallet;
mod webhooks;
