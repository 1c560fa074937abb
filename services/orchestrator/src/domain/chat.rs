//! A question with everything the agent may know, checked.
use std::ops::RangeInclusive;

use prost::Message as _;
use serde_json::{Map, Value};
use weft_proto::json::Struct;
use weft_proto::orchestrator::v1::{ChatContext, ChatRequest, ConversationTurn};

use crate::config::Config;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::json;
use crate::domain::note::Note;
use crate::domain::project::Project;
use crate::domain::task::Task;
use crate::error::Error;
use crate::plans::{Template, VARIABLES_BYTES};

/// Longest name of an agent or a model that is looked at, in bytes.
const NAME_BYTES: usize = 128;
/// So many agents make a pipeline.
const PIPELINE: RangeInclusive<usize> = 2..=5;

/// A checked request. It has no `Debug`: what users write must not reach a log.
pub struct Question {
    /// What it is to become.
    pub mode: Mode,
    /// What the user says.
    pub message: String,
    /// Agent to ask; None: the classifier chooses.
    pub agent: Option<String>,
    /// Agents to ask one after the other; empty: one answers.
    pub pipeline: Vec<String>,
    /// Values of the variables of a step's template.
    pub variables: Map<String, Value>,
    /// All of the request as it came, and what was said before in its session, by which the same one is known again. Only
    /// of a request for a plan.
    pub asked: Vec<u8>,
    /// Model to use; None: the product's default.
    pub model: Option<String>,
    /// Most tokens of the answer; None: the server's limit.
    pub max_tokens: Option<u32>,
    /// The user as the client describes them.
    pub profile: Map<String, Value>,
    /// Documents that may help.
    pub documents: Vec<Map<String, Value>>,
    /// The client's records.
    pub records: Records,
    /// What was said before, oldest first.
    pub turns: Vec<Turn>,
    /// The session that it belongs to.
    pub session: Option<Joining>,
}

/// A session that a request belongs to.
pub struct Joining {
    /// Its id, as the caller says.
    pub id: String,
    /// How much of what was said in it may go before the message: what the request leaves of its limits.
    pub room: Room,
}

/// What a request is to become.
#[derive(Clone, Copy)]
pub enum Mode {
    /// An answer.
    Direct,
    /// A plan of steps.
    Plan,
    /// The result of a plan's step.
    Step(&'static Template),
}

/// The records that came with a request.
#[derive(Default)]
pub struct Records {
    /// The client's tasks.
    pub tasks: Vec<Task>,
    /// The client's projects.
    pub projects: Vec<Project>,
    /// The client's checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// The client's notes.
    pub notes: Vec<Note>,
}

/// One turn of the conversation so far.
#[derive(Clone)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// How much of a session goes before a new message.
#[derive(Clone, Copy)]
pub struct Room {
    /// Messages.
    pub messages: usize,
    /// Bytes of their text.
    pub bytes: usize,
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
    /// [`Error::Invalid`] or [`Error::TooLarge`], neither of which repeats what the caller wrote.
    pub fn read(request: ChatRequest, limits: &Config) -> Result<Question, Error> {
        let mode = mode(&request)?;
        let pipeline = pipeline(&request)?;
        if request.message.trim().is_empty() {
            return Err(Error::Invalid("message is empty; say what you want".into()));
        }
        at_most("message", request.message.len(), limits.weft_chat_message_bytes, "bytes")?;
        if let Some(context) = &request.context {
            check_sizes(context, limits)?;
        }
        let asked = if matches!(mode, Mode::Plan) { canonical(request.clone()) } else { Vec::new() };
        let context = request.context.unwrap_or_default();
        let session = joining(request.session_id, &context, limits)?;
        Ok(Question {
            mode,
            pipeline,
            asked,
            variables: variables(mode, request.variables)?,
            message: request.message,
            agent: name(request.agent, "agent")?,
            model: name(request.model, "model")?,
            max_tokens: max_tokens(request.max_tokens, limits.weft_model_output_tokens)?,
            profile: context.user_profile.map(json::object).unwrap_or_default(),
            documents: context.relevant_documents.into_iter().map(json::object).collect(),
            records: Records {
                tasks: records(context.recent_tasks, "recent_tasks", Task::read)?,
                projects: records(context.projects, "projects", Project::read)?,
                checkpoints: records(context.checkpoints, "checkpoints", Checkpoint::read)?,
                notes: records(context.notes, "notes", Note::read)?,
            },
            turns: turns(context.conversation_history)?,
            session,
        })
    }

