//! What the built-in model does next: call a tool or say something, by what it wants and what tools gave back so far.
use serde_json::{Value, json};

use crate::domain::day::Day;
use crate::domain::task::TaskStatus;
use crate::models::offline::reply;
use crate::models::offline::sentence::Intent;

/// So many tasks are looked through for a name: all that a request may carry.
const LOOKED_THROUGH: u32 = 500;

/// What to do next.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub enum Step {
    /// Call a tool with these arguments.
    Call(&'static str, Value),
    /// Say this; it is the answer.
    Say(String),
}

/// The next step; `results` are those of the tools called so far, in order.
pub fn next(intent: &Intent, results: &[Value]) -> Step {
    if let Some(failed) = results.iter().find(|result| result.get("error").is_some()) {
        return Step::Say(reply::failed(failed));
    }
    match intent {
        Intent::Other => Step::Say(reply::introduction()),
        Intent::Create { title, due, priority } => match results.first() {
            Some(result) => Step::Say(reply::created(&result["created"])),
            None => Step::Call(
                "create_task",
                json!({"title": title, "due_date": due.map_or(-1, Day::start_ms), "priority": priority.unwrap_or_default()}),
            ),
        },
        Intent::List { status, priority } => match results.first() {
            Some(result) => Step::Say(reply::tasks(result, "")),
            None => Step::Call("list_tasks", json!({"status": status, "priority": priority})),
        },
        Intent::DueToday => match results.first() {
            Some(result) => Step::Say(reply::tasks(result, " due today")),
            None => Step::Call("list_tasks_due_today", json!({})),
        },
        Intent::SetStatus { task, .. }
        | Intent::Delete { task }
        | Intent::ListComments { task }
        | Intent::AddComment { task, .. }
        | Intent::DeleteComment { task, .. } => with_task(intent, task, results),
    }
}

/// Steps that first need the task somebody means.
fn with_task(intent: &Intent, wanted: &str, results: &[Value]) -> Step {
    let Some((listed, later)) = results.split_first() else {
        return Step::Call("list_tasks", json!({"limit": LOOKED_THROUGH}));
    };
    let task = match pick(&listed["tasks"], wanted, |task| reply::text(task, "title")) {
        Ok(task) => task,
        Err(found) => return Step::Say(reply::unclear("task", wanted, &found)),
    };
    let (id, title) = (&task["id"], reply::text(task, "title"));
    match (intent, later) {
        (Intent::SetStatus { status, .. }, []) => Step::Call("update_task", json!({"task_id": id, "status": status})),
        (Intent::SetStatus { status, .. }, _) => Step::Say(reply::changed(status_verb(*status), title)),
        (Intent::Delete { .. }, []) => Step::Call("delete_task", json!({"task_id": id})),
        (Intent::Delete { .. }, _) => Step::Say(reply::changed("deleted the task", title)),
        (Intent::AddComment { content, .. }, []) => {
            Step::Call("add_task_comment", json!({"task_id": id, "content": content}))
        }
        (Intent::AddComment { .. }, _) => Step::Say(reply::changed("added the comment to", title)),
        (Intent::ListComments { .. } | Intent::DeleteComment { .. }, []) => {
            Step::Call("list_task_comments", json!({"task_id": id}))
        }
        (Intent::DeleteComment { comment, .. }, [comments]) => delete_comment(comment, comments),
        (Intent::DeleteComment { .. }, _) => Step::Say(reply::changed("deleted the comment from", title)),
        (Intent::ListComments { .. }, [comments, ..]) => Step::Say(reply::comments(comments, title)),
        (Intent::Create { .. } | Intent::List { .. } | Intent::DueToday | Intent::Other, _) => {
            Step::Say(reply::introduction())
        }
    }
}

fn delete_comment(wanted: &str, comments: &Value) -> Step {
    match pick(&comments["comments"], wanted, reply::comment_text) {
        Ok(comment) => Step::Call("delete_task_comment", json!({"comment_id": comment["id"]})),
        Err(found) => Step::Say(reply::unclear("comment", wanted, &found)),
    }
}

fn status_verb(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Done => "marked as done",
        TaskStatus::InProgress => "marked as in progress",
        TaskStatus::Todo => "marked as to do",
    }
}

/// The one item that has this name, or else whose name has all these words. Otherwise the names that fit.
pub fn pick<'a>(
    items: &'a Value,
    wanted: &str,
    name: impl Fn(&'a Value) -> &'a str,
) -> Result<&'a Value, Vec<&'a str>> {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = words(wanted);
    let named = |exactly: bool| -> Vec<&'a Value> {
        let fits = |item: &&'a Value| {
            let have = words(name(item));
            if exactly { have == wanted } else { !wanted.is_empty() && wanted.iter().all(|word| have.contains(word)) }
        };
        items.iter().filter(fits).collect()
    };
    let exact = named(true);
    let found = if exact.is_empty() { named(false) } else { exact };
    match found[..] {
        [one] => Ok(one),
        _ => Err(found.into_iter().map(name).collect()),
    }
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(task: &str) -> Intent {
        Intent::Delete { task: task.to_owned() }
    }

    fn listed() -> Value {
        json!({"count": 3, "tasks": [
            {"id": "1", "title": "Call Ana"}, {"id": "2", "title": "Call Ana back"}, {"id": "3", "title": "Buy milk"},
        ]})
    }

    #[test]
    fn a_task_is_looked_up_before_it_is_deleted() {
        assert_eq!(next(&delete("milk"), &[]), Step::Call("list_tasks", json!({"limit": 500})));
        assert_eq!(next(&delete("milk"), &[listed()]), Step::Call("delete_task", json!({"task_id": "3"})));
        let said = next(&delete("milk"), &[listed(), json!({"deleted": "3"})]);
        assert_eq!(said, Step::Say("I deleted the task “Buy milk”.".to_owned()));
    }

    #[test]
    fn an_exact_name_wins_over_one_that_contains_it() {
        assert_eq!(next(&delete("call ana"), &[listed()]), Step::Call("delete_task", json!({"task_id": "1"})));
    }

    #[test]
    fn it_asks_rather_than_guesses() {
        let Step::Say(said) = next(&delete("call"), &[listed()]) else { panic!("it guessed") };
        assert!(said.contains("- Call Ana\n- Call Ana back"), "{said}");
        let Step::Say(said) = next(&delete("taxes"), &[listed()]) else { panic!("it guessed") };
        assert!(said.starts_with("I cannot find a task like “taxes”"), "{said}");
    }

    #[test]
    fn a_comment_is_looked_up_in_its_task() {
        let intent = Intent::DeleteComment { task: "buy milk".to_owned(), comment: "oat".to_owned() };
        let comments =
            json!({"comments": [{"id": "c1", "content": "Oat, not soy"}, {"id": "c2", "content": "two litres"}]});
        assert_eq!(next(&intent, &[listed()]), Step::Call("list_task_comments", json!({"task_id": "3"})));
        assert_eq!(
            next(&intent, &[listed(), comments.clone()]),
            Step::Call("delete_task_comment", json!({"comment_id": "c1"}))
        );
        let said = next(&intent, &[listed(), comments, json!({"deleted": "c1"})]);
        assert_eq!(said, Step::Say("I deleted the comment from “Buy milk”.".to_owned()));
    }

    #[test]
    fn a_tool_that_fails_is_told() {
        let said = next(&Intent::DueToday, &[json!({"error": "no"})]);
        assert_eq!(said, Step::Say("That did not work: no.".to_owned()));
    }
}
