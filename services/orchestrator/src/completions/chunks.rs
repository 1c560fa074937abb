//! A completion as the chunks that a stream has.
use futures_util::stream::{self, Stream};
use tonic::Status;
use weft_core::new_id;
use weft_proto::orchestrator::v1::{
    ChatCompletionChunk, ChunkChoice, ChunkDelta, CompletionFunctionCall, CompletionToolCall, CompletionUsage,
};

use super::SIGNATURE;
use super::answer::{Ended, Head, Started, finish_reason};
use crate::api::chat::refuse;
use crate::error::Error;
use crate::models::ToolCall;
use crate::sanitizer::{CallPart, Part, Parts};

/// A completion that is being told. Dropping it is how a reader leaves.
pub struct Chunks {
    head: Head,
    include_usage: bool,
    parts: Parts,
    started: Started,
    stage: Stage,
}

/// How far the telling is.
enum Stage {
    /// Nothing was told.
    Silent,
    /// Something was.
    Telling,
    /// Only what it took is left.
    Told(Box<Ended>),
    /// All is told.
    Over,
}

impl Chunks {
    /// A completion that has been started.
    pub fn new(head: Head, include_usage: bool, parts: Parts, started: Started) -> Chunks {
        Chunks { head, include_usage, parts, started, stage: Stage::Silent }
    }

    /// The chunks as they come, with all that has arrived in each; an error is the last.
    pub fn stream(self) -> impl Stream<Item = Result<ChatCompletionChunk, Status>> + Send + 'static {
        stream::unfold(self, |mut chunks| async move {
            let chunk = chunks.next().await?;
            Some((chunk.map_err(refuse), chunks))
        })
    }

    async fn next(&mut self) -> Option<Result<ChatCompletionChunk, Error>> {
        let role = match std::mem::replace(&mut self.stage, Stage::Telling) {
            Stage::Silent => Some("assistant".to_owned()),
            Stage::Telling => None,
            Stage::Told(ended) => {
                self.stage = Stage::Over;
                return Some(Ok(self.usage(*ended)));
            }
            Stage::Over => {
                self.stage = Stage::Over;
                return None;
            }
        };
        if let Some(part) = self.parts.next().await {
            return Some(Ok(self.chunk(ChunkDelta { role, ..delta(part) }, None)));
        }
        self.stage = Stage::Over;
        let ended = match (&mut self.started.end).await.unwrap_or(Err(Error::Lost)) {
            Ok(ended) => ended,
            Err(error) => return Some(Err(error)),
        };
        let finish = finish_reason(&ended.completion).to_owned();
        let last = self.chunk(ChunkDelta { role, ..ChunkDelta::default() }, Some(finish));
        if self.include_usage {
            self.stage = Stage::Told(Box::new(ended));
        }
        Some(Ok(last))
    }

    fn chunk(&self, delta: ChunkDelta, finish_reason: Option<String>) -> ChatCompletionChunk {
        let choices = vec![ChunkChoice { index: 0, delta: Some(delta), finish_reason }];
        self.framed(self.parts.by().to_owned(), choices, None)
    }

    fn usage(&self, ended: Ended) -> ChatCompletionChunk {
        self.framed(ended.model, Vec::new(), Some(ended.usage))
    }

    fn framed(&self, model: String, choices: Vec<ChunkChoice>, usage: Option<CompletionUsage>) -> ChatCompletionChunk {
        let Head { id, created } = &self.head;
        let object = "chat.completion.chunk".to_owned();
        ChatCompletionChunk { id: id.clone(), object, created: *created, model, choices, usage }
    }
}

fn delta(part: Part) -> ChunkDelta {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let call = |CallPart { at, begins, json }| match begins {
        Some(call) => told_call(Some(at), at, ToolCall { arguments: json, ..call }),
        None => {
            let function = Some(CompletionFunctionCall { name: None, arguments: json });
            CompletionToolCall { index: i32::try_from(at).ok(), id: None, r#type: None, function }
        }
    };
    let tool_calls = part.calls.into_iter().map(call).collect();
    ChunkDelta { role: None, content: some(part.text), refusal: some(part.refusal), tool_calls }
}

/// A call, or its beginning in a chunk, as the client is told. What its model wants back with it goes along in its id.
pub fn told_call(index: Option<usize>, at: usize, call: ToolCall) -> CompletionToolCall {
    let ToolCall { mut id, name, arguments, signature } = call;
    // Its provider names no calls; among those of a whole conversation an id has to be the only one.
    if id == format!("call_{at}") {
        // Some providers take no id of more than 40 characters.
        id = format!("call_{}", new_id().replace('-', ""));
    }
    if let Some(signature) = signature {
        id.push_str(SIGNATURE);
        id.push_str(&signature);
    }
    CompletionToolCall {
        index: index.and_then(|index| i32::try_from(index).ok()),
        id: Some(id),
        r#type: Some("function".to_owned()),
        function: Some(CompletionFunctionCall { name: Some(name), arguments }),
    }
}
