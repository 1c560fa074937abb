//! The services behind the edge: over HTTP/2 connections, few and shared, made when needed, made again when lost, or in
//! this process.
//!
//! This speaks HTTP/2 directly instead of going through a channel with queues: a unary call is one frame out and
//! one in, and each hop between tasks costs more than the call's own work. Nothing is retried here except what the
//! peer says it has not looked at.
use std::error::Error;
use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri};
use http_body::Body as _;
use http_body_util::Full;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use weft_core::Reason;
use weft_runtime::Neighbour;

use crate::link::{Load, cut_overdue, signs_of_life};

/// Connections to one service at most; another is opened when every stream of the others is taken.
const MAX_LINKS: usize = 16;
/// Streams on a connection at most, if the peer allows so many.
const STREAMS_A_LINK: usize = 200;
/// What a service may send ahead of us on one stream.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// What a service may send ahead of us on one connection: as much as on all its streams together, so that clients
/// who take nothing of their answers cannot stop those of others.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_A_LINK as u32 * STREAM_WINDOW_BYTES;
/// What the frames may cost on a connection beyond their bytes, as `h2` counts it: up to 256 bytes for each, and the
/// smallest message has a prefix of five. The windows are limit enough; at half the window, which `h2` would take, a few
/// clients that take nothing of their tokens would have the whole connection closed.
const FRAME_BUDGET_BYTES: usize = CONNECTION_WINDOW_BYTES as usize / 5 * 256;
/// Header bytes of an answer; error details travel in them.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// A service behind the edge.
pub struct Upstream {
    name: String,
    scheme: Scheme,
    authority: Authority,
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
    ours: bool,
    near: Option<Near>,
    links: Mutex<Links>,
    /// Held while connecting; when and why it last failed.
    dialing: tokio::sync::Mutex<Option<(Instant, String)>>,
    turn: AtomicUsize,
}

/// A service of this process.
struct Near {
    neighbour: Neighbour,
    /// What is under way there, with what watches it: from the first call on.
    load: OnceLock<(Arc<Load>, JoinSet<()>)>,
}

#[derive(Default)]
struct Links {
    open: Vec<Link>,
    drivers: JoinSet<()>,
}

/// One connection.
#[derive(Clone)]
struct Link {
    send: SendRequest<Bytes>,
    closed: Arc<AtomicBool>,
    load: Arc<Load>,
}

/// A call that has been sent.
pub struct Call {
    /// Its answer.
    pub response: ResponseFuture,
    /// The rest of its body.
    pub send: SendStream<Bytes>,
    load: Arc<Load>,
}

/// The beginning of an answer.
pub struct Reply {
    /// Status and headers.
    pub head: http::response::Parts,
    /// Frames and trailers.
    pub source: Source,
    /// Keeps the call counted.
    pub load: Arc<Load>,
}

/// Where the rest of an answer comes from.
pub enum Source {
    /// A connection.
    Wire(RecvStream),
    /// A service of this process.
    Near(Body),
}

/// What a service says next.
pub enum Piece {
    /// Bytes of frames, cut anywhere.
    Data(Bytes),
    /// The end, perhaps with trailers, or why there is none.
    End(Result<Option<HeaderMap>, h2::Error>),
}

/// A URL that is not `http://host:port` or `https://host:port`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a URL like http://host:port")]
pub struct BadUrl(String);

