//! Types and rules. Nothing here waits or touches a database.
pub mod account;
pub mod administration;
pub mod client;
pub mod page;
pub mod password;
pub mod profile;
pub mod role;
pub mod session;
pub mod token;
