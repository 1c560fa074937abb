//! Plans: steps that the client runs, by ids of templates whose text stays here.
mod builder;
mod cache;
mod planner;
mod playbooks;
mod runs;
mod template;

#[cfg(test)]
pub use builder::proposed;
pub use builder::{Bounds, PlanBuilder, VARIABLES_BYTES, written};
pub use cache::PlanCache;
pub use planner::{Planner, instructions, templates, told};
pub use playbooks::{PLAYBOOKS, Playbook};
pub use runs::{Place, Runs};
#[cfg(test)]
pub use template::TEMPLATES;
pub use template::Template;
