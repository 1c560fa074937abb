//! What an agent can do.
use serde_json::{Map, Value};

use crate::agents::desk::Desk;
use crate::models::ToolSpec;

/// A tool: how a model sees it, and what it does.
pub struct Tool {
    /// Name, description and schema.
    pub spec: ToolSpec,
    /// Does it. The result, also one that says `error`, goes to the model and to nobody else.
    pub run: Run,
}

/// What a tool does with its arguments.
pub type Run = fn(&mut Desk, Map<String, Value>) -> Result<Value, Misfit>;

/// A tool.
pub fn tool(name: &'static str, description: &'static str, parameters: Value, run: Run) -> Tool {
    Tool { spec: ToolSpec { name: name.into(), description: description.into(), parameters, strict: None }, run }
}

/// Arguments that do not fit a tool, and why: for the model only, since it may repeat what a user wrote. That is
/// why it is no `Error` and has no `Display`.
#[cfg_attr(test, derive(Debug))]
pub struct Misfit(pub String);

impl From<serde_json::Error> for Misfit {
    fn from(error: serde_json::Error) -> Misfit {
        Misfit(error.to_string())
    }
}
