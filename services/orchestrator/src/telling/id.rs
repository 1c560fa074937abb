//! What an answer is called by who may read it, and by nobody else.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Bytes of an id: what is drawn at random so that nobody guesses it, since it also opens what is sealed.
const BYTES: usize = 16;
/// Longest id of an event that is looked at.
const EVENT_BYTES: usize = 64;

/// The id of an answer. It has no `Debug`: it opens what is kept of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RunId([u8; BYTES]);

/// Where an answer is kept: nobody finds it who does not know its id, or is somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locator([u8; 32]);

/// Where somebody wants to read on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The answer.
    pub run: RunId,
    /// Number of the first event that is wanted.
    pub next: u64,
}

impl RunId {
    /// A new id.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn new() -> Result<RunId, Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        Ok(RunId(bytes))
    }

    /// The id that this text is. None: it is none.
    pub fn read(text: &str) -> Option<RunId> {
        if text.len() > EVENT_BYTES {
            return None;
        }
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(RunId)
    }

    /// As its readers have it.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The id of one of its events.
    pub fn event(&self, number: u64) -> String {
        format!("{}.{number}", self.text())
    }

    /// Where it is kept, of this account.
    pub fn locator(&self, product: &str, account: &str) -> Locator {
        let mut hash = Sha256::new();
        for part in [product.as_bytes(), account.as_bytes(), &self.0] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Locator(hash.finalize().into())
    }

    /// What its key is made of.
    pub fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl Locator {
    /// As a key of the cache.
    pub fn key(&self) -> String {
        format!("chat:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Position {
    /// The place behind the event of this id.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no id of an event.
    pub fn behind(event: &str) -> Result<Position, Error> {
        let read = || {
            let (run, number) = event.split_once('.')?;
            let digits = number.bytes().all(|digit| digit.is_ascii_digit());
            let number: u64 = number.parse().ok().filter(|_| digits)?;
            Some(Position { run: RunId::read(run)?, next: number.checked_add(1)? })
        };
        read().ok_or(Error::Invalid("last-event-id is not the id of an event; send the one of the last event".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_again_by_its_id() {
        let run = RunId::new().unwrap();
        let place = Position::behind(&run.event(41)).map_err(drop).unwrap();
        assert!(place.run == run && place.next == 42);
        assert!(RunId::new().unwrap() != run);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let run = RunId::new().unwrap().event(0);
        let run = run.strip_suffix(".0").unwrap();
        let long = "A".repeat(1_000);
        for text in ["", ".", "1", ".1", "x.1", &long, run] {
            assert!(Position::behind(text).is_err(), "{text}");
        }
        for number in ["", "-1", "+1", "1.1", " 1", "1 ", "18446744073709551615", "99999999999999999999"] {
            assert!(Position::behind(&format!("{run}.{number}")).is_err(), "{number}");
        }
        assert!(RunId::read(&run[1..]).is_none() && RunId::read(&format!("{run}A")).is_none());
    }

    #[test]
    fn nobody_else_finds_it() {
        let run = RunId::new().unwrap();
        let own = run.locator("adiuva", "ann").key();
        for (product, account) in [("adiuva", "ben"), ("companion", "ann"), ("adiuvaa", "nn")] {
            assert_ne!(run.locator(product, account).key(), own);
        }
        assert_ne!(RunId::new().unwrap().locator("adiuva", "ann").key(), own);
    }
}
