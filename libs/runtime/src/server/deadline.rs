//! No call waits for ever: it ends, or its stream begins, within the caller's `grpc-timeout` and our own cap.
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;
use weft_auth::grpc_timeout;
use weft_core::Reason;

use crate::deadline::{Caps, GRPC_TIMEOUT, header_of};
use crate::methods::methods;

/// See the module.
#[derive(Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    caps: Caps,
}

impl<S> Deadline<S> {
    pub fn new(inner: S, caps: Caps) -> Self {
        Deadline { inner, caps }
    }
}

impl<S, A, B> Service<Request<A>> for Deadline<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let method = methods().get(request.uri().path());
        let cap = self.caps.get(method);
        let asked = grpc_timeout(request.headers()).filter(|asked| *asked <= cap);
        // The handler, and whom it calls, know how long there is. Not for a stream: it may go on after our cap.
        if asked.is_none() && !method.answers_stream {
            request.headers_mut().insert(GRPC_TIMEOUT, header_of(cap));
        }
        Answer { inner: self.inner.call(request), sleep: sleep(asked.unwrap_or(cap)) }
    }
}

pin_project! {
    /// The answer, or DEADLINE_EXCEEDED. What the handler was doing is dropped then.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let answer @ Poll::Ready(_) = this.inner.poll(context) {
            return answer;
        }
        this.sleep.poll(context).map(|()| {
            Ok(Reason::DeadlineExceeded
                .status("the call took longer than its deadline, ask for less or wait longer")
                .into_http())
        })
    }
}
