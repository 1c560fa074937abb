//! What the built-in model says.
use serde_json::Value;

use crate::domain::day::Day;
use crate::models::Said;

/// Most items that are told one by one.
const TOLD: usize = 20;

/// What it is and what it can do.
pub fn introduction() -> String {
    "I am Weft's built-in offline model, not a real language model. I understand plain English sentences about tasks, \
     projects, checkpoints and notes, such as “create a task to call Ana tomorrow”, “list my tasks”, “what is due today”, “mark call Ana as done”, \
     “comment on call Ana: she is away”, “start a project called Boat”, “add a checkpoint Launch to Boat by Friday” or \
     “write a note called Food: milk and bread”. For real answers the operator sets OPENAI_API_KEY, \
     ANTHROPIC_API_KEY, GEMINI_API_KEY or XAI_API_KEY, or OPENAI_BASE_URL for any server that speaks the OpenAI dialect."
        .to_owned()
}

/// What it is, to whom brings a conversation of their own.
pub fn completion() -> String {
    "I am Weft's built-in offline model, not a real language model, and cannot answer this. For real answers the operator \
     sets OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or XAI_API_KEY, or OPENAI_BASE_URL for any server that speaks \
     the OpenAI dialect."
        .to_owned()
}

/// After a change that a tool made.
pub fn changed(verb: &str, title: &str) -> String {
    format!("I {verb} “{title}”.")
}

/// After a new task.
pub fn created(task: &Value) -> String {
    let due = task["due_date"].as_i64().map(|ms| format!(", due {}", Day::of_ms(ms))).unwrap_or_default();
    let priority = task["priority"]
        .as_str()
        .filter(|priority| *priority != "medium")
        .map(|priority| format!(", {priority} priority"))
        .unwrap_or_default();
    format!("I created the task “{}”{due}{priority}.", text(task, "title"))
}

/// A list of tasks; `what` names their kind ("", " due today").
pub fn tasks(result: &Value, what: &str) -> String {
    let tasks = result["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = result["count"].as_u64().unwrap_or(0);
    let opening = match count {
        0 => return format!("You have no tasks{what}."),
        1 => format!("You have one task{what}:"),
        count => format!("You have {count} tasks{what}:"),
    };
    format!("{opening}\n{}", lines(tasks.iter().map(task_line), count))
}

/// A list of comments.
pub fn comments(result: &Value, title: &str) -> String {
    let comments = result["comments"].as_array().map(Vec::as_slice).unwrap_or_default();
    if comments.is_empty() {
        return format!("There are no comments on “{title}”.");
    }
    let count = comments.len() as u64;
    format!("Comments on “{title}”:\n{}", lines(comments.iter().map(|comment| comment_text(comment).to_owned()), count))
}

/// Nothing, or more than one thing, has this name.
pub fn unclear(what: &str, wanted: &str, found: &[&str]) -> String {
    if found.is_empty() {
        return format!("I cannot find a {what} like “{wanted}” among those your app sent along.");
    }
    let count = found.len() as u64;
    format!(
        "Several {what}s are like “{wanted}”. Which one do you mean?\n{}",
        lines(found.iter().map(|&name| name.to_owned()), count)
    )
}

/// A tool could not do it.
pub fn failed(result: &Value) -> String {
    format!("That did not work: {}.", text(result, "error"))
}

/// What a comment says, whatever the client calls the field.
pub fn comment_text(comment: &Value) -> &str {
    ["content", "text", "body"].iter().find_map(|name| comment[*name].as_str()).unwrap_or_default()
}

/// A field as text.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn task_line(task: &Value) -> String {
    let status = match text(task, "status") {
        "done" => ", done",
        "in_progress" => ", in progress",
        _ => "",
    };
    let due = task["due_date"].as_i64().map(|ms| format!(", due {}", Day::of_ms(ms))).unwrap_or_default();
    format!("{}{status}{due}", text(task, "title"))
}

/// What several agents said, one after the other.
pub fn joined(said: &[Said]) -> String {
    said.iter().map(|said| said.response.trim()).collect::<Vec<_>>().join("\n\n")
}

/// A list of things by their names; `name` says what each is called.
pub fn things<'a>(noun: &str, items: &'a Value, count: u64, name: impl Fn(&'a Value) -> String) -> String {
    let opening = match count {
        0 => return format!("You have no {noun}s."),
        1 => format!("You have one {noun}:"),
        count => format!("You have {count} {noun}s:"),
    };
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    format!("{opening}\n{}", lines(items.iter().map(name), count))
}

fn lines(items: impl Iterator<Item = String>, count: u64) -> String {
    let mut lines: Vec<String> = items.take(TOLD).map(|item| format!("- {item}")).collect();
    let told = lines.len() as u64;
    if count > told {
        lines.push(format!("… and {} more", count - told));
    }
    lines.join("\n")
}
