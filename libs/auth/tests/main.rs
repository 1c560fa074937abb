//! Tokens, keys, revocations, policies and the guard, against an identity and a billing that answer over
//! real connections.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
mod entitlements;
mod external;
mod fakes;
mod guard;
mod keys;
mod layer;
mod policies;
mod revocations;
mod service_tokens;
mod shared_secret;
mod tokens;
