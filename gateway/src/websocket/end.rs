//! How a socket ends, so that its client hears why.
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What is read at once of what a client still sends.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How long a farewell may take, and how much of what a client still sends is taken in meanwhile: it would otherwise
/// lose the farewell with the connection.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
const FAREWELL_BYTES: usize = 16 * 1024 * 1024;

/// How a socket ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// We say why.
    Close(CloseCode, &'static str),
    /// The client has said that it goes.
    Closed,
    /// There is nobody to say anything to.
    Gone,
}

/// Ends a socket so that the client hears why.
pub async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, end: End) {
    let said = async {
        match end {
            End::Gone => return,
            End::Closed => {
                let _sent = socket.flush().await;
            }
            End::Close(code, reason) => {
                let _sent = socket.close(Some(CloseFrame { code, reason: reason.into() })).await;
                while let Some(Ok(_late)) = socket.next().await {}
            }
        }
        let mut stream = socket.into_inner();
        let _shut = stream.shutdown().await;
        let (mut scratch, mut left) = (vec![0; READ_BUFFER_BYTES], FAREWELL_BYTES);
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // Whoever is slower than this does not get to read why.
    let _elapsed = timeout(FAREWELL_WITHIN, said).await;
}
