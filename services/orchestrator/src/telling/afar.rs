//! Reads an answer that another replica makes, or has made.
use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use prost::Message as _;
use tokio::time::{Instant, sleep};
use tonic::Status;
use weft_cache::{Journal, Seen};
use weft_core::Clock;
use weft_proto::orchestrator::v1::ChatEvent;

use crate::error::Error;
use crate::telling::id::{Position, RunId};
use crate::telling::page::{Page, PageEnd};
use crate::telling::seal::Opener;
use crate::telling::shelf::is_over;

/// How often is looked for more.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// So often an answer is looked for before it counts as unknown: the first write may be under way.
const LOOKS: usize = 3;
/// So long its maker knows that somebody reads.
const MARK: Duration = Duration::from_secs(1);
/// A maker without a sign of life for so long, after its last sign has faded, is gone.
const GONE_AFTER: Duration = Duration::from_millis(400);
/// So long Redis may be away.
const AWAY_AT_MOST: Duration = Duration::from_secs(2);
/// Entries that are read at once.
const ENTRIES: u32 = 8;

/// A reader.
pub struct Afar {
    journal: Journal,
    opener: Opener,
    run: RunId,
    next: u64,
    /// What was read and not told.
    events: VecDeque<Vec<u8>>,
    end: Option<PageEnd>,
    /// When the maker, and Redis, were there last.
    lived: Instant,
    answered: Instant,
    clock: Clock,
}

impl Afar {
    /// Finds the answer that is read on from here.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, or none any more; [`Error::NoRedis`] if Redis is away.
    pub async fn find(journal: Journal, place: Position, clock: Clock) -> Result<Afar, Error> {
        let now = Instant::now();
        let Position { run, next } = place;
        let (opener, events) = (Opener::new(&run), VecDeque::new());
        let mut reader = Afar { journal, opener, run, next, events, end: None, lived: now, answered: now, clock };
        for look in 0..LOOKS {
            if look > 0 {
                sleep(LOOK_EVERY).await;
            }
            let seen = reader.look().await?;
            if seen.exists || seen.is_written {
                reader.take(seen)?;
                return Ok(reader);
            }
        }
        Err(Error::NotFound("answer"))
    }

    /// Waits until it has ended, or for this long. Whether it has.
    pub async fn ended(mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            self.next += self.events.len() as u64;
            self.events.clear();
            match self.more().await {
                Ok(()) if self.end.is_none() => {}
                _ => return true,
            }
        }
        false
    }

    /// The events as they come, then how the answer ended.
    pub fn events(self) -> impl Stream<Item = Result<ChatEvent, Status>> + Send + 'static {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.event().await {
                Ok(Some(event)) => Some((Ok(event), Some(reader))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn event(&mut self) -> Result<Option<ChatEvent>, Status> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let event = ChatEvent::decode(event.as_slice()).map_err(|_unreadable| Error::RunGone)?;
                let id = self.run.event(self.next);
                self.next += 1;
                return Ok(Some(ChatEvent { id, ..event }));
            }
            if let Some(end) = &self.end {
                return end.outcome().map(|()| None);
            }
            self.more().await?;
        }
    }

    /// Waits for a look at what has come.
    async fn more(&mut self) -> Result<(), Error> {
        sleep(LOOK_EVERY).await;
        match self.look().await {
            Ok(seen) => self.take(seen),
            Err(_away) if self.answered.elapsed() < AWAY_AT_MOST => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn look(&self) -> Result<Seen, Error> {
        self.journal.read(self.next, ENTRIES, MARK).await.map_err(Error::NoRedis)
    }

    /// Takes what was seen, as far as it joins what there is.
    fn take(&mut self, seen: Seen) -> Result<(), Error> {
        let now = Instant::now();
        // While Redis was away, nobody could give a sign.
        if seen.is_written || self.answered.elapsed() > GONE_AFTER {
            self.lived = now;
        }
        self.answered = now;
        for entry in &seen.entries {
            let page = self.opener.open(entry).and_then(|plain| Page::decode(plain.as_slice()).ok());
            let page = page.ok_or(Error::RunGone)?;
            let begin = self.next + self.events.len() as u64;
            let Some(known) = begin.checked_sub(page.first) else { return Err(Error::RunGone) };
            self.events.extend(page.events.into_iter().skip(usize::try_from(known).unwrap_or(usize::MAX)));
            if let Some(end) = page.end {
                return self.close(end);
            }
        }
        if self.events.is_empty() && self.lived.elapsed() > GONE_AFTER {
            return Err(Error::RunGone);
        }
        Ok(())
    }

    fn close(&mut self, end: PageEnd) -> Result<(), Error> {
        // Redis may keep it a little longer.
        if is_over(end.at_ms, self.clock.now_ms()) {
            return Err(Error::NotFound("answer"));
        }
        self.end = Some(end);
        Ok(())
    }
}
