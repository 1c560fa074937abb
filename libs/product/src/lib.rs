//! Product manifests: typed, validated, hashed
