//! The accept loop: which protocol a connection speaks, how long it may take, how it ends.
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::edge::{Arrival, Edge};
use crate::socket::{Heads, Seen, Socket};

/// What an HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Window of one stream and of one connection: what a client may send before anybody has read it.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may think about it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// Streams that a client opened and reset before we looked at them (rapid reset).
const MAX_PENDING_RESETS: usize = 20;
/// After a failed accept, most often because no file is left.
const BREATH: Duration = Duration::from_millis(50);

/// Limits of connections.
struct Bounds {
    header_timeout: Duration,
    write_timeout: Duration,
    age: Duration,
    stream_limit: Duration,
    max_header_bytes: u32,
    max_streams: u32,
}

/// Accepts connections until the shutdown, then lets them finish for at most `drain_cap`.
pub async fn accept(
    edge: Arc<Edge>,
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
    drain_cap: Duration,
) {
    let bounds = Arc::new(Bounds {
        header_timeout: Duration::from_millis(config.weft_edge_header_timeout_ms),
        write_timeout: Duration::from_millis(config.weft_edge_write_timeout_ms),
        age: Duration::from_millis(config.weft_edge_connection_age_ms),
        stream_limit: Duration::from_millis(config.weft_edge_stream_limit_ms),
        max_header_bytes: config.weft_edge_max_header_bytes,
        max_streams: config.weft_edge_max_streams,
    });
    let room = Arc::new(Semaphore::new(config.weft_edge_max_connections.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = next(&listener, &room) => accepted,
        };
        match accepted {
            Some((stream, peer, permit)) => {
                let (edge, bounds, stop) = (edge.clone(), bounds.clone(), stop.clone());
                connections.spawn(async move {
                    serve(edge, stream, peer, &bounds, stop).await;
                    drop(permit);
                });
            }
            None => sleep(BREATH).await,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // A peer that ignores the farewell would keep its connection for as long as it likes.
    if timeout(drain_cap, all).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
}

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

async fn serve(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr, bounds: &Bounds, stop: CancellationToken) {
    // Without it an answer of two writes waits for the client's acknowledgement.
    let _unset = stream.set_nodelay(true);
    let is_http2 = tokio::select! {
        found = timeout(bounds.header_timeout, speaks_http2(&stream)) => found,
        () = stop.cancelled() => return,
    };
    let Ok(Ok(is_http2)) = is_http2 else { return };
    if is_http2 {
        let service = service_fn(move |request: Request<Incoming>| {
            let edge = edge.clone();
            async move { Ok::<_, Infallible>(edge.handle(request, Arrival { peer, fault: None, last: false }).await) }
        });
        let socket = TokioIo::new(Socket::new(stream, None, bounds.write_timeout));
        let connection = pin!(http2_builder(bounds).serve_connection(socket, service));
        live(connection, bounds, stop, |connection| connection.graceful_shutdown()).await;
    } else {
        let heads = Heads::default();
        let watched = heads.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let edge = edge.clone();
            let Seen { fault, chunked } = watched.next();
            let watched = watched.clone();
            async move {
                let answer = edge.handle(request, Arrival { peer, fault, last: chunked }).await;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    watched.off();
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let socket = TokioIo::new(Socket::new(stream, Some(heads), bounds.write_timeout));
        let connection = pin!(http1_builder(bounds).serve_connection(socket, service).with_upgrades());
        live(connection, bounds, stop, |connection| connection.graceful_shutdown()).await;
    }
}

fn http1_builder(bounds: &Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_header_size(bounds.max_header_bytes as usize);
    builder
}

fn http2_builder(bounds: &Bounds) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_streams)
        .max_header_list_size(bounds.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

/// Drives a connection to its end. When it is old, or the edge stops, it takes no new requests and may finish what
/// it has.
async fn live<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    bounds: &Bounds,
    stop: CancellationToken,
    farewell: impl FnOnce(Pin<&mut C>),
) {
    let old = Instant::now() + bounds.age;
    tokio::select! {
        ended = connection.as_mut() => return told(ended),
        () = stop.cancelled() => {}
        () = sleep_until(old) => {}
    }
    farewell(connection.as_mut());
    if let Ok(ended) = timeout(bounds.stream_limit, connection).await {
        told(ended);
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Whether a client begins with HTTP/2's preface. The bytes stay where they are.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut seen).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // The rest of the preface is under way; peeking again at once would find the same.
        sleep(Duration::from_millis(5)).await;
    }
}
