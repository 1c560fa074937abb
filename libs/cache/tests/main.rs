//! The same promises kept in process and over Redis, and what a replica does when Redis fails.
mod conformance;
mod journal;
mod outage;
mod shared;
