//! All SQL. Nothing here decides.
pub mod account;
pub mod api_key;
pub mod audit;
pub mod external;
pub mod failure;
pub mod github;
pub mod import;
pub mod invitation;
pub mod key;
pub mod link;
pub mod login_state;
pub mod organisation;
pub mod personal;
pub mod revocation;
pub mod seat;
pub mod session;
pub mod setup;
pub mod sso;
pub mod token;

/// Rows that one prune deletes at most, so that it never holds a writer for long. Who gets as many asks again.
pub const PRUNE_ROWS: u64 = 1000;
