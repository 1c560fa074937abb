//! The RPCs: decode, ask the store and the domain, encode.
pub mod account;
pub mod analytics;
pub mod catalogue;
pub mod entitlement;
pub mod ledger;
pub mod page;
pub mod personal;
pub mod revenue;
pub mod subscription;
pub mod usage;
pub mod wallet;
pub mod webhook;
