//! All SQL of billing.
pub mod entitlement;
pub mod plan;
