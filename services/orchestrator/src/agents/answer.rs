//! How an agent answers: the model speaks, or calls tools and is asked again.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_core::Clock;
use weft_proto::orchestrator::v1::ChatResponse;

use crate::agents::Agent;
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::domain::chat::{Question, Role};
use crate::domain::day::Day;
use crate::error::Error;
use crate::models::{Call, Completion, Finish, Message, Models, Speaker, ToolCall, ToolSpec};
use crate::prompts::Prompt;
use crate::sanitizer::Unchecked;

/// Most rounds of tools in an answer. After them the model is asked for its last word, without tools.
const TOOL_ROUNDS: usize = 5;
/// Said where a model wants still more rounds.
const TOO_MANY_STEPS: &str =
    "This takes more steps than I can do at once. I have done the first ones; ask me to go on.";
/// Said where a model has done something and has no word for it.
const DONE: &str = "Done.";
/// Said where a model, or its provider's filter, declines.
const REFUSED: &str = "I cannot help with that.";

/// Who answers, and by which model.
pub struct Answering<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// The models.
    pub models: &'a Models,
    /// Which of them.
    pub model: &'a str,
    /// Most tokens it may say in a round.
    pub output_tokens: u32,
    /// Where today comes from.
    pub clock: &'a Clock,
}

impl Answering<'_> {
    /// Answers a question. The speaker tells the text as it comes; the response holds exactly that text.
    ///
    /// # Errors
    /// [`Error::Model`] if the provider fails, [`Error::Tools`] if the model uses tools wrongly after it was told
    /// once, [`Error::Silent`] if it says and does nothing.
    pub async fn answer(&self, question: Question, mut speaker: Speaker) -> Result<Unchecked, Error> {
        let today = Day::of_ms(self.clock.now_ms());
        tracing::debug!(prompt = self.agent.prompt.id(), model = self.model, "answering");
        let (mut messages, mut desk) = self.opening(question, today);
        let mut was_told = false;
        for round in 0..=TOOL_ROUNDS {
            let completion = self.ask(&messages, round < TOOL_ROUNDS, &mut speaker).await?;
            if completion.calls.is_empty() {
                return self.close(completion.finish == Finish::Refused, desk, speaker).await;
            }
            if round == TOOL_ROUNDS {
                break;
            }
            let fitted = self.use_tools(completion, &mut messages, &mut desk);
            if !fitted && std::mem::replace(&mut was_told, true) {
                return Err(Error::Tools);
            }
            speaker.pause();
        }
        speaker.pause();
        speaker.say(TOO_MANY_STEPS).await?;
        Ok(self.response(desk, speaker))
    }

    async fn ask(&self, messages: &[Message], may_call: bool, speaker: &mut Speaker) -> Result<Completion, Error> {
        let tools: Vec<&ToolSpec> = self.agent.tools.iter().map(|tool| &tool.spec).collect();
        let call = Call {
            model: self.model,
            messages,
            tools: &tools,
            may_call,
            output_tokens: self.output_tokens,
            choices: &[],
        };
        Ok(self.models.ask(&call, speaker).await?)
    }

    /// Runs every call of a round and tells the model the results. Whether all arguments fitted.
    fn use_tools(&self, completion: Completion, messages: &mut Vec<Message>, desk: &mut Desk) -> bool {
        let results: Vec<(String, Result<Value, Misfit>)> =
            completion.calls.iter().map(|call| (call.id.clone(), self.use_tool(call, desk))).collect();
        let fitted = results.iter().all(|(_, result)| result.is_ok());
        messages.push(Message::Assistant { text: completion.text, calls: completion.calls });
        messages.extend(results.into_iter().map(|(call_id, result)| {
            let content = result.unwrap_or_else(
                |Misfit(why)| json!({"error": why, "advice": "call the tool again with arguments that fit its schema"}),
            );
            Message::Tool { call_id, content: content.to_string() }
        }));
        fitted
    }

    fn use_tool(&self, call: &ToolCall, desk: &mut Desk) -> Result<Value, Misfit> {
        let tool = self.agent.tool(&call.name).ok_or_else(|| Misfit("there is no such tool".to_owned()))?;
        // Models leave the arguments out where there are none.
        let written = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let arguments: Map<String, Value> = serde_json::from_str(written)?;
        (tool.run)(desk, arguments)
    }

    async fn close(&self, refused: bool, desk: Desk, mut speaker: Speaker) -> Result<Unchecked, Error> {
        if speaker.said().trim().is_empty() {
            let word = match (refused, desk.actions().is_empty()) {
                (true, _) => REFUSED,
                (false, false) => DONE,
                (false, true) => return Err(Error::Silent),
            };
            speaker.say(word).await?;
        }
        Ok(self.response(desk, speaker))
    }

    fn response(&self, desk: Desk, speaker: Speaker) -> Unchecked {
        Unchecked::new(ChatResponse {
            response: speaker.into_said(),
            actions: desk.into_actions(),
            agent: self.agent.name.to_owned(),
            model: self.model.to_owned(),
        })
    }

    /// What the model is told at first, and the desk it works on.
    fn opening(&self, question: Question, today: Day) -> (Vec<Message>, Desk) {
        let mut messages = vec![Message::System(self.agent.instructions(today))];
        messages.extend(background(&question));
        messages.extend(question.turns.into_iter().map(|turn| match turn.role {
            Role::User => Message::User(turn.content),
            Role::Assistant => Message::Assistant { text: turn.content, calls: Vec::new() },
        }));
        messages.push(Message::User(question.message));
        (messages, Desk::new(question.tasks, today))
    }
}

/// What the client sent along, in the user's own part of the conversation: a document must not speak with the
/// server's voice. Tasks are left to the tools.
fn background(question: &Question) -> Option<Message> {
    let mut data = BTreeMap::new();
    if !question.profile.is_empty() {
        data.insert("user_profile", json!(question.profile));
    }
    if !question.documents.is_empty() {
        data.insert("relevant_documents", json!(question.documents));
    }
    (!data.is_empty()).then(|| Message::User(around(&json!(data).to_string())))
}

/// What a model is told about the client's data, with the data.
pub fn around(data: &str) -> String {
    Prompt::Context.render(&[("context", data)])
}
