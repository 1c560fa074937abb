//! The mesh as its users meet it: the real binary, several processes, public clients.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

mod clients;
mod journey;
mod refresh;
mod refusals;
mod up;
mod walk;

/// The binary under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft");
