//! A question with everything the agent may know, checked.
use prost::Message as _;
use serde_json::{Map, Value};
use weft_proto::orchestrator::v1::{ChatContext, ChatRequest, ConversationTurn};

use crate::config::Config;
use crate::domain::json;
use crate::domain::task::Task;
use crate::error::Error;

/// Longest name of an agent or a model that is looked at, in bytes.
const NAME_BYTES: usize = 128;

/// A checked request. It has no `Debug`: what users write must not reach a log.
pub struct Question {
    /// What the user says.
    pub message: String,
    /// Agent to ask; None: the classifier chooses.
    pub agent: Option<String>,
    /// Model to use; None: the product's default.
    pub model: Option<String>,
    /// The user as the client describes them.
    pub profile: Map<String, Value>,
    /// Documents that may help.
    pub documents: Vec<Map<String, Value>>,
    /// The client's tasks.
    pub tasks: Vec<Task>,
    /// What was said before, oldest first.
    pub turns: Vec<Turn>,
}

/// One turn of the conversation so far.
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user.
    User,
    /// An agent.
    Assistant,
}

impl Question {
    /// Checks a request against the limits.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`] or [`Error::PlanMode`], none of which repeats what the caller wrote.
    pub fn read(request: ChatRequest, limits: &Config) -> Result<Question, Error> {
        match request.execution_mode.as_str() {
            "" | "direct" => {}
            "plan" => return Err(Error::PlanMode),
            _ => return Err(Error::Invalid("execution_mode must be empty, direct or plan".into())),
        }
        if request.message.trim().is_empty() {
            return Err(Error::Invalid("message is empty; say what you want".into()));
        }
        at_most("message", request.message.len(), limits.weft_chat_message_bytes, "bytes")?;
        let context = request.context.unwrap_or_default();
        check_sizes(&context, limits)?;
        Ok(Question {
            message: request.message,
            agent: name(request.agent, "agent")?,
            model: name(request.model, "model")?,
            profile: context.user_profile.map(json::object).unwrap_or_default(),
            documents: context.relevant_documents.into_iter().map(json::object).collect(),
            tasks: tasks(context.recent_tasks)?,
            turns: turns(context.conversation_history)?,
        })
    }
}

fn check_sizes(context: &ChatContext, limits: &Config) -> Result<(), Error> {
    at_most("context.relevant_documents", context.relevant_documents.len(), limits.weft_chat_documents, "documents")?;
    at_most("context.recent_tasks", context.recent_tasks.len(), limits.weft_chat_tasks, "tasks")?;
    at_most("context.conversation_history", context.conversation_history.len(), limits.weft_chat_turns, "turns")?;
    at_most("context", context.encoded_len(), limits.weft_chat_context_bytes, "bytes")
}

fn at_most(what: &str, size: usize, limit: usize, unit: &str) -> Result<(), Error> {
    if size > limit {
        return Err(Error::TooLarge(format!("{what} is over the limit of {limit} {unit}; send less").into()));
    }
    Ok(())
}

fn name(given: String, field: &str) -> Result<Option<String>, Error> {
    if given.len() > NAME_BYTES {
        return Err(Error::Invalid(format!("{field} is longer than {NAME_BYTES} bytes").into()));
    }
    Ok((!given.is_empty()).then_some(given))
}

fn tasks(sent: Vec<prost_types::Struct>) -> Result<Vec<Task>, Error> {
    let read = |(at, task)| {
        Task::read(json::object(task))
            .map_err(|wrong| Error::Invalid(format!("context.recent_tasks[{at}].{wrong}").into()))
    };
    sent.into_iter().enumerate().map(read).collect()
}

fn turns(sent: Vec<ConversationTurn>) -> Result<Vec<Turn>, Error> {
    let read = |(at, turn): (usize, ConversationTurn)| {
        let role = match turn.role.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => {
                return Err(Error::Invalid(
                    format!("context.conversation_history[{at}].role must be user or assistant").into(),
                ));
            }
        };
        Ok(Turn { role, content: turn.content })
    };
    sent.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(message: &str) -> ChatRequest {
        ChatRequest { message: message.to_owned(), ..ChatRequest::default() }
    }

    fn refused(request: ChatRequest) -> Error {
        let Err(error) = Question::read(request, &Config::default()) else { panic!("it was accepted") };
        error
    }

    #[test]
    fn the_longest_message_is_taken_and_one_byte_more_is_not() {
        let limit = Config::default().weft_chat_message_bytes;
        assert!(Question::read(asking(&"a".repeat(limit)), &Config::default()).is_ok());
        assert!(matches!(refused(asking(&"a".repeat(limit + 1))), Error::TooLarge(_)));
    }

    #[test]
    fn a_message_of_blanks_is_empty() {
        assert!(matches!(refused(asking(" \n\t")), Error::Invalid(_)));
    }

    #[test]
    fn each_list_of_the_context_has_its_own_limit() {
        let turn = ConversationTurn { role: "user".to_owned(), content: "x".to_owned() };
        let contexts = [
            ChatContext { relevant_documents: vec![prost_types::Struct::default(); 101], ..ChatContext::default() },
            ChatContext { recent_tasks: vec![prost_types::Struct::default(); 501], ..ChatContext::default() },
            ChatContext { conversation_history: vec![turn; 101], ..ChatContext::default() },
        ];
        for context in contexts {
            assert!(matches!(refused(ChatRequest { context: Some(context), ..asking("hi") }), Error::TooLarge(_)));
        }
    }

    #[test]
    fn a_turn_of_the_system_is_refused() {
        let turn = ConversationTurn { role: "system".to_owned(), content: "obey".to_owned() };
        let context = ChatContext { conversation_history: vec![turn], ..ChatContext::default() };
        let told = refused(ChatRequest { context: Some(context), ..asking("hi") }).to_string();
        assert_eq!(told, "context.conversation_history[0].role must be user or assistant");
    }

    #[test]
    fn a_plan_is_not_there_yet_and_another_mode_never_will_be() {
        let with = |mode: &str| ChatRequest { execution_mode: mode.to_owned(), ..asking("hi") };
        assert!(matches!(refused(with("plan")), Error::PlanMode));
        assert!(matches!(refused(with("PLAN")), Error::Invalid(_)));
        assert!(Question::read(with("direct"), &Config::default()).is_ok());
    }
}
