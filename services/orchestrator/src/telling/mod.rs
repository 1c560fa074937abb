//! Streamed answers while they are told and for a while after. Who lost the connection reads on behind the last event that
//! arrived, at any replica.
//!
//! A [`Run`] is one answer: its log of events is written by its one teller and read by any number of readers. It lies on
//! the [`Shelf`] of the replica that makes it, in memory. Where there is a Redis, [`mirror`] writes it there too, sealed
//! with a key that only its readers can make, and [`Afar`] reads it at the other replicas.
mod afar;
mod id;
mod log;
mod mirror;
mod page;
mod run;
mod seal;
mod shelf;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{Instrument, Span};
use weft_cache::{Cache, Journal};
use weft_core::Clock;
use weft_product::OnDisconnect;
use weft_proto::orchestrator::v1::ChatEvent;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_runtime::{Mesh, Tasks};

use self::afar::Afar;
use self::id::Locator;
use self::run::{Run, Teller};
use self::shelf::Shelf;
use crate::config::Config;
use crate::conversations::{Answered, Exchange};
use crate::error::Error;
use crate::sanitizer::{Pieces, Unchecked};

pub use id::{Position, RunId};

/// Answers whose time is over leave memory this often.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Who stops an answer waits so long for its end, so that what it cost is in the books.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);
/// So long the wish to stop an answer waits for its maker.
const STOP_MARK: Duration = Duration::from_secs(10);

/// The events of an answer.
pub type Events = BoxStream<'static, Result<ChatEvent, Status>>;

/// All streamed answers. Cheap to clone.
#[derive(Clone)]
pub struct Tellings {
    shelf: Arc<Shelf>,
    cache: Cache,
    clock: Clock,
    tasks: Tasks,
    /// How long an answer is made for nobody, where it is not made to its end.
    grace: Duration,
    log_bytes: usize,
}

/// Whose answer it is.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// The account.
    pub account: &'a str,
}

/// An answer that begins: it has a reader, and is to be told.
pub struct Begun {
    /// Its id.
    pub id: RunId,
    /// What its reader gets.
    pub events: Events,
    /// Who tells it.
    pub telling: Telling,
}

/// An answer that is to be told.
pub struct Telling {
    teller: Teller,
    journal: Option<Journal>,
    /// How long it is made for nobody; None: to its end.
    grace: Option<Duration>,
    tasks: Tasks,
}

impl Tellings {
    /// Those of a replica. Starts what forgets them in time.
    pub fn start(config: &Config, cache: Cache, mesh: &Mesh) -> Tellings {
        let shelf = Arc::new(Shelf::new(config.weft_chat_logs_bytes));
        let (clock, tasks) = (mesh.clock().clone(), mesh.tasks().clone());
        tasks.spawn("forget answers", tidy(Arc::clone(&shelf), clock.clone(), mesh.shutdown().token()));
        let grace = Duration::from_millis(config.weft_chat_resume_ms);
        Tellings { shelf, cache, clock, tasks, grace, log_bytes: config.weft_chat_log_bytes }
    }

