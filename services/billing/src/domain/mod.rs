//! The rules: what a plan is made of and what it allows. No I/O.
pub mod amount;
pub mod analytics;
pub mod catalogue;
pub mod day;
pub mod entitlement;
pub mod event;
pub mod hold;
pub mod idempotency;
pub mod ledger;
pub mod payment;
pub mod plan;
pub mod revenue;
pub mod spending;
pub mod subscription;
pub mod usage;
pub mod wallet;
