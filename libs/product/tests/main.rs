//! Manifests as operators meet them: the five that are built in, and folders with mistakes.
#![expect(missing_docs, reason = "tests")]
mod catalogue;
mod folders;
mod mistakes;
