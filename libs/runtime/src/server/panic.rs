//! A panic in a handler, or in the stream it answers with, is this call's INTERNAL and nobody else's business.
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::Service;

use weft_core::internal_status;

/// See the module.
#[derive(Clone)]
pub(super) struct CatchPanic<S>(S);

impl<S> CatchPanic<S> {
    pub fn new(inner: S) -> Self {
        CatchPanic(inner)
    }
}

impl<S, A, B> Service<Request<A>> for CatchPanic<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: http_body::Body<Data = Bytes, Error = Status> + Default,
{
    type Response = Response<CatchBody<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        Answer { inner: catch(|| self.0.call(request)) }
    }
}

/// Runs one step of a call. None: it panicked.
fn catch<T>(step: impl FnOnce() -> T) -> Option<T> {
    // What the step left half done is never looked at again: the call ends here.
    catch_unwind(AssertUnwindSafe(step)).map_err(log).ok()
}

/// The place is in the panic's own line; its message may quote a user and is not repeated.
fn log(_message: Box<dyn Any + Send>) {
    tracing::error!("a handler panicked");
}

pin_project! {
    /// The answer, or INTERNAL.
    pub(super) struct Answer<F> {
        // None: it panicked before it began to wait.
        #[pin]
        inner: Option<F>,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<CatchBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.project().inner.as_pin_mut().and_then(|inner| catch(|| inner.poll(context)));
        Poll::Ready(match outcome {
            Some(outcome) => ready!(outcome).map(|response| response.map(|inner| CatchBody { inner: Some(inner) })),
            None => Ok(internal_status().into_http::<B>().map(|inner| CatchBody { inner: Some(inner) })),
        })
    }
}

pin_project! {
    /// The body of an answer. If it panics it ends with INTERNAL.
    pub(super) struct CatchBody<B> {
        // None: it panicked.
        #[pin]
        inner: Option<B>,
    }
}

impl<B> http_body::Body for CatchBody<B>
where
    B: http_body::Body<Data = Bytes, Error = Status>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        match catch(|| inner.poll_frame(context)) {
            Some(frame) => frame,
            None => {
                this.inner.set(None);
                let mut trailers = HeaderMap::new();
                let written = internal_status().add_header(&mut trailers);
                Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
