//! Bodies in both directions: the edge's answers, and requests read up to a limit.
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::Status;
use weft_core::Reason;

use crate::relay::RelayBody;

/// A body slower than this is given up before its time is over, once it has had a while to begin.
const MIN_BYTES_A_SECOND: u64 = 16 * 1024;

/// The body of an answer.
pub enum EdgeBody {
    /// All at once.
    Full(Option<Bytes>),
    /// A stream from a service.
    Relay(Box<RelayBody>),
    /// From a server inside the edge: health and reflection.
    Tonic(tonic::body::Body),
}

impl EdgeBody {
    /// All at once.
    pub fn full(bytes: Bytes) -> Self {
        EdgeBody::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Nothing.
    pub fn empty() -> Self {
        EdgeBody::Full(None)
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            EdgeBody::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            EdgeBody::Relay(body) => Pin::new(body.as_mut()).poll_frame(cx),
            EdgeBody::Tonic(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            EdgeBody::Full(bytes) => bytes.is_none(),
            EdgeBody::Relay(_) => false,
            EdgeBody::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            EdgeBody::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            EdgeBody::Relay(_) => SizeHint::default(),
            EdgeBody::Tonic(body) => body.size_hint(),
        }
    }
}

/// How much of a body is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    /// Bytes.
    pub bytes: usize,
    /// From the headers to the last byte.
    pub within: Duration,
    /// Time to begin in; after it a trickle is given up.
    pub patience: Duration,
}

/// Reads a whole body.
///
/// # Errors
/// `payload_too_large` as soon as the limit is known to be passed, DEADLINE_EXCEEDED for a body that does not come,
/// INVALID_ARGUMENT for one that breaks off.
pub async fn read_all(body: &mut Option<Incoming>, headers: &HeaderMap, limit: BodyLimit) -> Result<Bytes, Status> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit.bytes as u64) {
        return Err(too_large(limit.bytes));
    }
    let Some(body) = body.as_mut().filter(|body| !body.is_end_stream()) else { return Ok(Bytes::new()) };
    let begun = Instant::now();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let so_far = (first.len() + rest.len()) as u64;
        let until =
            begun + limit.within.min(limit.patience + Duration::from_millis(so_far * 1000 / MIN_BYTES_A_SECOND));
        let frame = tokio::time::timeout_at(until, body.frame()).await;
        let frame =
            frame.map_err(|_elapsed| Reason::DeadlineExceeded.status("the request body did not arrive in time"))?;
        let Some(frame) = frame else { break };
        let frame =
            frame.map_err(|_error| Reason::InvalidArgument.status("the request body broke off or is malformed"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit.bytes {
            return Err(too_large(limit.bytes));
        }
        // The usual body comes in one piece and is not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The refusal of a body over the limit.
pub fn too_large(limit: usize) -> Status {
    Reason::PayloadTooLarge.status(format!("the body is over the limit of {limit} bytes"))
}

/// Bytes of a refused body that are still taken in, and for how long: a client that is still sending would
/// otherwise lose the answer with the connection.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// Takes in the rest of a body that nobody wants.
pub async fn drain(mut body: Incoming) {
    let rest = async {
        let mut left = DRAINED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whoever is slower than this does not get to read the answer.
    let _elapsed = tokio::time::timeout(DRAINED_WITHIN, rest).await;
}
