//! A client's request, checked.
use std::ops::RangeInclusive;

use prost::Message as _;
use serde_json::Value;
use weft_proto::json::Kind;
use weft_proto::orchestrator::v1::{CompletionMessage, CreateChatCompletionRequest};

use super::{messages, tools};
use crate::agents::answer::conversation;
use crate::config::Config;
use crate::domain::chat::{Joining, Room, Turn};
use crate::domain::json;
use crate::error::Error;
use crate::models::wants::{Effort, Format, Schema, ToolChoice};
use crate::models::{Aim, Call, Message, ToolSpec, Wants};

/// Longest name of a model that is looked at, in bytes.
const NAME_BYTES: usize = 128;
/// Most texts that end an answer.
const STOPS: usize = 4;
/// Range of a penalty.
const PENALTIES: RangeInclusive<f64> = -2.0..=2.0;

/// A checked request. It has no `Debug`: what users write must not reach a log.
pub struct Params {
    /// Model to use; None: the product's default.
    pub model: Option<String>,
    /// Most tokens of the answer.
    pub output_tokens: u32,
    /// Whether a stream tells at its end what it took.
    pub include_usage: bool,
    /// The session that it belongs to.
    pub session: Option<Joining>,
    messages: Vec<Message>,
    tools: Vec<ToolSpec>,
    wants: Wants,
}

impl Params {
    /// Checks a request against the rules and limits; `streamed`: it is to be answered as a stream.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Unsupported`] or [`Error::TooLarge`], none of which repeats what the caller wrote.
    pub fn read(request: CreateChatCompletionRequest, limits: &Config, streamed: bool) -> Result<Params, Error> {
        let most = limits.weft_chat_context_bytes;
        if request.encoded_len() > most {
            return Err(Error::TooLarge(format!("the request is over the limit of {most} bytes; send less").into()));
        }
        check_fixed(&request, streamed)?;
        let room = Room { messages: limits.weft_chat_turns, bytes: most.saturating_sub(request.encoded_len()) };
        if request.model.len() > NAME_BYTES {
            return Err(wrong("model", "is longer than 128 bytes"));
        }
        let output_tokens = output_tokens(&request, limits.weft_model_output_tokens)?;
        let tools = tools::read(request.tools)?;
        let choice = tools::choice(request.tool_choice, &tools)?;
        let wants = Wants {
            temperature: within("temperature", request.temperature, 0.0..=2.0)?,
            top_p: within("top_p", request.top_p, f64::MIN_POSITIVE..=1.0)?,
            presence_penalty: within("presence_penalty", request.presence_penalty, PENALTIES)?,
            frequency_penalty: within("frequency_penalty", request.frequency_penalty, PENALTIES)?,
            stop: stop(request.stop)?,
            seed: request.seed,
            choice,
            parallel: request.parallel_tool_calls,
            format: request
                .response_format
                .map_or(Ok(Format::Text), |format| read_format(&json::object(format).into()))?,
            effort: request.reasoning_effort.as_deref().map(effort).transpose()?,
        };
        let include_usage = request.stream_options.is_some_and(|options| options.include_usage);
        let messages = messages::read(said(request.messages, request.message)?)?;
        let model = (!request.model.is_empty()).then_some(request.model);
        let id = request.session_id;
        let session = (!id.is_empty()).then_some(Joining { id, room });
        Ok(Params { model, output_tokens, include_usage, session, messages, tools, wants })
    }

    /// What the user says anew: the last message, if it is the user's.
    pub fn said(&self) -> Option<&str> {
        match self.messages.last() {
            Some(Message::User(text)) => Some(text),
            _ => None,
        }
    }

    /// What was said before in its session goes before its message, unless the client tells a conversation of its own.
    pub fn recall(&mut self, turns: &[Turn]) {
        if self.messages.len() == 1 {
            let said = std::mem::take(&mut self.messages);
            self.messages = conversation(turns).chain(said).collect();
        }
    }

    /// The tools, as a call takes them.
    pub fn tools(&self) -> Vec<&ToolSpec> {
        self.tools.iter().collect()
    }

