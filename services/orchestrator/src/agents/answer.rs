//! How an agent answers: the model speaks, or calls tools and is asked again.
use serde_json::{Map, Value, json};

use crate::agents::Agent;
use crate::agents::call::{self, CALL_AGENT, Wish};
use crate::agents::desk::Desk;
use crate::agents::tool::Misfit;
use crate::cost::{Asked, Asker};
use crate::domain::chat::{Question, Role, Turn};
use crate::error::Error;
use crate::models::{Aim, Call, Completion, Finish, Message, Said, Speaker, ToolCall, ToolSpec};
use crate::prompts::Prompt;

/// Most rounds of tools in an answer, with those of agents that are asked on the way. After them the model is asked for
/// its last word, without tools.
const TOOL_ROUNDS: usize = 5;
/// After tools have told a model so much in one answer, in bytes, they tell it nothing more: twice all that a client can
/// send, and a model that lists the same things again and again is not paid for it.
const READ_BYTES: usize = 524_288;
/// Told to a model then.
const READ_ENOUGH: &str = "too much was read for one answer; answer with what there is";
/// Said where a model wants still more rounds.
const TOO_MANY_STEPS: &str =
    "This takes more steps than I can do at once. I have done the first ones; ask me to go on.";
/// Said where an answer has used all the tokens that one may.
const TOO_MUCH: &str = "This has taken as much as one answer may. I have done what I could so far; ask me to go on.";
/// Said where a model has done something and has no word for it.
const DONE: &str = "Done.";
/// Said where a model, or its provider's filter, declines.
const REFUSED: &str = "I cannot help with that.";

/// Who answers, and by which model.
pub struct Answering<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// Those of its other agents that the caller may ask as well.
    pub others: Vec<&'a Agent>,
    /// What the model is asked for.
    pub aim: Aim<'a>,
    /// The way to the models.
    pub asker: &'a Asker,
    /// The model to ask first.
    pub model: &'a str,
    /// Most tokens it may say in a round.
    pub output_tokens: u32,
}

/// What an answer has come to so far.
struct Run<'a> {
    desk: &'a mut Desk,
    model: String,
    rounds: usize,
    /// What tools have told so far, in bytes.
    read: usize,
    was_told: bool,
}

