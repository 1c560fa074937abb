//! The agents: who they are, how one is chosen, how one answers.
pub mod answer;
pub mod arguments;
pub mod classifier;
pub mod desk;
pub mod registry;
pub mod task_agent;
pub mod tool;

pub use registry::{Agent, Registry};
