//! What is passed on of an answer while it comes.

/// A piece of an answer on its way to who listens. It has no `Debug`: it holds what models write.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Piece {
    /// Who is asked now, before anything else of theirs.
    By(String),
    /// Text.
    Text(String),
    /// Why the model declines.
    Refusal(String),
    /// A tool call begins.
    Call {
        /// Which one of the answer, from 0.
        at: usize,
        /// Its id; never empty.
        id: String,
        /// The tool.
        name: String,
        /// What the model wants back with the call in the next request, as it is.
        signature: Option<String>,
    },
    /// A tool call that has begun goes on.
    Arguments {
        /// Which one.
        at: usize,
        /// JSON text, split anywhere.
        json: String,
    },
}
