//! How many tokens a prompt is, before anybody has counted them.
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::models::{Call, Message, ToolCall, Wants};

/// What a message, a tool or a call of one is wrapped in, at most, in tokens: roles, names of fields, delimiters.
const WRAPPING: usize = 16;
/// What an answer is opened with, and what a provider says of tools by itself, at most, in tokens.
const OPENING: usize = 512;
/// So many bytes are a token in most texts.
const BYTES_PER_TOKEN: usize = 4;

/// The most tokens that this prompt can be. No tokenizer of any vendor makes more tokens than bytes, and which one a model
/// has is only known to its vendor.
pub fn most(call: &Call<'_>) -> i64 {
    let is_bare = call.tools.is_empty() && call.wants.is_none_or(|wants| wants.format.is_text());
    let tools = if is_bare { 0 } else { OPENING };
    let parts = call.messages.len() + call.tools.len() + calls(call.messages).count();
    count(bytes(call) + (parts + 1) * WRAPPING + tools)
}

/// Bytes of all that a model is told.
fn bytes(call: &Call<'_>) -> usize {
    let messages = call.messages.iter().map(|message| match message {
        Message::System(text) | Message::User(text) | Message::Assistant { text, .. } => text.len(),
        Message::Tool { call_id, content } => call_id.len() + content.len(),
    });
    let calls = calls(call.messages).map(|call| call.id.len() + call.name.len() + call.arguments.len());
    let tools =
        call.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.parameters.to_string().len());
    messages.chain(calls).chain(tools).chain(call.wants.map(Wants::bytes)).sum()
}

fn calls(messages: &[Message]) -> impl Iterator<Item = &ToolCall> {
    messages.iter().flat_map(|message| match message {
        Message::Assistant { calls, .. } => calls.as_slice(),
        _ => &[],
    })
}

fn count(tokens: usize) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

/// What prompts probably are, for answers that broke off before their provider said. Of each model the last whole answer is
/// known: the same prompt again is what it was then, and no other prompt says anything of it.
#[derive(Default)]
pub struct Likely {
    told: Mutex<HashMap<String, Told>>,
    hashes: RandomState,
}

/// What a provider said of a prompt.
#[derive(Clone, Copy)]
struct Told {
    /// Hash of the prompt.
    prompt: u64,
    tokens: i64,
}

impl Likely {
    /// Tokens that this prompt probably is, never more than [`most`].
    pub fn of(&self, call: &Call<'_>) -> i64 {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(call.model).copied();
        let same = told.filter(|told| told.prompt == self.hash(call));
        same.map_or_else(|| count(bytes(call) / BYTES_PER_TOKEN), |told| told.tokens).min(most(call))
    }

    /// A provider said that this prompt was so many tokens. What it cannot be is not believed.
    pub fn learn(&self, call: &Call<'_>, tokens: i64) {
        if (1..=most(call)).contains(&tokens) {
            let told = Told { prompt: self.hash(call), tokens };
            self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(call.model.to_owned(), told);
        }
    }

    /// Of all that a model is told.
    fn hash(&self, call: &Call<'_>) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        for message in call.messages {
            match message {
                Message::System(text) => (0, text).hash(&mut hasher),
                Message::User(text) => (1, text).hash(&mut hasher),
                Message::Assistant { text, .. } => (2, text).hash(&mut hasher),
                Message::Tool { call_id, content } => (3, call_id, content).hash(&mut hasher),
            }
        }
        for call in calls(call.messages) {
            (&call.id, &call.name, &call.arguments).hash(&mut hasher);
        }
        for tool in call.tools {
            (&tool.name, &tool.description, tool.parameters.to_string()).hash(&mut hasher);
        }
        call.wants.map(Wants::bytes).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::Aim;
    use crate::models::ToolSpec;

    fn call<'a>(messages: &'a [Message], tools: &'a [&'a ToolSpec]) -> Call<'a> {
        Call { model: "m", messages, tools, may_call: true, output_tokens: 8, aim: Aim::Answer, wants: None }
    }

    #[test]
    fn everything_that_a_model_is_told_counts() {
        let spec = ToolSpec {
            name: "list_tasks".into(),
            description: "lists".into(),
            parameters: json!({"type": "object"}),
            strict: None,
        };
        let tools = [&spec];
        let wanted = ToolCall { id: "c1".into(), name: "list_tasks".into(), arguments: "{}".into(), signature: None };
        let messages = [
            Message::System("be kind".to_owned()),
            Message::User("привет".to_owned()),
            Message::Assistant { text: "well".to_owned(), calls: vec![wanted] },
            Message::Tool { call_id: "c1".to_owned(), content: "[]".to_owned() },
        ];
        let text = 7 + 12 + 4 + (2 + 10 + 2) + (2 + 2);
        assert_eq!(bytes(&call(&messages, &[])), text);
        assert_eq!(bytes(&call(&messages, &tools)), text + 10 + 5 + 17);
        let more = most(&call(&messages, &tools)) - most(&call(&messages, &[]));
        assert_eq!(more, count(10 + 5 + 17 + WRAPPING + OPENING));
    }

    #[test]
    fn a_prompt_is_what_its_provider_said_of_the_same_one() {
        let likely = Likely::default();
        let hundred = [Message::User("x".repeat(100))];
        assert_eq!(likely.of(&call(&hundred, &[])), 25);
        likely.learn(&call(&hundred, &[]), 37);
        assert_eq!(likely.of(&call(&hundred, &[])), 37);
        let others = [Message::User("y".repeat(100))];
        assert_eq!(likely.of(&call(&others, &[])), 25, "somebody else's prompt says nothing of it");
    }

    #[test]
    fn what_a_prompt_cannot_be_is_not_learned() {
        let likely = Likely::default();
        let hundred = [Message::User("x".repeat(100))];
        for absurd in [0, -7, 1_000_000, i64::MAX] {
            likely.learn(&call(&hundred, &[]), absurd);
            assert_eq!(likely.of(&call(&hundred, &[])), 25);
        }
    }
}
