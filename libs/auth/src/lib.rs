//! Who is calling, and may they: access tokens (mint, verify), service tokens, and the policy layer that
//! reads from the descriptors who may call what.
//!
//! A call is let in by [`Guard::admit`], which [`GuardLayer`] runs in front of every service. It finds the
//! RPC's [`Policy`], checks the tokens that the call carries and leaves a [`Caller`] for the handler.
//! No error, log line or `Debug` text of this crate holds a token or a secret.
mod caller;
mod claims;
mod entitlements;
mod guard;
mod keys;
mod layer;
mod moment;
mod policy;
mod revocations;
mod service_key;
mod signer;
mod verifier;

pub use caller::Caller;
pub use claims::{AUDIENCE, Claims, ISSUER};
pub use entitlements::Entitlements;
pub use guard::Guard;
pub use keys::Keys;
pub use layer::{GuardLayer, GuardService};
pub use policy::{Access, Policies, Policy, PolicyError};
pub use revocations::{Revocations, follow};
pub use service_key::ServiceKey;
pub use signer::{RandomnessError, Signer};
pub use verifier::Verifier;

/// Header that carries the token of the calling service, see [`ServiceKey`].
pub const SERVICE_TOKEN_HEADER: &str = "x-weft-service-token";
/// Header that names the product a call is for, by slug.
pub const PRODUCT_HEADER: &str = "x-weft-product";
/// Header that carries the id of a request through every service it touches.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
