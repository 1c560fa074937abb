//! The RPCs: decode, ask the store and the domain, encode.
pub mod entitlement;
