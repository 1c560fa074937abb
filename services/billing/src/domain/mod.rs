//! The rules: what a plan is made of and what it allows. No I/O.
pub mod entitlement;
pub mod plan;
