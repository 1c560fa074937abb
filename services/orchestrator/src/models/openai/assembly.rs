//! Puts a streamed answer together again.
use crate::models::openai::wire::{Answer, AnswerChoice, CallFragment, Delta};
use crate::models::{Break, Completion, ModelError, ToolCall, Usage};

/// Most tool calls in one answer; more is nonsense.
const TOOL_CALLS: usize = 64;

/// An answer so far.
#[derive(Default)]
pub struct Assembly {
    text: String,
    calls: Vec<Fragmented>,
    usage: Option<Usage>,
    finished: bool,
    refused: bool,
}

/// A tool call so far.
struct Fragmented {
    index: Option<u32>,
    call: ToolCall,
}

impl Assembly {
    /// Adds a chunk and gives the text in it.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if the provider tells of an error or the chunk makes no sense.
    pub fn add(&mut self, chunk: Answer) -> Result<String, ModelError> {
        if chunk.error.is_some() {
            return Err(ModelError::Interrupted(Break::Told));
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens });
        }
        let Some(AnswerChoice { delta, finish_reason }) = chunk.choices.into_iter().next() else {
            return Ok(String::new());
        };
        let text = self.delta(delta)?;
        if let Some(reason) = finish_reason.filter(|reason| !reason.is_empty()) {
            self.finished = true;
            self.refused |= reason == "content_filter";
        }
        Ok(text)
    }

    /// Adds a plain answer, which is whole by being well-formed, and gives the text in it.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if the provider tells of an error or there is no answer in it.
    pub fn add_whole(&mut self, answer: Answer) -> Result<String, ModelError> {
        if answer.choices.is_empty() && answer.error.is_none() {
            return Err(ModelError::Interrupted(Break::Malformed));
        }
        let text = self.add(answer)?;
        self.finished = true;
        Ok(text)
    }

    /// Whether anything was said or called.
    pub fn has_begun(&self) -> bool {
        !self.text.is_empty() || !self.calls.is_empty()
    }

    /// Whether the provider said that this is all.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The whole answer.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if it never finished.
    pub fn complete(self) -> Result<Completion, ModelError> {
        if !self.finished {
            return Err(ModelError::Interrupted(Break::Cut));
        }
        let named = |(at, mut part): (usize, Fragmented)| {
            if part.call.id.is_empty() {
                part.call.id = format!("call_{at}");
            }
            part.call
        };
        let calls = self.calls.into_iter().enumerate().map(named).collect();
        Ok(Completion { text: self.text, calls, usage: self.usage, refused: self.refused })
    }

    fn delta(&mut self, delta: Delta) -> Result<String, ModelError> {
        self.refused |= delta.refusal.is_some_and(|text| !text.is_empty());
        for fragment in delta.tool_calls.unwrap_or_default() {
            self.fragment(fragment)?;
        }
        let text = delta.content.unwrap_or_default();
        self.text.push_str(&text);
        Ok(text)
    }

    fn fragment(&mut self, fragment: CallFragment) -> Result<(), ModelError> {
        let at = match self.position(&fragment) {
            Some(at) => at,
            None if self.calls.len() >= TOOL_CALLS => return Err(ModelError::Interrupted(Break::TooLarge)),
            None => {
                self.calls.push(Fragmented { index: fragment.index, call: ToolCall::default() });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at].call;
        if let Some(id) = fragment.id.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        // Some providers repeat the whole name in every fragment, others split it.
        if let Some(name) = fragment.function.name.filter(|name| call.arguments.is_empty() && *name != call.name) {
            call.name.push_str(&name);
        }
        call.arguments.push_str(&fragment.function.arguments.unwrap_or_default());
        Ok(())
    }

    /// Which call a fragment belongs to. Without an index a new id begins a new call, and anything else goes on
    /// with the last one.
    fn position(&self, fragment: &CallFragment) -> Option<usize> {
        if fragment.index.is_some() {
            return self.calls.iter().position(|known| known.index == fragment.index);
        }
        match fragment.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => self.calls.iter().position(|known| known.call.id == id),
            None => self.calls.len().checked_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn assemble(chunks: impl IntoIterator<Item = Value>) -> Result<Completion, ModelError> {
        let mut assembly = Assembly::default();
        for chunk in chunks {
            assembly.add(serde_json::from_value(chunk).unwrap())?;
        }
        assembly.complete()
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    #[test]
    fn arguments_split_at_every_place_come_together() {
        let arguments = r#"{"title":"Llamar a Ána","note":"\"}{"}"#;
        for at in (0..=arguments.len()).filter(|&at| arguments.is_char_boundary(at)) {
            let (left, right) = arguments.split_at(at);
            let opening = json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "create_task", "arguments": ""}});
            let piece = |text: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]});
            let whole = assemble([
                delta(json!({"role": "assistant", "content": null, "tool_calls": [opening]})),
                delta(piece(left)),
                delta(piece(right)),
                end("tool_calls"),
            ])
            .unwrap();
            let call =
                ToolCall { id: "c1".to_owned(), name: "create_task".to_owned(), arguments: arguments.to_owned() };
            assert_eq!(whole.calls, [call]);
        }
    }

    #[test]
    fn two_calls_may_be_told_in_turns() {
        let piece =
            |index: u32, text: &str| delta(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}));
        let opening = |index: u32, id: &str, name: &str| {
            delta(json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name}}]}))
        };
        let whole = assemble([
            opening(0, "a", "list_tasks"),
            opening(1, "b", "delete_task"),
            piece(1, "{\"task"),
            piece(0, "{"),
            piece(1, "_id\":\"1\"}"),
            piece(0, "}"),
            end("tool_calls"),
        ])
        .unwrap();
        let told: Vec<(&str, &str)> =
            whole.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(told, [("list_tasks", "{}"), ("delete_task", "{\"task_id\":\"1\"}")]);
    }

    #[test]
    fn calls_without_index_or_id_are_told_apart() {
        let whole = assemble([
            delta(json!({"tool_calls": [{"id": "a", "function": {"name": "list_tasks", "arguments": "{"}}]})),
            delta(json!({"tool_calls": [{"function": {"arguments": "}"}}]})),
            delta(json!({"tool_calls": [{"id": "b", "function": {"name": "list_tasks", "arguments": "{}"}}]})),
            end("tool_calls"),
        ])
        .unwrap();
        assert_eq!(whole.calls.len(), 2);
        assert_eq!(whole.calls[0].arguments, "{}");
        let nameless =
            assemble([delta(json!({"tool_calls": [{"function": {"name": "x"}}]})), end("tool_calls")]).unwrap();
        assert_eq!(nameless.calls[0].id, "call_0");
    }

    #[test]
    fn a_name_may_be_repeated_or_split() {
        let name = |text: &str| delta(json!({"tool_calls": [{"index": 0, "function": {"name": text}}]}));
        for chunks in [vec![name("list_tasks"), name("list_tasks")], vec![name("list_"), name("tasks")]] {
            let whole = assemble(chunks.into_iter().chain([end("tool_calls")])).unwrap();
            assert_eq!(whole.calls[0].name, "list_tasks");
        }
    }

    #[test]
    fn usage_is_taken_from_wherever_it_comes_and_zero_stays_zero() {
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 7}});
        let whole = assemble([delta(json!({"content": "hi"})), end("stop"), usage]).unwrap();
        assert_eq!(whole.usage, Some(Usage { prompt_tokens: 0, completion_tokens: 7 }));
        assert_eq!(assemble([end("stop")]).unwrap().usage, None);
    }

    #[test]
    fn an_answer_that_never_finished_is_cut() {
        assert_eq!(assemble([delta(json!({"content": "hi"}))]), Err(ModelError::Interrupted(Break::Cut)));
    }

    #[test]
    fn an_error_in_the_middle_is_an_error() {
        let told = json!({"error": {"message": "overloaded", "code": 529}});
        assert_eq!(assemble([delta(json!({"content": "hi"})), told]), Err(ModelError::Interrupted(Break::Told)));
    }

    #[test]
    fn a_filter_and_a_refusal_are_noticed() {
        assert!(assemble([end("content_filter")]).unwrap().refused);
        assert!(assemble([delta(json!({"refusal": "no"})), end("stop")]).unwrap().refused);
    }

    #[test]
    fn calls_without_end_are_nonsense() {
        let call = |index: usize| delta(json!({"tool_calls": [{"index": index, "function": {"name": "list_tasks"}}]}));
        assert_eq!(assemble((0..100).map(call)), Err(ModelError::Interrupted(Break::TooLarge)));
    }
}