impl Answering<'_> {
    /// Answers a question on this desk; `previous` is what other agents said to it before. The speaker tells the text as it
    /// comes. Gives the model that answered.
    ///
    /// # Errors
    /// [`Error::Model`] if the provider fails, [`Error::Tools`] if the model uses tools wrongly after it was told
    /// once, [`Error::Silent`] if it says and does nothing.
    pub async fn answer(
        &self,
        question: &Question,
        previous: &[Said],
        desk: &mut Desk,
        speaker: &mut Speaker,
    ) -> Result<String, Error> {
        // A model of the caller's own server may be called anything: no log names it.
        tracing::debug!(prompt = self.agent.prompt.id(), "answering");
        let messages = self.opening(question, previous, desk);
        let mut run = Run { desk, model: self.model.to_owned(), rounds: 0, read: 0, was_told: false };
        self.converse(messages, &mut run, speaker).await?;
        Ok(run.model)
    }

    /// Goes on until the model has the last word.
    async fn converse(
        &self,
        mut messages: Vec<Message>,
        run: &mut Run<'_>,
        speaker: &mut Speaker,
    ) -> Result<(), Error> {
        let done_before = run.desk.actions().len();
        loop {
            if self.asker.is_spent() {
                return stop(TOO_MUCH, speaker).await;
            }
            let may_call = run.rounds < TOOL_ROUNDS;
            let asked = self.ask(&run.model, &messages, may_call, speaker).await?;
            // Who stands in for a model goes on where it has begun.
            run.model = asked.model;
            let completion = asked.completion;
            if completion.calls.is_empty() {
                let has_acted = run.desk.actions().len() > done_before;
                return close(completion.finish == Finish::Refused, has_acted, speaker).await;
            }
            if !may_call {
                return stop(TOO_MANY_STEPS, speaker).await;
            }
            run.rounds += 1;
            let fitted = self.use_tools(completion, &mut messages, run, speaker).await?;
            if !fitted && std::mem::replace(&mut run.was_told, true) {
                return Err(Error::Tools);
            }
            speaker.pause();
        }
    }

    async fn ask(
        &self,
        model: &str,
        messages: &[Message],
        may_call: bool,
        speaker: &mut Speaker,
    ) -> Result<Asked, Error> {
        let call_agent = (!self.others.is_empty()).then(|| call::spec(self.others.iter().map(|agent| &*agent.name)));
        let tools: Vec<&ToolSpec> = self.agent.tools.iter().map(|tool| &tool.spec).chain(&call_agent).collect();
        let output_tokens = self.output_tokens;
        let call = Call { model, messages, tools: &tools, may_call, output_tokens, aim: self.aim, wants: None };
        self.asker.ask(&self.agent.name, &call, speaker).await
    }

    /// Runs every call of a round and tells the model the results. Whether all arguments fitted.
    async fn use_tools(
        &self,
        completion: Completion,
        messages: &mut Vec<Message>,
        run: &mut Run<'_>,
        speaker: &Speaker,
    ) -> Result<bool, Error> {
        let (mut results, mut fitted) = (Vec::new(), true);
        for call in &completion.calls {
            let result = if run.read < READ_BYTES {
                self.use_tool(call, run, speaker).await?
            } else {
                Ok(json!({ "error": READ_ENOUGH }))
            };
            fitted &= result.is_ok();
            let content = result.unwrap_or_else(
                |Misfit(why)| json!({"error": why, "advice": "call the tool again with arguments that fit its schema"}),
            );
            let content = content.to_string();
            run.read = run.read.saturating_add(content.len());
            results.push(Message::Tool { call_id: call.id.clone(), content });
        }
        messages.push(Message::Assistant { text: completion.text, calls: completion.calls });
        messages.append(&mut results);
        Ok(fitted)
    }

    async fn use_tool(
        &self,
        call: &ToolCall,
        run: &mut Run<'_>,
        speaker: &Speaker,
    ) -> Result<Result<Value, Misfit>, Error> {
        let arguments = match arguments(call) {
            Ok(arguments) => arguments,
            Err(misfit) => return Ok(Err(misfit)),
        };
        if call.name == CALL_AGENT && !self.others.is_empty() {
            return match Wish::read(arguments).and_then(|wish| Ok((self.other(&wish)?, wish))) {
                Ok((other, wish)) => self.call_agent(other, wish, run, speaker).await.map(Ok),
                Err(misfit) => Ok(Err(misfit)),
            };
        }
        // No other agent's tool is found here.
        let Some(tool) = self.agent.tool(&call.name) else {
            return Ok(Err(Misfit("there is no such tool".to_owned())));
        };
        Ok((tool.run)(run.desk, arguments))
    }

    fn other(&self, wish: &Wish) -> Result<&Agent, Misfit> {
        let other = self.others.iter().copied().find(|other| other.name == wish.agent);
        other.ok_or_else(|| Misfit("there is no such agent to ask".to_owned()))
    }

    /// Has another agent do something on the same desk, by the same model. It asks nobody itself.
    async fn call_agent(
        &self,
        other: &Agent,
        wish: Wish,
        run: &mut Run<'_>,
        speaker: &Speaker,
    ) -> Result<Value, Error> {
        if run.rounds >= TOOL_ROUNDS {
            return Ok(json!({"error": "no rounds are left; answer with what there is"}));
        }
        run.rounds += 1;
        tracing::debug!(agent = &*self.agent.name, other = &*other.name, "an agent asks another");
        let answering =
            Answering { agent: other, others: Vec::new(), aim: Aim::Answer, model: &run.model.clone(), ..*self };
        let mut messages = vec![Message::System(other.instructions(run.desk.today()))];
        messages.extend(told(Map::new(), other, run.desk));
        messages.push(Message::User(wish.message));
        let mut unheard = Speaker::collecting().until(speaker.left());
        // It is the same kind of future as this one, once.
        match Box::pin(answering.converse(messages, run, &mut unheard)).await {
            Ok(()) => Ok(json!({"agent": &*other.name, "response": unheard.into_said()})),
            Err(Error::Silent) => Ok(json!({"error": "the agent gave no answer"})),
            Err(error) => Err(error),
        }
    }

    /// What the model is told at first.
    fn opening(&self, question: &Question, previous: &[Said], desk: &Desk) -> Vec<Message> {
        let mut messages = vec![Message::System(self.agent.instructions(desk.today()))];
        let mut background = background(question);
        if !previous.is_empty() {
            background.insert("previous_results".to_owned(), json!(previous));
        }
        messages.extend(told(background, self.agent, desk));
        messages.extend(conversation(&question.turns));
        messages.push(Message::User(question.message.clone()));
        messages
    }
}