    /// Begins an answer.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn begin(&self, owner: Owner<'_>, on_disconnect: OnDisconnect) -> Result<Begun, Error> {
        let id = RunId::new()?;
        let locator = id.locator(owner.product, owner.account);
        let run = Arc::new(Run::new(id, &self.shelf));
        let reader = run.attend(0);
        self.shelf.put(locator, Arc::clone(&run));
        let teller = Teller::new(run, Arc::clone(&self.shelf), locator, self.clock.clone(), self.log_bytes);
        let grace = match on_disconnect {
            OnDisconnect::Cancel => Some(self.grace),
            OnDisconnect::Continue => None,
        };
        let telling = Telling { teller, journal: self.journal(&locator)?, grace, tasks: self.tasks.clone() };
        Ok(Begun { id, events: reader.events().boxed(), telling })
    }

    /// The events of an answer from a place on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if this owner has no such answer any more, [`Error::Invalid`] if it has not come so far,
    /// [`Error::NoRedis`] if it may be at another replica and Redis is away.
    pub async fn resume(&self, owner: Owner<'_>, place: Position) -> Result<Events, Error> {
        let locator = place.run.locator(owner.product, owner.account);
        if let Some(run) = self.shelf.get(&locator, self.clock.now_ms()) {
            if place.next > run.log().borrow().next() {
                return Err(Error::Invalid("this answer has no such event yet; send the id of the last one".into()));
            }
            count("memory");
            return Ok(run.attend(place.next).events().boxed());
        }
        let journal = self.journal(&locator)?.ok_or(Error::NotFound("answer"))?;
        let reader = Afar::find(journal, place, self.clock.clone()).await?;
        count("redis");
        Ok(reader.events().boxed())
    }

    /// Stops an answer and waits until it has ended, but not long.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoRedis`] as of [`Tellings::resume`].
    pub async fn stop(&self, owner: Owner<'_>, id: RunId) -> Result<(), Error> {
        let locator = id.locator(owner.product, owner.account);
        if let Some(run) = self.shelf.get(&locator, self.clock.now_ms()) {
            run.stop().cancel();
            let _ended = timeout(STOPPED_WITHIN, run.ended()).await;
            return Ok(());
        }
        let journal = self.journal(&locator)?.ok_or(Error::NotFound("answer"))?;
        let reader = Afar::find(journal.clone(), Position { run: id, next: 0 }, self.clock.clone()).await;
        let reader = match reader {
            // Its beginning is not kept: what counts is its end.
            Err(Error::RunGone) => None,
            reader => Some(reader?),
        };
        journal.stop(STOP_MARK).await.map_err(Error::NoRedis)?;
        if let Some(reader) = reader {
            reader.ended(STOPPED_WITHIN).await;
        }
        Ok(())
    }

    fn journal(&self, locator: &Locator) -> Result<Option<Journal>, Error> {
        self.cache.journal(&locator.key()).map_err(Error::Cache)
    }
}

impl Telling {
    /// Happens when the work on it is to end: somebody stopped it, or nobody came back.
    pub fn stop(&self) -> CancellationToken {
        self.teller.run().stop().clone()
    }

    /// Has it told in the background, the pieces as they come, then the whole, which is kept in its session before that.
    pub fn spawn(
        self,
        pieces: Pieces,
        answer: impl Future<Output = Result<Unchecked, Status>> + Send + 'static,
        exchange: Option<Exchange>,
    ) {
        let Telling { teller, journal, grace, tasks } = self;
        let run = Arc::clone(teller.run());
        if let Some(journal) = journal {
            tasks.spawn("answer for other replicas", mirror::mirror(Arc::clone(&run), journal));
        }
        let work = async move {
            let left = async {
                if let Some(grace) = grace {
                    run.left_alone(grace).await;
                    run.stop().cancel();
                }
                std::future::pending().await
            };
            let outcome = tokio::select! {
                outcome = tell(&teller, pieces, answer, exchange) => outcome,
                never = left => never,
            };
            teller.end(outcome);
        };
        tasks.spawn("answer", work.instrument(Span::current()));
    }
}

async fn tell(
    teller: &Teller,
    mut pieces: Pieces,
    answer: impl Future<Output = Result<Unchecked, Status>>,
    exchange: Option<Exchange>,
) -> Result<(), Status> {
    while let Some(piece) = pieces.next().await {
        teller.tell(Event::Token(piece)).await;
    }
    let answer = answer.await;
    let (told, agent) = pieces.told();
    let (told, agent) = (told.to_owned(), agent.to_owned());
    let whole = answer.map(|answer| pieces.whole(answer));
    if let Some(exchange) = exchange {
        let broken_off = Answered { content: told, agent, incomplete: true, ..Answered::default() };
        exchange.end(whole.as_ref().map_or(broken_off, Answered::whole)).await;
    }
    teller.tell(Event::Done(whole?)).await;
    Ok(())
}

/// Forgets answers in time until the process ends.
async fn tidy(shelf: Arc<Shelf>, clock: Clock, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(sleep(TIDY_EVERY)).await.is_some() {
        shelf.tidy(clock.now_ms());
    }
}

fn count(kept_in: &'static str) {
    metrics::counter!("weft_chat_resumed_total", "from" => kept_in).increment(1);
}
