//! Identity from outside: over gRPC, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod harness;

mod access;
mod accounts;
mod admin;
mod api_key;
mod audit;
mod email;
mod external;
mod github;
mod hashing;
mod import;
mod keys;
mod logout;
mod me;
mod oidc;
mod organisation;
mod password;
mod personal;
mod profile;
mod races;
mod refresh;
mod roles;
mod secrecy;
mod sessions;
mod setup;
mod sso;
mod throttle;
mod uses;
