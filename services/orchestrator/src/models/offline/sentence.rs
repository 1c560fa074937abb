//! What a plain sentence about tasks wants.
use crate::domain::day::Day;
use crate::domain::task::{TaskPriority, TaskStatus};
use crate::models::offline::phrase::{
    after, after_all, before, capitalised, split_first, split_last, take_day, unquoted,
};

/// What somebody wants.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Intent {
    /// A new task.
    Create {
        /// What is to be done.
        title: String,
        /// When.
        due: Option<Day>,
        /// How much it matters.
        priority: Option<TaskPriority>,
    },
    /// The tasks.
    List {
        /// Only with this status.
        status: Option<TaskStatus>,
        /// Only with this priority.
        priority: Option<TaskPriority>,
    },
    /// What is due today.
    DueToday,
    /// Another status for a task.
    SetStatus {
        /// Words of its title.
        task: String,
        /// The status.
        status: TaskStatus,
    },
    /// No such task any more.
    Delete {
        /// Words of its title.
        task: String,
    },
    /// The comments on a task.
    ListComments {
        /// Words of its title.
        task: String,
    },
    /// A new comment on a task.
    AddComment {
        /// Words of its title.
        task: String,
        /// The comment.
        content: String,
    },
    /// No such comment any more.
    DeleteComment {
        /// Words of the task's title.
        task: String,
        /// Words of the comment.
        comment: String,
    },
    /// Something else.
    Other,
}

const POLITE: [&str; 14] = [
    "please",
    "can you",
    "could you",
    "would you",
    "will you",
    "i want you to",
    "i want to",
    "i'd like to",
    "hey",
    "hi",
    "hello",
    "ok",
    ",",
    "!",
];
const ARTICLES: [&str; 9] = ["a", "an", "another", "the", "new", "my", "our", "all", "me"];
const CREATE: [&str; 5] = ["create", "add", "make", "new", "set up"];
const SHOW: [&str; 9] = ["list", "show", "display", "what are", "which are", "give", "tell", "see", "read"];
const TASK: [&str; 6] = ["task", "to-do", "todo", "tasks", "to-dos", "todos"];
const TITLE: [&str; 9] = ["to", "called", "named", "titled", "that says", "saying", "for", ":", "-"];
const DONE: [&str; 5] = ["complete", "finish", "close", "check off", "tick off"];
const START: [&str; 3] = ["start working on", "start", "begin"];

/// Reads a sentence; `today` is what "tomorrow" counts from.
pub fn read(message: &str, today: Day) -> Intent {
    let text = plain(message);
    let readers = [comments, create, due_today, set_status, delete, list];
    readers.iter().find_map(|reader| reader(text, today)).unwrap_or(Intent::Other)
}

/// The sentence without politeness around it.
fn plain(message: &str) -> &str {
    let text = message.trim().trim_end_matches(['.', '!', '?', ' ']);
    let text = before(text, &["please"]).unwrap_or(text).trim_end_matches([',', ' ']);
    after_all(text, &POLITE)
}

fn create(text: &str, today: Day) -> Option<Intent> {
    let (rest, priority) = match after(text, &["remind me to", "remind me"]) {
        Some(rest) => (rest, None),
        None => new_task(after(text, &CREATE)?)?,
    };
    let rest = after_all(rest, &TITLE);
    let (title, due, later_priority) = details(rest, today);
    let title = capitalised(unquoted(&title));
    (!title.is_empty()).then_some(Intent::Create { title, due, priority: priority.or(later_priority) })
}

/// What is to be done, from "a high priority task to …" or "… to my list".
fn new_task(rest: &str) -> Option<(&str, Option<TaskPriority>)> {
    let rest = after_all(rest, &ARTICLES);
    let (described, priority) = leading_priority(rest);
    if let Some(title) = after(described, &TASK) {
        return Some((title, priority));
    }
    let lists = [
        "to my tasks",
        "to my task list",
        "to my to-do list",
        "to my todo list",
        "to my list",
        "to the list",
        "as a task",
    ];
    before(rest, &lists).map(|title| (title, None))
}

