//! All SQL. Nothing here decides.
pub mod account;
pub mod audit;
pub mod failure;
pub mod key;
pub mod reset;
pub mod revocation;
pub mod session;
pub mod token;

/// Rows that one prune deletes at most, so that it never holds a writer for long. Who gets as many asks again.
pub const PRUNE_ROWS: u64 = 1000;
