//! A conversation as Anthropic and Gemini want it: the system's words apart, then turns that alternate between the
//! user and the model. What tools gave back is the user's part.
use crate::models::{Message, ToolCall};

/// Opens a conversation whose first turn is the model's: the user has to begin.
const OPENING: &str = "…";

/// A conversation.
pub struct Conversation<'a> {
    /// Our prompts; empty if there are none.
    pub system: String,
    /// At least one; the first is the user's; neighbours differ in who speaks.
    pub turns: Vec<Turn<'a>>,
}

/// What one side says before the other does.
pub struct Turn<'a> {
    /// Whether the model says it.
    pub is_models: bool,
    /// In order; never empty.
    pub parts: Vec<Part<'a>>,
}

/// A part of a turn.
pub enum Part<'a> {
    /// Text, not empty.
    Text(&'a str),
    /// The model calls a tool.
    Call(&'a ToolCall),
    /// What the tool gave back.
    Result {
        /// Id of the call.
        call_id: &'a str,
        /// The tool.
        name: &'a str,
        /// JSON text.
        content: &'a str,
    },
}

impl<'a> Conversation<'a> {
    /// Reads messages. Empty texts are left out: both providers refuse them.
    pub fn of(messages: &'a [Message]) -> Conversation<'a> {
        let mut conversation = Conversation { system: String::new(), turns: Vec::new() };
        let mut calls: &[ToolCall] = &[];
        for message in messages {
            match message {
                Message::System(text) => conversation.instruct(text),
                Message::User(text) => conversation.say(false, text),
                Message::Assistant { text, calls: wanted } => {
                    conversation.say(true, text);
                    wanted.iter().for_each(|call| conversation.add(true, Part::Call(call)));
                    calls = wanted;
                }
                Message::Tool { call_id, content } => {
                    let name = calls.iter().find(|call| call.id == *call_id).map_or("", |call| &call.name);
                    conversation.add(false, Part::Result { call_id, name, content });
                }
            }
        }
        if conversation.turns.first().is_none_or(|turn| turn.is_models) {
            conversation.turns.insert(0, Turn { is_models: false, parts: vec![Part::Text(OPENING)] });
        }
        conversation
    }

    fn instruct(&mut self, text: &str) {
        if !self.system.is_empty() {
            self.system.push_str("\n\n");
        }
        self.system.push_str(text);
    }

    fn say(&mut self, is_models: bool, text: &'a str) {
        if !text.trim().is_empty() {
            self.add(is_models, Part::Text(text));
        }
    }

    fn add(&mut self, is_models: bool, part: Part<'a>) {
        match self.turns.last_mut().filter(|turn| turn.is_models == is_models) {
            Some(turn) => turn.parts.push(part),
            None => self.turns.push(Turn { is_models, parts: vec![part] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_begins_and_neighbours_differ() {
        let said = |text: &str| Message::Assistant { text: text.to_owned(), calls: Vec::new() };
        let asked = |text: &str| Message::User(text.to_owned());
        let told = |text: &str| Message::System(text.to_owned());
        let messages = [told("one"), said("hello"), asked(""), said("again"), asked("a"), told("two"), asked("b")];
        let conversation = Conversation::of(&messages);
        assert_eq!(conversation.system, "one\n\ntwo");
        let shape: Vec<(bool, usize)> =
            conversation.turns.iter().map(|turn| (turn.is_models, turn.parts.len())).collect();
        assert_eq!(shape, [(false, 1), (true, 2), (false, 2)]);
        assert_eq!(Conversation::of(&[]).turns.len(), 1);
    }

    #[test]
    fn a_result_knows_the_tool_of_the_round_it_belongs_to() {
        let call = |name: &str| ToolCall { id: "call_0".to_owned(), name: name.to_owned(), ..ToolCall::default() };
        let round = |name: &str| {
            let asks = Message::Assistant { text: String::new(), calls: vec![call(name)] };
            [asks, Message::Tool { call_id: "call_0".to_owned(), content: "{}".to_owned() }]
        };
        let messages: Vec<Message> = ["first", "second"].into_iter().flat_map(round).collect();
        let conversation = Conversation::of(&messages);
        let parts = conversation.turns.iter().flat_map(|turn| &turn.parts);
        let names: Vec<&str> =
            parts.filter_map(|part| if let Part::Result { name, .. } = part { Some(*name) } else { None }).collect();
        assert_eq!(names, ["first", "second"]);
    }
}