fn leading_priority(text: &str) -> (&str, Option<TaskPriority>) {
    for (words, priority) in [
        (["high priority", "high-priority", "urgent", "important"].as_slice(), TaskPriority::High),
        (&["medium priority", "medium-priority"], TaskPriority::Medium),
        (&["low priority", "low-priority"], TaskPriority::Low),
    ] {
        if let Some(rest) = after(text, words) {
            return (rest, Some(priority));
        }
    }
    (text, None)
}

fn trailing_priority(text: &str) -> (&str, Option<TaskPriority>) {
    for (word, priority) in [("high", TaskPriority::High), ("medium", TaskPriority::Medium), ("low", TaskPriority::Low)]
    {
        let endings = [format!("with {word} priority"), format!("{word} priority"), format!("priority {word}")];
        if let Some(rest) = before(text, &endings.each_ref().map(String::as_str)) {
            return (rest.trim_end_matches([',', ' ']), Some(priority));
        }
    }
    (text, None)
}

/// Day and priority at the end of a title, in either order.
fn details(text: &str, today: Day) -> (String, Option<Day>, Option<TaskPriority>) {
    let (text, priority) = trailing_priority(text);
    let (text, due) = take_day(text, today);
    let (rest, earlier_priority) = trailing_priority(&text);
    (rest.to_owned(), due, priority.or(earlier_priority))
}

fn due_today(text: &str, _: Day) -> Option<Intent> {
    let lower = text.to_ascii_lowercase();
    let asks = after(text, &SHOW).is_some()
        || after(text, &["what", "what's", "which", "anything", "do i have", "tasks", "my tasks", "due"]).is_some();
    (asks && words(&lower).any(|word| word == "today")).then_some(Intent::DueToday)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '-').filter(|word| !word.is_empty())
}

fn list(text: &str, _: Day) -> Option<Intent> {
    let lower = text.to_ascii_lowercase();
    let asked = after(text, &SHOW)
        .or_else(|| after(text, &["what's", "what", "which", "how many", "do i have"]))
        .unwrap_or(text);
    let about_tasks = words(&lower).any(|word| ["tasks", "to-dos", "todos", "to-do", "todo"].contains(&word));
    let bare = after_all(asked, &ARTICLES).split_whitespace().count() <= 4;
    if !about_tasks || (asked.len() == text.len() && !bare) {
        return None;
    }
    let has = |names: &[&str]| names.iter().any(|name| lower.contains(name));
    let status = [
        (["in progress", "in-progress", "started"].as_slice(), TaskStatus::InProgress),
        (&["done", "completed", "finished"], TaskStatus::Done),
        (&["open", "unfinished", "not started"], TaskStatus::Todo),
    ];
    let priority = [
        ("high priority", TaskPriority::High),
        ("medium priority", TaskPriority::Medium),
        ("low priority", TaskPriority::Low),
    ];
    Some(Intent::List {
        status: status.iter().find(|(names, _)| has(names)).map(|(_, status)| *status),
        priority: priority.iter().find(|(name, _)| has(&[*name])).map(|(_, priority)| *priority),
    })
}

fn set_status(text: &str, _: Day) -> Option<Intent> {
    if let Some(rest) = after(text, &["mark", "set", "move", "change", "tick"]) {
        let (task, word) = split_last(rest, &[" as ", " to "])?;
        let status = status_of(word)?;
        let task = after(task, &["the status of", "status of"]).unwrap_or(task);
        return Some(Intent::SetStatus { task: title(task)?, status });
    }
    if let Some(task) = before(text, &["is done", "is finished", "is complete", "is completed"]) {
        return Some(Intent::SetStatus { task: title(task)?, status: TaskStatus::Done });
    }
    let by_verb =
        [(&DONE[..], TaskStatus::Done), (&START[..], TaskStatus::InProgress), (&["reopen"][..], TaskStatus::Todo)];
    by_verb
        .iter()
        .find_map(|(verbs, status)| Some(Intent::SetStatus { task: title(after(text, verbs)?)?, status: *status }))
}

