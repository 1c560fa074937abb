//! Completions the way OpenAI's API has them: a client's own conversation, tools and options, with no agent and no prompt
//! of ours in between. Paid, chosen and sanitized like a chat.
mod answer;
mod chunks;
mod messages;
mod params;
mod tools;

pub use answer::Job;
pub use params::{Params, wrong};

/// Stands in a call's id before the signature that its model wants back with it.
const SIGNATURE: &str = "~sig~";
