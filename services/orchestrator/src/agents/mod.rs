//! The agents: who they are, how one is chosen, how one answers.
pub mod answer;
pub mod arguments;
pub mod call;
pub mod checkpoint_agent;
pub mod classifier;
pub mod desk;
pub mod note_agent;
pub mod project_agent;
pub mod registry;
pub mod schema;
pub mod task_agent;
pub mod tool;

pub use registry::{Agent, Registries, Registry};
