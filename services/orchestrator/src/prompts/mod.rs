//! What models are told, by id. The texts stay on the server: no answer, log or error carries one.

/// A prompt template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Chooses an agent. Variables: `agents`.
    Classifier,
    /// What comes before the data that the client sent along. Variables: `context`.
    Context,
    /// The task agent. Variables: `today`, `today_ms`.
    TaskAgent,
}

impl Prompt {
    /// The stable id, by which logs may name it.
    pub fn id(self) -> &'static str {
        match self {
            Prompt::Classifier => "classifier",
            Prompt::Context => "context",
            Prompt::TaskAgent => "task_agent",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Prompt::Classifier => include_str!("classifier.txt"),
            Prompt::Context => include_str!("context.txt"),
            Prompt::TaskAgent => include_str!("task_agent.txt"),
        }
    }

    /// The text with its `{{variables}}` filled in, in one pass: what a value contains is never taken for a
    /// variable. A variable without a value becomes empty.
    pub fn render(self, values: &[(&str, &str)]) -> String {
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
        for (prompt, names) in [
            (Prompt::Classifier, vec!["agents"]),
            (Prompt::Context, vec!["context"]),
            (Prompt::TaskAgent, vec!["today", "today_ms"]),
        ] {
            let values: Vec<(&str, &str)> = names.iter().map(|&name| (name, "FILLED")).collect();
            let rendered = prompt.render(&values);
            assert_eq!(rendered.matches("FILLED").count(), prompt.text().matches("{{").count(), "{}", prompt.id());
        }
    }
}
