//! Whether a client finishes the messages that it begins. A message that trickles holds its memory, and pongs between
//! its fragments look like a sign of life.
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Bytes of a client's control frame besides what it says: two of header, four of mask.
const CONTROL_FRAME_BYTES: usize = 6;

/// What has arrived and belongs to no whole message yet. Clones share one state.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Begun>>);

#[derive(Default)]
struct Begun {
    bytes: usize,
    since: Option<Instant>,
}

impl Progress {
    fn arrived(&self, bytes: usize) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.bytes += bytes;
        begun.since.get_or_insert_with(Instant::now);
    }

    /// A control frame that says so many bytes was among it.
    pub fn control(&self, said: usize) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.bytes = begun.bytes.saturating_sub(said + CONTROL_FRAME_BYTES);
        if begun.bytes == 0 {
            begun.since = None;
        }
    }

    /// A message is whole.
    pub fn message(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Begun::default();
    }

    /// Since when a message is under way, and its bytes so far.
    pub fn under_way(&self) -> Option<(Instant, usize)> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.since.map(|since| (since, begun.bytes))
    }
}

/// A connection whose incoming bytes are counted.
pub struct Watched<S> {
    /// The connection.
    pub stream: S,
    /// Where they are counted.
    pub progress: Progress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            this.progress.arrived(bytes);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
