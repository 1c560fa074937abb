//! The events of one answer, as many as may be kept, and how it ended.
use std::collections::VecDeque;

use prost::Message as _;
use tonic::Status;
use weft_proto::orchestrator::v1::ChatEvent;

/// What an event costs beside its text, roughly.
const EVENT_BYTES: usize = 32;

/// Events without their ids, from some number on.
#[derive(Default)]
pub struct Log {
    first: u64,
    events: VecDeque<Box<[u8]>>,
    bytes: usize,
    end: Option<End>,
}

/// The end of an answer.
#[derive(Clone)]
pub struct End {
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// Whether its last event is the whole answer, or why there is none.
    pub outcome: Result<(), Status>,
}

/// What a log says of a place in it.
pub enum Found {
    /// The event, without its id.
    Event(Box<ChatEvent>),
    /// It is still to come.
    NotYet,
    /// It is not kept any more.
    Gone,
    /// There is none, because the answer ended.
    End(Result<(), Status>),
}

impl Log {
    /// Adds an event; gives what it costs, in bytes.
    pub fn push(&mut self, event: &ChatEvent) -> usize {
        let event = event.encode_to_vec().into_boxed_slice();
        let cost = cost(&event);
        self.events.push_back(event);
        self.bytes += cost;
        cost
    }

    /// Drops its oldest event, but never its last one; gives what that cost.
    pub fn drop_first(&mut self) -> usize {
        if self.events.len() <= 1 {
            return 0;
        }
        let freed = self.events.pop_front().map_or(0, |event| cost(&event));
        self.first += 1;
        self.bytes -= freed;
        freed
    }

    /// It is over.
    pub fn close(&mut self, end: End) {
        self.end = Some(end);
    }

    /// What stands here.
    pub fn find(&self, number: u64) -> Found {
        match number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) {
            None => Found::Gone,
            Some(at) => match (self.events.get(at), &self.end) {
                // What we encoded we can read; if not, it is as good as gone.
                (Some(event), _) => {
                    ChatEvent::decode(&**event).map_or(Found::Gone, |event| Found::Event(Box::new(event)))
                }
                (None, Some(end)) => Found::End(end.outcome.clone()),
                (None, None) => Found::NotYet,
            },
        }
    }

    /// The encoded events from a number on, or from the first one that is kept: its number and so many bytes of events, at
    /// least one if there is one.
    pub fn part(&self, from: u64, bytes: usize) -> (u64, Vec<Vec<u8>>) {
        let from = from.max(self.first);
        let at = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        let mut room = bytes;
        let fits = |event: &&[u8]| {
            let had = room;
            room = room.saturating_sub(cost(event));
            room > 0 || had == bytes
        };
        (from, self.events.iter().skip(at).map(|event| &**event).take_while(fits).map(<[u8]>::to_vec).collect())
    }

    /// Number of the first event that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next event.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// What its events cost.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}

fn cost(event: &[u8]) -> usize {
    event.len() + EVENT_BYTES
}

#[cfg(test)]
mod tests {
    use weft_proto::orchestrator::v1::chat_event::Event;

    use super::*;

    fn token(text: &str) -> ChatEvent {
        ChatEvent { event: Some(Event::Token(text.to_owned())), id: String::new() }
    }

    fn text(found: Found) -> String {
        match found {
            Found::Event(event) => match event.event {
                Some(Event::Token(text)) => text,
                _ => "done".to_owned(),
            },
            Found::NotYet => "not yet".to_owned(),
            Found::Gone => "gone".to_owned(),
            Found::End(_) => "end".to_owned(),
        }
    }

    #[test]
    fn what_is_dropped_is_gone_and_the_rest_keeps_its_numbers() {
        let mut log = Log::default();
        let cost: usize = ["a", "b", "c"].map(|letter| log.push(&token(letter))).iter().sum();
        assert_eq!((log.bytes(), log.next()), (cost, 3));
        let freed = log.drop_first();
        assert_eq!((log.first(), log.next(), log.bytes()), (1, 3, cost - freed));
        let found: Vec<String> = (0..4).map(|number| text(log.find(number))).collect();
        assert_eq!(found, ["gone", "b", "c", "not yet"]);
        log.close(End { at_ms: 0, outcome: Ok(()) });
        assert_eq!(text(log.find(3)), "end");
        assert!(log.drop_first() > 0 && log.drop_first() == 0, "the last one stays");
        assert_eq!(text(log.find(2)), "c");
    }

    #[test]
    fn a_part_is_as_large_as_it_may_be_and_never_nothing() {
        let mut log = Log::default();
        for letters in ["aa", "bb", "cc"] {
            log.push(&token(letters));
        }
        let one = log.bytes() / 3;
        assert_eq!(log.part(0, 1).1.len(), 1);
        assert_eq!(log.part(0, 2 * one + 1).1.len(), 2);
        assert_eq!(log.part(1, 1_000).1.len(), 2);
        assert!(log.part(3, 1_000).1.is_empty() && log.part(9, 1_000).1.is_empty());
        log.drop_first();
        let (first, part) = log.part(0, 1_000);
        assert_eq!((first, part.len()), (1, 2));
    }
}
