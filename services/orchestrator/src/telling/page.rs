//! What of an answer is told to other replicas at once.
use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::telling::log::{End, Log};

/// Most bytes of events on a page that holds more than one.
const PAGE_BYTES: usize = 64 * 1024;

/// Some events in a row, and the end where it is known.
#[derive(Clone, PartialEq, Message)]
pub struct Page {
    /// Number of the first one.
    #[prost(uint64, tag = "1")]
    pub first: u64,
    /// The events, encoded, without their ids.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub events: Vec<Vec<u8>>,
    /// Nothing comes behind them.
    #[prost(message, optional, tag = "3")]
    pub end: Option<PageEnd>,
}

/// The end of an answer.
#[derive(Clone, PartialEq, Message)]
pub struct PageEnd {
    /// When, in ms since 1970.
    #[prost(int64, tag = "1")]
    pub at_ms: i64,
    /// Why there is no whole answer; absent: there is one.
    #[prost(message, optional, tag = "2")]
    pub error: Option<pb::Status>,
}

impl Page {
    /// What a log has from a number on: as much as fits, and its end if that is all.
    pub fn of(log: &Log, from: u64) -> Page {
        let (first, events) = log.part(from, PAGE_BYTES);
        let is_all = first + events.len() as u64 >= log.next();
        Page { first, events, end: log.end().filter(|_| is_all).map(PageEnd::of) }
    }

    /// Number of the event behind it.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Whether there is nothing on it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.end.is_none()
    }

    /// Whoever wants an event up to this number, or the end, needs this page.
    pub fn place(&self) -> u64 {
        match self.end {
            Some(_) => self.next(),
            None => self.next().saturating_sub(1),
        }
    }
}

impl PageEnd {
    fn of(end: &End) -> PageEnd {
        PageEnd { at_ms: end.at_ms, error: end.outcome.as_ref().err().map(told) }
    }

    /// How the answer ended.
    pub fn outcome(&self) -> Result<(), Status> {
        self.error.as_ref().map_or(Ok(()), |error| {
            let details = error.encode_to_vec().into();
            Err(Status::with_details(Code::from(error.code), error.message.clone(), details))
        })
    }
}

fn told(status: &Status) -> pb::Status {
    let details = pb::Status::decode(status.details()).map(|known| known.details).unwrap_or_default();
    pb::Status { code: status.code().into(), message: status.message().to_owned(), details }
}

#[cfg(test)]
mod tests {
    use weft_core::Reason;
    use weft_proto::orchestrator::v1::ChatEvent;
    use weft_proto::orchestrator::v1::chat_event::Event;

    use super::*;

    #[test]
    fn an_error_is_the_same_on_the_other_side() {
        let mut log = Log::default();
        log.push(&ChatEvent { event: Some(Event::Token("a".to_owned())), id: String::new() });
        let status = Reason::ProviderStreamInterrupted.status("the model's provider broke off; try again");
        log.close(End { at_ms: 7, outcome: Err(status.clone()) });
        let page = Page::decode(Page::of(&log, 0).encode_to_vec().as_slice()).unwrap();
        assert_eq!((page.first, page.next(), page.place(), page.events.len()), (0, 1, 1, 1));
        let end = page.end.unwrap();
        let other = end.outcome().unwrap_err();
        assert_eq!(end.at_ms, 7);
        assert_eq!(
            (other.code(), other.message(), other.details()),
            (status.code(), status.message(), status.details())
        );
        assert_eq!(Reason::of(&other), Some(Reason::ProviderStreamInterrupted));
    }

    #[test]
    fn the_end_is_on_the_last_page_only() {
        let mut log = Log::default();
        let long = "x".repeat(PAGE_BYTES);
        for _ in 0..3 {
            log.push(&ChatEvent { event: Some(Event::Token(long.clone())), id: String::new() });
        }
        log.close(End { at_ms: 0, outcome: Ok(()) });
        let pages: Vec<Page> = (0..4).map(|from| Page::of(&log, from)).collect();
        let told: Vec<(usize, bool, u64)> =
            pages.iter().map(|page| (page.events.len(), page.end.is_some(), page.place())).collect();
        assert_eq!(told, [(1, false, 0), (1, false, 1), (1, true, 3), (0, true, 3)]);
    }
}
