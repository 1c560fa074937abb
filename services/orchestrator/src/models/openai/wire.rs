//! The JSON of the OpenAI dialect, `POST /chat/completions`.
//! Source: <https://platform.openai.com/docs/api-reference/chat>.
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::models::{Call, Message, ToolCall, ToolSpec};

/// The request. `max_tokens` rather than its newer name: every compatible provider knows it.
#[derive(Serialize)]
pub struct Request<'a> {
    model: &'a str,
    messages: Vec<OutMessage<'a>>,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OutTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum OutMessage<'a> {
    System {
        content: &'a str,
    },
    User {
        content: &'a str,
    },
    Assistant {
        // Null beside tool calls; some providers refuse an empty text there.
        content: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<OutCall<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
struct OutCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: OutFunction<'a>,
}

#[derive(Serialize)]
struct OutFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct OutTool<'a> {
    r#type: &'static str,
    function: OutSpec<'a>,
}

#[derive(Serialize)]
struct OutSpec<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

/// A call in the dialect.
pub fn request<'a>(call: &'a Call<'a>, stream: bool) -> Request<'a> {
    Request {
        model: call.model,
        messages: call.messages.iter().map(out_message).collect(),
        max_tokens: call.output_tokens,
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        tools: call.tools.iter().map(|spec| out_tool(spec)).collect(),
        // Without tools the parameter is an error.
        tool_choice: (!call.tools.is_empty()).then_some(if call.may_call { "auto" } else { "none" }),
    }
}

fn out_message(message: &Message) -> OutMessage<'_> {
    match message {
        Message::System(content) => OutMessage::System { content },
        Message::User(content) => OutMessage::User { content },
        Message::Assistant { text, calls } => OutMessage::Assistant {
            content: (calls.is_empty() || !text.is_empty()).then_some(text),
            tool_calls: calls.iter().map(out_call).collect(),
        },
        Message::Tool { call_id, content } => OutMessage::Tool { tool_call_id: call_id, content },
    }
}

fn out_call(call: &ToolCall) -> OutCall<'_> {
    OutCall { id: &call.id, r#type: "function", function: OutFunction { name: &call.name, arguments: &call.arguments } }
}

fn out_tool<'a>(spec: &'a ToolSpec) -> OutTool<'a> {
    let ToolSpec { name, description, parameters } = spec;
    OutTool { r#type: "function", function: OutSpec { name, description, parameters } }
}

/// A plain answer, or one chunk of a streamed one: they differ in `message` and `delta` only.
#[derive(Deserialize)]
pub struct Answer {
    /// One choice is asked for.
    #[serde(default)]
    pub choices: Vec<AnswerChoice>,
    /// In the last chunk, or in the plain answer.
    pub usage: Option<AnswerUsage>,
    /// Some providers tell of an error under status 200.
    pub error: Option<IgnoredAny>,
}

/// One choice of an answer.
#[derive(Deserialize)]
pub struct AnswerChoice {
    /// What was said.
    #[serde(default, alias = "message")]
    pub delta: Delta,
    /// Why it ended; absent while it goes on.
    pub finish_reason: Option<String>,
}

/// What was said, or a fragment of it.
#[derive(Default, Deserialize)]
pub struct Delta {
    /// Text.
    pub content: Option<String>,
    /// The model declines.
    pub refusal: Option<String>,
    /// Tool calls, or fragments of them.
    pub tool_calls: Option<Vec<CallFragment>>,
}

/// A tool call, or a fragment of one.
#[derive(Deserialize)]
pub struct CallFragment {
    /// Which call of the answer the fragment belongs to. Some providers leave it out.
    pub index: Option<u32>,
    /// Id of the call, in its first fragment.
    pub id: Option<String>,
    /// Name and arguments.
    #[serde(default)]
    pub function: FunctionFragment,
}

/// Name and arguments of a tool call, or fragments of them.
#[derive(Default, Deserialize)]
pub struct FunctionFragment {
    /// Usually whole, in the first fragment.
    pub name: Option<String>,
    /// JSON text, split anywhere.
    pub arguments: Option<String>,
}

/// Tokens of an answer. What is absent or nonsense is 0.
#[derive(Clone, Copy, Deserialize)]
pub struct AnswerUsage {
    /// Tokens read.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens said.
    #[serde(default)]
    pub completion_tokens: u64,
}

/// The body of a refusal.
#[derive(Deserialize)]
pub struct Refusal {
    /// What was wrong.
    pub error: RefusalError,
}

/// What was wrong. The message is not read: it may repeat what the user wrote.
#[derive(Deserialize)]
pub struct RefusalError {
    /// A stable word.
    pub code: Option<Value>,
    /// A kind.
    pub r#type: Option<Value>,
}

impl RefusalError {
    /// The provider's code if it is a plain word, so that it can be logged.
    pub fn word(&self) -> Option<&str> {
        [&self.code, &self.r#type].into_iter().flatten().filter_map(Value::as_str).find(|text| is_word(text))
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}
