//! Types and rules. Nothing here waits or touches a database.
pub mod account;
pub mod password;
pub mod session;
pub mod token;
