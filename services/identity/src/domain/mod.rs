//! Types and rules. Nothing here waits or touches a database.
pub mod account;
pub mod administration;
pub mod api_key;
pub mod audit;
pub mod client;
pub mod external;
pub mod link;
pub mod organisation;
pub mod page;
pub mod password;
pub mod profile;
pub mod provider;
pub mod role;
pub mod session;
pub mod token;