/// Makes one answer of what several agents said to a question. The speaker tells it. Gives the model that answered.
///
/// # Errors
/// As [`Answering::answer`].
pub async fn join(
    asker: &Asker,
    (model, output_tokens): (&str, u32),
    question: &Question,
    said: &[Said],
    speaker: &mut Speaker,
) -> Result<String, Error> {
    let mut messages = vec![Message::System(Prompt::Synthesis.render(&[]))];
    messages.extend(conversation(&question.turns));
    messages.push(Message::User(question.message.clone()));
    messages.push(Message::User(around(&json!({ "previous_results": said }).to_string())));
    let (tools, aim) = (&[][..], Aim::Join(said));
    let call = Call { model, messages: &messages, tools, may_call: false, output_tokens, aim, wants: None };
    let asked = asker.ask(Prompt::Synthesis.id(), &call, speaker).await?;
    close(asked.completion.finish == Finish::Refused, false, speaker).await?;
    Ok(asked.model)
}

/// Ends an answer that would go on.
async fn stop(word: &str, speaker: &mut Speaker) -> Result<(), Error> {
    speaker.pause();
    Ok(speaker.say(word).await?)
}

async fn close(refused: bool, has_acted: bool, speaker: &mut Speaker) -> Result<(), Error> {
    if speaker.said().trim().is_empty() {
        let word = match (refused, has_acted) {
            (true, _) => REFUSED,
            (false, true) => DONE,
            (false, false) => return Err(Error::Silent),
        };
        speaker.say(word).await?;
    }
    Ok(())
}

/// The arguments of a call as the model wrote them. Models leave them out where there are none.
fn arguments(call: &ToolCall) -> Result<Map<String, Value>, Misfit> {
    let written = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    Ok(serde_json::from_str(written)?)
}

/// What was said before.
pub fn conversation(turns: &[Turn]) -> impl Iterator<Item = Message> {
    turns.iter().map(|turn| match turn.role {
        Role::User => Message::User(turn.content.clone()),
        Role::Assistant => Message::Assistant { text: turn.content.clone(), calls: Vec::new() },
    })
}

/// What the client sent along. Records are left to the tools.
pub fn background(question: &Question) -> Map<String, Value> {
    let mut data = Map::new();
    if !question.profile.is_empty() {
        data.insert("user_profile".to_owned(), json!(question.profile));
    }
    if !question.documents.is_empty() {
        data.insert("relevant_documents".to_owned(), json!(question.documents));
    }
    if !question.variables.is_empty() {
        data.insert("variables".to_owned(), json!(question.variables));
    }
    data
}

/// The background in the user's own part of the conversation: a document must not speak with the server's voice. An agent
/// without tools reads the records here.
fn told(mut background: Map<String, Value>, agent: &Agent, desk: &Desk) -> Option<Message> {
    if agent.tools.is_empty() {
        background.extend(desk.records());
    }
    (!background.is_empty()).then(|| Message::User(around(&Value::Object(background).to_string())))
}

/// What a model is told about the client's data, with the data.
pub fn around(data: &str) -> String {
    Prompt::Context.render(&[("context", data)])
}
