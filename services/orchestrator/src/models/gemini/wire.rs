//! The JSON of the Gemini dialect, `POST /v1beta/models/<model>:generateContent`.
//! Source: <https://ai.google.dev/api/generate-content>.
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::models::turns::{self, Conversation, Turn};
use crate::models::usage::count;
use crate::models::wants::{Effort, Format, Schema, ToolChoice};
use crate::models::{Call, ToolSpec};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<OutContent<'a>>,
    contents: Vec<OutContent<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<OutTools<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<Value>,
    generation_config: OutLimits<'a>,
}

#[derive(Serialize)]
struct OutContent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<OutPart<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum OutPart<'a> {
    Text(&'a str),
    FunctionResponse(OutResult<'a>),
    #[serde(untagged, rename_all = "camelCase")]
    Call {
        function_call: OutCall<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct OutCall<'a> {
    name: &'a str,
    args: Map<String, Value>,
}

#[derive(Serialize)]
struct OutResult<'a> {
    name: &'a str,
    response: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutTools<'a> {
    function_declarations: Vec<OutTool<'a>>,
}

#[derive(Serialize)]
struct OutTool<'a> {
    name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(rename = "parametersJsonSchema", skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct OutLimits<'a> {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<OutThinking>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum OutThinking {
    ThinkingLevel(&'static str),
    ThinkingBudget(u32),
}

/// A call in the dialect.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn body(call: &Call<'_>, model: &str) -> serde_json::Result<Vec<u8>> {
    let conversation = Conversation::of(call.messages);
    let system = conversation.system.as_str();
    let is_clients = call.wants.is_some();
    let declarations: Vec<OutTool<'_>> = call.tools.iter().map(|spec| out_tool(spec, is_clients)).collect();
    let has_tools = !declarations.is_empty();
    serde_json::to_vec(&Request {
        system_instruction: (!system.is_empty()).then(|| OutContent { role: None, parts: vec![OutPart::Text(system)] }),
        contents: conversation.turns.iter().map(out_turn).collect(),
        tools: if has_tools { vec![OutTools { function_declarations: declarations }] } else { Vec::new() },
        tool_config: has_tools.then(|| json!({"functionCallingConfig": calling(call)})),
        generation_config: limits(call, model),
    })
}

/// Which tools may be called, or have to be.
fn calling(call: &Call<'_>) -> Value {
    let is_strict = call.tools.iter().any(|spec| spec.strict == Some(true));
    match call.wants.map(|wants| &wants.choice) {
        _ if !call.may_call => json!({"mode": "NONE"}),
        Some(ToolChoice::None) => json!({"mode": "NONE"}),
        Some(ToolChoice::Required) => json!({"mode": "ANY"}),
        Some(ToolChoice::Named(name)) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        Some(ToolChoice::Auto) if is_strict => json!({"mode": "VALIDATED"}),
        Some(ToolChoice::Auto) | None => json!({"mode": "AUTO"}),
    }
}

fn limits<'a>(call: &Call<'a>, model: &str) -> OutLimits<'a> {
    let max_output_tokens = call.output_tokens;
    let Some(wants) = call.wants else { return OutLimits { max_output_tokens, ..OutLimits::default() } };
    OutLimits {
        max_output_tokens,
        temperature: wants.temperature,
        top_p: wants.top_p,
        presence_penalty: wants.presence_penalty,
        frequency_penalty: wants.frequency_penalty,
        stop_sequences: &wants.stop,
        seed: wants.seed,
        response_mime_type: (!wants.format.is_text()).then_some("application/json"),
        response_json_schema: match &wants.format {
            Format::Schema(Schema { schema, .. }) => Some(schema),
            Format::Text | Format::Json => None,
        },
        thinking_config: wants.effort.map(|effort| thinking(effort, model)),
    }
}

/// Models before Gemini 3 have a number of tokens for it, later ones a word.
fn thinking(effort: Effort, model: &str) -> OutThinking {
    if !model.starts_with("gemini-2") {
        return OutThinking::ThinkingLevel(effort.name());
    }
    OutThinking::ThinkingBudget(match effort {
        Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High => 24_576,
    })
}

