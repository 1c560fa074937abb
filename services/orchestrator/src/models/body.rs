//! The body of a provider's answer, with an end to its time and its size.
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use crate::models::{Break, ModelError};

/// The body as it comes: the first bytes until `first`, later ones never more than `idle` apart (None: all of
/// them until `first`), at most `bytes` in all.
pub fn bounded(
    response: Response,
    first: Instant,
    idle: Option<Duration>,
    bytes: usize,
) -> impl Stream<Item = Result<Bytes, ModelError>> {
    let start = Some((response, first, bytes));
    stream::unfold(start, move |state| async move {
        let (mut response, deadline, left) = state?;
        let has_begun = left < bytes;
        let piece = match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(None)) => return None,
            Ok(Ok(Some(piece))) if piece.len() > left => Err(ModelError::Interrupted(Break::TooLarge)),
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Err(_)) => Err(ModelError::Interrupted(Break::Cut)),
            Err(_) if has_begun && idle.is_some() => Err(ModelError::Interrupted(Break::Silence)),
            Err(_) => Err(ModelError::TimedOut),
        };
        let next = piece.as_ref().ok().map(|piece| {
            let deadline = idle.map_or(deadline, |idle| Instant::now() + idle);
            (response, deadline, left - piece.len())
        });
        Some((piece, next))
    })
}

/// The same bytes, cut after ends of lines only: whoever reads lines then looks at each byte once, however many pieces a
/// line comes in.
pub fn by_lines(
    pieces: impl Stream<Item = Result<Bytes, ModelError>>,
) -> impl Stream<Item = Result<Bytes, ModelError>> {
    let start = Some((Box::pin(pieces), Vec::new()));
    stream::unfold(start, |state| async move {
        let (mut pieces, mut open) = state?;
        loop {
            match pieces.next().await {
                None if open.is_empty() => return None,
                None => return Some((Ok(Bytes::from(open)), None)),
                Some(Err(error)) => return Some((Err(error), None)),
                Some(Ok(piece)) => {
                    let end = piece.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
                    let rest = piece.slice(end..);
                    open.extend_from_slice(&piece[..end]);
                    if end == 0 {
                        open.extend_from_slice(&rest);
                        continue;
                    }
                    let whole = Bytes::from(std::mem::replace(&mut open, rest.to_vec()));
                    return Some((Ok(whole), Some((pieces, open))));
                }
            }
        }
    })
}

/// The whole body.
///
/// # Errors
/// The first error of its pieces.
pub async fn collect(pieces: impl Stream<Item = Result<Bytes, ModelError>>) -> Result<Vec<u8>, ModelError> {
    let mut pieces = std::pin::pin!(pieces);
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}
