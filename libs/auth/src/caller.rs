//! Who is calling.
use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_core::{Reason, internal_status, new_id};

use crate::headers::{grpc_timeout, request_id};
use crate::{Claims, PRODUCT_HEADER, REQUEST_ID_HEADER};

/// Who is calling and what for. Made by [`crate::Guard::admit`]; a handler finds it with [`Caller::of`].
#[derive(Clone)]
pub struct Caller {
    /// Slug of the product the call is for: what the request names, else that of the user. Empty if neither
    /// says. It is not checked to exist.
    pub product: Arc<str>,
    /// The signed-in user whose token the call carries.
    pub user: Option<Arc<Claims>>,
    /// The service of the mesh that sent the call, by name.
    pub service: Option<Arc<str>>,
    /// The id of the request that this call is part of; a new one if it came without.
    pub request_id: Arc<str>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The user's token as it came, to pass on. Only one that was verified.
    bearer: Option<HeaderValue>,
}

impl Caller {
    /// A caller of whom only the headers that need no check are known.
    pub(crate) fn unknown(headers: &HeaderMap) -> Caller {
        let product = headers.get(PRODUCT_HEADER).and_then(|value| value.to_str().ok());
        Caller {
            product: product.unwrap_or_default().into(),
            user: None,
            service: None,
            request_id: request_id(headers).map_or_else(|| new_id().into(), Arc::from),
            deadline: grpc_timeout(headers).and_then(|left| Instant::now().checked_add(left)),
            bearer: None,
        }
    }

    /// Adds the user, whose verified token the headers carry.
    pub(crate) fn signed_in(self, user: Arc<Claims>, headers: &HeaderMap) -> Caller {
        let product = if self.product.is_empty() { user.prd.as_str().into() } else { self.product };
        Caller { product, user: Some(user), bearer: headers.get(AUTHORIZATION).cloned(), ..self }
    }

    /// The caller of a request that came through [`crate::GuardLayer`].
    ///
    /// Errors: INTERNAL if it did not.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        caller.ok_or_else(internal_status)
    }

    /// The signed-in user.
    ///
    /// Errors: UNAUTHENTICATED if nobody is.
    pub fn user(&self) -> Result<&Claims, Status> {
        self.user.as_deref().ok_or_else(|| Reason::Unauthenticated.status("sign in and send the access token"))
    }

    /// A request to another service on behalf of this caller: it carries the user's token, the request id, the
    /// product and what is left of the time.
    pub fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut headers = HeaderMap::with_capacity(4);
        if let Some(bearer) = &self.bearer {
            let mut bearer = bearer.clone();
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        for (name, text) in [(PRODUCT_HEADER, &self.product), (REQUEST_ID_HEADER, &self.request_id)] {
            // What came as a header can leave as one.
            if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(text)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("product", &self.product)
            .field("user", &self.user.as_deref().map(|user| &user.sub))
            .field("service", &self.service)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