    /// The request as a call of this model.
    pub fn call<'a>(&'a self, model: &'a str, tools: &'a [&'a ToolSpec]) -> Call<'a> {
        Call {
            model,
            messages: &self.messages,
            tools,
            may_call: self.wants.choice != ToolChoice::None,
            output_tokens: self.output_tokens,
            aim: Aim::Answer,
            wants: Some(&self.wants),
        }
    }
}

/// A parameter that breaks its rule.
pub fn wrong(name: impl Into<String>, problem: &str) -> Error {
    let name = name.into();
    let problem = format!("{name} {problem}").into();
    Error::Parameter { name: name.into(), problem }
}

/// A parameter that nothing here does anything with.
pub fn unsupported(name: impl Into<String>) -> Error {
    Error::Unsupported { name: name.into().into(), place: "here" }
}

/// What may only have one value.
fn check_fixed(request: &CreateChatCompletionRequest, streamed: bool) -> Result<(), Error> {
    if request.stream && !streamed {
        return Err(wrong("stream", "is for JSON; call StreamChatCompletion"));
    }
    if request.stream_options.is_some() && !streamed {
        return Err(wrong("stream_options", "goes with stream only"));
    }
    if request.n.is_some_and(|n| n != 1) {
        return Err(unsupported("n"));
    }
    if request.logprobs == Some(true) {
        return Err(unsupported("logprobs"));
    }
    Ok(())
}

fn output_tokens(request: &CreateChatCompletionRequest, most: u32) -> Result<u32, Error> {
    let (name, asked) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(asked), _) => ("max_completion_tokens", asked),
        (None, Some(asked)) => ("max_tokens", asked),
        (None, None) => return Ok(most),
    };
    if asked < 1 {
        return Err(wrong(name, "must be at least 1"));
    }
    Ok(u32::try_from(asked).unwrap_or(most).min(most))
}

fn within(name: &str, asked: Option<f64>, range: RangeInclusive<f64>) -> Result<Option<f64>, Error> {
    match asked {
        // What is no number is in no range.
        Some(asked) if !range.contains(&asked) => Err(wrong(name, "is out of its range")),
        asked => Ok(asked),
    }
}

fn stop(asked: Option<weft_proto::json::Value>) -> Result<Vec<String>, Error> {
    let text = |value: weft_proto::json::Value| match value.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let stops = match asked.and_then(|value| value.kind) {
        None | Some(Kind::NullValue(_)) => Some(Vec::new()),
        Some(Kind::StringValue(one)) if !one.is_empty() => Some(vec![one]),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(text).collect(),
        Some(_) => None,
    };
    stops
        .filter(|stops: &Vec<String>| stops.len() <= STOPS)
        .ok_or(wrong("stop", "must be a text or up to 4, none empty"))
}

fn effort(asked: &str) -> Result<Effort, Error> {
    Effort::named(asked).ok_or(wrong("reasoning_effort", "must be minimal, low, medium or high"))
}

fn read_format(asked: &Value) -> Result<Format, Error> {
    let given = &asked["json_schema"];
    match asked["type"].as_str() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") => {
            let name = given["name"].as_str().filter(|name| tools::is_name(name));
            let name = name.ok_or(wrong("response_format.json_schema.name", tools::NAME_RULE))?.to_owned();
            let schema = given.get("schema").filter(|schema| schema.is_object()).cloned();
            let schema = schema.ok_or(wrong("response_format.json_schema.schema", "must be a JSON schema"))?;
            let description = given["description"].as_str().unwrap_or_default().to_owned();
            Ok(Format::Schema(Schema { name, description, schema, strict: given["strict"].as_bool() }))
        }
        _ => Err(wrong("response_format.type", "must be text, json_object or json_schema")),
    }
}

/// The messages, or the only one.
fn said(messages: Vec<CompletionMessage>, message: String) -> Result<Vec<CompletionMessage>, Error> {
    match (messages.is_empty(), message.trim().is_empty()) {
        (false, true) => Ok(messages),
        (true, false) => {
            let content = Some(Kind::StringValue(message).into());
            Ok(vec![CompletionMessage { role: "user".to_owned(), content, ..CompletionMessage::default() }])
        }
        (true, true) => Err(wrong("messages", "is empty; say what you want")),
        (false, false) => Err(wrong("message", "goes without messages")),
    }
}
