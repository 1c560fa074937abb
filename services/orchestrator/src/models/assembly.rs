//! Puts an answer together from its pieces.
use serde::de::IgnoredAny;

use crate::models::event::{Event, Finish, Fragment};
use crate::models::{Break, Completion, ModelError, Piece, ToolCall, Usage};

/// Most tool calls in one answer; more is nonsense.
const TOOL_CALLS: usize = 64;

/// An answer so far.
#[derive(Default)]
pub struct Assembly {
    text: String,
    reasoning: String,
    calls: Vec<Fragmented>,
    usage: Usage,
    finish: Option<Finish>,
    refusal: String,
    declined: bool,
    /// Calls whose beginning was told; so far the first ones.
    told: usize,
}

/// A tool call so far.
struct Fragmented {
    index: Option<u32>,
    call: ToolCall,
}

impl Assembly {
    /// Adds a piece, and to `told` what can be passed on of it. A tool call begins there once its name is surely whole.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if there are more tool calls than make sense.
    pub fn add(&mut self, event: Event, told: &mut Vec<Piece>) -> Result<(), ModelError> {
        match event {
            Event::Text(text) => {
                self.text.push_str(&text);
                told.push(Piece::Text(text));
            }
            Event::Reasoning(text) => self.reasoning.push_str(&text),
            Event::Fragment(fragment) => self.fragment(fragment, told)?,
            Event::Call(call) => {
                let json = call.arguments.clone();
                let at = self.begin(None, call)?;
                self.open(told);
                told.push(Piece::Arguments { at, json });
            }
            Event::Declined(text) => {
                self.declined = true;
                self.refusal.push_str(&text);
                told.push(Piece::Refusal(text));
            }
            Event::Usage(usage) => self.usage.update(usage),
            Event::Finish(finish) => {
                self.finish = Some(finish);
                self.open(told);
            }
            Event::End => {}
        }
        Ok(())
    }

    /// Tells the beginnings of calls that were not told yet.
    fn open(&mut self, told: &mut Vec<Piece>) {
        for (at, Fragmented { call, .. }) in self.calls.iter_mut().enumerate().skip(self.told) {
            if call.id.is_empty() {
                call.id = format!("call_{at}");
            }
            let ToolCall { id, name, signature, .. } = call.clone();
            told.push(Piece::Call { at, id, name, signature });
        }
        self.told = self.calls.len();
    }

    /// Tokens as far as they are known.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the provider said that this is all.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// The whole answer.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if it never finished.
    pub fn complete(mut self) -> Result<Completion, ModelError> {
        let finish = self.finish.ok_or(ModelError::Interrupted(Break::Cut))?;
        // What came behind the end has a name too.
        self.open(&mut Vec::new());
        let calls: Vec<ToolCall> = self.calls.into_iter().map(|part| part.call).collect();
        let finish = match finish {
            _ if self.declined => Finish::Refused,
            // Not every provider has a word of its own for it.
            Finish::Stop if !calls.is_empty() => Finish::ToolCalls,
            other => other,
        };
        let Assembly { text, refusal, reasoning, .. } = self;
        Ok(Completion { text, refusal, reasoning, calls, finish })
    }

    fn begin(&mut self, index: Option<u32>, call: ToolCall) -> Result<usize, ModelError> {
        if self.calls.len() >= TOOL_CALLS {
            return Err(ModelError::Interrupted(Break::TooLarge));
        }
        self.calls.push(Fragmented { index, call });
        Ok(self.calls.len() - 1)
    }

    fn fragment(&mut self, fragment: Fragment, told: &mut Vec<Piece>) -> Result<(), ModelError> {
        let at = match self.position(&fragment) {
            Some(at) => at,
            None => {
                // Where another call begins, the name of the one before is whole.
                self.open(told);
                self.begin(fragment.index, ToolCall::default())?
            }
        };
        let call = &mut self.calls[at].call;
        if let Some(id) = fragment.id.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        // Some providers repeat the whole name in every fragment, others split it.
        if let Some(name) = fragment.name.filter(|name| call.arguments.is_empty() && *name != call.name) {
            call.name.push_str(&name);
        }
        call.arguments.push_str(&fragment.arguments);
        if !fragment.arguments.is_empty() {
            if self.told <= at {
                self.open(told);
            }
            told.push(Piece::Arguments { at, json: fragment.arguments });
        }
        Ok(())
    }

    /// Which call a fragment belongs to; none: it begins one. Without an index a new id begins a new call, and anything
    /// else goes on with the last one.
    fn position(&self, fragment: &Fragment) -> Option<usize> {
        let id = fragment.id.as_deref().filter(|id| !id.is_empty());
        let by_id = || self.calls.iter().position(|at| at.index == fragment.index && id == Some(at.call.id.as_str()));
        let known = match (fragment.index, id) {
            (Some(_), _) => by_id().or_else(|| self.calls.iter().rposition(|at| at.index == fragment.index)),
            (None, Some(_)) => by_id(),
            (None, None) => self.calls.len().checked_sub(1),
        };
        known.filter(|at| !begins_another(&self.calls[*at].call, id, fragment))
    }
}

