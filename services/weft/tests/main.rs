//! The mesh as its users meet it: the real binary, several processes, public clients.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

mod accounting;
mod admin;
mod api_keys;
mod canary;
mod clients;
mod external;
mod journey;
mod ledger;
mod money;
mod openai;
mod plaintext;
mod refresh;
mod refusals;
mod resume;
mod secrecy;
mod team;
mod up;
mod walk;
mod websocket;

use std::path::Path;

/// Writes adiuva's manifest to a folder for `WEFT_PRODUCTS_DIR`, with other lines for some.
fn adiuva_with(folder: &Path, lines: &[(&str, &str)]) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../products/adiuva.toml")).unwrap();
    let changed = lines.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "adiuva.toml has no line {from}");
        text.replace(from, to)
    });
    std::fs::write(folder.join("changed.toml"), changed).unwrap();
}

/// The binary under test.
const WEFT: &str = env!("CARGO_BIN_EXE_weft");
