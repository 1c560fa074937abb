//! Chooses the agent for a message with the product's small model.
use std::time::Duration;

use tokio::time::timeout;

use crate::agents::Agent;
use crate::cost::Asker;
use crate::domain::chat::{Question, Role};
use crate::error::Error;
use crate::models::{Aim, Call, Choice, Message, Speaker};
use crate::prompts::Prompt;

/// The role under which its calls are recorded.
const ROLE: &str = "classifier";
/// An agent's name is short.
const OUTPUT_TOKENS: u32 = 16;
/// So many of the last turns are shown, for messages like "yes, do it".
const TURNS: usize = 4;
/// So much of a message or turn is shown, in characters.
const SHOWN_CHARS: usize = 2_000;

/// The small model, and how long it may take.
pub struct Classifier<'a> {
    /// The way to the models.
    pub asker: &'a Asker,
    /// Which one classifies.
    pub model: &'a str,
    /// How long it may take.
    pub within: Duration,
}

impl Classifier<'_> {
    /// The agent that fits. `default`, one of the candidates, where the model names another one or fails: a chat
    /// never fails for want of a classification. With one candidate there is nothing to ask.
    ///
    /// # Errors
    /// Billing's, which the answer itself would meet too.
    pub async fn choose<'a>(
        &self,
        question: &Question,
        candidates: &[&'a Agent],
        default: &'a Agent,
    ) -> Result<&'a Agent, Error> {
        if candidates.len() < 2 {
            return Ok(default);
        }
        let choices: Vec<Choice<'_>> = candidates.iter().map(|agent| agent.choice()).collect();
        let messages = messages(question, &choices);
        let call = Call {
            model: self.model,
            messages: &messages,
            tools: &[],
            may_call: false,
            output_tokens: OUTPUT_TOKENS,
            aim: Aim::Choose(&choices),
            wants: None,
        };
        let mut speaker = Speaker::collecting();
        let named = match timeout(self.within, self.asker.ask(ROLE, &call, &mut speaker)).await {
            Ok(Ok(asked)) => candidates.iter().find(|agent| agent.name == bare(&asked.completion.text)),
            Ok(Err(error @ (Error::Refused(_) | Error::NoBilling))) => return Err(error),
            Ok(Err(error)) => {
                tracing::warn!(?error, "the classifier failed; the default agent answers");
                None
            }
            Err(_) => {
                tracing::warn!("the classifier took too long; the default agent answers");
                None
            }
        };
        let outcome = if named.is_some() { "named" } else { "default" };
        metrics::counter!("weft_classifications_total", "outcome" => outcome).increment(1);
        Ok(named.copied().unwrap_or(default))
    }
}

/// An agent as it stands in the list.
pub fn line(choice: &Choice<'_>) -> String {
    format!("- {}: {}", choice.name, choice.description)
}

/// What a model that has to choose is told.
pub fn instructions(choices: &[Choice<'_>]) -> String {
    let agents: Vec<String> = choices.iter().map(line).collect();
    Prompt::Classifier.render(&[("agents", &agents.join("\n"))])
}

fn messages(question: &Question, choices: &[Choice<'_>]) -> Vec<Message> {
    let mut messages = vec![Message::System(instructions(choices))];
    let turns = &question.turns[question.turns.len().saturating_sub(TURNS)..];
    messages.extend(turns.iter().map(|turn| match turn.role {
        Role::User => Message::User(start(&turn.content)),
        Role::Assistant => Message::Assistant { text: start(&turn.content), calls: Vec::new() },
    }));
    messages.push(Message::User(start(&question.message)));
    messages
}

fn start(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// The answer without what models like to put around a single word.
fn bare(answer: &str) -> &str {
    answer.trim().trim_matches(['"', '\'', '`', '*', '.']).trim()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_core::Clock;
    use weft_proto::orchestrator::v1::ChatRequest;
    use weft_testing::llm::{LlmStub, Reply};

    use super::*;
    use crate::config::Config;
    use crate::models::Models;

    fn agent(name: &'static str, description: &'static str) -> Agent {
        Agent::built_in(name, description, Prompt::TaskAgent, Vec::new())
    }

    fn question(message: &str) -> Question {
        let request = ChatRequest { message: message.to_owned(), ..ChatRequest::default() };
        Question::read(request, &Config::default()).unwrap()
    }

    /// Which of two agents is chosen for a message; the first one is the default.
    async fn chosen(asker: &Asker, message: &str) -> String {
        let agents = [agent("task_agent", "tasks and to-dos"), agent("note_agent", "notes in Markdown")];
        let classifier = Classifier { asker, model: "small", within: Duration::from_millis(300) };
        classifier.choose(&question(message), &[&agents[0], &agents[1]], &agents[0]).await.unwrap().name.to_string()
    }

    fn asking(stub: &LlmStub) -> Asker {
        let config = Config { openai_base_url: Some(stub.url().to_owned()), ..Config::default() };
        Asker::of_test(Models::new(&config, Clock::System).unwrap())
    }

    #[tokio::test]
    async fn the_model_sees_the_agents_and_its_word_counts() {
        let stub = LlmStub::start().await;
        stub.script([Reply::text("note_agent"), Reply::text(" `note_agent`.\n")]);
        for _ in 0..2 {
            assert_eq!(chosen(&asking(&stub), "write this down").await, "note_agent");
        }
        let call = &stub.calls()[0];
        assert_eq!(call.model, "small");
        let prompt = call.body["messages"][0]["content"].as_str().unwrap();
        assert!(prompt.contains("- task_agent: tasks and to-dos\n- note_agent: notes in Markdown"), "{prompt}");
        assert_eq!(call.body["messages"][1], json!({"role": "user", "content": "write this down"}));
        assert!(call.body.get("tools").is_none());
    }

    #[tokio::test]
    async fn anything_outside_the_registry_falls_back_to_the_default() {
        let stub = LlmStub::start().await;
        for answer in ["email_agent", "I think note_agent fits best", "", "NOTE_AGENT"] {
            stub.script([Reply::text(answer)]);
            assert_eq!(chosen(&asking(&stub), "write this down").await, "task_agent", "{answer}");
        }
    }

    #[tokio::test]
    async fn a_failure_falls_back_to_the_default() {
        let stub = LlmStub::start().await;
        for reply in
            [Reply::status(401), Reply::status(429), Reply::raw("nonsense"), Reply::text("note_agent").hang_after(0)]
        {
            stub.script([reply]);
            assert_eq!(chosen(&asking(&stub), "write this down").await, "task_agent");
        }
    }

    #[tokio::test]
    async fn one_agent_needs_no_choice() {
        let stub = LlmStub::start().await;
        let only = agent("task_agent", "tasks");
        let classifier = Classifier { asker: &asking(&stub), model: "small", within: Duration::from_secs(1) };
        assert_eq!(classifier.choose(&question("hello"), &[&only], &only).await.unwrap().name, "task_agent");
        assert!(stub.calls().is_empty());
    }

    #[tokio::test]
    async fn the_built_in_model_chooses_by_description() {
        let asker = Asker::of_test(Models::new(&Config::default(), Clock::System).unwrap());
        assert_eq!(chosen(&asker, "please find my notes").await, "note_agent");
        assert_eq!(chosen(&asker, "hello").await, "task_agent");
    }
}
