//! Chooses an agent by the words that a message shares with the agents' own descriptions.
use std::collections::BTreeSet;

use crate::models::Choice;

/// Words that say nothing about a subject.
const EMPTY_WORDS: [&str; 40] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "could", "do", "does", "for", "from", "has", "have", "i",
    "in", "is", "it", "me", "my", "of", "on", "or", "our", "please", "that", "the", "their", "them", "this", "to",
    "user", "was", "what", "with", "would", "you", "your",
];

/// The name of the choice that shares the most words with the message; nothing if none does or two share as many. A word
/// of the name counts twice: what an agent is about tells more than what it does with it.
pub fn choose<'a>(message: &str, choices: &[Choice<'a>]) -> &'a str {
    let said = words(message);
    let shared = |choice: &Choice<'_>| {
        let name = words(choice.name);
        let both = words(&format!("{} {}", choice.name, choice.description));
        both.intersection(&said).count() + name.intersection(&said).count()
    };
    let counts: Vec<usize> = choices.iter().map(shared).collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    let mut best = choices.iter().zip(&counts).filter(|(_, count)| **count == most);
    match (best.next(), best.next()) {
        (Some((choice, _)), None) if most > 0 => choice.name,
        _ => "",
    }
}

/// The words of a text without endings that make no difference here.
fn words(text: &str) -> BTreeSet<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.filter(|word| !EMPTY_WORDS.contains(word)).map(stem).collect()
}

fn stem(word: &str) -> String {
    for ending in ["ing", "es", "ed", "s", "e"] {
        if let Some(stem) = word.strip_suffix(ending).filter(|stem| stem.chars().count() >= 3) {
            return stem.to_owned();
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENTS: [Choice<'static>; 3] = [
        Choice { name: "task_agent", description: "Creates, lists, changes and deletes tasks and comments on them" },
        Choice { name: "note_agent", description: "Writes and finds notes in Markdown" },
        Choice { name: "calendar_agent", description: "Schedules meetings and events" },
    ];

    #[test]
    fn the_agent_whose_description_fits_is_chosen() {
        for (message, name) in [
            ("Create a task to call Ana", "task_agent"),
            ("please delete my comments", "task_agent"),
            ("find the note about Lisbon", "note_agent"),
            ("schedule a meeting with Bo", "calendar_agent"),
            ("change the note Food", "note_agent"),
        ] {
            assert_eq!(choose(message, &AGENTS), name, "{message}");
        }
    }

    #[test]
    fn nothing_is_chosen_when_nothing_or_two_things_fit() {
        assert_eq!(choose("hello there", &AGENTS), "");
        assert_eq!(choose("a note on my task", &AGENTS), "");
        assert_eq!(choose("the", &AGENTS), "");
        assert_eq!(choose("anything", &[]), "");
    }
}
