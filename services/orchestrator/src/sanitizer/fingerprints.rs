//! By what a prompt, a tool's definition or the list of agents is known again: pieces of exactly what is sent.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::normal::normal;
use crate::agents::{Agent, answer, classifier};
use crate::domain::day::Day;
use crate::models::{Choice, ToolSpec};
use crate::plans;
use crate::prompts::Prompt;

/// Of what models are told so many characters in a row do not get out. They are counted in normal form: fewer of them
/// are found in what anybody might say about tasks.
pub const RUN: usize = 32;
/// A whole text that is shorter than this, in normal form, is nothing by which to know it.
const LEAST: usize = 20;
/// Some time of a day. Digits are alike in normal form, so any day will do that is written with as many of them.
const ANY_DAY_MS: i64 = 1_700_000_000_000;
/// Words of every JSON schema, in normal form: a piece that has no other words is nobody's.
const SCHEMA_WORDS: [&str; 26] = [
    "additionalproperties",
    "array",
    "boolean",
    "default",
    "description",
    "enum",
    "false",
    "function",
    "input",
    "integer",
    "items",
    "maximum",
    "maxlength",
    "minimum",
    "minlength",
    "name",
    "null",
    "number",
    "object",
    "parameters",
    "properties",
    "required",
    "schema",
    "string",
    "true",
    "type",
];

/// Fingerprints in normal form.
#[derive(Default)]
pub struct Fingerprints(BTreeSet<String>);

impl Fingerprints {
    /// Of everything that models are told for these agents.
    pub fn of(agents: &[&Agent]) -> Fingerprints {
        let mut fingerprints = Fingerprints::default();
        prompts(agents).iter().for_each(|prompt| fingerprints.add(prompt));
        for agent in agents {
            definitions(agent).iter().for_each(|text| fingerprints.add(text));
        }
        fingerprints
    }

    /// In normal form.
    pub fn texts(&self) -> &BTreeSet<String> {
        &self.0
    }

    /// Every [`RUN`] characters of a text, but not what every JSON schema has. A text that is shorter is one fingerprint.
    fn add(&mut self, text: &str) {
        let mut letters: Vec<(char, bool)> = Vec::new();
        for word in text.split(|letter: char| !letter.is_alphanumeric()) {
            let word = normal(word);
            let telling = !SCHEMA_WORDS.contains(&word.as_str()) && word.chars().any(char::is_alphabetic);
            letters.extend(word.chars().map(|letter| (letter, telling)));
        }
        if letters.len() < LEAST {
            return;
        }
        for window in letters.windows(RUN.min(letters.len())) {
            if window.iter().any(|(_, telling)| *telling) {
                self.0.insert(window.iter().map(|(letter, _)| letter).collect());
            }
        }
    }
}

/// The prompts as they are sent, but for the client's own data.
pub fn prompts(agents: &[&Agent]) -> Vec<String> {
    let day = Day::of_ms(ANY_DAY_MS);
    let mut prompts: Vec<String> = agents.iter().map(|agent| agent.instructions(day)).collect();
    prompts.push(answer::around(""));
    prompts.push(Prompt::Synthesis.render(&[]));
    let names: Vec<String> = agents.iter().map(|agent| agent.name.to_string()).collect();
    let templates = plans::templates(&names);
    prompts.extend(templates.iter().map(|template| template.instructions(day)));
    prompts.extend(templates.iter().map(|template| plans::instructions(&[*template])));
    prompts.push(plans::instructions(&templates));
    prompts.extend(neighbours(&templates.iter().map(|template| template.line()).collect::<Vec<_>>()));
    let choices: Vec<Choice<'_>> = agents.iter().map(|agent| agent.choice()).collect();
    prompts.extend(choices.iter().map(|choice| classifier::instructions(&[*choice])));
    prompts.push(classifier::instructions(&choices));
    prompts.extend(neighbours(&choices.iter().map(classifier::line).collect::<Vec<_>>()));
    prompts
}

/// A plan has only some of the agents: in every list of some, neighbours are a pair of these.
fn neighbours(lines: &[String]) -> impl Iterator<Item = String> + '_ {
    let after = |(at, first)| lines[at + 1..].iter().map(move |second| format!("{first}\n{second}"));
    lines.iter().enumerate().flat_map(after)
}

/// The tools of an agent as they are sent, and their texts one by one.
pub fn definitions(agent: &Agent) -> Vec<String> {
    let (tools, call) = agent.specs();
    let specs = || tools.iter().copied().chain(&call);
    let mut texts: Vec<String> =
        [written, sorted, named].map(|form| specs().map(form).collect::<Vec<_>>().join(",")).to_vec();
    for spec in specs() {
        texts.push(spec.description.to_string());
        texts.push(format!("{}: {}", spec.name, spec.description));
        add_descriptions(&spec.parameters, &mut texts);
    }
    texts
}

/// A tool in the order of the OpenAI dialect.
fn written(ToolSpec { name, description, parameters, .. }: &ToolSpec) -> String {
    let (name, description) = (json!(name), json!(description));
    format!(
        r#"{{"type":"function","function":{{"name":{name},"description":{description},"parameters":{parameters}}}}}"#
    )
}

/// The same in the order of the alphabet, as programs write it.
fn sorted(ToolSpec { name, description, parameters, .. }: &ToolSpec) -> String {
    let function = json!({"name": name, "description": description, "parameters": parameters});
    let mut tool = json!({"type": "function", "function": function});
    tool.sort_all_objects();
    tool.to_string()
}

/// Without what is around it, as other dialects have it.
fn named(ToolSpec { name, description, parameters, .. }: &ToolSpec) -> String {
    format!(r#"{{"name":{},"description":{},"input_schema":{parameters}}}"#, json!(name), json!(description))
}

/// Every description within a schema.
fn add_descriptions(schema: &Value, texts: &mut Vec<String>) {
    let Value::Object(fields) = schema else { return };
    for (name, field) in fields {
        match field {
            Value::String(text) if name == "description" => texts.push(text.clone()),
            field => add_descriptions(field, texts),
        }
    }
}
