//! Tokens, the caller, and the policy layer built from the descriptors