fn status_of(word: &str) -> Option<TaskStatus> {
    match unquoted(word).to_ascii_lowercase().as_str() {
        "done" | "complete" | "completed" | "finished" => Some(TaskStatus::Done),
        "in progress" | "in-progress" | "in_progress" | "started" => Some(TaskStatus::InProgress),
        "todo" | "to do" | "to-do" | "open" | "not done" | "not started" => Some(TaskStatus::Todo),
        _ => None,
    }
}

fn delete(text: &str, _: Day) -> Option<Intent> {
    let rest = after(text, &["delete", "remove", "drop", "cancel"])?;
    let rest =
        before(rest, &["from my tasks", "from my list", "from my task list", "from my to-do list"]).unwrap_or(rest);
    Some(Intent::Delete { task: title(rest)? })
}

fn comments(text: &str, _: Day) -> Option<Intent> {
    if let Some(rest) = after(text, &["delete", "remove"]) {
        let rest = comment_noun(rest)?;
        let (comment, task) = split_last(rest, &[" from ", " on ", " of "])?;
        return Some(Intent::DeleteComment { task: title(task)?, comment: unquoted(comment).to_owned() });
    }
    if let Some(rest) = after(text, &SHOW) {
        let task = after(comment_noun(rest)?, &["on", "of", "for", "to", "about"])?;
        return Some(Intent::ListComments { task: title(task)? });
    }
    let rest = match after(text, &["add", "write", "leave", "post"]) {
        Some(rest) => comment_noun(rest)?,
        None => after(text, &["comment"])?,
    };
    new_comment(rest)
}

fn comment_noun(rest: &str) -> Option<&str> {
    after(after_all(rest, &ARTICLES), &["comments", "comment"])
}

/// "on X: text", "to X saying text" or "text on X".
fn new_comment(rest: &str) -> Option<Intent> {
    let (task, content) = match after(rest, &["on", "to", "for"]) {
        Some(rest) => split_first(rest, &[": ", " saying ", " that says "])?,
        None => {
            let (content, task) = split_last(after_all(rest, &[":"]), &[" on ", " to "])?;
            (task, content)
        }
    };
    Some(Intent::AddComment { task: title(task)?, content: unquoted(content).to_owned() })
}

