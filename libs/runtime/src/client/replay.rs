//! A request body that can be sent twice.
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use tonic::Status;
use tonic::body::Body;

/// A larger request is sent once.
const MAX_BYTES: usize = 1024 * 1024;

/// A body, read ahead.
pub(super) enum Replay {
    /// All of it.
    Whole(Bytes),
    /// It is larger than is kept; this sends all of it once.
    TooLarge(Body),
}

impl Replay {
    /// Reads the body of a request of one message.
    pub async fn read(mut body: Body) -> Result<Replay, Status> {
        let mut read: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            // A request has no trailers.
            let Ok(data) = frame?.into_data() else { continue };
            bytes += data.len();
            read.push(data);
            if bytes > MAX_BYTES {
                let read = stream::iter(read).map(|data| Ok(Frame::data(data)));
                return Ok(Replay::TooLarge(Body::new(StreamBody::new(read.chain(BodyStream::new(body))))));
            }
        }
        // Nearly always there is one piece, and nothing is copied.
        let whole = if read.len() == 1 { read.swap_remove(0) } else { read.concat().into() };
        Ok(Replay::Whole(whole))
    }
}

/// A body of bytes that were read before.
pub(super) fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}