fn out_turn<'a>(turn: &Turn<'a>) -> OutContent<'a> {
    let role = if turn.is_models { "model" } else { "user" };
    OutContent { role: Some(role), parts: turn.parts.iter().map(out_part).collect() }
}

fn out_part<'a>(part: &turns::Part<'a>) -> OutPart<'a> {
    match *part {
        turns::Part::Text(text) => OutPart::Text(text),
        turns::Part::Call(call) => OutPart::Call {
            // A model that wrote no JSON object was told so in the result; here one is required.
            function_call: OutCall {
                name: &call.name,
                args: serde_json::from_str(&call.arguments).unwrap_or_default(),
            },
            thought_signature: call.signature.as_deref(),
        },
        // Calls and results are matched by name and order.
        turns::Part::Result { name, content, .. } => {
            OutPart::FunctionResponse(OutResult { name, response: object(content) })
        }
    }
}

/// A result as the object that is required.
fn object(content: &str) -> Map<String, Value> {
    match serde_json::from_str(content) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => Map::from_iter([("result".to_owned(), other)]),
        Err(_) => Map::from_iter([("result".to_owned(), Value::from(content))]),
    }
}

/// A client's schema goes as it is; ours are written in the subset that every model of the provider reads.
fn out_tool(spec: &ToolSpec, is_clients: bool) -> OutTool<'_> {
    let (name, description) = (&*spec.name, &*spec.description);
    // An object without properties is refused.
    let has_properties = spec.parameters["properties"].as_object().is_some_and(|properties| !properties.is_empty());
    OutTool {
        name,
        description,
        parameters: (has_properties && !is_clients).then(|| without_unknown(spec.parameters.clone())),
        json_schema: (has_properties && is_clients).then_some(&spec.parameters),
    }
}

/// The schema without the keyword that the provider's subset of JSON schema lacks and refuses.
fn without_unknown(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(fields) => {
            // A property may have this name; a keyword is no schema.
            if fields.get("additionalProperties").is_some_and(Value::is_boolean) {
                fields.shift_remove("additionalProperties");
            }
            fields.values_mut().for_each(|field| *field = without_unknown(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_unknown(item.take())),
        _ => {}
    }
    schema
}

/// A plain answer, or one chunk of a streamed one: they do not differ.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// One is asked for.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// Tokens so far.
    pub usage_metadata: Option<Tokens>,
    /// Whether the prompt was refused.
    pub prompt_feedback: Option<Feedback>,
    /// An error under status 200; its text is not read, it may repeat what the user wrote.
    pub error: Option<IgnoredAny>,
}

/// What is said of the prompt.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Feedback {
    /// Why it was refused.
    pub block_reason: Option<String>,
}

/// An answer, or a piece of one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// What was said.
    pub content: Option<Content>,
    /// Why it ended; absent while it goes on.
    pub finish_reason: Option<String>,
}

/// What was said.
#[derive(Default, Deserialize)]
pub struct Content {
    /// In order.
    #[serde(default)]
    pub parts: Vec<Part>,
}

/// A part of what was said.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Text.
    pub text: Option<String>,
    /// Whether the text is a thought.
    #[serde(default)]
    pub thought: bool,
    /// What the model wants back with its call.
    pub thought_signature: Option<String>,
    /// A call of a tool, always whole.
    pub function_call: Option<FunctionCall>,
}

/// A call of a tool.
#[derive(Deserialize)]
pub struct FunctionCall {
    /// Only some models give one.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(default = "no_arguments")]
    pub args: Value,
}

fn no_arguments() -> Value {
    json!({})
}

/// Tokens of an answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Read, those from the cache too.
    #[serde(default, deserialize_with = "count")]
    pub prompt_token_count: Option<i64>,
    /// Read in results of the provider's own tools.
    #[serde(default, deserialize_with = "count")]
    pub tool_use_prompt_token_count: Option<i64>,
    /// Said.
    #[serde(default, deserialize_with = "count")]
    pub candidates_token_count: Option<i64>,
    /// Thought.
    #[serde(default, deserialize_with = "count")]
    pub thoughts_token_count: Option<i64>,
    /// All.
    #[serde(default, deserialize_with = "count")]
    pub total_token_count: Option<i64>,
}
