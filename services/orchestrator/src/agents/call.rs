//! `call_agent`: one agent asks another one, within the rounds of the same answer.
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agents::arguments::{read, within};
use crate::agents::schema::{TEXT_CHARS, object, some_text};
use crate::agents::tool::Misfit;
use crate::agents::{Agent, arguments};
use crate::models::ToolSpec;

/// Name of the tool.
pub const CALL_AGENT: &str = "call_agent";

/// What one agent wants of another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The other agent.
    #[serde(deserialize_with = "arguments::id")]
    pub agent: String,
    /// What is asked of it.
    pub message: String,
}

impl Wish {
    /// Reads the tool's arguments.
    ///
    /// # Errors
    /// Why they do not fit.
    pub fn read(arguments: Map<String, Value>) -> Result<Wish, Misfit> {
        let wish: Wish = read(arguments)?;
        if wish.message.trim().is_empty() {
            return Err(Misfit("message must not be empty".to_owned()));
        }
        within("message", &wish.message, TEXT_CHARS)?;
        Ok(wish)
    }
}

/// The tool of an agent that may ask these others.
pub fn spec<'a>(others: impl Iterator<Item = &'a str>) -> ToolSpec {
    let names: Vec<&str> = others.collect();
    let parameters = object(
        json!({
            "agent": {"type": "string", "enum": names, "description": "Which of them."},
            "message": some_text(TEXT_CHARS, "The request, with all that is needed for it: the other one sees no more."),
        }),
        &["agent", "message"],
    );
    ToolSpec {
        name: CALL_AGENT.into(),
        description: "Have another agent do a part of the work that is not yours. It cannot ask back.".into(),
        parameters,
        strict: None,
    }
}

impl Agent {
    /// Everything that a model is told about this agent's tools.
    pub fn specs(&self) -> (Vec<&ToolSpec>, Option<ToolSpec>) {
        let call = (!self.calls.is_empty()).then(|| spec(self.calls.iter().map(String::as_str)));
        (self.tools.iter().map(|tool| &tool.spec).collect(), call)
    }
}
