//! The JSON of the Anthropic dialect, `POST /v1/messages`.
//! Sources: <https://platform.claude.com/docs/en/api/messages>,
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::turns::{Conversation, Part, Turn};
use crate::models::usage::count;
use crate::models::wants::{Effort, Format, Schema, ToolChoice};
use crate::models::{Call, ToolSpec, Wants};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    system: &'a str,
    messages: Vec<OutTurn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OutTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<OutChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutConfig<'a>>,
    stream: bool,
}

#[derive(Serialize)]
struct OutTurn<'a> {
    role: &'static str,
    content: Vec<OutBlock<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutBlock<'a> {
    Text { text: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Map<String, Value> },
    ToolResult { tool_use_id: &'a str, content: &'a str },
}

#[derive(Serialize)]
struct OutTool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
struct OutChoice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Serialize)]
struct OutConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<OutFormat<'a>>,
}

#[derive(Serialize)]
struct OutFormat<'a> {
    r#type: &'static str,
    schema: &'a Value,
}

/// A call in the dialect, for the model as its provider names it.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn body(call: &Call<'_>, model: &str, stream: bool) -> serde_json::Result<Vec<u8>> {
    let conversation = Conversation::of(call.messages);
    let wants = call.wants;
    serde_json::to_vec(&Request {
        model,
        max_tokens: call.output_tokens,
        system: &conversation.system,
        messages: conversation.turns.iter().map(out_turn).collect(),
        tools: call.tools.iter().map(|spec| out_tool(spec)).collect(),
        // Without tools the parameter is an error.
        tool_choice: (!call.tools.is_empty()).then(|| out_choice(call)),
        temperature: wants.and_then(|wants| wants.temperature),
        top_p: wants.and_then(|wants| wants.top_p),
        stop_sequences: wants.map_or(&[][..], |wants| &wants.stop[..]),
        output_config: wants.and_then(out_config),
        stream,
    })
}

fn out_choice<'a>(call: &'a Call<'a>) -> OutChoice<'a> {
    let (kind, name) = match call.wants.map(|wants| &wants.choice) {
        _ if !call.may_call => ("none", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required) => ("any", None),
        Some(ToolChoice::Named(name)) => ("tool", Some(name.as_str())),
        Some(ToolChoice::Auto) | None => ("auto", None),
    };
    let is_one_by_one = kind != "none" && call.wants.and_then(|wants| wants.parallel) == Some(false);
    OutChoice { r#type: kind, name, disable_parallel_tool_use: is_one_by_one.then_some(true) }
}

fn out_config(wants: &Wants) -> Option<OutConfig<'_>> {
    let format = match &wants.format {
        Format::Schema(Schema { schema, .. }) => Some(OutFormat { r#type: "json_schema", schema }),
        Format::Text | Format::Json => None,
    };
    let effort = wants.effort.map(Effort::name);
    (effort.is_some() || format.is_some()).then_some(OutConfig { effort, format })
}

fn out_turn<'a>(turn: &Turn<'a>) -> OutTurn<'a> {
    let role = if turn.is_models { "assistant" } else { "user" };
    OutTurn { role, content: turn.parts.iter().map(out_block).collect() }
}

fn out_block<'a>(part: &Part<'a>) -> OutBlock<'a> {
    match *part {
        Part::Text(text) => OutBlock::Text { text },
        // A model that wrote no JSON object was told so in the result; here one is required.
        Part::Call(call) => {
            let input = serde_json::from_str(&call.arguments).unwrap_or_default();
            OutBlock::ToolUse { id: &call.id, name: &call.name, input }
        }
        Part::Result { call_id, content, .. } => OutBlock::ToolResult { tool_use_id: call_id, content },
    }
}

fn out_tool<'a>(spec: &'a ToolSpec) -> OutTool<'a> {
    let ToolSpec { name, description, parameters, strict } = spec;
    OutTool { name, description, input_schema: parameters, strict: *strict }
}

/// A plain answer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Answer {
    /// What was said.
    Message {
        /// Its parts.
        content: Vec<Block>,
        /// Why it ended.
        stop_reason: Option<String>,
        /// What it cost.
        #[serde(default)]
        usage: Tokens,
    },
    /// An error under status 200.
    Error,
}

/// One event of a streamed answer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Chunk {
    /// The first one.
    MessageStart {
        /// What is known of the answer by now.
        message: Start,
    },
    /// A part of the answer begins.
    ContentBlockStart {
        /// Which part.
        index: u32,
        /// Its beginning.
        content_block: Block,
    },
    /// A part of the answer goes on.
    ContentBlockDelta {
        /// Which part.
        index: u32,
        /// Its continuation.
        delta: Delta,
    },
    /// The answer as a whole is told about.
    MessageDelta {
        /// What is new.
        delta: MessageDelta,
        /// Tokens so far.
        #[serde(default)]
        usage: Tokens,
    },
    /// Nothing more comes.
    MessageStop,
    /// It failed; its text is not read, it may repeat what the user wrote.
    Error,
    /// `ping`, `content_block_stop`, and whatever is added: unknown events are to be ignored.
    #[serde(other)]
    Other,
}

/// A streamed answer before anything is said.
#[derive(Deserialize)]
pub struct Start {
    /// Tokens read.
    #[serde(default)]
    pub usage: Tokens,
}

/// A part of an answer.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        #[serde(default)]
        text: String,
    },
    /// What the model thinks.
    Thinking {
        /// The thought.
        #[serde(default)]
        thinking: String,
    },
    /// A call of a tool.
    ToolUse {
        /// Id of the call.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments; empty where fragments follow.
        #[serde(default)]
        input: Value,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// The continuation of a part.
#[derive(Deserialize)]
#[serde(tag = "type")]
pub enum Delta {
    /// Of a text.
    #[serde(rename = "text_delta")]
    Text {
        /// More text.
        text: String,
    },
    /// Of what the model thinks.
    #[serde(rename = "thinking_delta")]
    Thinking {
        /// More thought.
        thinking: String,
    },
    /// Of a tool's arguments.
    #[serde(rename = "input_json_delta")]
    InputJson {
        /// JSON text, split anywhere.
        partial_json: String,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// News of the answer as a whole.
#[derive(Deserialize)]
pub struct MessageDelta {
    /// Why it ended.
    pub stop_reason: Option<String>,
}

/// Tokens of an answer.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Read, without those of the cache.
    #[serde(deserialize_with = "count")]
    pub input_tokens: Option<i64>,
    /// Written to the cache.
    #[serde(deserialize_with = "count")]
    pub cache_creation_input_tokens: Option<i64>,
    /// Read from the cache.
    #[serde(deserialize_with = "count")]
    pub cache_read_input_tokens: Option<i64>,
    /// Said so far.
    #[serde(deserialize_with = "count")]
    pub output_tokens: Option<i64>,
}
