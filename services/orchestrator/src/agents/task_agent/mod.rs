//! `task_agent`: a user's tasks and the comments on them, with 8 tools.
//!
//! Tools that read take from the request's context; tools that change answer with an action for the client, which
//! alone holds the data.
mod comments;
mod schema;
mod tasks;
#[cfg(test)]
mod tests;

use crate::agents::Agent;
use crate::agents::schema::{nothing, one_id};
use crate::agents::tool::{Tool, tool};
use crate::prompts::Prompt;

/// The agent.
pub fn agent() -> Agent {
    Agent::built_in(
        "task_agent",
        "Tasks and to-dos: creates, lists, updates, completes and deletes tasks with status, priority, \
         assignees and due dates, tells what is due, and adds, lists and deletes comments on tasks.",
        Prompt::TaskAgent,
        tools(),
    )
}

fn tools() -> Vec<Tool> {
    vec![
        tool(
            "list_tasks",
            "List the user's tasks with their ids, optionally only those of a status or a priority.",
            schema::list_tasks(),
            tasks::list,
        ),
        tool("create_task", "Create a task.", schema::create_task(), tasks::create),
        tool(
            "update_task",
            "Change fields of a task; fields that are not given stay as they are.",
            schema::update_task(),
            tasks::update,
        ),
        tool(
            "delete_task",
            "Delete a task. Only when the user asks for it.",
            one_id("task_id", "Id of the task."),
            tasks::delete,
        ),
        tool(
            "list_tasks_due_today",
            "List the tasks that are due today and not done.",
            nothing(),
            tasks::list_due_today,
        ),
        tool(
            "list_task_comments",
            "List the comments on a task with their ids.",
            one_id("task_id", "Id of the task."),
            comments::list,
        ),
        tool("add_task_comment", "Add a comment to a task.", schema::add_task_comment(), comments::add),
        tool(
            "delete_task_comment",
            "Delete a comment. Only when the user asks for it.",
            one_id("comment_id", "Id of the comment."),
            comments::delete,
        ),
    ]
}
