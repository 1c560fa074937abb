//! More calls at once than a service can work on are refused at once: a quick no is better than a queue in
//! which all of them run out of time.
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;
use weft_core::Reason;

use crate::methods::methods;

/// See the module.
#[derive(Clone)]
pub(super) struct Shed<S> {
    inner: S,
    in_flight: Arc<AtomicU64>,
    max: u64,
}

impl<S> Shed<S> {
    /// At most `max` calls at once in all services that share `in_flight`.
    pub fn new(inner: S, in_flight: Arc<AtomicU64>, max: u64) -> Self {
        Shed { inner, in_flight, max }
    }
}

impl<S, A, B> Service<Request<A>> for Shed<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<Held<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // A service that is busy is not ill: restarting it would make things worse. And who watches its health
        // takes nobody's place.
        if methods().get(request.uri().path()).is_health {
            return Answer { inner: Some(self.inner.call(request)), place: None };
        }
        match Place::take(&self.in_flight, self.max) {
            Some(place) => Answer { inner: Some(self.inner.call(request)), place: Some(place) },
            None => Answer { inner: None, place: None },
        }
    }
}

/// A place among the calls in flight, given back when it is dropped.
pub(super) struct Place(Arc<AtomicU64>);

impl Place {
    /// None: all `max` are taken.
    fn take(in_flight: &Arc<AtomicU64>, max: u64) -> Option<Place> {
        let place = Place(Arc::clone(in_flight));
        (in_flight.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// The answer, or the refusal.
    pub(super) struct Answer<F> {
        // None: refused.
        #[pin]
        inner: Option<F>,
        place: Option<Place>,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<Held<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.inner.as_pin_mut() {
            Some(inner) => ready!(inner.poll(context))?,
            None => {
                // UNAVAILABLE and not RESOURCE_EXHAUSTED: it is the service that has no more, not this caller.
                let status = Reason::Unavailable.status("too many calls are in progress, try again in a moment");
                status.into_http()
            }
        };
        let place = this.place.take();
        Poll::Ready(Ok(response.map(|inner| Held { inner, _place: place })))
    }
}

pin_project! {
    /// The body of an answer, which holds the call's place: a stream is in flight until its end.
    pub(super) struct Held<B> {
        #[pin]
        inner: B,
        _place: Option<Place>,
    }
}

impl<B: Default> Default for Held<B> {
    fn default() -> Self {
        Held { inner: B::default(), _place: None }
    }
}

impl<B> http_body::Body for Held<B>
where
    B: http_body::Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().inner.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
