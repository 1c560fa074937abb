//! What models are told, by id. The texts stay on the server: no answer, log or error carries one.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;

/// Largest prompt of an operator, in bytes.
const PROMPT_BYTES: u64 = 65_536;

/// A prompt template. It has no `Debug`: an operator's text must not reach a log.
#[derive(Clone)]
pub enum Prompt {
    /// Chooses an agent. Variables: `agents`.
    Classifier,
    /// What comes before the data that the client sent along. Variables: `context`.
    Context,
    /// Makes one answer of what several agents said.
    Synthesis,
    /// Makes a plan of steps. Variables: `templates`.
    Planner,
    /// The task agent. Variables: `today`, `today_ms`.
    TaskAgent,
    /// The checkpoint agent. Variables: `today`, `today_ms`.
    CheckpointAgent,
    /// The project agent. Variables: `today`.
    ProjectAgent,
    /// The note agent. Variables: `today`.
    NoteAgent,
    /// An agent's that a manifest configures, or a plan's step. Variables: `today`, `today_ms`.
    Named {
        /// Its id.
        id: Arc<str>,
        /// Its text.
        text: Arc<str>,
    },
}

impl Prompt {
    /// A prompt that is known by its id only.
    pub fn named(id: &str, text: &str) -> Prompt {
        Prompt::Named { id: Arc::from(id), text: Arc::from(text) }
    }

    /// The stable id, by which logs may name it.
    pub fn id(&self) -> &str {
        match self {
            Prompt::Classifier => "classifier",
            Prompt::Context => "context",
            Prompt::Synthesis => "synthesis",
            Prompt::Planner => "planner",
            Prompt::TaskAgent => "task_agent",
            Prompt::CheckpointAgent => "checkpoint_agent",
            Prompt::ProjectAgent => "project_agent",
            Prompt::NoteAgent => "note_agent",
            Prompt::Named { id, .. } => id,
        }
    }

    fn text(&self) -> &str {
        match self {
            Prompt::Classifier => include_str!("classifier.txt"),
            Prompt::Context => include_str!("context.txt"),
            Prompt::Synthesis => include_str!("synthesis.txt"),
            Prompt::Planner => include_str!("planner.txt"),
            Prompt::TaskAgent => include_str!("task_agent.txt"),
            Prompt::CheckpointAgent => include_str!("checkpoint_agent.txt"),
            Prompt::ProjectAgent => include_str!("project_agent.txt"),
            Prompt::NoteAgent => include_str!("note_agent.txt"),
            Prompt::Named { text, .. } => text,
        }
    }

    /// The text with its `{{variables}}` filled in, in one pass: what a value contains is never taken for a
    /// variable. A variable without a value becomes empty.
    pub fn render(&self, values: &[(&str, &str)]) -> String {
        let mut rendered = String::new();
        let mut rest = self.text().trim_end();
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, tail)) = after.split_once("}}") else { break };
            rendered.push_str(before);
            rendered.push_str(values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| *value));
            rest = tail;
        }
        rendered.push_str(rest);
        rendered
    }
}

/// The prompts that manifests may name: those of this version, and an operator's own.
#[derive(Default)]
pub struct Prompts {
    own: HashMap<String, Prompt>,
}

impl Prompts {
    /// With the `<id>.txt` files of a folder. One with the id of a built-in prompt stands before it.
    ///
    /// # Errors
    /// [`Error::Prompts`] for a folder or file that cannot be read, and for one that is too large or empty.
    pub fn load(folder: &Path) -> Result<Prompts, Error> {
        let unusable = |path: &Path, problem: String| Error::Prompts { path: path.display().to_string(), problem };
        let entries = std::fs::read_dir(folder).map_err(|error| unusable(folder, error.to_string()))?;
        let mut own = HashMap::new();
        for entry in entries {
            let path = entry.map_err(|error| unusable(folder, error.to_string()))?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".txt")) else { continue };
            let size = std::fs::metadata(&path).map_err(|error| unusable(&path, error.to_string()))?.len();
            if size > PROMPT_BYTES {
                return Err(unusable(&path, format!("is over {PROMPT_BYTES} bytes; shorten it")));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| unusable(&path, error.to_string()))?;
            if text.trim().is_empty() {
                return Err(unusable(&path, "is empty; write the prompt or remove the file".to_owned()));
            }
            own.insert(id.to_owned(), Prompt::named(id, &text));
        }
        Ok(Prompts { own })
    }

    /// The prompt of this id.
    pub fn get(&self, id: &str) -> Option<Prompt> {
        let built_in = || {
            let text = match id {
                "calendar_agent" => include_str!("calendar_agent.txt"),
                "email_agent" => include_str!("email_agent.txt"),
                "analytics_agent" => include_str!("analytics_agent.txt"),
                _ => return None,
            };
            Some(Prompt::named(id, text))
        };
        self.own.get(id).cloned().or_else(built_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_taken_for_a_variable() {
        let rendered = Prompt::Context.render(&[("context", "{{context}} {{today}}")]);
        assert!(rendered.ends_with("{{context}} {{today}}"));
    }

    #[test]
    fn every_variable_of_a_prompt_is_known() {
        let days = || vec!["today", "today_ms"];
        let configured = ["calendar_agent", "email_agent", "analytics_agent"];
        let mut prompts = vec![
            (Prompt::Classifier, vec!["agents"]),
            (Prompt::Context, vec!["context"]),
            (Prompt::Synthesis, Vec::new()),
            (Prompt::Planner, vec!["templates"]),
            (Prompt::TaskAgent, days()),
            (Prompt::CheckpointAgent, days()),
            (Prompt::ProjectAgent, days()),
            (Prompt::NoteAgent, days()),
        ];
        prompts.extend(configured.map(|id| (Prompts::default().get(id).unwrap(), days())));
        for (prompt, names) in prompts {
            let values: Vec<(&str, &str)> = names.iter().map(|&name| (name, "FILLED")).collect();
            let rendered = prompt.render(&values);
            assert_eq!(rendered.matches("FILLED").count(), prompt.text().matches("{{").count(), "{}", prompt.id());
        }
    }

    #[test]
    fn an_operators_prompts_are_read_from_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("butler.txt"), "You serve tea on {{today}}.").unwrap();
        std::fs::write(folder.path().join("email_agent.txt"), "You read letters aloud.").unwrap();
        std::fs::write(folder.path().join("notes.md"), "left alone").unwrap();
        let prompts = Prompts::load(folder.path()).unwrap();
        assert_eq!(prompts.get("butler").unwrap().render(&[("today", "Friday")]), "You serve tea on Friday.");
        assert_eq!(prompts.get("email_agent").unwrap().render(&[]), "You read letters aloud.");
        assert!(prompts.get("notes").is_none() && prompts.get("calendar_agent").is_some());

        for (name, text) in [("empty.txt", " \n".to_owned()), ("long.txt", "x".repeat(65_537))] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let Err(error) = Prompts::load(folder.path()) else { panic!("{name} was accepted") };
            assert!(error.to_string().contains(name), "{error}");
            std::fs::remove_file(path).unwrap();
        }
        assert!(Prompts::load(&folder.path().join("nowhere")).is_err());
    }
}