impl Upstream {
    /// A service at `url`. It is not connected to until the first call. `ours` says that it is a service of the
    /// mesh, which does not mind being asked for signs of life as often as we like.
    pub fn new(name: &str, url: &str, connect_timeout: Duration, ours: bool) -> Result<Self, BadUrl> {
        let bad = || BadUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_error| bad())?;
        let (Some(scheme), Some(authority)) = (uri.scheme().cloned(), uri.authority().cloned()) else {
            return Err(bad());
        };
        let default_port = if scheme == Scheme::HTTPS { 443 } else { 80 };
        if uri.path().len() > 1 || uri.query().is_some() || scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(bad());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let tls = if scheme == Scheme::HTTPS {
            let server = ServerName::try_from(host.to_owned()).map_err(|_error| bad())?;
            Some((connector(), server))
        } else {
            None
        };
        Ok(Upstream {
            name: name.to_owned(),
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port)),
            scheme,
            authority,
            tls,
            connect_timeout,
            ours,
            near: None,
            links: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            turn: AtomicUsize::new(0),
        })
    }

    /// The same service, called without a connection; requests that stream still need one.
    #[must_use]
    pub fn beside(self, neighbour: Option<Neighbour>) -> Self {
        Upstream { near: neighbour.map(|neighbour| Near { neighbour, load: OnceLock::new() }), ..self }
    }

    /// What the service is called: `billing`, or an operator's package prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a service of the mesh.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// The full URI of an RPC of this service.
    pub fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Sends a call with its whole body and waits for the answer's headers. `head` is asked again when the call
    /// must be sent a second time, because the peer closed the connection without having looked at it.
    ///
    /// # Errors
    /// UNAVAILABLE when the service cannot be reached or goes away.
    pub async fn call(&self, head: impl Fn() -> Request<()>, body: Bytes) -> Result<Reply, Status> {
        if let Some(near) = &self.near {
            return near.call(head(), body).await.map_err(|error| {
                tracing::debug!(upstream = %self.name, %error, "call failed");
                self.unavailable()
            });
        }
        let mut again = true;
        loop {
            let link = self.link().await?;
            match exchange(&link, head(), body.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error) if again && unseen(&error) => {
                    again = false;
                    link.closed.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    /// Begins a call whose body follows piece by piece.
    ///
    /// # Errors
    /// UNAVAILABLE when the service cannot be reached.
    pub async fn open(&self, head: Request<()>) -> Result<Call, Status> {
        let link = self.link().await?;
        let send = async {
            let mut ready = link.send.clone().ready().await?;
            ready.send_request(head, false)
        };
        let (response, send) = send.await.map_err(|error| self.lost(&error))?;
        Ok(Call { response, send, load: link.load })
    }

    /// The sentence for a caller whose service has gone.
    pub fn lost(&self, error: &h2::Error) -> Status {
        tracing::debug!(upstream = %self.name, %error, "call failed");
        match error.reason() {
            Some(h2::Reason::CANCEL) if error.is_remote() => Reason::Cancelled.status("the service cancelled the call"),
            Some(h2::Reason::ENHANCE_YOUR_CALM) if error.is_reset() => {
                Reason::Unavailable.status("the service is overloaded, try again")
            }
            _ => self.unavailable(),
        }
    }

    fn unavailable(&self) -> Status {
        Reason::Unavailable.status(format!("{} cannot be reached, try again", self.name))
    }

    /// A connection with room for a stream.
    async fn link(&self) -> Result<Link, Status> {
        if let Some(link) = self.best(false)? {
            return Ok(link);
        }
        let asked = Instant::now();
        let mut dialing = self.dialing.lock().await;
        if let Some(link) = self.best(false)? {
            return Ok(link);
        }
        // Whoever waited while another one tried and failed does not try as well: the wait would add up.
        if dialing.as_ref().is_some_and(|(failed, _why)| *failed >= asked) {
            return self.best(true)?.ok_or_else(|| self.unavailable());
        }
        let dialled = tokio::time::timeout(self.connect_timeout, self.dial()).await;
        let why = match dialled {
            Ok(Ok(link)) => {
                *dialing = None;
                return Ok(link);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no connection within {} ms", self.connect_timeout.as_millis()),
        };
        if dialing.is_none() {
            tracing::warn!(upstream = %self.name, address = %self.address, error = %why, "cannot connect");
        }
        *dialing = Some((Instant::now(), why));
        self.best(true)?.ok_or_else(|| self.unavailable())
    }

    /// The least loaded open connection with room. With `any`, or when no other may be opened, the call may also
    /// wait there until the peer allows it a stream.
    ///
    /// # Errors
    /// UNAVAILABLE when every connection has all the calls that its window is made for.
    fn best(&self, any: bool) -> Result<Option<Link>, Status> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.open.retain(|link| !link.closed.load(Ordering::Relaxed));
        let any = any || links.open.len() >= MAX_LINKS;
        let Some(least) = links.open.iter().min_by_key(|link| Arc::strong_count(&link.load)) else { return Ok(None) };
        let load = Arc::strong_count(&least.load);
        if any && load > STREAMS_A_LINK {
            return Err(Reason::Unavailable.status(format!("{} has too many calls, try again", self.name)));
        }
        let room = load <= least.send.current_max_send_streams().min(STREAMS_A_LINK);
        Ok((any || room).then(|| least.clone()))
    }

    async fn dial(&self) -> io::Result<Link> {
        let stream = self.connect().await?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some((connector, server)) => self.handshake(connector.connect(server.clone(), stream).await?).await,
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let addresses: Vec<_> = tokio::net::lookup_host(&self.address).await?.collect();
        // A headless service has an address per replica: each connection begins with the next one.
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for place in 0..addresses.len() {
            match TcpStream::connect(addresses[(first + place) % addresses.len()]).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S) -> io::Result<Link> {
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(FRAME_BUDGET_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let closed = Arc::new(AtomicBool::new(false));
        let link = Link { send, closed: closed.clone(), load: Arc::default() };
        let alive = signs_of_life(Arc::downgrade(&link.load), connection.ping_pong(), self.ours);
        let overdue = cut_overdue(Arc::downgrade(&link.load));
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        while links.drivers.try_join_next().is_some() {}
        links.drivers.spawn(async move {
            tokio::select! {
                // The connection first: an answer that has come counts, even if this task was late to see it.
                biased;
                ended = connection => if let Err(error) = ended { tracing::debug!(%error, "connection ended") },
                () = alive => tracing::warn!("a service does not answer pings, its connection is given up"),
                () = overdue => {}
            }
            closed.store(true, Ordering::Relaxed);
        });
        links.open.push(link.clone());
        Ok(link)
    }
}

/// One request and the head of its answer.
async fn exchange(link: &Link, head: Request<()>, body: Bytes) -> Result<Reply, h2::Error> {
    let mut ready = link.send.clone().ready().await?;
    let (response, mut send) = ready.send_request(head, false)?;
    send.send_data(body, true)?;
    Call::reply(response, link.load.clone()).await
}

impl Near {
    async fn call(&self, head: Request<()>, body: Bytes) -> Result<Reply, Box<dyn Error + Send + Sync>> {
        let load = self.load().clone();
        let request = head.map(|()| Body::new(Full::new(body)));
        let (head, body) = self.neighbour.call(request).await?.into_parts();
        Ok(Reply { head, source: Source::Near(body), load })
    }

    fn load(&self) -> &Arc<Load> {
        let (load, _watch) = self.load.get_or_init(|| {
            let (load, mut watch) = (Arc::default(), JoinSet::new());
            watch.spawn(cut_overdue(Arc::downgrade(&load)));
            (load, watch)
        });
        load
    }
}

impl Source {
    /// What comes next.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        Poll::Ready(match self {
            Source::Wire(stream) => match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // A stream that is already closed needs no window.
                    let _closed = stream.flow_control().release_capacity(data.len());
                    Piece::Data(data)
                }
                Some(Err(error)) => Piece::End(Err(error)),
                None => Piece::End(ready!(stream.poll_trailers(cx))),
            },
            Source::Near(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Piece::Data(data),
                    Err(frame) => Piece::End(Ok(frame.into_trailers().ok())),
                },
                Some(Err(_)) | None => Piece::End(Ok(None)),
            },
        })
    }

    /// [`Source::poll`] as a future.
    pub async fn next(&mut self) -> Piece {
        poll_fn(|cx| self.poll(cx)).await
    }
}

impl Call {
    /// Waits for the answer's headers.
    pub async fn reply(response: ResponseFuture, load: Arc<Load>) -> Result<Reply, h2::Error> {
        let (head, stream) = response.await?.into_parts();
        load.hear();
        Ok(Reply { head, source: Source::Wire(stream), load })
    }

    /// The answer, the body and what keeps the call counted.
    pub fn into_parts(self) -> (ResponseFuture, SendStream<Bytes>, Arc<Load>) {
        (self.response, self.send, self.load)
    }
}

/// Whether the peer has certainly not looked at the request.
fn unseen(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// TLS with the machine's own roots, HTTP/2 only.
fn connector() -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_added, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() || ignored > 0 {
        warn_about_roots(roots.len(), ignored);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = match builder {
        Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
        Err(error) => unreachable!("the provider knows the default versions: {error}"),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn warn_about_roots(usable: impl Display, ignored: impl Display) {
    tracing::warn!(%usable, %ignored, "the machine's certificate roots are incomplete");
}
