//! TCP connections that fail fast.
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower::{Service, service_fn};

/// After a failure every call fails for this long without a new attempt. A queue of calls to a peer that does
/// not answer would otherwise wait for one attempt each, one after the other.
const FAILS_FAST_FOR: Duration = Duration::from_millis(100);

/// Connects to the server called `name`, each time within `cap`.
pub(super) fn connector(
    name: Arc<str>,
    cap: Duration,
) -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = Error, Future: Send> + Send + 'static {
    let failed_at = Arc::default();
    service_fn(move |uri: Uri| {
        let (name, failed_at) = (Arc::clone(&name), Arc::clone(&failed_at));
        async move { connect(&name, &uri, cap, &failed_at).await }
    })
}

/// `failed_at`: when the last attempt failed, if it did.
async fn connect(
    name: &str,
    uri: &Uri,
    cap: Duration,
    failed_at: &Mutex<Option<Instant>>,
) -> Result<TokioIo<TcpStream>, Error> {
    let failed_before = *failed_at.lock().unwrap_or_else(PoisonError::into_inner);
    if failed_before.is_some_and(|at| at.elapsed() < FAILS_FAST_FOR) {
        return Err(Error::new(ErrorKind::NotConnected, "it could not be reached a moment ago"));
    }
    let outcome = match timeout(cap, open(uri)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(ErrorKind::TimedOut, "it does not answer")),
    };
    match &outcome {
        Ok(_) if failed_before.is_some() => tracing::info!(to = name, "connected again"),
        // Once, not with every attempt.
        Err(error) if failed_before.is_none() => {
            tracing::warn!(to = name, %error, "cannot connect; trying on with every call")
        }
        _ => {}
    }
    *failed_at.lock().unwrap_or_else(PoisonError::into_inner) = outcome.is_err().then(Instant::now);
    outcome
}

fn open(uri: &Uri) -> impl Future<Output = Result<TokioIo<TcpStream>, Error>> + Send {
    // In a URL an IPv6 address stands in brackets.
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    async move {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }
}
