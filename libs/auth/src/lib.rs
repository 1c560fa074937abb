//! Who is calling, and may they: access tokens (mint, verify), service tokens, and the policy layer that
//! reads from the descriptors who may call what.
//!
//! A call is let in by [`Guard::admit`], which [`GuardLayer`] runs in front of every service. It finds the
//! RPC's [`Policy`], checks the tokens that the call carries and leaves a [`Caller`] for the handler.
//! No error, log line or `Debug` text of this crate holds a token or a secret.
mod api_key;
mod caller;
mod claims;
mod entitlements;
mod external;
mod flight;
mod guard;
mod headers;
mod keys;
mod layer;
mod moment;
mod policy;
mod revocations;
mod service_key;
mod signer;
mod uses;
mod verifier;

pub use api_key::{API_KEY_PREFIX, is_api_key, key_of_session, key_session, may_be_api_key};
pub use caller::Caller;
pub use claims::{AUDIENCE, Claims, ISSUER, KEY_AUDIENCE, KeyClaim};
pub use entitlements::Entitlements;
pub use external::{Claimed, ExternalClaims, ExternalError, ExternalKeys, Fetched, Rules, claimed};
pub use guard::{Guard, bearer};
pub use headers::{PRODUCT_HEADER, REQUEST_ID_HEADER, SERVICE_TOKEN_HEADER, TIMEOUT_HEADER, grpc_timeout, request_id};
pub use keys::Keys;
pub use layer::{GuardLayer, GuardService};
pub use policy::{Access, HEALTH_SERVICE, Policies, Policy, PolicyError, REFLECTION_SERVICES, RateClass, is_open};
pub use revocations::{Refusal, Revocations, follow};
pub use service_key::ServiceKey;
pub use signer::{RandomnessError, Signer};
pub use verifier::{Verifier, not_valid};
