//! The body of an answer, which may be cut or never end.
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, future, stream};

use crate::llm::Shared;
use crate::llm::reply::{Ends, Reply};

/// Chunks before a cut are on their way after this time.
const FLUSHED_WITHIN: Duration = Duration::from_millis(30);

/// Notices a reader that leaves before the end, and what the answer costs however it ends.
struct Reading {
    shared: Arc<Shared>,
    ended: bool,
    is_whole: bool,
    /// Tokens of the prompt and of the whole answer.
    tokens: (i64, i64),
    /// Pieces of text that were sent, each a token.
    sent: i64,
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
        let (prompt, completion) = self.tokens;
        match (self.ended && self.is_whole, self.sent) {
            (true, _) => self.shared.bill(prompt, completion),
            (false, 0) => {}
            (false, sent) => self.shared.bill(prompt, sent),
        }
    }
}

/// An answer of these chunks, which is so many tokens if it comes to its end.
pub(super) fn answer(
    shared: &Arc<Shared>,
    chunks: Vec<Bytes>,
    reply: &Reply,
    streamed: bool,
    tokens: (i64, i64),
) -> Response {
    let is_whole = matches!(reply.ends, Ends::Well);
    let reading = Reading { shared: Arc::clone(shared), ended: false, is_whole, tokens, sent: 0 };
    let content_type = if streamed { "text/event-stream" } else { "application/json" };
    let body = Body::from_stream(body(chunks, reply.ends, reply.delay, reading));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn body(
    chunks: Vec<Bytes>,
    ends: Ends,
    delay: Duration,
    reading: Reading,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let sent = match ends {
        Ends::Well | Ends::Error(_) => chunks.len(),
        Ends::Cut(count) | Ends::Hang(count) => count.min(chunks.len()),
    };
    let rest = chunks.into_iter().take(sent).collect::<Vec<_>>().into_iter();
    stream::unfold(Some((rest, reading)), move |state| async move {
        let (mut rest, mut reading) = state?;
        if let Some(chunk) = rest.next() {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            reading.sent += i64::from(is_text(&chunk));
            return Some((Ok(chunk), Some((rest, reading))));
        }
        if matches!(ends, Ends::Hang(_)) {
            future::pending::<Infallible>().await;
        }
        if matches!(ends, Ends::Cut(_)) {
            // The server drops what it has not written yet when its body fails.
            tokio::time::sleep(FLUSHED_WITHIN).await;
        }
        reading.end();
        matches!(ends, Ends::Cut(_)).then(|| (Err(std::io::Error::other("cut on order")), None))
    })
}

/// Whether an event of a stream carries a piece of the answer's text, in any dialect.
fn is_text(chunk: &Bytes) -> bool {
    let holds = |part: &str| chunk.windows(part.len()).any(|window| window == part.as_bytes());
    chunk.starts_with(b"data: ") && (holds("\"content\":\"") || holds("\"parts\":[{\"text\":\""))
        || chunk.starts_with(b"event: ") && holds("\"text_delta\"")
}
