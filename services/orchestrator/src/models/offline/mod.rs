//! The built-in model for people without a key: it understands plain English sentences about tasks, projects,
//! checkpoints and notes, calls the tools for them, and says honestly what it is otherwise. The same request always gives the same answer.
mod complete;
mod phrase;
mod plan;
mod reply;
mod route;
mod sentence;
mod step;
mod thing;

use serde_json::Value;
use weft_core::Clock;

use crate::domain::day::Day;
use crate::models::{Aim, Call, Completion, Message, ModelError, Speaker, ToolCall};
use step::Step;

/// The built-in model.
pub struct Offline {
    clock: Clock,
}

impl Offline {
    /// A model that takes "today" from this clock.
    pub fn new(clock: Clock) -> Offline {
        Offline { clock }
    }

    /// Answers, word by word.
    ///
    /// # Errors
    /// [`ModelError::Left`] if the listener has gone; nothing else can fail.
    pub async fn ask(&self, call: &Call<'_>, speaker: &mut Speaker) -> Result<Completion, ModelError> {
        if let Some(wants) = call.wants {
            return complete::complete(call, wants, speaker).await;
        }
        let (message, results) = exchange(call.messages);
        let today = Day::of_ms(self.clock.now_ms());
        match call.aim {
            Aim::Answer => {}
            Aim::Choose(choices) => return say(route::choose(message, choices).to_owned(), speaker).await,
            Aim::Plan(templates) => return say(plan::propose(message, templates, today), speaker).await,
            Aim::Step(template) => {
                return say(plan::result(template, message, &background(call.messages), today), speaker).await;
            }
            Aim::Join(said) => return say(reply::joined(said), speaker).await,
        }
        let has_tool = |name: &str| call.may_call && call.tools.iter().any(|spec| spec.name == name);
        let next = match thing::KINDS.iter().find(|kind| call.tools.iter().any(|spec| spec.name == kind.create)) {
            Some(kind) => thing::next(kind, &thing::read(kind, message, today), &results),
            None => step::next(&sentence::read(message, today), &results),
        };
        match next {
            Step::Call(name, arguments) if has_tool(name) => {
                let id = format!("offline_{}", results.len());
                let call = ToolCall { id, name: name.to_owned(), arguments: arguments.to_string(), signature: None };
                Ok(Completion { calls: vec![call], ..Completion::default() })
            }
            Step::Call(..) => say(reply::introduction(), speaker).await,
            Step::Say(text) => say(text, speaker).await,
        }
    }
}

async fn say(text: String, speaker: &mut Speaker) -> Result<Completion, ModelError> {
    for word in text.split_inclusive(' ') {
        speaker.say(word).await?;
    }
    Ok(Completion { text, ..Completion::default() })
}

/// The user's last message and what tools gave back since.
fn exchange(messages: &[Message]) -> (&str, Vec<Value>) {
    let Some(at) = messages.iter().rposition(|message| matches!(message, Message::User(_))) else {
        return ("", Vec::new());
    };
    let message = if let Message::User(text) = &messages[at] { text.as_str() } else { "" };
    let result = |message: &Message| match message {
        Message::Tool { content, .. } => Some(serde_json::from_str(content).unwrap_or(Value::Null)),
        _ => None,
    };
    (message, messages[at..].iter().filter_map(result).collect())
}

/// The data that came along before the user's last message.
fn background(messages: &[Message]) -> Value {
    let read = |message: &Message| match message {
        Message::User(text) => serde_json::from_str(&text[text.find('{')?..]).ok(),
        _ => None,
    };
    let earlier = messages.len().saturating_sub(1);
    messages[..earlier].iter().find_map(read).unwrap_or(Value::Null)
}
