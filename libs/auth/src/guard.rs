//! Lets a call in or says why not.
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::Status;
use weft_core::{Reason, internal_status};

use crate::policy::is_open;
use crate::verifier::not_valid;
use crate::{Access, Caller, Claims, Entitlements, Policies, Policy, SERVICE_TOKEN_HEADER, ServiceKey, Verifier};

/// The role that [`Access::Admin`] asks for.
const ADMIN: &str = "admin";

/// Decides who may call what. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    policies: Arc<Policies>,
    verifier: Verifier,
    service_key: Option<ServiceKey>,
    entitlements: Option<Entitlements>,
}

impl Guard {
    /// A guard that knows users but no services and no plans.
    pub fn new(policies: Arc<Policies>, verifier: Verifier) -> Guard {
        Guard { policies, verifier, service_key: None, entitlements: None }
    }

    /// Adds the key that the tokens of other services are checked with. Without it no service is let in.
    #[must_use]
    pub fn with_service_key(self, key: ServiceKey) -> Guard {
        Guard { service_key: Some(key), ..self }
    }

    /// Adds the entitlements that features are looked up in. Without them no RPC that needs a feature can be
    /// called.
    #[must_use]
    pub fn with_entitlements(self, entitlements: Entitlements) -> Guard {
        Guard { entitlements: Some(entitlements), ..self }
    }

    /// The policies that this guard enforces.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Waits until what this user has begun, a stream, has to end, and says why; see [`Verifier::until_over`].
    pub async fn until_over(&self, user: &Claims) -> Status {
        self.verifier.until_over(user).await
    }

    /// Lets the call of `path` with these headers in, and says who it is.
    ///
    /// Errors: UNIMPLEMENTED for an unknown path; UNAUTHENTICATED without a valid token where one is needed;
    /// PERMISSION_DENIED for the wrong kind of caller, a token of another product (`product_mismatch`), an API key
    /// without the scope (`scope_missing`) or a plan that is too low (`feature_not_in_plan`); UNAVAILABLE if identity or billing are needed and away.
    pub async fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Caller, Status> {
        if is_open(path) {
            return Ok(Caller::unknown(headers));
        }
        let policy = self.policies.get(path).ok_or_else(|| Reason::Unimplemented.status("there is no such rpc"))?;
        let mut caller = Caller::unknown(headers);
        caller.service = self.service(headers).unwrap_or_default();
        match policy.access {
            Access::Public => Ok(self.admit_anybody(caller, headers).await),
            Access::User | Access::Admin => self.admit_user(policy, caller, headers).await,
            Access::Service => self.admit_service(policy, caller, headers).await,
        }
    }

    /// A token that is not valid, or not for this product, is as good as none: a client that signs in again
    /// may still send its old one. So is an API key's, which is nobody where it has no scope for.
    async fn admit_anybody(&self, caller: Caller, headers: &HeaderMap) -> Caller {
        match self.user(headers).await {
            Ok(Some(user)) if fits(&caller, &user) && !user.is_of_key() => caller.signed_in(user, headers),
            _ => caller,
        }
    }

    async fn admit_user(&self, policy: &Policy, caller: Caller, headers: &HeaderMap) -> Result<Caller, Status> {
        let user = self.user(headers).await?.ok_or_else(no_token)?;
        if !fits(&caller, &user) {
            return Err(product_mismatch());
        }
        if !user.has_scope(policy.scope.as_deref()) {
            return Err(scope_missing(policy));
        }
        if policy.access == Access::Admin && !user.has_role(ADMIN) {
            return Err(Reason::PermissionDenied.status("only an administrator may do this"));
        }
        if let Some(feature) = &policy.feature {
            self.check_feature(feature, &user).await?;
        }
        Ok(caller.signed_in(user, headers))
    }

    /// The user's token may have expired while the service worked for them; then the service calls for itself.
    async fn admit_service(&self, policy: &Policy, caller: Caller, headers: &HeaderMap) -> Result<Caller, Status> {
        let Some(service) = &caller.service else {
            // Why exactly: a service token that is not valid, a user, nobody.
            self.service(headers)?;
            let user = self.user(headers).await?;
            return Err(if user.is_some() { only_services() } else { no_service_token() });
        };
        if !policy.callers.iter().any(|name| **name == **service) {
            return Err(only_services());
        }
        match self.user(headers).await {
            Ok(Some(user)) if fits(&caller, &user) => Ok(caller.signed_in(user, headers)),
            Ok(Some(_)) => Err(product_mismatch()),
            Ok(None) | Err(_) => Ok(caller),
        }
    }

    async fn check_feature(&self, feature: &str, user: &Claims) -> Result<(), Status> {
        let Some(entitlements) = &self.entitlements else {
            tracing::error!(feature, "an rpc needs a feature and this server was built without entitlements");
            return Err(internal_status());
        };
        let plan = entitlements.of(&user.prd, &user.sub).await?;
        if plan.features.get(feature).copied().unwrap_or(false) {
            return Ok(());
        }
        let message = format!("the plan {} does not include {feature}, choose one that does", plan.plan);
        Err(Reason::FeatureNotInPlan.status(message))
    }

    /// The user whose token the headers carry; none if they carry none.
    async fn user(&self, headers: &HeaderMap) -> Result<Option<Arc<Claims>>, Status> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let token = header.to_str().ok().and_then(bearer).ok_or_else(not_valid)?;
        self.verifier.verify(token).await.map(Some)
    }

    /// The service whose token the headers carry; none if they carry none.
    fn service(&self, headers: &HeaderMap) -> Result<Option<Arc<str>>, Status> {
        let Some(header) = headers.get(SERVICE_TOKEN_HEADER) else {
            return Ok(None);
        };
        let (Some(key), Ok(token)) = (&self.service_key, header.to_str()) else {
            return Err(no_service_token());
        };
        key.verify(token).map(Some)
    }
}

/// Whether the user belongs to the product that the call is for.
fn fits(caller: &Caller, user: &Claims) -> bool {
    caller.product.is_empty() || *caller.product == *user.prd
}

/// The token of `Bearer <token>`; the scheme in any case, as RFC 9110 has it.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

fn no_token() -> Status {
    Reason::Unauthenticated.status("sign in and send the access token")
}

fn no_service_token() -> Status {
    Reason::Unauthenticated.status("only services may call this, send a service token")
}

fn only_services() -> Status {
    Reason::PermissionDenied.status("only certain services may call this")
}

fn scope_missing(policy: &Policy) -> Status {
    Reason::ScopeMissing.status(match &policy.scope {
        Some(scope) => format!("the api key does not have the scope {scope}, make one that does"),
        None => "no api key may call this, sign in and send the access token".to_owned(),
    })
}

fn product_mismatch() -> Status {
    Reason::ProductMismatch.status("the access token belongs to another product, sign in to this one")
}
