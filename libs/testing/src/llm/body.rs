//! The body of an answer, which may be cut or never end.
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, future, stream};

use crate::llm::Shared;
use crate::llm::reply::{Ends, Reply};

/// Chunks before a cut are on their way after this time.
const FLUSHED_WITHIN: Duration = Duration::from_millis(30);

/// Notices a reader that leaves before the end.
struct Reading {
    shared: Arc<Shared>,
    ended: bool,
}

impl Reading {
    fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// An answer of these chunks.
pub(super) fn answer(shared: &Arc<Shared>, chunks: Vec<Bytes>, reply: &Reply, streamed: bool) -> Response {
    let reading = Reading { shared: Arc::clone(shared), ended: false };
    let content_type = if streamed { "text/event-stream" } else { "application/json" };
    let body = Body::from_stream(body(chunks, reply.ends, reply.delay, reading));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn body(
    chunks: Vec<Bytes>,
    ends: Ends,
    delay: Duration,
    mut reading: Reading,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let sent = match ends {
        Ends::Well | Ends::Error(_) => chunks.len(),
        Ends::Cut(count) | Ends::Hang(count) => count.min(chunks.len()),
    };
    let told = stream::iter(chunks.into_iter().take(sent)).then(move |chunk| async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(chunk)
    });
    let end = stream::once(async move {
        if matches!(ends, Ends::Hang(_)) {
            future::pending::<Infallible>().await;
        }
        if matches!(ends, Ends::Cut(_)) {
            // The server drops what it has not written yet when its body fails.
            tokio::time::sleep(FLUSHED_WITHIN).await;
        }
        reading.end();
        matches!(ends, Ends::Cut(_)).then(|| Err(std::io::Error::other("cut on order")))
    });
    told.chain(end.filter_map(future::ready))
}
