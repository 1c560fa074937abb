//! Every call has an id: the caller's, or a new one. It goes on with the call and back with the answer.
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::Service;
use weft_auth::{REQUEST_ID_HEADER, request_id};
use weft_core::new_id;

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// See the module.
#[derive(Clone)]
pub(super) struct RequestId<S>(S);

impl<S> RequestId<S> {
    pub fn new(inner: S) -> Self {
        RequestId(inner)
    }
}

impl<S, A, B> Service<Request<A>> for RequestId<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let given = request.headers().get(HEADER).filter(|_| request_id(request.headers()).is_some());
        let id = match given.cloned() {
            Some(id) => id,
            None => {
                let id = fresh();
                request.headers_mut().insert(HEADER, id.clone());
                id
            }
        };
        Answer { inner: self.0.call(request), id: Some(id) }
    }
}

fn fresh() -> HeaderValue {
    // A UUID is always a valid header.
    HeaderValue::from_maybe_shared(Bytes::from(new_id())).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

pin_project! {
    /// The answer with the id.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        id: Option<HeaderValue>,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(HEADER, id);
        }
        Poll::Ready(Ok(response))
    }
}
