//! `checkpoint_agent`: the checkpoints of a user's projects, with 4 tools.
mod checkpoints;
mod schema;
#[cfg(test)]
mod tests;

use crate::agents::Agent;
use crate::agents::schema::one_id;
use crate::agents::tool::{Tool, tool};
use crate::prompts::Prompt;

/// The agent.
pub fn agent() -> Agent {
    Agent::built_in(
        "checkpoint_agent",
        "Checkpoints and milestones: adds, lists, moves and removes the dated checkpoints of a project, and suggests new ones.",
        Prompt::CheckpointAgent,
        tools(),
    )
}

fn tools() -> Vec<Tool> {
    vec![
        tool(
            "list_checkpoints",
            "List checkpoints with their ids, earliest first, all of them or those of one project; it also names the projects.",
            schema::list_checkpoints(),
            checkpoints::list,
        ),
        tool(
            "create_checkpoint",
            "Create a checkpoint of a project.",
            schema::create_checkpoint(),
            checkpoints::create,
        ),
        tool(
            "update_checkpoint",
            "Change a checkpoint, or approve one that was suggested; absent fields keep their values.",
            schema::update_checkpoint(),
            checkpoints::update,
        ),
        tool(
            "delete_checkpoint",
            "Delete a checkpoint. Never without the user's wish.",
            one_id("checkpoint_id", "Id of the checkpoint."),
            checkpoints::delete,
        ),
    ]
}
