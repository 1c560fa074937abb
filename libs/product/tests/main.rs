//! Manifests as operators meet them: the five that are built in, and folders with mistakes.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
mod catalogue;
mod folders;
mod mistakes;