    /// What was said before in its session.
    pub fn recall(&mut self, turns: Vec<Turn>) {
        if matches!(self.mode, Mode::Plan) {
            for turn in &turns {
                self.asked.extend((turn.content.len() as u64).to_be_bytes());
                self.asked.extend(turn.content.as_bytes());
            }
        }
        self.turns = turns;
    }
}

/// The session that a request names.
fn joining(id: String, context: &ChatContext, limits: &Config) -> Result<Option<Joining>, Error> {
    if id.is_empty() {
        return Ok(None);
    }
    if !context.conversation_history.is_empty() {
        return Err(Error::Invalid("session_id goes without context.conversation_history".into()));
    }
    let bytes = limits.weft_chat_context_bytes.saturating_sub(context.encoded_len());
    Ok(Some(Joining { id, room: Room { messages: limits.weft_chat_turns, bytes } }))
}

fn check_sizes(context: &ChatContext, limits: &Config) -> Result<(), Error> {
    at_most("context.relevant_documents", context.relevant_documents.len(), limits.weft_chat_documents, "documents")?;
    at_most("context.recent_tasks", context.recent_tasks.len(), limits.weft_chat_tasks, "tasks")?;
    at_most("context.projects", context.projects.len(), limits.weft_chat_projects, "projects")?;
    at_most("context.checkpoints", context.checkpoints.len(), limits.weft_chat_checkpoints, "checkpoints")?;
    at_most("context.notes", context.notes.len(), limits.weft_chat_notes, "notes")?;
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

/// The request as bytes that are the same in whichever order its objects have their fields: some clients send another one
/// each time.
fn canonical(mut request: ChatRequest) -> Vec<u8> {
    let context = request.context.get_or_insert_default();
    let lists = [
        &mut context.relevant_documents,
        &mut context.recent_tasks,
        &mut context.projects,
        &mut context.checkpoints,
        &mut context.notes,
    ];
    let objects = lists.into_iter().flatten().chain(&mut context.user_profile).chain(&mut request.variables);
    objects.for_each(Struct::sort);
    request.encode_to_vec()
}

fn max_tokens(asked: i32, most: u32) -> Result<Option<u32>, Error> {
    match u32::try_from(asked) {
        Ok(0) => Ok(None),
        Ok(asked) if asked <= most => Ok(Some(asked)),
        _ => Err(Error::Invalid(format!("max_tokens must be between 1 and {most}, or 0 for as many").into())),
    }
}

fn mode(request: &ChatRequest) -> Result<Mode, Error> {
    let mode = match request.execution_mode.as_str() {
        "" | "direct" => Mode::Direct,
        "plan" => Mode::Plan,
        _ => return Err(Error::Invalid("execution_mode must be empty, direct or plan".into())),
    };
    if request.prompt_template.is_empty() {
        return Ok(mode);
    }
    if matches!(mode, Mode::Plan) || !request.agent.is_empty() || !request.pipeline.is_empty() {
        return Err(Error::Invalid("prompt_template goes without agent, pipeline and mode plan".into()));
    }
    let template = Template::get(&request.prompt_template);
    template.map(Mode::Step).ok_or(Error::Invalid("there is no such prompt_template; take one from a plan".into()))
}

fn pipeline(request: &ChatRequest) -> Result<Vec<String>, Error> {
    let agents = &request.pipeline;
    if agents.is_empty() {
        return Ok(Vec::new());
    }
    if !PIPELINE.contains(&agents.len()) {
        let (least, most) = (PIPELINE.start(), PIPELINE.end());
        return Err(Error::Invalid(format!("pipeline must be empty or have {least} to {most} agents").into()));
    }
    if !request.agent.is_empty() || request.execution_mode == "plan" {
        return Err(Error::Invalid("pipeline goes without agent and mode plan".into()));
    }
    agents.iter().map(|agent| Ok(name(agent.clone(), "pipeline")?.unwrap_or_default())).collect()
}

/// The values of a template's own variables.
fn variables(mode: Mode, given: Option<Struct>) -> Result<Map<String, Value>, Error> {
    let given = given.map(json::object).unwrap_or_default();
    let known = if let Mode::Step(template) = mode { template.variables } else { &[] };
    for (name, value) in &given {
        if !known.contains(&name.as_str()) || value.is_object() || value.is_array() {
            let known = known.join(", ");
            return Err(Error::Invalid(format!("variables may only have texts, numbers or flags for: {known}").into()));
        }
    }
    if Value::Object(given.clone()).to_string().len() > VARIABLES_BYTES {
        return Err(Error::TooLarge(
            format!("variables are over the limit of {VARIABLES_BYTES} bytes; send less").into(),
        ));
    }
    Ok(given)
}

/// The records of one list of the context.
fn records<T>(
    sent: Vec<Struct>,
    list: &str,
    read: fn(Map<String, Value>) -> Result<T, String>,
) -> Result<Vec<T>, Error> {
    let read = |(at, record)| {
        read(json::object(record)).map_err(|wrong| Error::Invalid(format!("context.{list}[{at}].{wrong}").into()))
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
    use weft_proto::json::{Kind, ListValue};

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
            ChatContext { relevant_documents: vec![Struct::default(); 101], ..ChatContext::default() },
            ChatContext { recent_tasks: vec![Struct::default(); 501], ..ChatContext::default() },
            ChatContext { projects: vec![Struct::default(); 201], ..ChatContext::default() },
            ChatContext { checkpoints: vec![Struct::default(); 501], ..ChatContext::default() },
            ChatContext { notes: vec![Struct::default(); 201], ..ChatContext::default() },
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
    fn an_answer_may_be_shorter_than_the_limit_and_not_longer() {
        let of = |max_tokens| {
            Question::read(ChatRequest { max_tokens, ..asking("hi") }, &Config::default())
                .map(|question| question.max_tokens)
                .ok()
        };
        assert_eq!(
            [of(0), of(1), of(2048), of(2049), of(-1)],
            [Some(None), Some(Some(1)), Some(Some(2048)), None, None]
        );
    }

    #[test]
    fn a_request_becomes_an_answer_a_plan_or_a_step() {
        let with = |mode: &str, template: &str| {
            let (execution_mode, prompt_template) = (mode.to_owned(), template.to_owned());
            ChatRequest { execution_mode, prompt_template, ..asking("hi") }
        };
        let mode = |request| Question::read(request, &Config::default()).map(|question| question.mode).ok();
        assert!(matches!(mode(with("", "")), Some(Mode::Direct)));
        assert!(matches!(mode(with("direct", "")), Some(Mode::Direct)));
        assert!(matches!(mode(with("plan", "")), Some(Mode::Plan)));
        assert!(matches!(mode(with("", "day_plan")), Some(Mode::Step(template)) if template.id == "day_plan"));
        for (mode, template) in [("PLAN", ""), ("plan", "day_plan"), ("", "planner"), ("", "DAY_PLAN")] {
            assert!(matches!(refused(with(mode, template)), Error::Invalid(_)), "{mode} {template}");
        }
    }

    #[test]
    fn a_plan_is_asked_for_anew_where_objects_say_something_else_not_where_they_are_in_another_order() {
        let asked = |[one, other]: [(&str, &str); 2]| {
            let field = |(name, text): (&str, &str)| (name.to_owned(), Kind::StringValue(text.to_owned()).into());
            let object = || Struct::from_iter([field(one), field(other)]);
            let nested = Kind::ListValue(ListValue { values: vec![Kind::StructValue(object()).into()] });
            let profile = [("interests".to_owned(), nested.into())];
            let (user_profile, relevant_documents) = (Some(Struct::from_iter(profile)), vec![object()]);
            let context = Some(ChatContext { user_profile, relevant_documents, ..ChatContext::default() });
            let request = ChatRequest { execution_mode: "plan".to_owned(), context, ..asking("hi") };
            Question::read(request, &Config::default()).unwrap().asked
        };
        let first = asked([("a", "1"), ("b", "2")]);
        assert_eq!(asked([("b", "2"), ("a", "1")]), first);
        assert_ne!(asked([("b", "1"), ("a", "2")]), first);
    }

    #[test]
    fn a_pipeline_has_two_to_five_agents_and_nobody_beside_it() {
        let of = |count: usize| ChatRequest { pipeline: vec!["task_agent".to_owned(); count], ..asking("hi") };
        for count in [0, 2, 5] {
            assert_eq!(Question::read(of(count), &Config::default()).unwrap().pipeline.len(), count);
        }
        let beside = ChatRequest { agent: "task_agent".to_owned(), ..of(2) };
        let planned = ChatRequest { execution_mode: "plan".to_owned(), ..of(2) };
        for request in [of(1), of(6), beside, planned] {
            assert!(matches!(refused(request), Error::Invalid(_)));
        }
    }

    #[test]
    fn a_step_takes_the_variables_of_its_template() {
        let with = |template: &str, variables: Value| {
            let Value::Object(variables) = variables else { panic!("an object") };
            let (prompt_template, variables) = (template.to_owned(), Some(json::message(variables)));
            ChatRequest { prompt_template, variables, ..asking("hi") }
        };
        let focus = with("weekly_report", serde_json::json!({"focus": "boats"}));
        assert_eq!(Question::read(focus, &Config::default()).unwrap().variables["focus"], "boats");
        for (template, variables) in [
            ("weekly_report", serde_json::json!({"CANARY": 1})),
            ("weekly_report", serde_json::json!({"focus": ["CANARY"]})),
            ("weekly_report", serde_json::json!({"focus": "CANARY".repeat(2_000)})),
            ("day_plan", serde_json::json!({"focus": "CANARY"})),
            ("", serde_json::json!({"focus": "CANARY"})),
        ] {
            assert!(!refused(with(template, variables)).to_string().contains("CANARY"));
        }
    }
}