/// Whether a fragment that would go on with this call is the beginning of another one: some providers give all calls the
/// same index or none. A new id alone says nothing, because others make one up for every fragment.
fn begins_another(call: &ToolCall, id: Option<&str>, fragment: &Fragment) -> bool {
    let is_named = fragment.name.as_ref().is_some_and(|name| !name.is_empty());
    // An empty text is not whole: its arguments are still to come.
    let is_whole = || serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok();
    let is_other = match id {
        Some(id) => !call.id.is_empty() && call.id != id,
        None => fragment.arguments.trim_start().starts_with('{'),
    };
    is_named && is_other && is_whole()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assemble(events: impl IntoIterator<Item = Event>) -> Result<Completion, ModelError> {
        let mut assembly = Assembly::default();
        for event in events {
            assembly.add(event, &mut Vec::new())?;
        }
        assembly.complete()
    }

    fn fragment(index: Option<u32>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Event {
        let (id, name) = (id.map(str::to_owned), name.map(str::to_owned));
        Event::Fragment(Fragment { index, id, name, arguments: arguments.to_owned() })
    }

    const END: Event = Event::Finish(Finish::ToolCalls);

    #[test]
    fn arguments_split_at_every_place_come_together() {
        let arguments = r#"{"title":"Llamar a Ána","note":"\"}{"}"#;
        for at in (0..=arguments.len()).filter(|&at| arguments.is_char_boundary(at)) {
            let (left, right) = arguments.split_at(at);
            let whole = assemble([
                fragment(Some(0), Some("c1"), Some("create_task"), ""),
                fragment(Some(0), None, None, left),
                fragment(Some(0), None, None, right),
                END,
            ])
            .unwrap();
            let (id, name) = ("c1".to_owned(), "create_task".to_owned());
            assert_eq!(whole.calls, [ToolCall { id, name, arguments: arguments.to_owned(), signature: None }]);
        }
    }

    #[test]
    fn two_calls_may_be_told_in_turns() {
        let whole = assemble([
            fragment(Some(0), Some("a"), Some("list_tasks"), ""),
            fragment(Some(1), Some("b"), Some("delete_task"), ""),
            fragment(Some(1), None, None, "{\"task"),
            fragment(Some(0), None, None, "{"),
            fragment(Some(1), None, None, "_id\":\"1\"}"),
            fragment(Some(0), None, None, "}"),
            END,
        ])
        .unwrap();
        let told: Vec<(&str, &str)> =
            whole.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(told, [("list_tasks", "{}"), ("delete_task", "{\"task_id\":\"1\"}")]);
    }

    #[test]
    fn calls_with_one_index_for_all_or_none_are_told_apart() {
        for index in [Some(0), None] {
            for ids in [[Some("a"), Some("b")], [None, None]] {
                let whole = assemble([
                    fragment(index, ids[0], Some("list_tasks"), "{"),
                    fragment(index, None, None, "}"),
                    fragment(index, ids[1], Some("delete_task"), "{\"id\""),
                    fragment(index, None, None, ":1}"),
                    END,
                ])
                .unwrap();
                let told: Vec<(&str, &str)> =
                    whole.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
                assert_eq!(told, [("list_tasks", "{}"), ("delete_task", "{\"id\":1}")], "{index:?} {ids:?}");
            }
        }
    }

    #[test]
    fn calls_of_one_index_may_be_told_in_turns_by_their_ids() {
        let whole = assemble([
            fragment(Some(0), Some("a"), Some("list_tasks"), "{}"),
            fragment(Some(0), Some("b"), Some("delete_task"), "{\"id\""),
            fragment(Some(0), Some("a"), None, " "),
            fragment(Some(0), Some("b"), None, ":1}"),
            END,
        ])
        .unwrap();
        let told: Vec<&str> = whole.calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(told, ["{} ", "{\"id\":1}"]);
    }

    #[test]
    fn a_call_whose_fragments_have_an_id_each_or_its_name_each_is_one() {
        let random = assemble([
            fragment(Some(0), Some("x1"), Some("list_tasks"), "{"),
            fragment(Some(0), Some("x2"), None, "\"a\":1"),
            fragment(Some(0), Some("x3"), None, "}"),
            END,
        ]);
        let named = assemble([
            fragment(Some(0), None, Some("list_tasks"), "{"),
            fragment(Some(0), None, Some("list_tasks"), "\"a\":1"),
            fragment(Some(0), None, Some("list_tasks"), "}"),
            fragment(Some(0), None, Some("list_tasks"), ""),
            fragment(Some(0), None, Some("list_tasks"), "\n"),
            END,
        ]);
        let both = assemble([
            fragment(Some(0), Some("x1"), Some("list_tasks"), "{"),
            fragment(Some(0), Some("x2"), Some("list_tasks"), "\"a\":1"),
            fragment(Some(0), Some("x3"), Some("list_tasks"), "}"),
            END,
        ]);
        for whole in [random.unwrap(), named.unwrap(), both.unwrap()] {
            assert_eq!(whole.calls.len(), 1);
            assert_eq!(
                (whole.calls[0].name.as_str(), whole.calls[0].arguments.trim_end()),
                ("list_tasks", "{\"a\":1}")
            );
        }
    }

    #[test]
    fn calls_without_index_or_id_are_told_apart() {
        let whole = assemble([
            fragment(None, Some("a"), Some("list_tasks"), "{"),
            fragment(None, None, None, "}"),
            fragment(None, Some("b"), Some("list_tasks"), "{}"),
            END,
        ])
        .unwrap();
        assert_eq!(whole.calls.len(), 2);
        assert_eq!(whole.calls[0].arguments, "{}");
        let whole = |name: &str| Event::Call(ToolCall { name: name.to_owned(), ..ToolCall::default() });
        let nameless = assemble([whole("x"), whole("x"), Event::Finish(Finish::Stop)]).unwrap();
        assert_eq!((nameless.calls[0].id.as_str(), nameless.calls[1].id.as_str()), ("call_0", "call_1"));
        assert_eq!(nameless.finish, Finish::ToolCalls);
    }

    #[test]
    fn a_name_may_be_repeated_or_split() {
        for [first, second] in [["list_tasks", "list_tasks"], ["list_", "tasks"]] {
            let named = |name| fragment(Some(0), None, Some(name), "");
            let whole = assemble([named(first), named(second), END]).unwrap();
            assert_eq!(whole.calls[0].name, "list_tasks");
        }
    }

    #[test]
    fn a_call_is_told_once_its_name_is_whole_and_joined_it_is_the_call() {
        let events = [
            fragment(Some(0), Some("a"), Some("list_"), ""),
            fragment(Some(0), None, Some("tasks"), ""),
            fragment(Some(0), None, None, "{\"a\""),
            fragment(Some(1), Some("b"), Some("end"), ""),
            fragment(Some(0), None, None, ":1}"),
            Event::Call(ToolCall { name: "x".to_owned(), arguments: "{}".to_owned(), ..ToolCall::default() }),
            fragment(Some(3), None, Some("last"), ""),
            END,
        ];
        let (mut assembly, mut told) = (Assembly::default(), Vec::new());
        for event in events {
            assembly.add(event, &mut told).unwrap();
        }
        let begins = |at, id: &str, name: &str| {
            let (id, name) = (id.to_owned(), name.to_owned());
            Piece::Call { at, id, name, signature: None }
        };
        let goes_on = |at, json: &str| Piece::Arguments { at, json: json.to_owned() };
        let wanted = [
            begins(0, "a", "list_tasks"),
            goes_on(0, "{\"a\""),
            goes_on(0, ":1}"),
            begins(1, "b", "end"),
            begins(2, "call_2", "x"),
            goes_on(2, "{}"),
            begins(3, "call_3", "last"),
        ];
        assert_eq!(told, wanted);
        let whole = assembly.complete().unwrap();
        let calls: Vec<(&str, &str)> =
            whole.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(calls, [("list_tasks", "{\"a\":1}"), ("end", ""), ("x", "{}"), ("last", "")]);
    }

    #[test]
    fn usage_comes_together_field_by_field() {
        let usage = |prompt_tokens, completion_tokens, total_tokens| {
            Event::Usage(Usage { prompt_tokens, completion_tokens, total_tokens })
        };
        let mut assembly = Assembly::default();
        assert_eq!(assembly.usage(), Usage::default());
        for event in [usage(Some(0), None, None), usage(None, Some(3), None), usage(None, Some(7), None)] {
            assembly.add(event, &mut Vec::new()).unwrap();
        }
        assert_eq!(assembly.usage(), Usage { prompt_tokens: Some(0), completion_tokens: Some(7), total_tokens: None });
    }

    #[test]
    fn an_answer_that_never_finished_is_cut() {
        let text = || Event::Text("hi".to_owned());
        assert_eq!(assemble([text()]), Err(ModelError::Interrupted(Break::Cut)));
        assert_eq!(assemble([text(), Event::End]), Err(ModelError::Interrupted(Break::Cut)));
    }

    #[test]
    fn who_declines_has_refused_however_it_ends() {
        let told = assemble([Event::Declined("no".to_owned()), Event::Finish(Finish::Stop)]).unwrap();
        assert_eq!((told.finish, told.refusal.as_str()), (Finish::Refused, "no"));
    }

    #[test]
    fn calls_without_end_are_nonsense() {
        let calls = (0..100).map(|index| fragment(Some(index), None, Some("list_tasks"), ""));
        assert_eq!(assemble(calls), Err(ModelError::Interrupted(Break::TooLarge)));
    }
}