/// The words by which a task is named, without "the task".
fn title(text: &str) -> Option<String> {
    let quoted = text.trim();
    let bare = after_all(quoted, &["the", "my"]);
    let bare = after(bare, &TASK).unwrap_or(bare);
    let bare = before(bare, &["task"]).unwrap_or(bare);
    let bare = unquoted(after_all(bare, &["called", "named", "titled", "to", ":"]));
    (!bare.is_empty()).then(|| bare.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    fn understood(message: &str) -> Intent {
        read(message, Day::parse("2026-11-20").unwrap())
    }

    fn creates(title: &str, due: Option<&str>, priority: Option<TaskPriority>) -> Intent {
        Intent::Create { title: title.to_owned(), due: due.map(|day| Day::parse(day).unwrap()), priority }
    }

    #[test]
    fn a_new_task_is_understood() {
        for (message, intent) in [
            ("create a task to call Ana tomorrow", creates("Call Ana", Some("2026-11-21"), None)),
            ("Please create a new task: buy milk.", creates("Buy milk", None, None)),
            (
                "Add a high priority task to file taxes by next Monday",
                creates("File taxes", Some("2026-11-23"), Some(TaskPriority::High)),
            ),
            (
                "add task \"Água\" with low priority tomorrow",
                creates("Água", Some("2026-11-21"), Some(TaskPriority::Low)),
            ),
            (
                "Could you add a task called pay rent due 2026-12-01, priority high?",
                creates("Pay rent", Some("2026-12-01"), Some(TaskPriority::High)),
            ),
            ("remind me to water the plants in 3 days", creates("Water the plants", Some("2026-11-23"), None)),
            ("add buy bread to my list please", creates("Buy bread", None, None)),
            ("new task: ship it today!", creates("Ship it", Some("2026-11-20"), None)),
        ] {
            assert_eq!(understood(message), intent, "{message}");
        }
    }

    #[test]
    fn lists_are_understood() {
        let all = || Intent::List { status: None, priority: None };
        for (message, intent) in [
            ("list my tasks", all()),
            ("Show me all my tasks", all()),
            ("what are my to-dos?", all()),
            ("my tasks", all()),
            ("show the tasks in progress", Intent::List { status: Some(TaskStatus::InProgress), priority: None }),
            ("list completed tasks", Intent::List { status: Some(TaskStatus::Done), priority: None }),
            (
                "list my open high priority tasks",
                Intent::List { status: Some(TaskStatus::Todo), priority: Some(TaskPriority::High) },
            ),
            ("what is due today?", Intent::DueToday),
            ("which tasks do I have today", Intent::DueToday),
            ("list tasks due today", Intent::DueToday),
        ] {
            assert_eq!(understood(message), intent, "{message}");
        }
    }

    #[test]
    fn changes_are_understood() {
        let status = |task: &str, status| Intent::SetStatus { task: task.to_owned(), status };
        for (message, intent) in [
            ("mark call Ana as done", status("call Ana", TaskStatus::Done)),
            ("Mark the task \"Call Ana\" as in progress", status("Call Ana", TaskStatus::InProgress)),
            ("set the status of call Ana to done", status("call Ana", TaskStatus::Done)),
            ("complete the call Ana task", status("call Ana", TaskStatus::Done)),
            ("start working on taxes", status("taxes", TaskStatus::InProgress)),
            ("reopen taxes", status("taxes", TaskStatus::Todo)),
            ("Call Ana is done", status("Call Ana", TaskStatus::Done)),
            ("delete the task Buy milk", Intent::Delete { task: "Buy milk".to_owned() }),
            ("remove buy milk from my list", Intent::Delete { task: "buy milk".to_owned() }),
        ] {
            assert_eq!(understood(message), intent, "{message}");
        }
    }

    #[test]
    fn comments_are_understood() {
        let add = |task: &str, content: &str| Intent::AddComment { task: task.to_owned(), content: content.to_owned() };
        for (message, intent) in [
            ("comment on call Ana: she is away until Monday", add("call Ana", "she is away until Monday")),
            ("add a comment to the task Buy milk saying oat, not soy", add("Buy milk", "oat, not soy")),
            ("add the comment 'oat' to buy milk", add("buy milk", "oat")),
            ("show the comments on Buy milk", Intent::ListComments { task: "Buy milk".to_owned() }),
            ("list comments for call Ana", Intent::ListComments { task: "call Ana".to_owned() }),
            (
                "delete the comment 'oat' from Buy milk",
                Intent::DeleteComment { task: "Buy milk".to_owned(), comment: "oat".to_owned() },
            ),
        ] {
            assert_eq!(understood(message), intent, "{message}");
        }
    }

    #[test]
    fn anything_else_is_left_alone() {
        for message in [
            "hello",
            "what is the capital of France?",
            "create",
            "create a task",
            "mark it",
            "é",
            "",
            "I love tasks but I would rather talk about the sea",
        ] {
            assert_eq!(understood(message), Intent::Other, "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_sentence_is_too_strange(words in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::sample::select(vec!["create", "task", "to", "tomorrow", "in", "at", "mark", "as", "done", "delete", "the",
                    "comment", "on", ":", "“", "'", "list", "high priority", "é", "İ", "ß", "next", "friday", "please"]).prop_map(str::to_owned),
                ".{0,8}",
            ], 0..12), glue in proptest::sample::select(vec![" ", "", "  ", "\n"])) {
            if let Intent::Create { title, .. } = understood(&words.join(glue)) {
                proptest::prop_assert!(!title.trim().is_empty());
            }
        }
    }
}
