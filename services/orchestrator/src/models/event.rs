//! What an answer is made of, whatever the dialect.
use crate::models::usage::about;
use crate::models::{ToolCall, Usage};

/// One piece of an answer, in the order in which it came. It has no `Debug`: it holds what models write.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Event {
    /// Text for the reader.
    Text(String),
    /// What the model thinks aloud; nobody is shown it.
    Reasoning(String),
    /// A tool call, or the beginning or the continuation of one.
    Fragment(Fragment),
    /// A whole tool call.
    Call(ToolCall),
    /// The model declines, with these words.
    Declined(String),
    /// Tokens, as far as they are known now.
    Usage(Usage),
    /// The answer is whole; only its usage may still come.
    Finish(Finish),
    /// Nothing more comes.
    End,
}

impl Event {
    /// About how many tokens the model wrote for it.
    pub fn tokens(&self) -> i64 {
        match self {
            Event::Text(text) | Event::Reasoning(text) | Event::Declined(text) => about(text),
            Event::Fragment(fragment) => {
                about(fragment.name.as_deref().unwrap_or_default()) + about(&fragment.arguments)
            }
            Event::Call(call) => about(&call.name) + about(&call.arguments),
            Event::Usage(_) | Event::Finish(_) | Event::End => 0,
        }
    }
}

/// A fragment of a tool call.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Fragment {
    /// Which call of the answer it belongs to. Some providers leave it out.
    pub index: Option<u32>,
    /// Id of the call, in its first fragment.
    pub id: Option<String>,
    /// The tool, usually whole and in the first fragment.
    pub name: Option<String>,
    /// JSON text, split anywhere.
    pub arguments: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// The model had said all.
    #[default]
    Stop,
    /// It reached the cap, or the end of what fits into it.
    Length,
    /// It waits for its tools.
    ToolCalls,
    /// It, or its provider's filter, declined.
    Refused,
}
