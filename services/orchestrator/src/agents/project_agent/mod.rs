//! `project_agent`: a user's projects, with 6 tools. Archiving comes before deleting.
mod projects;
mod schema;
#[cfg(test)]
mod tests;

use crate::agents::Agent;
use crate::agents::schema::{nothing, one_id};
use crate::agents::tool::{Tool, tool};
use crate::prompts::Prompt;

/// The agent.
pub fn agent() -> Agent {
    Agent::built_in(
        "project_agent",
        "Projects: starts, lists, opens, renames, archives, reactivates and deletes projects.",
        Prompt::ProjectAgent,
        tools(),
    )
}

fn tools() -> Vec<Tool> {
    vec![
        tool(
            "list_projects",
            "List the active projects with their ids.",
            schema::list_projects(),
            projects::list_active,
        ),
        tool(
            "list_all_projects",
            "List the projects with their ids, archived ones too.",
            nothing(),
            projects::list_all,
        ),
        tool("get_project", "Show one project in full.", one_id("project_id", "Id of the project."), projects::get),
        tool("create_project", "Create a project; it is active.", schema::create_project(), projects::create),
        tool(
            "update_project",
            "Change fields of a project, or archive it by status archived; what is not given stays as it was.",
            schema::update_project(),
            projects::update,
        ),
        tool(
            "delete_project",
            "Delete a project for good. Prefer to archive it; an active one is only deleted if is_confirmed is 1.",
            schema::delete_project(),
            projects::delete,
        ),
    ]
}
