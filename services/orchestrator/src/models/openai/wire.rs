//! The JSON of the OpenAI dialect, `POST /chat/completions`.
//! Source: <https://platform.openai.com/docs/api-reference/chat>.
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::models::openai::Cap;
use crate::models::usage::count;
use crate::models::wants::{Effort, Format, Schema, ToolChoice};
use crate::models::{Call, Message, ToolCall, ToolSpec, Wants};

/// The request.
#[derive(Serialize)]
pub struct Request<'a> {
    model: &'a str,
    messages: Vec<OutMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OutTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<OutChoice<'a>>,
    #[serde(flatten)]
    wants: OutWants<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OutChoice<'a> {
    Word(&'static str),
    Named { r#type: &'static str, function: OutName<'a> },
}

#[derive(Serialize)]
struct OutName<'a> {
    name: &'a str,
}

#[derive(Default, Serialize)]
struct OutWants<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<OutFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: OutSchema<'a> },
}

#[derive(Serialize)]
struct OutSchema<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// A call in the dialect, for the model as its provider names it.
pub fn request<'a>(call: &'a Call<'a>, model: &'a str, cap: Cap, stream: bool) -> Request<'a> {
    Request {
        model,
        messages: call.messages.iter().map(out_message).collect(),
        max_tokens: (cap == Cap::MaxTokens).then_some(call.output_tokens),
        max_completion_tokens: (cap == Cap::MaxCompletionTokens).then_some(call.output_tokens),
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        tools: call.tools.iter().map(|spec| out_tool(spec)).collect(),
        // Without tools the parameter is an error.
        tool_choice: (!call.tools.is_empty()).then(|| out_choice(call)),
        wants: call.wants.map(|wants| out_wants(wants, !call.tools.is_empty())).unwrap_or_default(),
    }
}

fn out_choice<'a>(call: &'a Call<'a>) -> OutChoice<'a> {
    match call.wants.map(|wants| &wants.choice) {
        _ if !call.may_call => OutChoice::Word("none"),
        Some(ToolChoice::None) => OutChoice::Word("none"),
        Some(ToolChoice::Required) => OutChoice::Word("required"),
        Some(ToolChoice::Named(name)) => OutChoice::Named { r#type: "function", function: OutName { name } },
        Some(ToolChoice::Auto) | None => OutChoice::Word("auto"),
    }
}

fn out_wants(wants: &Wants, has_tools: bool) -> OutWants<'_> {
    let Wants { temperature, top_p, presence_penalty, frequency_penalty, stop, seed, parallel, format, effort, .. } =
        wants;
    let response_format = match format {
        Format::Text => None,
        Format::Json => Some(OutFormat::JsonObject),
        Format::Schema(Schema { name, description, schema, strict }) => {
            Some(OutFormat::JsonSchema { json_schema: OutSchema { name, description, schema, strict: *strict } })
        }
    };
    OutWants {
        temperature: *temperature,
        top_p: *top_p,
        presence_penalty: *presence_penalty,
        frequency_penalty: *frequency_penalty,
        stop,
        seed: *seed,
        // Without tools the parameter is an error.
        parallel_tool_calls: parallel.filter(|_| has_tools),
        response_format,
        reasoning_effort: effort.map(Effort::name),
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
    let ToolSpec { name, description, parameters, strict } = spec;
    OutTool { r#type: "function", function: OutSpec { name, description, parameters, strict: *strict } }
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
    /// What it thinks, as xAI, vLLM and DeepSeek name it.
    pub reasoning_content: Option<String>,
    /// The same, as Ollama and OpenRouter name it.
    pub reasoning: Option<String>,
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

/// Tokens of an answer.
#[derive(Clone, Copy, Deserialize)]
pub struct AnswerUsage {
    /// Tokens read.
    #[serde(default, deserialize_with = "count")]
    pub prompt_tokens: Option<i64>,
    /// Tokens said.
    #[serde(default, deserialize_with = "count")]
    pub completion_tokens: Option<i64>,
    /// Both, and those that some count only here.
    #[serde(default, deserialize_with = "count")]
    pub total_tokens: Option<i64>,
}
