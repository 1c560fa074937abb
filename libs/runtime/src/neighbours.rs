//! Services of one process: they call each other without a connection in between.
//!
//! A call goes through everything that it goes through on the wire, from the client's deadline and service token to the
//! server's guard; only its bytes are handed over instead of sent.
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::Tasks;

/// So long a call waits for a server that does not serve yet.
const OPENS_WITHIN: Duration = Duration::from_millis(900);

/// A server of this process.
type Door = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The services of one process. Clones share one list.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<HashMap<&'static str, Place>>);

struct Place {
    /// None before the server serves and after it has ended. Here until the server takes it.
    sender: Mutex<Option<watch::Sender<Option<Door>>>>,
    receiver: watch::Receiver<Option<Door>>,
}

impl Neighbours {
    /// Services of these names, none of which serves yet.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Neighbours {
        let place = || {
            let (sender, receiver) = watch::channel(None);
            Place { sender: Mutex::new(Some(sender)), receiver }
        };
        Neighbours(Arc::new(names.into_iter().map(|name| (name, place())).collect()))
    }

    /// The way to one of them, without what a channel adds. None: it is no neighbour.
    pub fn find(&self, name: &str) -> Option<Neighbour> {
        self.0.get(name).map(|place| Neighbour(place.receiver.clone()))
    }

    /// Lets the others call `service` as `name`, until the answer of this is dropped. What they call counts among
    /// `tasks`. None: it is no neighbour, or has served before.
    pub(crate) fn open<S, B>(&self, name: &str, service: S, tasks: &Tasks) -> Option<Open>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        let sender = self.0.get(name)?.sender.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let tasks = tasks.clone();
        let service = service.map_future(move |answer| {
            let token = tasks.token();
            async move {
                let body = |body: B| {
                    Body::new(body.map_frame(move |frame| {
                        let _until_its_end = &token;
                        frame
                    }))
                };
                answer.await.map(|response| response.map(body))
            }
        });
        sender.send_replace(Some(BoxCloneSyncService::new(service)));
        Some(Open(sender))
    }
}

/// A server that its neighbours can call.
pub(crate) struct Open(watch::Sender<Option<Door>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// The way to a server of this process.
#[derive(Clone)]
pub struct Neighbour(watch::Receiver<Option<Door>>);

impl Neighbour {
    /// Makes a call, as soon as the other serves.
    ///
    /// # Errors
    /// It does not serve.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
        let door = self.0.borrow().clone();
        let mut door = match door {
            Some(door) => door,
            None => self.opened().await?,
        };
        Ok(door.ready().await?.call(request).await?)
    }

    async fn opened(&self) -> Result<Door, Box<dyn Error + Send + Sync>> {
        let mut places = self.0.clone();
        let door = timeout(OPENS_WITHIN, places.wait_for(Option::is_some)).await??.clone();
        door.ok_or_else(|| "it has ended".into())
    }
}
