//! Product manifests: typed, validated, hashed.
//!
//! A product is one file, `products/<slug>.toml`. It composes capabilities that are code and gives the numbers:
//! plans, prices, limits, agents, models. It holds no secret. Reading is all or nothing: every mistake of every
//! file is reported with its line, and a process with one mistake does not start.
mod check;
mod error;
mod manifest;
mod product;
mod products;

pub use check::{default_price_id, is_currency};
pub use error::{ManifestError, ManifestErrors};
pub use product::{
    Agents, ConfiguredAgent, CredentialKind, CreditPackage, DataPolicy, Identity, Interval, Issuer, Limit, ModelPrice,
    Models, Moderation, OnDisconnect, Plan, PlanCredits, PlanModels, Price, Product,
};
pub use products::Products;
