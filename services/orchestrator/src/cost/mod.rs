//! What a call of a model costs: held before, settled after, exactly once, whatever ends it.
//!
//! `Asker` is the only way to a model for those who answer. It sets aside at billing what a call may cost at most, asks,
//! and leaves the end to a task of its own (`settle`), which learns it from a guard that lives in the call: nobody who
//! leaves takes it along. `figures` says what a call used, `tokens` what it may use.
mod asker;
mod books;
mod embed;
mod figures;
mod settle;
mod tab;
mod tokens;

pub use asker::{Asked, Asker};
pub use books::{Books, Payer};
